import type { Cr3, Gpa, Gva } from '@introd/abi';
import type { PageCache } from './page-cache.js';
import {
  entrySizeOf,
  indexAt,
  isLeaf,
  leafAddress,
  PAGING_LEVELS,
  Paging,
  type PagingMode,
  pagingOf,
  rootAddress,
  tableAddress,
} from './paging-mode.js';

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
  /** Size of the page in bytes: 4096, 2 MiB, 4 MiB or 1 GiB; 0 when no leaf was reached, and without paging. */
  readonly pageSize: number;
  /** The entry that the walk ended at, present or not; 0 when its table could not be read. */
  readonly leaf: bigint;
  /** U/S set at every level read that was present. The entries of a PAE root have neither U/S nor R/W and do not count. */
  readonly user: boolean;
  /** R/W set at every level read that was present. */
  readonly writable: boolean;
  /** XD clear at every level read that was present. Entries of 4 bytes have no XD. */
  readonly executable: boolean;
  /** The entries read, from the root down; an absent one is the last. */
  readonly trace: readonly WalkedEntry[];
}

/** Most levels of any paging mode. */
const MAX_LEVELS = 5;

/** Bits 32..51 of an address, in the high half. */
const FRAME_HIGH = 0x000f_ffff;
const PRESENT = 1;
const WRITABLE = 2;
const USER = 4;
/** XD, bit 63, in the high half of an entry. */
const EXECUTE_DISABLE = 0x8000_0000;
/** A read of both halves is repeated when the upper one changed in between; a guest that never lets it rest loses. */
const MAX_TORN_READS = 4;

/** Walks remembered, a power of two; each at the place that its address and root choose. */
const SLOTS = 512;
/** Words kept of an entry, a power of two so that finding them is a shift. */
const ENTRY_WORDS = 4;
/** Slot of translations without tables, which are not remembered. */
const UNTRANSLATED = SLOTS;
/** First key of a slot that holds no finished walk; a page number of the low half has 20 bits, the mode above it 3. */
const NO_WALK = -1;
/** Where the mode stands in the first key. */
const MODE_SHIFT = 20;
/** Lowest number whose high half no physical address has. */
const BEYOND_PHYSICAL = 1 << 20;

/**
 * Translates guest virtual addresses by walking the guest's tables in memory. A finished walk is remembered with the entries that
 * it read; it serves again only while every one of them still holds the same value in memory, so a translation is never stale.
 * Reserved bits and canonical form are not checked (core-hooks.md section 1).
 *
 * {@link walk} is for the path of every exit: it takes halves and leaves its result in the properties of the translator.
 */
export class Translator {
  readonly #pages: PageCache;

  /**
   * Mode of walks that name none: that of the VCPU whose exit is handled, so paging may be off.
   * @internal
   */
  vcpuPaging: Paging = Paging.LEVEL_4;
  /**
   * Mode of the guest's operating system: that of the last exit's VCPU which had paging on. What reads tables by a CR3 of its own
   * choice goes by it, so that a VCPU without paging does not make the guest's memory another one.
   * @internal
   */
  guestPaging: Paging = Paging.LEVEL_4;

  /** Physical address found by the last {@link walk} that returned OK; 0 after any other. */
  gpa = 0 as Gpa;

  // Parallel arrays over the slots: four words of key, one physical page, and per level a table and the entry read in it.
  readonly #keys = new Int32Array(SLOTS * 4).fill(NO_WALK);
  readonly #pageBases = new Float64Array(SLOTS);
  readonly #pageSizes = new Uint32Array(SLOTS + 1);
  readonly #depths = new Uint8Array(SLOTS + 1);
  readonly #pagings = new Uint8Array(SLOTS + 1);
  readonly #tables: (Uint32Array | undefined)[] = Array.from({ length: SLOTS * MAX_LEVELS });
  readonly #tableFrames = new Float64Array(SLOTS * MAX_LEVELS);
  /** Of each entry the index of its low word in its table, the low word, and the high one. */
  readonly #entries = new Uint32Array(SLOTS * MAX_LEVELS * ENTRY_WORDS);
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
    return (this.#tableFrames[at]! * 4096 + this.#entries[at * ENTRY_WORDS]! * 4) as Gpa;
  }

  /** Low half of the entry of a level of the last walk. */
  entryLow(level: number): number {
    return this.#entries[(this.#slot * MAX_LEVELS + level) * ENTRY_WORDS + 1]!;
  }

  /** High half of it. */
  entryHigh(level: number): number {
    return this.#entries[(this.#slot * MAX_LEVELS + level) * ENTRY_WORDS + 2]!;
  }

  /** Size in bytes of the entries that the last walk read. */
  get entrySize(): 4 | 8 {
    return entrySizeOf(this.#paging);
  }

  /** First level of the last walk whose entries have R/W, U/S, XD and an accessed bit: 1 under a PAE root, else 0. */
  get firstFlagLevel(): 0 | 1 {
    return this.#paging === Paging.PAE ? 1 : 0;
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
    for (let level = this.firstFlagLevel; level < this.depth; level++) {
      if ((this.entryLow(level) & PRESENT) !== 0 && (this.entryHigh(level) & EXECUTE_DISABLE) !== 0) {
        return false;
      }
    }
    return true;
  }

  /**
   * Translates `va` under `cr3`.
   * @param mode default: that of the guest's operating system (see {@link Engine.pagingMode})
   * @throws CoreHooksError ERR_CORE_HOOKS_PAGING_MODE when there is no such mode
   */
  translate(cr3: Cr3, va: Gva, mode?: PagingMode): Translation {
    const status = this.walk(
      Number(BigInt.asUintN(32, cr3)),
      Number(BigInt.asUintN(32, cr3 >> 32n)),
      Number(BigInt.asUintN(32, va)),
      Number(BigInt.asUintN(32, va >> 32n)),
      mode === undefined ? this.guestPaging : pagingOf(mode),
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

  /**
   * The same on 32-bit halves, signed or not, without allocating; the result is in the properties.
   * @param paging default: the mode of the VCPU whose exit is handled, paging off included
   */
  walk(cr3Low: number, cr3High: number, vaLow: number, vaHigh: number, paging: Paging = this.vcpuPaging): Walk {
    if (paging < Paging.LEVEL_4) {
      return this.#walk32(paging, cr3Low, vaLow, vaHigh);
    }
    // Bits 12..51 of CR3; PCID, PWT, PCD and the no-flush bit 63 do not count.
    return this.#walkRoot(paging, cr3Low & 0xffff_f000, cr3High & FRAME_HIGH, vaLow, vaHigh);
  }

  /** Modes in which linear addresses and CR3 have 32 bits. */
  #walk32(paging: Paging, cr3Low: number, vaLow: number, vaHigh: number): Walk {
    if (paging === Paging.NONE) {
      this.#slot = UNTRANSLATED;
      this.#depths[UNTRANSLATED] = 0;
      this.#pageSizes[UNTRANSLATED] = 0;
      this.#lostTable = vaHigh >>> 0 >= BEYOND_PHYSICAL;
      this.gpa = (this.#lostTable ? 0 : (vaLow >>> 0) + vaHigh * 0x1_0000_0000) as Gpa;
      return this.#lostTable ? Walk.NO_MEMORY : Walk.OK;
    }
    return this.#walkRoot(paging, rootAddress(paging, cr3Low, 0) | 0, 0, vaLow, 0);
  }

  #walkRoot(paging: Paging, rootLow: number, rootHigh: number, vaLow: number, vaHigh: number): Walk {
    const upper = vaHigh | 0;
    const vaPage = vaLow >>> 12;
    const first = vaPage | (paging << MODE_SHIFT);
    const second = rootLow >>> 5;
    const mixed = Math.imul(vaPage ^ (upper << 12) ^ Math.imul(second ^ (rootHigh << 20), 0x85eb_ca6b), 0x9e37_79b1);
    const slot = (mixed ^ (mixed >>> 15)) & (SLOTS - 1);
    this.#slot = slot;
    const keys = this.#keys;
    const key = slot * 4;
    if (
      keys[key] === first &&
      keys[key + 1] === upper &&
      keys[key + 2] === second &&
      keys[key + 3] === rootHigh &&
      (paging === Paging.BITS_32 ? this.#stillHolds32(slot) : this.#stillHolds(slot))
    ) {
      this.#lostTable = false;
      this.gpa = (this.#pageBases[slot]! + (vaLow & 0xfff)) as Gpa;
      return Walk.OK;
    }
    keys[key] = NO_WALK;
    this.#pagings[slot] = paging;
    const status = this.#walkTables(slot, paging, (rootLow >>> 0) + rootHigh * 0x1_0000_0000, vaLow, vaHigh);
    if (status === Walk.OK) {
      keys[key] = first;
      keys[key + 1] = upper;
      keys[key + 2] = second;
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
    const tables = this.#tables;
    const entries = this.#entries;
    const first = slot * MAX_LEVELS;
    const end = first + this.#depths[slot]!;
    for (let at = first, word = first * ENTRY_WORDS; at < end; at++, word += ENTRY_WORDS) {
      const table = tables[at]!;
      const position = entries[word]!;
      if (table[position] !== entries[word + 1] || table[position + 1] !== entries[word + 2]) {
        return false;
      }
    }
    return true;
  }

  /** The same for entries of 4 bytes. */
  #stillHolds32(slot: number): boolean {
    const first = slot * MAX_LEVELS;
    const end = first + this.#depths[slot]!;
    for (let at = first; at < end; at++) {
      const word = at * ENTRY_WORDS;
      if (this.#tables[at]![this.#entries[word]!] !== this.#entries[word + 1]) {
        return false;
      }
    }
    return true;
  }

  #walkTables(slot: number, paging: Paging, root: number, vaLow: number, vaHigh: number): Walk {
    let table = root;
    this.gpa = 0 as Gpa;
    this.#pageSizes[slot] = 0;
    this.#depths[slot] = 0;
    this.#lostTable = false;
    const levels = PAGING_LEVELS[paging]!;
    const wide = paging !== Paging.BITS_32;
    for (let depth = 0; depth < levels.length; depth++) {
      const level = levels[depth]!;
      const frame = Math.floor(table / 4096);
      const page = this.#pages.get(frame);
      if (page === undefined) {
        this.#lostTable = true;
        return Walk.NO_MEMORY;
      }
      const words = page.words;
      const index = indexAt(level, vaLow, vaHigh);
      // The root of PAE paging does not begin at a page.
      const position = ((table & 0xfff) >>> 2) + (wide ? index * 2 : index);
      let low = words[position]!;
      let high = 0;
      if (wide) {
        high = words[position + 1]!;
        for (let attempt = 0; attempt < MAX_TORN_READS; attempt++) {
          low = words[position]!;
          const again = words[position + 1]!;
          if (again === high) {
            break;
          }
          high = again;
        }
      }
      const at = slot * MAX_LEVELS + depth;
      this.#tables[at] = words;
      this.#tableFrames[at] = frame;
      this.#entries[at * ENTRY_WORDS] = position;
      this.#entries[at * ENTRY_WORDS + 1] = low;
      this.#entries[at * ENTRY_WORDS + 2] = high;
      this.#depths[slot] = depth + 1;
      if ((low & PRESENT) === 0) {
        if (level.last) {
          this.#pageSizes[slot] = level.size;
          return Walk.NOT_PRESENT;
        }
        return Walk.NO_MAPPING;
      }
      if (isLeaf(level, low)) {
        this.#pageSizes[slot] = level.size;
        const gpa = leafAddress(paging, level.size, low, high, vaLow);
        this.#pageBases[slot] = gpa - (vaLow & 0xfff);
        this.gpa = gpa as Gpa;
        return Walk.OK;
      }
      table = tableAddress(low, high);
    }
    return Walk.NO_MAPPING;
  }

  get #paging(): Paging {
    return this.#pagings[this.#slot] as Paging;
  }

  #everyPresent(flag: number): boolean {
    for (let level = this.firstFlagLevel; level < this.depth; level++) {
      const low = this.entryLow(level);
      if ((low & PRESENT) !== 0 && (low & flag) === 0) {
        return false;
      }
    }
    return true;
  }
}
