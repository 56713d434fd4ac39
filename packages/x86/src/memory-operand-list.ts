/**
 * The memory operands of an instruction. What all instructions of a form have in common is computed with the first one; after that only
 * registers and displacement are asked of the decoder library, whose every answer crosses into WebAssembly.
 */
import { Access } from '@introd/abi';
import { InstructionInfoFactory, OpCodeOperandKind as K } from 'iced-x86';
import {
  type Bitness,
  type Code,
  CodeExt,
  EncodingKind,
  type Instruction,
  Mnemonic,
  OpAccess,
  OpKind,
  Register,
} from './decoder.js';
import { type ImplicitOperands, implicitOperandsOf } from './implicit-operands.js';
import { type AddressSize, MemoryOperand, NO_REGISTER, OperandKind, type VectorIndex } from './memory-operand.js';
import { explicitSize } from './operand-sizes.js';
import { ADDRESS_BITS, GENERAL_NUMBER, segmentNumber, VECTOR_NUMBER } from './register-numbers.js';

/** Operands in the list of an instruction that has none. */
const NO_OPERANDS: readonly MemoryOperand[] = [];

const RSP = 4;
const RSI = 6;
const RDI = 7;

/** Kinds of operands that are always in memory. */
const ALWAYS_MEMORY: ReadonlySet<K> = new Set([
  K.mem_offs,
  K.mem,
  K.mem_mpx,
  K.mem_mib,
  K.mem_vsib32x,
  K.mem_vsib64x,
  K.mem_vsib32y,
  K.mem_vsib64y,
  K.mem_vsib32z,
  K.mem_vsib64z,
  K.seg_rSI,
  K.es_rDI,
  K.seg_rDI,
  K.seg_rBX_al,
  K.sibmem,
]);

/** Kinds that are in memory or in a register. */
const MAYBE_MEMORY: ReadonlySet<K> = new Set([
  K.r8_or_mem,
  K.r16_or_mem,
  K.r32_or_mem,
  K.r32_or_mem_mpx,
  K.r64_or_mem,
  K.r64_or_mem_mpx,
  K.mm_or_mem,
  K.xmm_or_mem,
  K.ymm_or_mem,
  K.zmm_or_mem,
  K.bnd_or_mem_mpx,
  K.k_or_mem,
]);

/** Size of an index and of the register of indices in bytes. */
const VECTOR_INDICES: Partial<Record<K, readonly [indexSize: 4 | 8, registerSize: 16 | 32 | 64]>> = {
  [K.mem_vsib32x]: [4, 16],
  [K.mem_vsib64x]: [8, 16],
  [K.mem_vsib32y]: [4, 32],
  [K.mem_vsib64y]: [8, 32],
  [K.mem_vsib32z]: [4, 64],
  [K.mem_vsib64z]: [8, 64],
};

/** Bytes of the registers that a gather fills. */
const VECTOR_SIZES: Partial<Record<K, number>> = {
  [K.xmm_reg]: 16,
  [K.ymm_reg]: 32,
  [K.zmm_reg]: 64,
};

/** Bytes of immediates, for finding the displacement before them. */
const IMMEDIATE_BYTES: Partial<Record<K, number>> = {
  [K.imm4_m2z]: 1,
  [K.imm8]: 1,
  [K.imm8sex16]: 1,
  [K.imm8sex32]: 1,
  [K.imm8sex64]: 1,
  [K.imm16]: 2,
  [K.imm32]: 4,
  [K.imm32sex64]: 4,
  [K.imm64]: 8,
  [K.xmm_is4]: 1,
  [K.ymm_is4]: 1,
  [K.xmm_is5]: 1,
  [K.ymm_is5]: 1,
};

/** Operands that string instructions have in registers: number of the register and bits of the address. */
const STRING_OPERANDS: Partial<Record<OpKind, readonly [register: number, addressSize: AddressSize, seg: boolean]>> = {
  [OpKind.MemorySegSI]: [RSI, 16, true],
  [OpKind.MemorySegESI]: [RSI, 32, true],
  [OpKind.MemorySegRSI]: [RSI, 64, true],
  [OpKind.MemorySegDI]: [RDI, 16, true],
  [OpKind.MemorySegEDI]: [RDI, 32, true],
  [OpKind.MemorySegRDI]: [RDI, 64, true],
  [OpKind.MemoryESDI]: [RDI, 16, false],
  [OpKind.MemoryESEDI]: [RDI, 32, false],
  [OpKind.MemoryESRDI]: [RDI, 64, false],
};

/**
 * Instructions whose operand is an address that is not accessed. BNDLDX and BNDSTX access an entry of a table that they find through
 * it and BNDCFGU, which is not in a VCPU record.
 */
const ADDRESS_ONLY: ReadonlySet<Mnemonic> = new Set([
  Mnemonic.Lea,
  Mnemonic.Invlpg,
  Mnemonic.Nop,
  Mnemonic.Bndmk,
  Mnemonic.Bndcl,
  Mnemonic.Bndcn,
  Mnemonic.Bndcu,
  Mnemonic.Bndldx,
  Mnemonic.Bndstx,
]);

/** Instructions on shadow stacks, which are not listed: they have protections of their own. */
const SHADOW_STACK: ReadonlySet<Mnemonic> = new Set([
  Mnemonic.Rstorssp,
  Mnemonic.Clrssbsy,
  Mnemonic.Wrssd,
  Mnemonic.Wrssq,
  Mnemonic.Wrussd,
  Mnemonic.Wrussq,
]);

const BIT_STRINGS: ReadonlySet<Mnemonic> = new Set([Mnemonic.Bt, Mnemonic.Bts, Mnemonic.Btr, Mnemonic.Btc]);

/** An operand that may be in memory, as all instructions of a form have it. */
interface ExplicitPattern {
  readonly position: number;
  readonly kind: K;
  /** READ and WRITE bits; NONE when only the address counts. */
  readonly access: number;
  readonly size: number;
}

/** What all instructions of one form have in common. */
export class OperandPattern {
  /** @internal Positions of operands that may be in memory. */
  readonly positions: readonly number[];
  /** @internal Whether these are always in memory. */
  readonly always: boolean;
  /** @internal Whether masks and broadcasts make variants of the form. */
  readonly hasVariants: boolean;
  /** @internal By mask and broadcast. */
  readonly variants: (OperandPattern | undefined)[] = [];
  /** @internal Memory operands, once one was seen. */
  explicit: readonly ExplicitPattern[] | undefined;
  /** @internal Bytes of immediates behind the displacement; -1 when the displacement is not found by counting. */
  readonly immediateBytes: number;
  /** @internal */
  readonly bitString: boolean;
  /** @internal POP computes the address of its operand with the new RSP (SDM vol. 2B, POP). */
  readonly pops: boolean;
  /** @internal MOVDIR64B and its like have their destination in the register that comes first. */
  readonly implicitFirst: boolean;
  /** @internal */
  readonly kinds: readonly K[];
  /** @internal */
  readonly implicit: ImplicitOperands | undefined;

  /** @param instruction one of the form */
  constructor(instruction: Instruction, bitness: Bitness) {
    const info = CodeExt.opCode(instruction.code);
    try {
      const kinds: K[] = [];
      for (let position = 0; position < info.opCount; position++) {
        kinds.push(info.opKind(position));
      }
      this.kinds = kinds;
      const { encoding } = info;
      this.hasVariants = encoding === EncodingKind.EVEX || encoding === EncodingKind.MVEX;
      const countable = encoding === EncodingKind.Legacy || encoding === EncodingKind.VEX;
      this.immediateBytes =
        countable && !kinds.includes(K.mem_offs)
          ? kinds.reduce((sum, kind) => sum + (IMMEDIATE_BYTES[kind] ?? 0), 0)
          : -1;
    } finally {
      info.free();
    }
    const { mnemonic } = instruction;
    const listed = !ADDRESS_ONLY.has(mnemonic) && !SHADOW_STACK.has(mnemonic);
    this.positions = this.kinds.flatMap((kind, position) =>
      listed && (ALWAYS_MEMORY.has(kind) || MAYBE_MEMORY.has(kind)) ? [position] : [],
    );
    this.always = this.positions.every((position) => ALWAYS_MEMORY.has(this.kinds[position]!));
    this.bitString = BIT_STRINGS.has(mnemonic);
    this.implicitFirst =
      mnemonic === Mnemonic.Movdir64b || mnemonic === Mnemonic.Enqcmd || mnemonic === Mnemonic.Enqcmds;
    this.pops = mnemonic === Mnemonic.Pop;
    this.implicit = implicitOperandsOf(instruction, bitness);
  }
}

const infoFactory = new InstructionInfoFactory();

const patterns: Readonly<Record<Bitness, (OperandPattern | undefined)[]>> = { 16: [], 32: [], 64: [] };

/** What the form of an instruction has in common with all others of it. */
export function operandPatternOf(instruction: Instruction, code: Code, bitness: Bitness): OperandPattern {
  const list = patterns[bitness];
  let pattern = list[code];
  if (pattern === undefined) {
    pattern = new OperandPattern(instruction, bitness);
    list[code] = pattern;
  }
  if (!pattern.hasVariants) {
    return pattern;
  }
  const variant =
    (instruction.hasOpMask ? 1 : 0) | (instruction.zeroingMasking ? 2 : 0) | (instruction.isBroadcast ? 4 : 0);
  let of = pattern.variants[variant];
  if (of === undefined) {
    of = new OperandPattern(instruction, bitness);
    pattern.variants[variant] = of;
  }
  return of;
}

function accessOf(access: OpAccess): number {
  switch (access) {
    case OpAccess.Read:
    case OpAccess.CondRead:
      return Access.READ;
    case OpAccess.Write:
    case OpAccess.CondWrite:
      return Access.WRITE;
    case OpAccess.ReadWrite:
    case OpAccess.ReadCondWrite:
      return Access.READ | Access.WRITE;
    default:
      return Access.NONE;
  }
}

function explicitPatterns(instruction: Instruction, pattern: OperandPattern): ExplicitPattern[] {
  const info = infoFactory.info(instruction);
  const size = explicitSize(instruction);
  const explicit = pattern.positions.map((position) => ({
    position,
    kind: pattern.kinds[position]!,
    access: accessOf(info.opAccess(position)),
    size,
  }));
  info.free();
  return explicit.filter(({ access }) => access !== Access.NONE);
}

/**
 * Every memory operand of an instruction in the order of its operands: those that it implies come last, but for a destination in a register.
 * @param bytes of the instruction
 */
export function memoryOperandsOf(
  instruction: Instruction,
  pattern: OperandPattern,
  bytes: Uint8Array,
  bitness: Bitness,
): readonly MemoryOperand[] {
  const { positions, implicit } = pattern;
  const explicit = positions.length > 0 && (pattern.always || instruction.opKind(positions[0]!) === OpKind.Memory);
  if (!explicit) {
    if (implicit === undefined) {
      return NO_OPERANDS;
    }
    return 'same' in implicit ? implicit.same : implicit.of(instruction, bitness);
  }
  pattern.explicit ??= explicitPatterns(instruction, pattern);
  const operands: MemoryOperand[] = [];
  for (const one of pattern.explicit) {
    operands.push(explicitOperand(instruction, pattern, one, bytes, bitness));
  }
  if (implicit === undefined) {
    return operands;
  }
  const implied = 'same' in implicit ? implicit.same : implicit.of(instruction, bitness);
  return pattern.implicitFirst ? [...implied, ...operands] : [...operands, ...implied];
}

/** Number of the segment whose base counts; -1 for the flat ones of 64-bit code. */
function effectiveSegment(segment: Register, bitness: Bitness): number {
  return bitness !== 64 || segment === Register.FS || segment === Register.GS ? segmentNumber(segment) : -1;
}

function stringOperand(instruction: Instruction, one: ExplicitPattern, bitness: Bitness): MemoryOperand {
  const [register, addressSize, overridable] = STRING_OPERANDS[instruction.opKind(one.position)]!;
  const segment = overridable ? instruction.memorySegment : Register.ES;
  const kind =
    one.kind === K.seg_rSI
      ? OperandKind.STRING_SOURCE
      : one.kind === K.es_rDI
        ? OperandKind.STRING_DESTINATION
        : OperandKind.EXPLICIT;
  return new MemoryOperand(
    kind,
    one.access,
    one.size,
    register,
    NO_REGISTER,
    0,
    0,
    0,
    effectiveSegment(segment, bitness),
    addressSize,
    bitness !== 64,
  );
}

function explicitOperand(
  instruction: Instruction,
  pattern: OperandPattern,
  one: ExplicitPattern,
  bytes: Uint8Array,
  bitness: Bitness,
): MemoryOperand {
  if (one.kind === K.seg_rSI || one.kind === K.es_rDI || one.kind === K.seg_rDI) {
    return stringOperand(instruction, one, bitness);
  }
  const base = instruction.memoryBase;
  const index = instruction.memoryIndex;
  const displacementSize = instruction.memoryDisplSize;
  const baseNumber = GENERAL_NUMBER[base]!;
  const addressSize = (ADDRESS_BITS[base]! || ADDRESS_BITS[index]! || displacementSize * 8) as AddressSize;
  let low = 0;
  let high = 0;
  if (displacementSize !== 0) {
    const count = displacementSize === 8 ? 4 : displacementSize;
    if (pattern.immediateBytes >= 0 && (base === Register.None || baseNumber >= 0)) {
      const at = bytes.length - pattern.immediateBytes - count;
      const value =
        count === 1
          ? (bytes[at]! << 24) >> 24
          : count === 2
            ? ((bytes[at]! << 16) | (bytes[at + 1]! << 24)) >> 16
            : bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
      low = value >>> 0;
      high = value < 0 ? 0xffff_ffff : 0;
    } else {
      const displacement = instruction.memoryDisplacementU64;
      low = Number(displacement & 0xffff_ffffn);
      high = Number(displacement >> 32n);
    }
  }
  if (pattern.pops && baseNumber === RSP) {
    low += one.size;
    high += low > 0xffff_ffff ? 1 : 0;
    low >>>= 0;
    high >>>= 0;
  }
  const vector = VECTOR_INDICES[one.kind];
  const bitRegister =
    pattern.bitString && pattern.kinds[1] !== K.imm8 ? GENERAL_NUMBER[instruction.opRegister(1)]! : NO_REGISTER;
  return new MemoryOperand(
    vector === undefined
      ? bitRegister === NO_REGISTER
        ? OperandKind.EXPLICIT
        : OperandKind.BIT_STRING
      : OperandKind.VECTOR_INDEXED,
    one.access,
    one.size,
    baseNumber,
    GENERAL_NUMBER[index]!,
    index === Register.None ? 0 : 31 - Math.clz32(instruction.memoryIndexScale),
    low,
    high,
    effectiveSegment(instruction.memorySegment, bitness),
    addressSize,
    bitness !== 64,
    bitRegister,
    one.kind === K.seg_rBX_al,
    vector === undefined ? undefined : vectorIndex(instruction, pattern, vector, one.size),
  );
}

function vectorIndex(
  instruction: Instruction,
  pattern: OperandPattern,
  [indexSize, registerSize]: readonly [indexSize: 4 | 8, registerSize: number],
  elementSize: number,
): VectorIndex {
  const data = pattern.kinds.reduce((size, kind) => Math.max(size, VECTOR_SIZES[kind] ?? 0), 0);
  const opmask = instruction.opMask;
  return {
    register: VECTOR_NUMBER[instruction.memoryIndex]!,
    registerSize,
    indexSize,
    count: Math.min(registerSize / indexSize, data / elementSize),
    maskKind: opmask === Register.None ? 'vector' : 'opmask',
    maskRegister: opmask === Register.None ? VECTOR_NUMBER[instruction.opRegister(2)]! : opmask - Register.K0,
  };
}
