import { SEGMENT_NAMES, type SegmentName, u32Index } from '@introd/abi';

/** What a memory operand is to its instruction. */
export const OperandKind = {
  /** Written in the instruction: ModRM, moffs, or a fixed register such as XLAT's. */
  EXPLICIT: 0,
  /** Pushed by the instruction; its address lies below RSP. */
  STACK_PUSH: 1,
  /** Popped, or read through RBP by ENTER and LEAVE. */
  STACK_POP: 2,
  /** DS:RSI of a string instruction: one element. */
  STRING_SOURCE: 3,
  /** ES:RDI of a string instruction: one element. */
  STRING_DESTINATION: 4,
  /** Operand of BT, BTS, BTR or BTC with a register: the register's upper bits move the address. */
  BIT_STRING: 5,
  /** Gather or scatter: one address for each element of a vector register. */
  VECTOR_INDEXED: 6,
} as const;
/** One of the {@link OperandKind} numbers. */
export type OperandKind = (typeof OperandKind)[keyof typeof OperandKind];

/** Register number that stands for no register. */
export const NO_REGISTER = -1;

/** The elements of a gather or scatter. */
export interface VectorIndex {
  /** Number of the vector register that holds the indices, 0..31. */
  readonly register: number;
  /** Bytes of that register: 16, 32 or 64. */
  readonly registerSize: number;
  /** Bytes of an index, which is signed: 4 or 8. */
  readonly indexSize: 4 | 8;
  /** Number of elements, at most 16. */
  readonly count: number;
  /** Where the mask is: AVX2 takes the sign bits of a vector register, AVX-512 an opmask register. */
  readonly maskKind: 'vector' | 'opmask';
  /** Number of the mask register. */
  readonly maskRegister: number;
}

/** The address size of a stack operand outside of 64-bit code: the stack segment's D/B bit tells it (SDM vol. 3A, 3.4.5). */
export const STACK_ADDRESS = 0;
/** Size in bits of the addresses that an operand computes. */
export type AddressSize = 16 | 32 | 64 | typeof STACK_ADDRESS;

/** Index of the low half of a segment's base in a VCPU record, by the encoding of the segment register. */
const SEGMENT_BASES = SEGMENT_NAMES.map((name) => u32Index(`${name}Base`));

/** A memory operand as a formula over registers, made when the instruction is decoded. */
export class MemoryOperand {
  /** Segment whose base is added, in 64-bit code only FS or GS. */
  readonly segment: SegmentName | undefined;
  /** @internal Index of the low half of the segment's base in a VCPU record, -1 when none is added. */
  readonly segmentBase: number;

  constructor(
    readonly kind: OperandKind,
    /** READ and WRITE bits of `Access`; conditional accesses count. */
    readonly access: number,
    /** Size in bytes, of one element of a gather or scatter; 0 when it depends on the processor's state (XSAVE). */
    readonly size: number,
    /** Number of the base register 0..15, or {@link NO_REGISTER}. */
    readonly base: number,
    /** Number of the index register 0..15, or {@link NO_REGISTER}. */
    readonly index: number,
    /** Shift that the scale of the index is: 0..3. */
    readonly scaleShift: number,
    /** Low half of the displacement. For RIP-relative operands it is the whole address. */
    readonly displacementLow: number,
    /** High half of the displacement. */
    readonly displacementHigh: number,
    /** Number of the segment register as it is encoded, ES 0 to GS 5; -1 when no base is added. */
    segment: number,
    /** Size to which the sum is cut before the segment base is added. */
    readonly addressSize: AddressSize,
    /** Whether the linear address has 32 bits: everywhere but in 64-bit code. */
    readonly linear32: boolean,
    /** Bit strings: number of the register that holds the bit offset, else {@link NO_REGISTER}. */
    readonly bitRegister: number = NO_REGISTER,
    /** XLAT: only AL is added of the index register. */
    readonly indexByte = false,
    /** The elements of a gather or scatter, which has no index register then. */
    readonly elements: VectorIndex | undefined = undefined,
    /** Whether RSP is rounded down to a multiple of 16 first: interrupts in 64-bit code (SDM vol. 3A, 6.14.2). */
    readonly aligned = false,
  ) {
    this.segment = segment < 0 ? undefined : SEGMENT_NAMES[segment];
    this.segmentBase = segment < 0 ? -1 : SEGMENT_BASES[segment]!;
  }
}
