/** One 64-bit word seen as two halves: splitting a bigint through it allocates nothing. */
const word = new BigUint64Array(1);
const halves = new Uint32Array(word.buffer);

/** Low 32 bits of a 64-bit value, unsigned; {@link highHalf} gives those above, until the next call. */
export function lowHalf(value: bigint): number {
  word[0] = value;
  return halves[0]!;
}

/** High 32 bits of the value that {@link lowHalf} was last called with, unsigned. */
export function highHalf(): number {
  return halves[1]!;
}
