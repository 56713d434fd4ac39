import type { Cr3, Gpa, Gva } from '@introd/abi';
import type { PageCache } from './page-cache.js';

/**
 * Outcome of a page walk. `not-present`: every table is there and the last entry has P clear. `no-mapping`: an entry
 * above the last level has P clear. `no-memory`: a table, or the page itself, lies outside the guest's RAM.
 */
export type TranslationStatus = 'ok' | 'not-present' | 'no-mapping' | 'no-memory';

/** {@link TranslationStatus} as the numbers that {@link Translator.walk} returns. */
export const Walk = { OK: 0, NOT_PRESENT: 1, NO_MAPPING: 2, NO_MEMORY: 3 } as const;
/** One of the {@link Walk} numbers. */
export type Walk = (typeof Walk)[keyof typeof Walk];

/** Names of the {@link Walk} numbers. */
export const WALK_STATUS: readonly TranslationStatus[] = ['ok', 'not-present', 'no-mapping', 'no-memory'];

/** One entry that a walk read. */
export interface WalkedEntry {
  /** Where the entry lies. */
  readonly gpa: Gpa;
  /** Its value. */
  readonly entry: bigint;
}

/** What a virtual address leads to. */
export interface Translation {
  readonly status: TranslationStatus;
  /** Physical address; 0 unless the status is `ok`. */
  readonly gpa: Gpa;
  /** Size of the page in bytes: 4096, 2 MiB or 1 GiB; 0 when no leaf was reached. */
  readonly pageSize: number;
  /** The entry that the walk ended at, present or not; 0 when its table could not be read. */
  readonly leaf: bigint;
  /** U/S set at every level read that was present. */
  readonly user: boolean;
  /** R/W set at every level read that was present. */
  readonly writable: boolean;
  /** XD clear at every level read that was present. */
  readonly executable: boolean;
  /** The entries read, from the root down; an absent one is the last. */
  readonly trace: readonly WalkedEntry[];
}

/** One level of a paging mode: which bits of the address select the entry, and what a set PS bit means there. */
interface PagingLevel {
  /** Lowest bit of the 9-bit index. */
  readonly shift: number;
  /** Whether PS makes the entry a leaf (SDM vol. 3A, tables 4-16 and 4-18; the bit is reserved or PAT elsewhere). */
  readonly large: boolean;
  /** Whether every present entry is a leaf. */
  readonly last: boolean;
}

/** 4-level paging (SDM vol. 3A, 4.5). Other modes are other lists. */
const FOUR_LEVEL: readonly PagingLevel[] = [
  { shift: 39, large: false, last: false },
  { shift: 30, large: true, last: false },
  { shift: 21, large: true, last: false },
  { shift: 12, large: false, last: true },
];

/** Most levels of any paging mode. */
const MAX_LEVELS = 5;

const PRESENT = 1;
const WRITABLE = 2;
const USER = 4;
const LARGE = 0x80;
/** XD, bit 63, in the high half of an entry. */
const EXECUTE_DISABLE = 0x8000_0000;
/** Bits 32..51 of an address, in the high half. */
const FRAME_HIGH = 0x000f_ffff;
/** A read of both halves is repeated when the upper one changed in between; a guest that never lets it rest loses. */
const MAX_TORN_READS = 4;

/**
 * Translates guest virtual addresses by walking the guest's tables in memory. Nothing is remembered between walks, so
 * a translation is never stale. Reserved bits and canonical form are not checked (core-hooks.md section 1).
 *
 * {@link walk} is for the path of every exit: it takes halves and leaves its result in the fields of the translator.
 */
export class Translator {
  readonly #pages: PageCache;
  readonly #levels = FOUR_LEVEL;

  /** Physical address found by the last {@link walk} that returned OK. */
  gpa = 0 as Gpa;
  /** Page size found by the last walk; 0 when it met no leaf. */
  pageSize = 0;
  /** Low half of the entry that the last walk ended at. */
  leafLow = 0;
  /** High half of that entry. */
  leafHigh = 0;
  /** Number of entries that the last walk read. */
  depth = 0;
  readonly #traceGpa = new Float64Array(MAX_LEVELS);
  readonly #traceWords = new Uint32Array(MAX_LEVELS * 2);
  /** AND of the low halves of the present entries, and OR of their high halves. */
  #flagsLow = 0;
  #flagsHigh = 0;

  /** @internal */
  constructor(pages: PageCache) {
    this.#pages = pages;
  }

  /** Where the entry of a level of the last walk lies, level 0 being the root. */
  entryGpa(level: number): Gpa {
    return this.#traceGpa[level]! as Gpa;
  }

  /** Low half of the entry of a level of the last walk. */
  entryLow(level: number): number {
    return this.#traceWords[level * 2]!;
  }

  /** High half of it. */
  entryHigh(level: number): number {
    return this.#traceWords[level * 2 + 1]!;
  }

  /** AND of U/S over the present entries of the last walk. */
  get user(): boolean {
    return (this.#flagsLow & USER) !== 0;
  }

  /** AND of R/W over the present entries of the last walk. */
  get writable(): boolean {
    return (this.#flagsLow & WRITABLE) !== 0;
  }

  /** Whether no present entry of the last walk had XD. */
  get executable(): boolean {
    return (this.#flagsHigh & EXECUTE_DISABLE) === 0;
  }

  /** Translates `va` under `cr3`. */
  translate(cr3: Cr3, va: Gva): Translation {
    const status = this.walk(
      Number(BigInt.asUintN(32, cr3)),
      Number(BigInt.asUintN(32, cr3 >> 32n)),
      Number(BigInt.asUintN(32, va)),
      Number(BigInt.asUintN(32, va >> 32n)),
    );
    const trace: WalkedEntry[] = [];
    for (let level = 0; level < this.depth; level++) {
      trace.push({
        gpa: this.#traceGpa[level]! as Gpa,
        entry: (BigInt(this.#traceWords[level * 2 + 1]!) << 32n) | BigInt(this.#traceWords[level * 2]!),
      });
    }
    return {
      status: WALK_STATUS[status]!,
      gpa: this.gpa,
      pageSize: this.pageSize,
      leaf: (BigInt(this.leafHigh) << 32n) | BigInt(this.leafLow),
      user: this.user,
      writable: this.writable,
      executable: this.executable,
      trace,
    };
  }

  /** The same on unsigned 32-bit halves, without allocating; the result is in the fields. */
  walk(cr3Low: number, cr3High: number, vaLow: number, vaHigh: number): Walk {
    // Bits 12..51 of CR3; PCID, PWT, PCD and the no-flush bit 63 do not count.
    let table = (cr3Low >>> 12) + (cr3High & FRAME_HIGH) * 0x10_0000;
    let flagsLow = USER | WRITABLE;
    let flagsHigh = 0;
    this.gpa = 0 as Gpa;
    this.pageSize = 0;
    this.leafLow = 0;
    this.leafHigh = 0;
    this.depth = 0;
    this.#flagsLow = flagsLow;
    this.#flagsHigh = flagsHigh;
    const levels = this.#levels;
    for (let depth = 0; depth < levels.length; depth++) {
      const level = levels[depth]!;
      const shift = level.shift;
      const index =
        shift >= 32
          ? (vaHigh >>> (shift - 32)) & 0x1ff
          : (shift > 23 ? (vaLow >>> shift) | (vaHigh << (32 - shift)) : vaLow >>> shift) & 0x1ff;
      const page = this.#pages.get(table);
      if (page === undefined) {
        this.leafLow = 0;
        this.leafHigh = 0;
        return Walk.NO_MEMORY;
      }
      const words = page.words;
      let low = words[index * 2]!;
      let high = words[index * 2 + 1]!;
      for (let attempt = 0; attempt < MAX_TORN_READS; attempt++) {
        low = words[index * 2]!;
        const again = words[index * 2 + 1]!;
        if (again === high) {
          break;
        }
        high = again;
      }
      this.#traceGpa[depth] = table * 4096 + index * 8;
      this.#traceWords[depth * 2] = low;
      this.#traceWords[depth * 2 + 1] = high;
      this.depth = depth + 1;
      this.leafLow = low;
      this.leafHigh = high;
      if ((low & PRESENT) === 0) {
        if (level.last) {
          this.pageSize = 4096;
          return Walk.NOT_PRESENT;
        }
        return Walk.NO_MAPPING;
      }
      flagsLow &= low;
      flagsHigh |= high;
      this.#flagsLow = flagsLow;
      this.#flagsHigh = flagsHigh;
      if (level.last || (level.large && (low & LARGE) !== 0)) {
        // Address bits below the page size come from the virtual address; those of the entry (PAT, reserved) do not count.
        const offsetMask = 2 ** shift - 1;
        this.pageSize = offsetMask + 1;
        this.gpa = (((low & ~offsetMask) >>> 0) +
          (high & FRAME_HIGH) * 0x1_0000_0000 +
          ((vaLow & offsetMask) >>> 0)) as Gpa;
        return Walk.OK;
      }
      table = (low >>> 12) + (high & FRAME_HIGH) * 0x10_0000;
    }
    return Walk.NO_MAPPING;
  }
}
