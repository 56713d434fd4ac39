import { Mnemonic } from '../decoder.js';
import type { Handler } from './instruction.js';
import { other, out, readSources, readVector, requireAligned, source, writeVector } from './vector-operands.js';

const BLOCK = 16;

/** Product in the field of AES, modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197, 4.2). */
function product(a: number, b: number): number {
  let sum = 0;
  let term = a;
  for (let bits = b; bits !== 0; bits >>>= 1) {
    if ((bits & 1) !== 0) sum ^= term;
    term = ((term << 1) ^ ((term & 0x80) === 0 ? 0 : 0x11b)) & 0xff;
  }
  return sum;
}

/** The substitution (FIPS 197, 5.1.1) and its inverse, computed: the inverse of the byte, then an affine map. */
function substitutions(): { forward: Uint8Array; inverse: Uint8Array } {
  const forward = new Uint8Array(256);
  const inverse = new Uint8Array(256);
  for (let byte = 0; byte < 256; byte++) {
    // a^254 is the inverse of a, and 0 for 0.
    let power = byte;
    for (let i = 0; i < 6; i++) power = product(product(power, power), byte);
    const inverted = product(power, power);
    let mapped = 0x63;
    for (let turn = 0; turn < 5; turn++) mapped ^= ((inverted << turn) | (inverted >>> (8 - turn))) & 0xff;
    forward[byte] = mapped;
    inverse[mapped] = byte;
  }
  return { forward, inverse };
}

/** Computed when the first AES instruction is executed. */
let tables: ReturnType<typeof substitutions> | undefined;

/** First column of the matrices that mix columns (FIPS 197, 5.1.3 and 5.3.3). */
const MIX = [2, 1, 1, 3];
const UNMIX = [14, 9, 13, 11];

function mixColumns(block: Uint8Array, matrix: readonly number[]): void {
  for (let column = 0; column < BLOCK; column += 4) {
    const before = block.slice(column, column + 4);
    for (let row = 0; row < 4; row++) {
      let sum = 0;
      for (let from = 0; from < 4; from++) sum ^= product(before[from]!, matrix[(row - from + 4) & 3]!);
      block[column + row] = sum;
    }
  }
}

/** One round on the first source with the second as round key; the last one does not mix columns. */
function round(direction: 'encrypt' | 'decrypt', last: boolean): Handler {
  return (m, i) => {
    tables ??= substitutions();
    readSources(m, i);
    const encrypt = direction === 'encrypt';
    const table = encrypt ? tables.forward : tables.inverse;
    for (let at = 0; at < BLOCK; at++) {
      // Row r of the state turns by r columns.
      const from = (at + (encrypt ? 4 : -4) * (at & 3) + BLOCK) % BLOCK;
      out[at] = table[other[from]!]!;
    }
    if (!last) mixColumns(out.subarray(0, BLOCK), encrypt ? MIX : UNMIX);
    for (let at = 0; at < BLOCK; at++) out[at]! ^= source[at]!;
    writeVector(m, i, i.first, out.subarray(0, BLOCK));
  };
}

/** AESIMC: a round key for decryption. */
const mixKey: Handler = (m, i) => {
  requireAligned(m, i);
  readVector(m, i, i.second, source);
  mixColumns(source.subarray(0, BLOCK), UNMIX);
  writeVector(m, i, i.first, source);
};

/** The rounds of AES, with which some payloads are encrypted. */
export const aesHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Aesenc, round('encrypt', false)],
  [Mnemonic.Aesenclast, round('encrypt', true)],
  [Mnemonic.Aesdec, round('decrypt', false)],
  [Mnemonic.Aesdeclast, round('decrypt', true)],
  [Mnemonic.Aesimc, mixKey],
]);
