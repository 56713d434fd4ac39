/**
 * Where the value comes from that an instruction stores, taken from the decoder library's object.
 */
import { Access, SEGMENT_NAMES, u32Index } from '@introd/abi';
import { type Instruction, Mnemonic, OpKind, Register } from './decoder.js';
import type { MemoryOperand } from './memory-operand.js';
import { GENERAL_NUMBER, isHighByte, segmentNumber, VECTOR_NUMBER } from './register-numbers.js';
import { conditionOf, extractedSize, StoreOperation, storeOperationOf, storesUpperHalf } from './store-operation.js';
import { COUNT_IN_CL, NO_SOURCE, SourceKind, type ValueSource } from './value-source.js';

/** How an instruction stores. */
export interface Store {
  readonly operation: StoreOperation;
  readonly source: ValueSource;
}

/** A store whose value is not known, or none. */
const NO_STORE: Store = { operation: StoreOperation.NONE, source: NO_SOURCE };

const CR0 = u32Index('cr0');
const SELECTORS = SEGMENT_NAMES.map((name) => u32Index(`${name}Selector`));

/** Sources of the general registers, made once: most stores have one of them. */
const REGISTER_SOURCES = new Map<Register, ValueSource>();

function registerSource(register: Register): ValueSource {
  let source = REGISTER_SOURCES.get(register);
  if (source === undefined) {
    source = sourceOfRegister(register);
    REGISTER_SOURCES.set(register, source);
  }
  return source;
}

function sourceOfRegister(register: Register): ValueSource {
  if (GENERAL_NUMBER[register]! >= 0) {
    const highByte = isHighByte(register);
    return { ...NO_SOURCE, kind: SourceKind.REGISTER, register: GENERAL_NUMBER[register]!, highByte };
  }
  if (VECTOR_NUMBER[register]! >= 0) {
    return { ...NO_SOURCE, kind: SourceKind.VECTOR, register: VECTOR_NUMBER[register]! };
  }
  const segment = segmentNumber(register);
  return segment < 0 ? NO_SOURCE : { ...NO_SOURCE, kind: SourceKind.RECORD, register: SELECTORS[segment]! };
}

/** Index of the one operand that is written; -1 when none is, or more than one (ENTER with levels). */
export function storeOperandOf(memory: readonly MemoryOperand[]): number {
  let found = -1;
  for (let index = 0; index < memory.length; index++) {
    if ((memory[index]!.access & Access.WRITE) !== 0) {
      if (found >= 0) {
        return -1;
      }
      found = index;
    }
  }
  return found;
}

/** How the value is made that is stored to `memory[storeOperand]`. */
export function storeOf(
  instruction: Instruction,
  mnemonic: Mnemonic,
  memory: readonly MemoryOperand[],
  storeOperand: number,
): Store {
  if (storeOperand < 0) {
    return NO_STORE;
  }
  const operation = storeOperationOf(mnemonic);
  switch (operation) {
    case StoreOperation.NONE:
      return NO_STORE;
    case StoreOperation.STOS:
      return { operation, source: registerSource(Register.RAX) };
    case StoreOperation.ENTER:
      return { operation, source: registerSource(Register.RBP) };
    case StoreOperation.MOVS:
      // The SSE2 move of a double shares its mnemonic with the string instruction.
      return instruction.isStringInstruction
        ? { operation, source: fromMemory(storeOperand) }
        : known(StoreOperation.VECTOR, sourceOf(instruction, 1));
    case StoreOperation.COPY:
      return { operation, source: fromMemory(storeOperand) };
    case StoreOperation.CALL:
      return { operation: isFar(instruction) ? StoreOperation.CALL_FAR : operation, source: NO_SOURCE };
    case StoreOperation.PUSH:
    case StoreOperation.POP:
      return known(operation, memory.length === 2 ? fromMemory(storeOperand) : sourceOf(instruction, 0));
    case StoreOperation.SETCC:
      return { operation, source: { ...NO_SOURCE, kind: SourceKind.IMMEDIATE, low: conditionOf(mnemonic) } };
    case StoreOperation.SHLD:
    case StoreOperation.SHRD: {
      const count = instruction.opKind(2) === OpKind.Register ? COUNT_IN_CL : instruction.immediate8;
      return { operation, source: { ...sourceOf(instruction, 1), count } };
    }
    case StoreOperation.VECTOR_MASKED: {
      const mask = sourceOf(instruction, 2);
      return { operation, source: { ...sourceOf(instruction, 1), mask: mask.register } };
    }
    case StoreOperation.CMPXCHG8B:
    case StoreOperation.CMPXCHG16B:
    case StoreOperation.INC:
    case StoreOperation.DEC:
    case StoreOperation.NOT:
    case StoreOperation.NEG:
    case StoreOperation.PUSHF:
    case StoreOperation.PUSHA:
    case StoreOperation.SIDT:
    case StoreOperation.SGDT:
      return { operation, source: NO_SOURCE };
    case StoreOperation.VECTOR:
      return vectorStore(instruction);
    case StoreOperation.MOVE:
      switch (mnemonic) {
        case Mnemonic.Sldt:
          return { operation, source: fieldSource(SELECTORS[SEGMENT_NAMES.indexOf('ldtr')]!) };
        case Mnemonic.Str:
          return { operation, source: fieldSource(SELECTORS[SEGMENT_NAMES.indexOf('tr')]!) };
        case Mnemonic.Smsw:
          return { operation, source: fieldSource(CR0) };
        default:
          return known(operation, sourceOf(instruction, 1));
      }
    default:
      // XCHG may name the register first; it is always the operand that is not memory.
      return known(operation, sourceOf(instruction, instruction.opKind(0) === OpKind.Memory ? 1 : 0));
  }
}

function known(operation: StoreOperation, source: ValueSource): Store {
  return source.kind === SourceKind.NONE ? NO_STORE : { operation, source };
}

function fieldSource(index: number): ValueSource {
  return { ...NO_SOURCE, kind: SourceKind.RECORD, register: index };
}

function isFar(instruction: Instruction): boolean {
  return instruction.isCallFar || instruction.isCallFarIndirect;
}

/** Stores of a part of one vector register. Those under an opmask are not known: it is not among the registers. */
function vectorStore(instruction: Instruction): Store {
  const { mnemonic } = instruction;
  const source = sourceOf(instruction, 1);
  const part = extractedSize(mnemonic);
  if (instruction.hasOpMask || instruction.opCount !== (part === undefined ? 2 : 3)) {
    return NO_STORE;
  }
  switch (source.kind) {
    case SourceKind.REGISTER:
      // MOVQ and MOVD also store general registers.
      return { operation: StoreOperation.MOVE, source };
    case SourceKind.VECTOR: {
      const byteOffset = part === undefined ? (storesUpperHalf(mnemonic) ? 8 : 0) : partOffset(instruction, part);
      return { operation: StoreOperation.VECTOR, source: { ...source, byteOffset } };
    }
    default:
      return NO_STORE;
  }
}

/** Offset of the part that the immediate selects; parts below 16 bytes are those of the low 16 bytes. */
function partOffset(instruction: Instruction, part: number): number {
  const register = part < 16 ? 16 : instruction.opRegister(1) >= Register.ZMM0 ? 64 : 32;
  return (instruction.immediate8 * part) & (register - 1);
}

function fromMemory(storeOperand: number): ValueSource {
  return storeOperand === 0 ? SOURCE_OPERANDS[1] : SOURCE_OPERANDS[0];
}

const SOURCE_OPERANDS = [
  { ...NO_SOURCE, kind: SourceKind.MEMORY, operand: 0 },
  { ...NO_SOURCE, kind: SourceKind.MEMORY, operand: 1 },
] as const;

function sourceOf(instruction: Instruction, position: number): ValueSource {
  const kind = instruction.opKind(position);
  switch (kind) {
    case OpKind.Register:
      return registerSource(instruction.opRegister(position));
    case OpKind.Immediate8:
      return immediateSource(instruction.immediate8, 0);
    case OpKind.Immediate16:
      return immediateSource(instruction.immediate16, 0);
    case OpKind.Immediate32:
      return immediateSource(instruction.immediate32, 0);
    case OpKind.Immediate8to16:
    case OpKind.Immediate8to32:
    case OpKind.Immediate8to64:
    case OpKind.Immediate32to64: {
      const value =
        kind === OpKind.Immediate32to64 ? instruction.immediate32 | 0 : (instruction.immediate8 << 24) >> 24;
      return immediateSource(value >>> 0, value < 0 ? 0xffff_ffff : 0);
    }
    default:
      return NO_SOURCE;
  }
}

function immediateSource(low: number, high: number): ValueSource {
  return { ...NO_SOURCE, kind: SourceKind.IMMEDIATE, low, high };
}
