import type { Gpa } from '@introd/abi';
import type { PagingMode, Translation } from '../src/index.js';

/** Modes with tables. */
export type Mode = Exclude<PagingMode, 'none'>;
/** Reads an entry of 4 or 8 bytes; undefined when it is not RAM. */
export type Read = (gpa: bigint, size: number) => bigint | undefined;

/** What the manual's drawings show: for each level the bits of the address, and the page that PS makes there. */
export const SHAPES: Record<Mode, { entry: number; levels: { low: number; high: number; page?: bigint }[] }> = {
  '32-bit': {
    entry: 4,
    levels: [
      { low: 22, high: 31, page: 0x40_0000n },
      { low: 12, high: 21 },
    ],
  },
  pae: {
    entry: 8,
    levels: [
      { low: 30, high: 31 },
      { low: 21, high: 29, page: 0x20_0000n },
      { low: 12, high: 20 },
    ],
  },
  '4-level': {
    entry: 8,
    levels: [
      { low: 39, high: 47 },
      { low: 30, high: 38, page: 0x4000_0000n },
      { low: 21, high: 29, page: 0x20_0000n },
      { low: 12, high: 20 },
    ],
  },
  '5-level': {
    entry: 8,
    levels: [
      { low: 48, high: 56 },
      { low: 39, high: 47 },
      { low: 30, high: 38, page: 0x4000_0000n },
      { low: 21, high: 29, page: 0x20_0000n },
      { low: 12, high: 20 },
    ],
  },
};

/** Bits `low` to `high` of a number, in their place. */
export function bits(value: bigint, low: number, high: number): bigint {
  return value & ((1n << BigInt(high + 1)) - (1n << BigInt(low)));
}

/** A second walker, as plain as SDM vol. 3A, 4.3 to 4.5 can be written, over 64-bit integers. */
export function naive(read: Read, mode: Mode, cr3: bigint, va: bigint): Translation {
  const { entry: size, levels } = SHAPES[mode];
  let table = mode === 'pae' ? bits(cr3, 5, 31) : bits(cr3, 12, mode === '32-bit' ? 31 : 51);
  const trace: { gpa: Gpa; entry: bigint }[] = [];
  const result = (status: Translation['status'], gpa: bigint, pageSize: bigint): Translation => {
    const flagged = (mode === 'pae' ? trace.slice(1) : trace).filter(({ entry }) => entry % 2n === 1n);
    return {
      status,
      gpa: Number(gpa) as Gpa,
      pageSize: Number(pageSize),
      leaf: status === 'no-memory' ? 0n : trace.at(-1)!.entry,
      user: flagged.every(({ entry }) => bits(entry, 2, 2) !== 0n),
      writable: flagged.every(({ entry }) => bits(entry, 1, 1) !== 0n),
      executable: flagged.every(({ entry }) => bits(entry, 63, 63) === 0n),
      trace,
    };
  };
  for (const [number, { low, high, page }] of levels.entries()) {
    const at = table + (bits(va, low, high) >> BigInt(low)) * BigInt(size);
    const entry = read(at, size);
    if (entry === undefined) {
      return result('no-memory', 0n, 0n);
    }
    trace.push({ gpa: Number(at) as Gpa, entry });
    const last = number === levels.length - 1;
    if (entry % 2n === 0n) {
      return result(last ? 'not-present' : 'no-mapping', 0n, last ? 4096n : 0n);
    }
    if (page !== undefined && bits(entry, 7, 7) !== 0n) {
      let frame = bits(entry, 12, 51);
      if (mode === '32-bit') {
        frame = bits(entry, 22, 31) + (bits(entry, 13, 20) << 19n);
      }
      return result('ok', frame - (frame % page) + (va % page), page);
    }
    if (last) {
      return result('ok', bits(entry, 12, 51) + (va % 4096n), 4096n);
    }
    table = bits(entry, 12, 51);
  }
  throw new Error('a walk ends at its last level');
}
