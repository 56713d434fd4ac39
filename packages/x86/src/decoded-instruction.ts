import { Access } from '@introd/abi';
import { InstructionInfoFactory } from 'iced-x86';
import {
  type Bitness,
  type Code,
  type DecodeFailure,
  decodeInto,
  emptyInstruction,
  FlowControl,
  type Instruction,
  MemorySizeExt,
  Mnemonic,
  OpAccess,
  OpKind,
  Register,
  RegisterExt,
} from './decoder.js';
import { instructionText } from './instruction-text.js';
import { MemoryOperand, NO_REGISTER, OperandKind } from './memory-operand.js';
import { StoreOperation, storeOperationOf, storesUpperHalf } from './store-operation.js';
import { NO_SOURCE, SourceKind, type ValueSource } from './value-source.js';

const RAX = 0;
const RSI = 6;

/** What {@link decodeInstruction} computes of the decoder library's object. */
interface Parts {
  readonly bytes: Uint8Array;
  readonly ip: bigint;
  readonly bitness: Bitness;
  readonly code: Code;
  readonly mnemonic: Mnemonic;
  readonly repeated: boolean;
  readonly locked: boolean;
  readonly branch: boolean;
  readonly memory: readonly MemoryOperand[];
  readonly incompleteOperands: boolean;
  readonly storeOperation: StoreOperation;
  readonly storeOperand: number;
  readonly source: ValueSource;
  readonly operandSize: number;
}

/**
 * An instruction with everything that the path of an exit needs, computed once when it was decoded: a plain object,
 * made to be kept in a cache.
 */
export class DecodedInstruction {
  /** Its bytes, 1 to 15. */
  readonly bytes: Uint8Array;
  /** Length in bytes. */
  readonly length: number;
  /** Address it was decoded at; RIP-relative operands hold for this one. */
  readonly ip: bigint;
  readonly bitness: Bitness;
  /** The decoder library's number of the exact form. */
  readonly code: Code;
  /** The decoder library's number of the mnemonic. */
  readonly mnemonic: Mnemonic;
  /** A string instruction with a REP, REPE or REPNE prefix. */
  readonly repeated: boolean;
  /** LOCK prefix, or XCHG with memory. */
  readonly locked: boolean;
  /** Changes RIP other than to the next instruction. */
  readonly branch: boolean;
  /** Some memory operand is read. */
  readonly readsMemory: boolean;
  /** Some memory operand is written. */
  readonly writesMemory: boolean;
  /** Every memory operand: explicit ones first, then those of the stack. One element of a repeated string instruction. */
  readonly memory: readonly MemoryOperand[];
  /** Whether the instruction touches memory that {@link memory} does not list (gather, scatter). */
  readonly incompleteOperands: boolean;
  /** How the value stored to memory is made; NONE when nothing is stored or it is not known. */
  readonly storeOperation: StoreOperation;
  /** Index in {@link memory} of the operand that is stored to; -1 when there is none. */
  readonly storeOperand: number;
  /** The source of the stored value. */
  readonly source: ValueSource;
  /** Size of the stored operand in bytes, or of the one that would be. */
  readonly operandSize: number;
  #text: string | undefined;

  /** @internal */
  constructor(parts: Parts) {
    this.bytes = parts.bytes;
    this.length = parts.bytes.length;
    this.ip = parts.ip;
    this.bitness = parts.bitness;
    this.code = parts.code;
    this.mnemonic = parts.mnemonic;
    this.repeated = parts.repeated;
    this.locked = parts.locked;
    this.branch = parts.branch;
    this.memory = parts.memory;
    this.readsMemory = parts.memory.some((operand) => (operand.access & Access.READ) !== 0);
    this.writesMemory = parts.memory.some((operand) => (operand.access & Access.WRITE) !== 0);
    this.incompleteOperands = parts.incompleteOperands;
    this.storeOperation = parts.storeOperation;
    this.storeOperand = parts.storeOperand;
    this.source = parts.source;
    this.operandSize = parts.operandSize;
  }

  /** The instruction in Intel syntax, made when it is first asked for. For people; nothing is decided by it. */
  get text(): string {
    this.#text ??= instructionText(this.bytes, this.ip, this.bitness);
    return this.#text;
  }
}

// One of each is enough: decoding is synchronous, and nothing of these objects outlives a call.
const scratch = emptyInstruction();
const infoFactory = new InstructionInfoFactory();

/**
 * Decodes the first instruction of `bytes`.
 * @param bytes machine code; at most the first 15 bytes count; they are copied
 * @param ip address of the first byte
 * @param bitness default size of the code segment
 * @returns why there is none otherwise: `incomplete` when it needs more bytes than there are
 */
export function decodeInstruction(
  bytes: Uint8Array,
  ip: bigint,
  bitness: Bitness = 64,
): DecodedInstruction | DecodeFailure {
  const failure = decodeInto(bytes, ip, bitness, scratch);
  if (failure !== undefined) {
    return failure;
  }
  const { memory, incomplete } = memoryOperandsOf(scratch);
  const storeOperand = storeOperandOf(scratch.mnemonic, memory);
  const store = storeOf(scratch, memory, storeOperand);
  return new DecodedInstruction({
    bytes: bytes.slice(0, scratch.length),
    ip,
    bitness,
    code: scratch.code,
    mnemonic: scratch.mnemonic,
    repeated: scratch.isStringInstruction && (scratch.hasRepPrefix || scratch.hasRepnePrefix),
    locked: scratch.hasLockPrefix || (scratch.mnemonic === Mnemonic.Xchg && storeOperand >= 0),
    branch: scratch.flowControl !== FlowControl.Next,
    memory,
    incompleteOperands: incomplete,
    storeOperation: store.operation,
    storeOperand,
    source: store.source,
    operandSize: storeOperand >= 0 ? memory[storeOperand]!.size : 0,
  });
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

/** Number of a general register of any size; {@link NO_REGISTER} for the others. */
function generalNumber(register: Register): number {
  return register !== Register.None && RegisterExt.isGPR(register) ? RegisterExt.number(register) : NO_REGISTER;
}

/** AH, CH, DH, BH are numbered 4..7 by the library, as in their encoding. */
function isHighByte(register: Register): boolean {
  return register >= Register.AH && register <= Register.BH;
}

function memoryOperandsOf(instruction: Instruction): { memory: MemoryOperand[]; incomplete: boolean } {
  const memory: MemoryOperand[] = [];
  let incomplete = false;
  const mnemonic = instruction.mnemonic;
  const isString = instruction.isStringInstruction;
  const elementSize = isString ? MemorySizeExt.size(instruction.memorySize) : 0;
  let explicit = false;
  for (let op = 0; op < instruction.opCount; op++) {
    explicit ||= instruction.opKind(op) === OpKind.Memory;
  }
  const bitRegister =
    explicit && isBitString(mnemonic) && instruction.opKind(1) === OpKind.Register
      ? generalNumber(instruction.opRegister(1))
      : NO_REGISTER;
  const info = infoFactory.info(instruction);
  const used = info.usedMemory();
  for (const item of used) {
    const access = accessOf(item.access);
    const { base, index } = item;
    if (access === Access.NONE) {
      continue;
    }
    if (index !== Register.None && RegisterExt.isVectorRegister(index)) {
      incomplete = true;
      continue;
    }
    const baseNumber = generalNumber(base);
    let kind: OperandKind = OperandKind.EXPLICIT;
    if (isString) {
      kind = baseNumber === RSI ? OperandKind.STRING_SOURCE : OperandKind.STRING_DESTINATION;
    } else if (explicit && memory.length === 0) {
      kind = bitRegister === NO_REGISTER ? OperandKind.EXPLICIT : OperandKind.BIT_STRING;
    } else if (item.segment === Register.SS) {
      kind = access === Access.WRITE ? OperandKind.STACK_PUSH : OperandKind.STACK_POP;
    }
    const displacement = BigInt.asUintN(64, item.displacement);
    const size = MemorySizeExt.size(item.memorySize);
    memory.push(
      new MemoryOperand(
        kind,
        access,
        size === 0 ? elementSize : size,
        baseNumber,
        generalNumber(index),
        31 - Math.clz32(item.scale),
        Number(displacement & 0xffff_ffffn),
        Number(displacement >> 32n),
        item.segment === Register.FS ? 'fs' : item.segment === Register.GS ? 'gs' : undefined,
        (base !== Register.None && RegisterExt.isGPR32(base)) ||
          (index !== Register.None && RegisterExt.isGPR32(index)),
        index === Register.AL,
        kind === OperandKind.BIT_STRING ? bitRegister : NO_REGISTER,
      ),
    );
    item.free();
  }
  info.free();
  return { memory, incomplete };
}

function isBitString(mnemonic: Mnemonic): boolean {
  return (
    mnemonic === Mnemonic.Bt || mnemonic === Mnemonic.Bts || mnemonic === Mnemonic.Btr || mnemonic === Mnemonic.Btc
  );
}

/** Index of the one operand that is written; -1 when none is, or more than one (far calls, ENTER). */
function storeOperandOf(mnemonic: Mnemonic, memory: readonly MemoryOperand[]): number {
  let found = -1;
  for (let index = 0; index < memory.length; index++) {
    if ((memory[index]!.access & Access.WRITE) !== 0) {
      if (found >= 0) {
        return -1;
      }
      found = index;
    }
  }
  return mnemonic === Mnemonic.Enter ? -1 : found;
}

function storeOf(
  instruction: Instruction,
  memory: readonly MemoryOperand[],
  storeOperand: number,
): { operation: StoreOperation; source: ValueSource } {
  const mnemonic = instruction.mnemonic;
  let operation = storeOperand < 0 ? StoreOperation.NONE : storeOperationOf(mnemonic);
  if (operation === StoreOperation.MOVS && !instruction.isStringInstruction) {
    // The SSE2 move of a double shares its mnemonic with the string instruction.
    operation = StoreOperation.VECTOR;
  }
  const none = { operation: StoreOperation.NONE, source: NO_SOURCE };
  switch (operation) {
    case StoreOperation.NONE:
      return none;
    case StoreOperation.STOS:
      return { operation, source: { ...NO_SOURCE, kind: SourceKind.REGISTER, register: RAX } };
    case StoreOperation.MOVS:
      return { operation, source: fromMemory(memory, storeOperand) };
    case StoreOperation.CALL:
      // A far call pushes CS as well; it has two stores and does not come here.
      return { operation, source: NO_SOURCE };
    case StoreOperation.PUSH:
    case StoreOperation.POP: {
      const source = memory.length === 2 ? fromMemory(memory, storeOperand) : sourceOf(instruction, 0);
      return source.kind === SourceKind.NONE ? none : { operation, source };
    }
    case StoreOperation.CMPXCHG8B:
    case StoreOperation.CMPXCHG16B:
    case StoreOperation.INC:
    case StoreOperation.DEC:
    case StoreOperation.NOT:
    case StoreOperation.NEG:
      return { operation, source: NO_SOURCE };
    case StoreOperation.VECTOR: {
      const source = sourceOf(instruction, 1);
      if (instruction.opCount !== 2 || instruction.hasOpMask || source.kind === SourceKind.NONE) {
        return none;
      }
      // MOVQ and MOVD also store general registers.
      return source.kind === SourceKind.REGISTER
        ? { operation: StoreOperation.MOVE, source }
        : { operation, source: { ...source, byteOffset: storesUpperHalf(mnemonic) ? 8 : 0 } };
    }
    default: {
      // XCHG and TEST-like forms may name the register first; it is always the operand that is not memory.
      const position = instruction.opKind(0) === OpKind.Memory ? 1 : 0;
      const source = sourceOf(instruction, position);
      return source.kind === SourceKind.NONE ? none : { operation, source };
    }
  }
}

function fromMemory(memory: readonly MemoryOperand[], storeOperand: number): ValueSource {
  return { ...NO_SOURCE, kind: SourceKind.MEMORY, operand: memory.length === 2 ? 1 - storeOperand : storeOperand };
}

function sourceOf(instruction: Instruction, position: number): ValueSource {
  if (position >= instruction.opCount) {
    return NO_SOURCE;
  }
  const kind = instruction.opKind(position);
  if (kind === OpKind.Register) {
    const register = instruction.opRegister(position);
    if (RegisterExt.isGPR(register)) {
      const highByte = isHighByte(register);
      // The library numbers AL, CL, DL, BL, AH, CH, DH, BH, SPL.. in sequence; the encoding gives AH..BH 4..7.
      const register64 = RegisterExt.number(RegisterExt.fullRegister(register));
      return { ...NO_SOURCE, kind: SourceKind.REGISTER, register: register64, highByte };
    }
    if (RegisterExt.isVectorRegister(register)) {
      return { ...NO_SOURCE, kind: SourceKind.VECTOR, register: RegisterExt.number(register) };
    }
    return NO_SOURCE;
  }
  if (kind >= OpKind.Immediate8 && kind <= OpKind.Immediate32to64) {
    const value = BigInt.asUintN(64, instruction.immediate(position));
    return {
      ...NO_SOURCE,
      kind: SourceKind.IMMEDIATE,
      low: Number(value & 0xffff_ffffn),
      high: Number(value >> 32n),
    };
  }
  return NO_SOURCE;
}
