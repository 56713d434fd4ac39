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
  /** Bytes that one entry covers. */
  readonly size: number;
}

/** 4-level paging (SDM vol. 3A, 4.5). Other modes are other lists. */
const FOUR_LEVEL: readonly PagingLevel[] = [
  { shift: 39, large: false, last: false, size: 2 ** 39 },
  { shift: 30, large: true, last: false, size: 2 ** 30 },
  { shift: 21, large: true, last: false, size: 2 ** 21 },
  { shift: 12, large: false, last: true, size: 2 ** 12 },
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

/** Walks remembered, a power of two; each at the place that its address and root choose. */
const SLOTS = 512;
/** First key of a slot that holds no finished walk; a page number of the low half has 20 bits. */
const NO_WALK = 0xffff_ffff;

/**
 * Translates guest virtual addresses by walking the guest's tables in memory. A finished walk is remembered with the entries that
 * it read; it serves again only while every one of them still holds the same value in memory, so a translation is never stale.
 * Reserved bits and canonical form are not checked (core-hooks.md section 1).
 *
 * {@link walk} is for the path of every exit: it takes halves and leaves its result in the properties of the translator.
 */
export class Translator {
  readonly #pages: PageCache;
  readonly #levels = FOUR_LEVEL;

  /** Physical address found by the last {@link walk} that returned OK; 0 after any other. */
  gpa = 0 as Gpa;

  // Parallel arrays over the slots: four words of key, one physical page, and per level a table and the entry read in it.
  readonly #keys = new Uint32Array(SLOTS * 4).fill(NO_WALK);
  readonly #pageBases = new Float64Array(SLOTS);
  readonly #pageSizes = new Uint32Array(SLOTS);
  readonly #depths = new Uint8Array(SLOTS);
  readonly #tables: (Uint32Array | undefined)[] = Array.from({ length: SLOTS * MAX_LEVELS });
  readonly #tableFrames = new Float64Array(SLOTS * MAX_LEVELS);
  /** Index of the entry's low word in its table. */
  readonly #positions = new Uint16Array(SLOTS * MAX_LEVELS);
  readonly #lows = new Uint32Array(SLOTS * MAX_LEVELS);
  readonly #highs = new Uint32Array(SLOTS * MAX_LEVELS);
  /** Slot of the last walk; it holds the walk's entries even when it found nothing. */
  #slot = 0;
  /** Whether the last walk ended at a table outside RAM. */
  #lostTable = false;

  /** @internal */
  constructor(pages: PageCache) {
    this.#pages = pages;
  }

  /** Page size found by the last walk; 0 when it met no leaf. */
  get pageSize(): number {
    return this.#pageSizes[this.#slot]!;
  }

  /** Number of entries that the last walk read. */
  get depth(): number {
    return this.#depths[this.#slot]!;
  }

  /** Low half of the entry that the last walk ended at. */
  get leafLow(): number {
    return this.#lostTable || this.depth === 0 ? 0 : this.entryLow(this.depth - 1);
  }

  /** High half of that entry. */
  get leafHigh(): number {
    return this.#lostTable || this.depth === 0 ? 0 : this.entryHigh(this.depth - 1);
  }

  /** Where the entry of a level of the last walk lies, level 0 being the root. */
  entryGpa(level: number): Gpa {
    const at = this.#slot * MAX_LEVELS + level;
    return (this.#tableFrames[at]! * 4096 + this.#positions[at]! * 4) as Gpa;
  }

  /** Low half of the entry of a level of the last walk. */
  entryLow(level: number): number {
    return this.#lows[this.#slot * MAX_LEVELS + level]!;
  }

  /** High half of it. */
  entryHigh(level: number): number {
    return this.#highs[this.#slot * MAX_LEVELS + level]!;
  }

  /** AND of U/S over the present entries of the last walk. */
  get user(): boolean {
    return this.#everyPresent(USER);
  }

  /** AND of R/W over the present entries of the last walk. */
  get writable(): boolean {
    return this.#everyPresent(WRITABLE);
  }

  /** Whether no present entry of the last walk had XD. */
  get executable(): boolean {
    for (let level = 0; level < this.depth; level++) {
      if ((this.entryLow(level) & PRESENT) !== 0 && (this.entryHigh(level) & EXECUTE_DISABLE) !== 0) {
        return false;
      }
    }
    return true;
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
        gpa: this.entryGpa(level),
        entry: (BigInt(this.entryHigh(level)) << 32n) | BigInt(this.entryLow(level)),
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

  /** The same on unsigned 32-bit halves, without allocating; the result is in the properties. */
  walk(cr3Low: number, cr3High: number, vaLow: number, vaHigh: number): Walk {
    const rootLow = cr3Low >>> 12;
    // Bits 12..51 of CR3; PCID, PWT, PCD and the no-flush bit 63 do not count.
    const rootHigh = cr3High & FRAME_HIGH;
    const vaPage = vaLow >>> 12;
    const mixed = Math.imul(vaPage ^ (vaHigh << 12) ^ Math.imul(rootLow ^ (rootHigh << 20), 0x85eb_ca6b), 0x9e37_79b1);
    const slot = (mixed ^ (mixed >>> 15)) & (SLOTS - 1);
    this.#slot = slot;
    const keys = this.#keys;
    const key = slot * 4;
    if (
      keys[key] === vaPage &&
      keys[key + 1] === vaHigh &&
      keys[key + 2] === rootLow &&
      keys[key + 3] === rootHigh &&
      this.#stillHolds(slot)
    ) {
      this.#lostTable = false;
      this.gpa = (this.#pageBases[slot]! + (vaLow & 0xfff)) as Gpa;
      return Walk.OK;
    }
    keys[key] = NO_WALK;
    const status = this.#walkTables(slot, rootLow + rootHigh * 0x10_0000, vaLow, vaHigh);
    if (status === Walk.OK) {
      keys[key] = vaPage;
      keys[key + 1] = vaHigh;
      keys[key + 2] = rootLow;
      keys[key + 3] = rootHigh;
    }
    return status;
  }

  /** @internal Forgets every walk, and with them the mapped tables. */
  clear(): void {
    this.#keys.fill(NO_WALK);
    this.#tables.fill(undefined);
  }

  /** Whether every entry of a remembered walk still has the value that was read. */
  #stillHolds(slot: number): boolean {
    const first = slot * MAX_LEVELS;
    const end = first + this.#depths[slot]!;
    for (let at = first; at < end; at++) {
      const table = this.#tables[at]!;
      const position = this.#positions[at]!;
      if (table[position] !== this.#lows[at] || table[position + 1] !== this.#highs[at]) {
        return false;
      }
    }
    return true;
  }

  #walkTables(slot: number, root: number, vaLow: number, vaHigh: number): Walk {
    let frame = root;
    this.gpa = 0 as Gpa;
    this.#pageSizes[slot] = 0;
    this.#depths[slot] = 0;
    this.#lostTable = false;
    const levels = this.#levels;
    for (let depth = 0; depth < levels.length; depth++) {
      const { shift, large, last, size } = levels[depth]!;
      const index =
        shift >= 32
          ? (vaHigh >>> (shift - 32)) & 0x1ff
          : (shift > 23 ? (vaLow >>> shift) | (vaHigh << (32 - shift)) : vaLow >>> shift) & 0x1ff;
      const page = this.#pages.get(frame);
      if (page === undefined) {
        this.#lostTable = true;
        return Walk.NO_MEMORY;
      }
      const words = page.words;
      const position = index * 2;
      let low = words[position]!;
      let high = words[position + 1]!;
      for (let attempt = 0; attempt < MAX_TORN_READS; attempt++) {
        low = words[position]!;
        const again = words[position + 1]!;
        if (again === high) {
          break;
        }
        high = again;
      }
      const at = slot * MAX_LEVELS + depth;
      this.#tables[at] = words;
      this.#tableFrames[at] = frame;
      this.#positions[at] = position;
      this.#lows[at] = low;
      this.#highs[at] = high;
      this.#depths[slot] = depth + 1;
      if ((low & PRESENT) === 0) {
        if (last) {
          this.#pageSizes[slot] = size;
          return Walk.NOT_PRESENT;
        }
        return Walk.NO_MAPPING;
      }
      if (last || (large && (low & LARGE) !== 0)) {
        // Address bits below the page size come from the virtual address; those of the entry (PAT, reserved) do not count.
        const offsetMask = size - 1;
        this.#pageSizes[slot] = size;
        const gpa = ((low & ~offsetMask) >>> 0) + (high & FRAME_HIGH) * 0x1_0000_0000 + (vaLow & offsetMask);
        this.#pageBases[slot] = gpa - (vaLow & 0xfff);
        this.gpa = gpa as Gpa;
        return Walk.OK;
      }
      frame = (low >>> 12) + (high & FRAME_HIGH) * 0x10_0000;
    }
    return Walk.NO_MAPPING;
  }

  #everyPresent(flag: number): boolean {
    for (let level = 0; level < this.depth; level++) {
      const low = this.entryLow(level);
      if ((low & PRESENT) !== 0 && (low & flag) === 0) {
        return false;
      }
    }
    return true;
  }
}
