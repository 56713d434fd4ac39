import type { tags } from 'typia';

/** A 64-bit value in JSON: `0x` and 1 to 16 lower-case hex digits. JSON numbers lose precision above 2^53. */
export type Hex64 = string & tags.Pattern<'^0x[0-9a-f]{1,16}$'>;

/** Writes a value as {@link Hex64}. */
export function hex64(value: bigint | number): Hex64 {
  return `0x${(typeof value === 'bigint' ? BigInt.asUintN(64, value) : value).toString(16)}`;
}

/** Reads a {@link Hex64}. `undefined` when the text is not one. */
export function parseHex64(text: string): bigint | undefined {
  return /^0x[0-9a-f]{1,16}$/.test(text) ? BigInt(text) : undefined;
}
