/**
 * The memory operands of an instruction. What all instructions of a form have in common is computed with the first one; after that only
 * registers and displacement are asked of the decoder library, whose every answer crosses into WebAssembly.
 */
import { OpCodeOperandKind as K } from 'iced-x86';
import { type Bitness, type Instruction, OpKind, Register } from './decoder.js';
import { type AddressSize, MemoryOperand, NO_REGISTER, OperandKind, type VectorIndex } from './memory-operand.js';
import { type ExplicitPattern, explicitPatterns, type OperandPattern } from './operand-pattern.js';
import { ADDRESS_BITS, GENERAL_NUMBER, segmentNumber, VECTOR_NUMBER } from './register-numbers.js';

/** Operands in the list of an instruction that has none. */
const NO_OPERANDS: readonly MemoryOperand[] = [];

const RSP = 4;
const RSI = 6;
const RDI = 7;

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
