import { Access } from '@introd/abi';
import {
  type Bitness,
  Code,
  type DecodeFailure,
  decodeInto,
  emptyInstruction,
  FlowControl,
  type Instruction,
  Mnemonic,
} from './decoder.js';
import { instructionText } from './instruction-text.js';
import { type MemoryOperand, OperandKind } from './memory-operand.js';
import { memoryOperandsOf } from './memory-operand-list.js';
import { operandPatternOf } from './operand-pattern.js';
import { StoreOperation } from './store-operation.js';
import { storeOf, storeOperandOf } from './stored-value.js';
import type { ValueSource } from './value-source.js';

/** Instructions that load or store the descriptor table registers, LDTR and TR. */
const DESCRIPTOR_INSTRUCTIONS = {
  lidt: Mnemonic.Lidt,
  lgdt: Mnemonic.Lgdt,
  lldt: Mnemonic.Lldt,
  ltr: Mnemonic.Ltr,
  sidt: Mnemonic.Sidt,
  sgdt: Mnemonic.Sgdt,
  sldt: Mnemonic.Sldt,
  str: Mnemonic.Str,
} as const;
/** Name of an instruction on descriptor tables. */
export type DescriptorInstruction = keyof typeof DESCRIPTOR_INSTRUCTIONS;

const DESCRIPTOR_BY_MNEMONIC = new Map<Mnemonic, DescriptorInstruction>(
  (Object.keys(DESCRIPTOR_INSTRUCTIONS) as DescriptorInstruction[]).map((name) => [
    DESCRIPTOR_INSTRUCTIONS[name],
    name,
  ]),
);

/** What {@link FORMS} keeps of a form. */
interface FormFacts {
  readonly mnemonic: Mnemonic;
  readonly branch: boolean;
  readonly string: boolean;
  readonly descriptor: DescriptorInstruction | undefined;
  readonly readsDescriptors: boolean;
}

/** Forms that have the processor read a descriptor of the GDT, LDT or IDT, or a TSS: loads of selectors, far transfers, and what asks about them. */
const DESCRIPTOR_READERS =
  /^(?:(?:Lsl|Lar|Verr|Verw|Lldt|Ltr|L[defgs]s|Retf|Iret|Int)(?![a-z])|(?:Retf|Iret)[wdq]|Int[13o]|Mov_Sreg|Pop[wdq]_[DEFGS]S|(?:Call|Jmp)_(?:ptr|m)16(?:16|32|64))/;

/** Facts of the forms that were seen, by their number. */
const FORMS: (FormFacts | undefined)[] = [];

function factsOf(instruction: Instruction, code: Code): FormFacts {
  let facts = FORMS[code];
  if (facts === undefined) {
    const { mnemonic } = instruction;
    facts = {
      mnemonic,
      branch: instruction.flowControl !== FlowControl.Next,
      string: instruction.isStringInstruction,
      descriptor: DESCRIPTOR_BY_MNEMONIC.get(mnemonic),
      readsDescriptors: DESCRIPTOR_READERS.test(Code[code]!),
    };
    FORMS[code] = facts;
  }
  return facts;
}

/** What {@link decodeInstruction} computes of the decoder library's object. */
interface Parts {
  readonly bytes: Uint8Array;
  readonly ip: bigint;
  readonly bitness: Bitness;
  readonly code: Code;
  readonly facts: FormFacts;
  readonly repeated: boolean;
  readonly locked: boolean;
  readonly memory: readonly MemoryOperand[];
  readonly storeOperation: StoreOperation;
  readonly storeOperand: number;
  readonly source: ValueSource;
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
  /** Whether its addresses depend on vector registers (gather, scatter), which are only to be had with a context. */
  readonly incompleteOperands: boolean;
  /** How the value stored to memory is made; NONE when nothing is stored or it is not known. */
  readonly storeOperation: StoreOperation;
  /** Index in {@link memory} of the operand that is stored to; -1 when there is none. */
  readonly storeOperand: number;
  /** The source of the stored value. */
  readonly source: ValueSource;
  /** Size of the operand that is stored to in bytes; 0 when there is none, or the processor's state decides. */
  readonly operandSize: number;
  /** An instruction on descriptor table registers, LDTR or TR. */
  readonly descriptorInstruction: DescriptorInstruction | undefined;
  /** The processor reads a descriptor or a TSS for it, which no memory operand tells of. */
  readonly readsDescriptors: boolean;
  /** INT3 of one byte. `INT 3` of two bytes does not exit as a breakpoint exception does (SDM vol. 3C, 26.2). */
  readonly isBreakpoint: boolean;
  /** MOV, XCHG or CMPXCHG of 4 bytes to memory: what 32-bit code writes one half of a PAE entry with. */
  readonly storesEntryHalf: boolean;
  #text: string | undefined;

  /** @internal */
  constructor(parts: Parts) {
    const { memory, facts, storeOperand } = parts;
    this.bytes = parts.bytes;
    this.length = parts.bytes.length;
    this.ip = parts.ip;
    this.bitness = parts.bitness;
    this.code = parts.code;
    this.mnemonic = facts.mnemonic;
    this.repeated = parts.repeated;
    this.locked = parts.locked;
    this.branch = facts.branch;
    this.memory = memory;
    let access = 0;
    let incomplete = false;
    for (let index = 0; index < memory.length; index++) {
      access |= memory[index]!.access;
      incomplete ||= memory[index]!.kind === OperandKind.VECTOR_INDEXED;
    }
    this.readsMemory = (access & Access.READ) !== 0;
    this.writesMemory = (access & Access.WRITE) !== 0;
    this.incompleteOperands = incomplete;
    this.storeOperation = parts.storeOperation;
    this.storeOperand = storeOperand;
    this.source = parts.source;
    this.operandSize = storeOperand < 0 ? 0 : memory[storeOperand]!.size;
    this.descriptorInstruction = facts.descriptor;
    this.readsDescriptors = facts.readsDescriptors;
    this.isBreakpoint = parts.code === Code.Int3;
    this.storesEntryHalf = this.operandSize === 4 && ENTRY_HALF_STORES.has(parts.storeOperation);
  }

  /** The instruction in Intel syntax, made when it is first asked for. For people; nothing is decided by it. */
  get text(): string {
    this.#text ??= instructionText(this.bytes, this.ip, this.bitness);
    return this.#text;
  }
}

const ENTRY_HALF_STORES: ReadonlySet<StoreOperation> = new Set([
  StoreOperation.MOVE,
  StoreOperation.XCHG,
  StoreOperation.CMPXCHG,
]);

// One is enough: decoding is synchronous, and nothing of the object outlives a call.
const scratch = emptyInstruction();

/**
 * Decodes the first instruction of `bytes`.
 * @param bytes machine code; at most the first 15 bytes count; they are copied
 * @param ip address of the first byte
 * @param bitness default size of the code segment
 * @returns why there is none otherwise: `incomplete` when it needs more bytes than there are
 * @throws X86Error `ERR_X86_OPTIONS` when there is no code of that size
 */
export function decodeInstruction(
  bytes: Uint8Array,
  ip: bigint,
  bitness: Bitness = 64,
): DecodedInstruction | DecodeFailure {
  const failure = decodeInto(bytes, ip, bitness, scratch, 'bounds');
  if (failure !== undefined) {
    return failure;
  }
  const { code } = scratch;
  const facts = factsOf(scratch, code);
  // A copy: the caller's bytes are often a view of guest memory.
  const own = new Uint8Array(scratch.length);
  for (let at = 0; at < own.length; at++) {
    own[at] = bytes[at]!;
  }
  const memory = memoryOperandsOf(scratch, operandPatternOf(scratch, code, bitness), own, bitness);
  const storeOperand = storeOperandOf(memory);
  const store = storeOf(scratch, facts.mnemonic, memory, storeOperand);
  return new DecodedInstruction({
    bytes: own,
    ip,
    bitness,
    code,
    facts,
    repeated: facts.string && (scratch.hasRepPrefix || scratch.hasRepnePrefix),
    locked: storeOperand >= 0 && (scratch.hasLockPrefix || facts.mnemonic === Mnemonic.Xchg),
    memory,
    storeOperation: store.operation,
    storeOperand,
    source: store.source,
  });
}
