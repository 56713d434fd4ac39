/** Where a value that an instruction stores comes from. */
export const SourceKind = {
  NONE: 0,
  /** A general register, or a part of one. */
  REGISTER: 1,
  IMMEDIATE: 2,
  /** Another memory operand: the source of MOVS, of PUSH and POP with a memory operand. */
  MEMORY: 3,
  /** A vector register. */
  VECTOR: 4,
  /** The low 16 bits of a field of the VCPU record: a selector, or the machine status word. */
  RECORD: 5,
} as const;
/** One of the {@link SourceKind} numbers. */
export type SourceKind = (typeof SourceKind)[keyof typeof SourceKind];

/** Count of a double shift that is in CL. */
export const COUNT_IN_CL = -1;

/** A source operand. */
export interface ValueSource {
  readonly kind: SourceKind;
  /** Number of the register: general 0..15, vector 0..31; for RECORD the index of the field's low half in the record. */
  readonly register: number;
  /** AH, CH, DH or BH: bits 8..15 of the register. */
  readonly highByte: boolean;
  /** Low half of an immediate, sign-extended to 64 bits as the instruction does. */
  readonly low: number;
  /** High half of it. */
  readonly high: number;
  /** Index of the memory operand in the instruction's list, for MEMORY. */
  readonly operand: number;
  /** First byte of a vector register that is stored. */
  readonly byteOffset: number;
  /** SHLD and SHRD: the count as the instruction gives it, {@link COUNT_IN_CL} when it is in CL. */
  readonly count: number;
  /** MASKMOVDQU: number of the vector register whose sign bits select the bytes that are stored. */
  readonly mask: number;
}

/** No source. */
export const NO_SOURCE: ValueSource = {
  kind: SourceKind.NONE,
  register: 0,
  highByte: false,
  low: 0,
  high: 0,
  operand: 0,
  byteOffset: 0,
  count: 0,
  mask: 0,
};
