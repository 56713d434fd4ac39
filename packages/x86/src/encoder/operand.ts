/**
 * Operands of assembly text: registers, numbers, symbols and memory, in Intel syntax.
 */
import { Register } from 'iced-x86';
import { AssemblyError } from './error.js';

/** What a register can be used for; general registers by their size in bits. */
export type RegisterClass = 'r8' | 'r16' | 'r32' | 'r64' | 'xmm' | 'segment' | 'control' | 'debug' | 'ip';

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

/** A memory operand. With a symbol it is RIP-relative. */
export interface MemoryOperandText {
  readonly kind: 'memory';
  /** Bytes that the text asks for (`qword [..]`), undefined when it does not say. */
  readonly size: number | undefined;
  readonly segment: Register;
  readonly base: Register;
  readonly index: Register;
  readonly scale: number;
  readonly displacement: bigint;
  readonly symbol: string | undefined;
}

/** Any operand. */
export type Operand = RegisterOperand | ValueOperand | MemoryOperandText;

/** Sizes of the keywords before a memory operand, in bytes. */
const SIZES: ReadonlyMap<string, number> = new Map([
  ['byte', 1],
  ['word', 2],
  ['dword', 4],
  ['qword', 8],
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
      throw new AssemblyError(`cannot multiply: ${text}`);
    }
    register = registerOf(factor);
    if (register === undefined) {
      if (!SYMBOL.test(factor)) {
        throw new AssemblyError(`neither number, register nor label: ${factor === '' ? 'nothing' : factor}`);
      }
      symbol = factor;
    }
  }
  if (register !== undefined) {
    if (negative) {
      throw new AssemblyError(`a register cannot be subtracted: ${text}`);
    }
    sum.registers.push({ register, scale: Number(value) });
  } else if (symbol !== undefined) {
    if (negative || value !== 1n || sum.symbol !== undefined) {
      throw new AssemblyError(`labels can only be added once: ${text}`);
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
        throw new AssemblyError(`misplaced +: ${text}`);
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
    throw new AssemblyError(`incomplete expression: ${text}`);
  }
  return sum;
}

/**
 * Reads a number, a label, or a sum of both.
 * @throws AssemblyError when it is neither.
 */
export function parseValue(text: string): ValueOperand {
  const sum = parseSum(text);
  if (sum.registers.length > 0) {
    throw new AssemblyError(`a register has no place here: ${text}`);
  }
  return { kind: 'value', value: sum.value, symbol: sum.symbol };
}

function parseMemory(size: number | undefined, segmentText: string | undefined, inside: string): MemoryOperandText {
  const segment = segmentText === undefined ? Register.None : registerOf(segmentText)!.register;
  const sum = parseSum(inside);
  let base: RegisterOperand = { kind: 'register', register: Register.None, class: 'r64' };
  let index = base;
  let scale = 1;
  for (const { register, scale: factor } of sum.registers) {
    if (register.class !== 'r64' && register.class !== 'ip') {
      throw new AssemblyError(`addresses are made of 64-bit registers: ${inside}`);
    }
    if (factor === 1 && base.register === Register.None) {
      base = register;
    } else if (index.register === Register.None && [1, 2, 4, 8].includes(factor)) {
      index = register;
      scale = factor;
    } else {
      throw new AssemblyError(`no such address: [${inside}]`);
    }
  }
  // RSP cannot be an index (SDM vol. 2, table 2-3); of two plain registers it is the base.
  if (index.register === Register.RSP && scale === 1) {
    [base, index] = [index, base];
  }
  if (index.register === Register.RSP || index.class === 'ip') {
    throw new AssemblyError(`cannot be an index: [${inside}]`);
  }
  if (sum.symbol !== undefined) {
    if (index.register !== Register.None || (base.register !== Register.None && base.class !== 'ip')) {
      throw new AssemblyError(`a label is RIP-relative and takes no registers: [${inside}]`);
    }
    base = registerOf('rip')!;
  }
  return {
    kind: 'memory',
    size,
    segment,
    base: base.register,
    index: index.register,
    scale,
    displacement: sum.value,
    symbol: sum.symbol,
  };
}

const MEMORY =
  /^(?:(byte|word|dword|qword|xmmword|oword)\s*)?(?:ptr\s+)?(?:(es|cs|ss|ds|fs|gs)\s*:\s*)?\[\s*(?:(es|cs|ss|ds|fs|gs)\s*:)?([^\]]*)\]$/i;

/**
 * Reads one operand.
 * @throws AssemblyError when the text is none.
 */
export function parseOperand(text: string): Operand {
  const register = registerOf(text);
  if (register !== undefined) {
    return register;
  }
  const memory = MEMORY.exec(text);
  if (memory !== null) {
    const size = memory[1] === undefined ? undefined : SIZES.get(memory[1].toLowerCase());
    return parseMemory(size, memory[2] ?? memory[3], memory[4]!);
  }
  return parseValue(text);
}
