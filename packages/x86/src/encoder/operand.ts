/**
 * Operands of assembly text: registers, numbers, symbols and memory, in Intel syntax.
 */
import { Register } from 'iced-x86';
import type { Bitness } from '../decoder.js';
import { X86Error } from '../error.js';

/** What a register can be used for; general registers by their size in bits. */
export type RegisterClass = 'r8' | 'r16' | 'r32' | 'r64' | 'mm' | 'xmm' | 'segment' | 'control' | 'debug' | 'ip';

/** A register operand. */
export interface RegisterOperand {
  readonly kind: 'register';
  readonly register: Register;
  readonly class: RegisterClass;
}

/** A number, or the address of a symbol plus a number. */
export interface ValueOperand {
  readonly kind: 'value';
  readonly value: bigint;
  /** Label whose address is added; it is only known when the program is linked. */
  readonly symbol: string | undefined;
}

/** The target of a far jump or call: `selector:offset`, where the offset may be a label. */
export interface FarOperand {
  readonly kind: 'far';
  /** Selector, 16 bits. */
  readonly selector: number;
  /** Offset, or what is added to the address of the symbol. */
  readonly value: bigint;
  /** Label whose address is the offset. */
  readonly symbol: string | undefined;
}

/** A memory operand. With a symbol it is RIP-relative in 64-bit code, and the symbol's address is added elsewhere. */
export interface MemoryOperandText {
  readonly kind: 'memory';
  /** Bytes that the text asks for (`qword [..]`), undefined when it does not say. */
  readonly size: number | undefined;
  readonly segment: Register;
  /** Size of the address in bits: that of its registers, else that of the code. */
  readonly addressSize: Bitness;
  readonly base: Register;
  readonly index: Register;
  readonly scale: number;
  readonly displacement: bigint;
  readonly symbol: string | undefined;
}

/** Any operand. */
export type Operand = RegisterOperand | ValueOperand | MemoryOperandText | FarOperand;

/** Sizes of the keywords before a memory operand, in bytes. */
const SIZES: ReadonlyMap<string, number> = new Map([
  ['byte', 1],
  ['word', 2],
  ['dword', 4],
  ['fword', 6],
  ['qword', 8],
  ['tbyte', 10],
  ['xmmword', 16],
  ['oword', 16],
]);

function numbered(from: number, to: number, name: (n: number) => string): string[] {
  return Array.from({ length: to - from }, (_, i) => name(from + i));
}

function registerTable(): Map<string, RegisterOperand> {
  const table = new Map<string, RegisterOperand>();
  const add = (registerClass: RegisterClass, names: readonly string[]): void => {
    for (const name of names) {
      const register = Register[name.toUpperCase() as keyof typeof Register];
      table.set(name, { kind: 'register', register, class: registerClass });
    }
  };
  const legacy = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];
  add('r8', ['al', 'cl', 'dl', 'bl', 'ah', 'ch', 'dh', 'bh', 'spl', 'bpl', 'sil', 'dil']);
  add(
    'r8',
    numbered(8, 16, (n) => `r${n}l`),
  );
  add('r16', [...legacy, ...numbered(8, 16, (n) => `r${n}w`)]);
  add('r32', [...legacy.map((name) => `e${name}`), ...numbered(8, 16, (n) => `r${n}d`)]);
  add('r64', [...legacy.map((name) => `r${name}`), ...numbered(8, 16, (n) => `r${n}`)]);
  add(
    'mm',
    numbered(0, 8, (n) => `mm${n}`),
  );
  add(
    'xmm',
    numbered(0, 16, (n) => `xmm${n}`),
  );
  add('segment', ['es', 'cs', 'ss', 'ds', 'fs', 'gs']);
  add('control', ['cr0', 'cr2', 'cr3', 'cr4', 'cr8']);
  add('debug', ['dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7']);
  add('ip', ['rip']);
  // The SDM calls the low bytes of R8..R15 R8B.., iced-x86 calls them R8L..
  for (let n = 8; n < 16; n++) {
    table.set(`r${n}b`, table.get(`r${n}l`)!);
  }
  return table;
}

const REGISTERS = registerTable();

/** The register of that name, undefined when there is none. */
function registerOf(name: string): RegisterOperand | undefined {
  return REGISTERS.get(name.toLowerCase());
}

interface Sum {
  value: bigint;
  symbol: string | undefined;
  /** Registers with their scales, in order. */
  registers: { register: RegisterOperand; scale: number }[];
}

const NUMBER = /^(?:0x[0-9a-f_]+|0b[01_]+|[0-9][0-9_]*|[0-9][0-9a-f]*h)$/i;
const SYMBOL = /^[.$@A-Za-z_?][\w.$@?]*$/;

function parseNumber(text: string): bigint | undefined {
  if (/^'[^']'$/.test(text)) {
    return BigInt(text.charCodeAt(1));
  }
  if (!NUMBER.test(text)) {
    return undefined;
  }
  const digits = text.replaceAll('_', '');
  return /h$/i.test(digits) ? BigInt(`0x${digits.slice(0, -1)}`) : BigInt(digits);
}

/** Adds a product (`rax*8`, `3*8`, `label`) to a sum. */
function addTerm(sum: Sum, text: string, negative: boolean): void {
  let value = 1n;
  let register: RegisterOperand | undefined;
  let symbol: string | undefined;
  for (const factor of text.split('*').map((part) => part.trim())) {
    const number = parseNumber(factor);
    if (number !== undefined) {
      value *= number;
      continue;
    }
    if (register !== undefined || symbol !== undefined) {
      throw new X86Error('ERR_X86_ASSEMBLY', `cannot multiply: ${text}`);
    }
    register = registerOf(factor);
    if (register === undefined) {
      if (!SYMBOL.test(factor)) {
        throw new X86Error(
          'ERR_X86_ASSEMBLY',
          `neither number, register nor label: ${factor === '' ? 'nothing' : factor}`,
        );
      }
      symbol = factor;
    }
  }
  if (register !== undefined) {
    if (negative) {
      throw new X86Error('ERR_X86_ASSEMBLY', `a register cannot be subtracted: ${text}`);
    }
    sum.registers.push({ register, scale: Number(value) });
  } else if (symbol !== undefined) {
    if (negative || value !== 1n || sum.symbol !== undefined) {
      throw new X86Error('ERR_X86_ASSEMBLY', `labels can only be added once: ${text}`);
    }
    sum.symbol = symbol;
  } else {
    sum.value += negative ? -value : value;
  }
}

/** Splits at + and - outside of character literals. */
function parseSum(text: string): Sum {
  const sum: Sum = { value: 0n, symbol: undefined, registers: [] };
  const terms = text.match(/[+-]|(?:'[^']'|[^+-])+/g) ?? [];
  let negative = false;
  let expectsTerm = true;
  for (const term of terms) {
    if (term === '+' || term === '-') {
      if (expectsTerm && term === '+') {
        throw new X86Error('ERR_X86_ASSEMBLY', `misplaced +: ${text}`);
      }
      negative = term === '-' ? !(expectsTerm && negative) : false;
      expectsTerm = true;
    } else if (term.trim() !== '') {
      addTerm(sum, term.trim(), negative);
      negative = false;
      expectsTerm = false;
    }
  }
  if (expectsTerm) {
    throw new X86Error('ERR_X86_ASSEMBLY', `incomplete expression: ${text}`);
  }
  return sum;
}

/**
 * Reads a number, a label, or a sum of both.
 * @throws X86Error when it is neither.
 */
export function parseValue(text: string): ValueOperand {
  const sum = parseSum(text);
  if (sum.registers.length > 0) {
    throw new X86Error('ERR_X86_ASSEMBLY', `a register has no place here: ${text}`);
  }
  return { kind: 'value', value: sum.value, symbol: sum.symbol };
}

/** Size in bits of an address that is made of registers of this class, undefined when no address is. */
const ADDRESS_SIZES: Partial<Record<RegisterClass, Bitness>> = { r16: 16, r32: 32, r64: 64, ip: 64 };

/** The address size that the registers ask for. */
function addressSizeOf(sum: Sum, bitness: Bitness, inside: string): Bitness {
  const sizes = new Set(sum.registers.map(({ register }) => ADDRESS_SIZES[register.class]));
  if (sizes.size === 0) {
    return bitness;
  }
  const [size] = sizes;
  if (sizes.size > 1 || size === undefined) {
    throw new X86Error('ERR_X86_ASSEMBLY', `addresses are made of registers of one size: ${inside}`);
  }
  // A prefix switches between 64 and 32 bits in 64-bit code, between 32 and 16 elsewhere (SDM vol. 1, 3.3.7).
  if (bitness === 64 ? size === 16 : size === 64) {
    throw new X86Error('ERR_X86_ASSEMBLY', `no ${size}-bit addresses in ${bitness}-bit code: ${inside}`);
  }
  return size;
}

const NO_REGISTER: RegisterOperand = { kind: 'register', register: Register.None, class: 'r64' };
const STACK_POINTERS: ReadonlySet<Register> = new Set([Register.RSP, Register.ESP]);
/** Only these have the role of the index in a 16-bit address (SDM vol. 2, table 2-1). */
const INDEXES_16: ReadonlySet<Register> = new Set([Register.SI, Register.DI]);

function parseMemory(
  size: number | undefined,
  segmentText: string | undefined,
  inside: string,
  bitness: Bitness,
): MemoryOperandText {
  const segment = segmentText === undefined ? Register.None : registerOf(segmentText)!.register;
  const sum = parseSum(inside);
  const addressSize = addressSizeOf(sum, bitness, inside);
  let base = NO_REGISTER;
  let index = NO_REGISTER;
  let scale = 1;
  for (const { register, scale: factor } of sum.registers) {
    if (factor === 1 && base.register === Register.None) {
      base = register;
    } else if (index.register === Register.None && [1, 2, 4, 8].includes(factor)) {
      index = register;
      scale = factor;
    } else {
      throw new X86Error('ERR_X86_ASSEMBLY', `no such address: [${inside}]`);
    }
  }
  // RSP cannot be an index (SDM vol. 2, table 2-3); of two plain registers it is the base.
  const swapped = addressSize === 16 ? INDEXES_16.has(base.register) : STACK_POINTERS.has(index.register);
  if (swapped && scale === 1 && index.register !== Register.None) {
    [base, index] = [index, base];
  }
  if (STACK_POINTERS.has(index.register) || index.class === 'ip') {
    throw new X86Error('ERR_X86_ASSEMBLY', `cannot be an index: [${inside}]`);
  }
  if (sum.symbol !== undefined && addressSize === 64) {
    if (index.register !== Register.None || (base.register !== Register.None && base.class !== 'ip')) {
      throw new X86Error('ERR_X86_ASSEMBLY', `a label is RIP-relative and takes no registers: [${inside}]`);
    }
    base = registerOf('rip')!;
  }
  return {
    kind: 'memory',
    size,
    segment,
    addressSize,
    base: base.register,
    index: index.register,
    scale,
    displacement: sum.value,
    symbol: sum.symbol,
  };
}

const MEMORY =
  /^(?:(byte|word|dword|fword|qword|tbyte|xmmword|oword)\s*)?(?:ptr\s+)?(?:(es|cs|ss|ds|fs|gs)\s*:\s*)?\[\s*(?:(es|cs|ss|ds|fs|gs)\s*:)?([^\]]*)\]$/i;

const FAR = /^(\w+)\s*:\s*([^[\]:]+)$/;

/**
 * Reads one operand.
 * @param bitness size of the code, for addresses without registers
 * @throws X86Error when the text is none.
 */
export function parseOperand(text: string, bitness: Bitness): Operand {
  const register = registerOf(text);
  if (register !== undefined) {
    return register;
  }
  const memory = MEMORY.exec(text);
  if (memory !== null) {
    const size = memory[1] === undefined ? undefined : SIZES.get(memory[1].toLowerCase());
    return parseMemory(size, memory[2] ?? memory[3], memory[4]!, bitness);
  }
  const far = FAR.exec(text);
  if (far !== null) {
    const selector = parseNumber(far[1]!);
    if (selector === undefined || selector > 0xffffn) {
      throw new X86Error('ERR_X86_ASSEMBLY', `not a selector: ${far[1]!}`);
    }
    const { value, symbol } = parseValue(far[2]!);
    return { kind: 'far', selector: Number(selector), value, symbol };
  }
  return parseValue(text);
}
