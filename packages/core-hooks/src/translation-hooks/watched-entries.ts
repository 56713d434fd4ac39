import type { Gpa } from '@introd/abi';
import type { Grants } from '../dispatch/grants.js';
import { NOBODY } from '../dispatch/grants.js';
import { FrameTable } from '../page-hooks/frame-table.js';
import type { PageHooks } from '../page-hooks/page-hooks.js';
import type { PendingCommits } from '../page-hooks/pending-commits.js';
import type { EntryHook, EntryHooks } from '../page-table-hooks/entry-hooks.js';
import { type EntryValue, readEntry } from '../page-table-hooks/entry-read.js';
import type { EntryWriteEvent } from '../page-table-hooks/entry-write-event.js';
import type { EntryRoot } from '../page-table-hooks/table-page.js';
import type { PageCache } from '../translation/page-cache.js';
import type { TranslationHook } from './translation-hook.js';

/** A page-table entry that lies on the way of some hooks: one object, whatever the number of hooks, levels and address spaces. */
export class WatchedEntry {
  hook!: EntryHook;
  /** Low half of its value: that in memory, or the one that a VCPU was just allowed to write. */
  low = 0;
  /** High half of it; 0 for entries of 4 bytes. */
  high = 0;
  /** The hooks whose way leads through it. */
  readonly users = new Set<TranslationHook>();
  /** Whether its value is to be compared with memory before the next reply. */
  uncertain = false;
  constructor(
    readonly gpa: Gpa,
    readonly entrySize: 4 | 8,
  ) {}
}

/** Who follows the entries. */
export interface EntryFollower {
  /** A write to an entry is asked about. */
  asked(entry: WatchedEntry, event: EntryWriteEvent): void;
  /** A write to an entry was let through. */
  committed(entry: WatchedEntry, event: EntryWriteEvent): void;
}

/** The page-table entries that translation hooks watch. Each is guarded *before* it is read, so no write goes unseen. */
export class WatchedEntries {
  readonly #hooks: EntryHooks;
  readonly #pageHooks: PageHooks;
  readonly #pages: PageCache;
  readonly #grants: Grants;
  readonly #pending: PendingCommits;
  readonly #follower: EntryFollower;
  readonly #entries = new FrameTable<WatchedEntry>();
  readonly #unused = new Set<WatchedEntry>();
  #uncertain: WatchedEntry[] = [];

  constructor(
    hooks: EntryHooks,
    pageHooks: PageHooks,
    pages: PageCache,
    grants: Grants,
    pending: PendingCommits,
    follower: EntryFollower,
  ) {
    this.#pending = pending;
    this.#hooks = hooks;
    this.#pageHooks = pageHooks;
    this.#pages = pages;
    this.#grants = grants;
    this.#follower = follower;
  }

  get size(): number {
    return this.#entries.size;
  }

  all(): Iterable<WatchedEntry> {
    return this.#entries.values();
  }

  /** The entry at an address, if it is watched. */
  get(gpa: number, entrySize: 4 | 8): WatchedEntry | undefined {
    return this.#entries.get(keyOf(gpa, entrySize));
  }

  /** What memory holds; undefined when it is not RAM. The object is changed by the next call. */
  read(gpa: number, entrySize: 4 | 8): EntryValue | undefined {
    return readEntry(this.#pages, gpa, entrySize);
  }

  /**
   * Watches an entry from now on, unless it is.
   * @returns undefined when it is not RAM
   * @throws what the backend throws when it does not guard the table
   */
  watch(gpa: number, entrySize: 4 | 8, root: EntryRoot | undefined): WatchedEntry | undefined {
    const known = this.get(gpa, entrySize);
    if (known !== undefined) {
      return known;
    }
    if (this.read(gpa, entrySize) === undefined) {
      return undefined;
    }
    const entry = new WatchedEntry(gpa as Gpa, entrySize);
    entry.hook = this.#hooks.guard({
      gpa: entry.gpa,
      entrySize,
      root,
      callback: (event) => this.#follower.asked(entry, event),
      committed: (event) => this.#follower.committed(entry, event),
    });
    this.#pageHooks.flush();
    const value = this.read(gpa, entrySize)!;
    entry.low = value.low;
    entry.high = value.high;
    if (this.#grants.writesTo(Math.floor(gpa / 4096), NOBODY)) {
      // A VCPU was allowed to write to this table before anybody asked about this entry.
      this.doubt(entry);
    }
    this.#entries.set(keyOf(gpa, entrySize), entry);
    this.#noteUnused(entry);
    return entry;
  }

  join(entry: WatchedEntry, hook: TranslationHook): void {
    entry.users.add(hook);
  }

  leave(entry: WatchedEntry, hook: TranslationHook): void {
    entry.users.delete(hook);
    if (entry.users.size === 0) {
      this.#noteUnused(entry);
    }
  }

  #noteUnused(entry: WatchedEntry): void {
    this.#unused.add(entry);
    this.#pending.any = true;
  }

  /** Makes the rights that hooks asked for effective. */
  flushRights(): void {
    this.#pageHooks.flush();
  }

  /** Has an entry compared with memory until no VCPU may be writing to its table any more. */
  doubt(entry: WatchedEntry): void {
    if (!entry.uncertain) {
      entry.uncertain = true;
      this.#uncertain.push(entry);
      this.#pending.any = true;
    }
  }

  /** Whether some entry is to be compared with memory. */
  get hasUncertain(): boolean {
    return this.#uncertain.length > 0;
  }

  /** The entries to be compared with memory now; they are certain from here on. */
  takeSettled(): readonly WatchedEntry[] {
    const settled: WatchedEntry[] = [];
    const open: WatchedEntry[] = [];
    for (const entry of this.#uncertain) {
      if (this.#grants.writesTo(Math.floor(entry.gpa / 4096), NOBODY)) {
        open.push(entry);
        this.#pending.any = true;
      } else {
        entry.uncertain = false;
        settled.push(entry);
      }
    }
    this.#uncertain = open;
    return settled;
  }

  /** Gives up the entries that no hook needs. */
  commitRemovals(): void {
    if (this.#unused.size === 0) {
      return;
    }
    for (const entry of this.#unused) {
      if (entry.users.size === 0) {
        entry.hook.remove();
        this.#entries.delete(keyOf(entry.gpa, entry.entrySize));
      }
    }
    this.#unused.clear();
  }

  clear(): void {
    this.#entries.clear();
    this.#unused.clear();
    this.#uncertain = [];
  }
}

/** An entry's number: addresses are multiples of 4, so the last bits say which size is meant. */
function keyOf(gpa: number, entrySize: 4 | 8): number {
  return entrySize === 8 ? gpa : gpa + 1;
}
