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
} as const;
/** One of the {@link OperandKind} numbers. */
export type OperandKind = (typeof OperandKind)[keyof typeof OperandKind];

/** Register number that stands for no register. */
export const NO_REGISTER = -1;

/** A memory operand as a formula over general registers, made when the instruction is decoded. */
export class MemoryOperand {
  constructor(
    readonly kind: OperandKind,
    /** READ and WRITE bits of `Access`; conditional accesses count. */
    readonly access: number,
    /** Size in bytes; 0 when it depends on the processor's state (XSAVE). */
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
    /** Segment whose base is added: only FS and GS have one in 64-bit mode. */
    readonly segment: 'fs' | 'gs' | undefined,
    /** Whether the sum is cut to 32 bits before the segment base is added (67h prefix). */
    readonly address32: boolean,
    /** XLAT: only AL is added of the index register. */
    readonly indexByte: boolean,
    /** Bit strings: number of the register that holds the bit offset, else {@link NO_REGISTER}. */
    readonly bitRegister: number,
  ) {}
}
