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
} as const;
/** One of the {@link SourceKind} numbers. */
export type SourceKind = (typeof SourceKind)[keyof typeof SourceKind];

/** A source operand. */
export interface ValueSource {
  readonly kind: SourceKind;
  /** Number of the register: general 0..15, vector 0..31. */
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
};
