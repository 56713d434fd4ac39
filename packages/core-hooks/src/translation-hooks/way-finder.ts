import { type Cr3, PAGE_SIZE } from '@introd/abi';
import {
  entrySizeOf,
  indexAt,
  isLeaf,
  isPresent,
  leafAddress,
  PAGING_LEVELS,
  Paging,
  rootAddress,
  tableAddress,
} from '../translation/paging-mode.js';
import { Leaf } from './leaf.js';
import type { TranslationHook } from './translation-hook.js';
import type { WatchedEntries, WatchedEntry } from './watched-entries.js';

/** Finds the way of a hook through the page tables. There is one; its result holds until the next call. */
export class WayFinder {
  readonly #entries: WatchedEntries;
  readonly #systemCr3: () => Cr3 | undefined;

  /** Where the way ends. */
  readonly leaf = new Leaf();
  /** The entries on it, as far as they were to be watched. */
  path: WatchedEntry[] = [];

  /** @param systemCr3 that of the guest's operating system, while it is known */
  constructor(entries: WatchedEntries, systemCr3: () => Cr3 | undefined) {
    this.#entries = entries;
    this.#systemCr3 = systemCr3;
  }

  /**
   * Finds the way of a hook. Watched entries count with their known values, others as they are in memory.
   * @param watch whether to watch every entry on it; {@link path} holds them then
   * @param gpa an entry that shall count with another value
   * @throws what the backend throws when it does not guard a table; {@link path} holds what was reached
   */
  find(hook: TranslationHook, watch: boolean, gpa = -1, low = 0, high = 0): void {
    const { paging, vaLow, vaHigh } = hook;
    const entries = this.#entries;
    const { leaf } = this;
    const size = entrySizeOf(paging);
    this.path = [];
    leaf.set(0, 0, 0, -1);
    if (paging === Paging.NONE) {
      leaf.address = vaLow - (vaLow % PAGE_SIZE);
      return;
    }
    let table = hook.root;
    for (const level of PAGING_LEVELS[paging]!) {
      const at = table + indexAt(level, vaLow, vaHigh) * size;
      const entry = watch ? entries.watch(at, size, this.#coverage(hook, at)) : entries.get(at, size);
      if (watch && entry !== undefined) {
        this.path.push(entry);
        entries.join(entry, hook);
      }
      const value = entry ?? entries.read(at, size);
      if (value === undefined) {
        return;
      }
      const entryLow = at === gpa ? low : value.low;
      const entryHigh = at === gpa ? high : value.high;
      if (!isPresent(entryLow)) {
        if (level.last) {
          leaf.set(entryLow, entryHigh, level.size, -1);
        }
        return;
      }
      if (isLeaf(level, entryLow)) {
        const address = leafAddress(paging, level.size, entryLow, entryHigh, vaLow);
        leaf.set(entryLow, entryHigh, level.size, address - (address % PAGE_SIZE));
        return;
      }
      table = tableAddress(entryLow, entryHigh);
    }
  }

  /** Whether a hook follows an address space that is known not to be that of the operating system. */
  isOtherSpace(hook: TranslationHook): boolean {
    const systemCr3 = this.#systemCr3();
    return systemCr3 !== undefined && rootOf(hook.paging, systemCr3) !== hook.root;
  }

  /** How much of an entry's table to guard. */
  #coverage(hook: TranslationHook, at: number): 'pae' | 'user-half' | undefined {
    const onRoot = at >= hook.root && at < hook.root - (hook.root % PAGE_SIZE) + PAGE_SIZE;
    if (!onRoot) {
      return undefined;
    }
    if (hook.paging === Paging.PAE) {
      return at < hook.root + 32 ? 'pae' : undefined;
    }
    // In a table that maps itself, an address of users may select an entry of the upper half further down.
    const lower = at % PAGE_SIZE < PAGE_SIZE / 2;
    return lower && !isKernelAddress(hook) && this.isOtherSpace(hook) ? 'user-half' : undefined;
  }
}

/** Whether a hook's address lies in the half of the address space that kernels use. */
export function isKernelAddress(hook: TranslationHook): boolean {
  return (hook.paging < Paging.LEVEL_4 ? hook.vaLow : hook.vaHigh) >>> 31 !== 0;
}

function rootOf(paging: Paging, cr3: Cr3): number {
  return rootAddress(paging, Number(BigInt.asUintN(32, cr3)), Number(BigInt.asUintN(32, cr3 >> 32n)));
}
