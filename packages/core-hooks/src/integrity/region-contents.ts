/** A word of a region that has another value than it should. */
export interface ChangedWord {
  /** Bytes from the start of the region, a multiple of 8. */
  readonly offset: number;
  /** 8, or less at the end of the region. */
  readonly size: number;
  readonly oldValue: bigint;
  readonly newValue: bigint;
}

const WORD = 8;

/** The words in which two contents of the same length differ. */
export function changedWords(before: Uint8Array, after: Uint8Array): ChangedWord[] {
  const words: ChangedWord[] = [];
  for (let offset = 0; offset < before.length; offset += WORD) {
    const size = Math.min(WORD, before.length - offset);
    const oldValue = wordAt(before, offset, size);
    const newValue = wordAt(after, offset, size);
    if (oldValue !== newValue) {
      words.push({ offset, size, oldValue, newValue });
    }
  }
  return words;
}

function wordAt(bytes: Uint8Array, offset: number, size: number): bigint {
  let value = 0n;
  for (let at = size - 1; at >= 0; at--) {
    value = (value << 8n) | BigInt(bytes[offset + at]!);
  }
  return value;
}

/** CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected), which processors have an instruction for (SDM vol. 2, CRC32). */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) {
    value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ 0x82f6_3b78;
  }
  return value;
});

/** CRC-32C of some bytes, started with all ones and inverted at the end. */
export function contentHash(bytes: Uint8Array): number {
  let value = 0xffff_ffff;
  for (let at = 0; at < bytes.length; at++) {
    value = (value >>> 8) ^ TABLE[(value ^ bytes[at]!) & 0xff]!;
  }
  return (value ^ 0xffff_ffff) >>> 0;
}
