import { Access, type Gpa, hex64, PAGE_SIZE, type Verdict } from '@introd/abi';
import { requireCallback, requireVerdict } from '../callback.js';
import type { AccessEvent } from '../dispatch/access-event.js';
import { mapsTheSame } from '../dispatch/page-table-entry.js';
import { CoreHooksError } from '../error.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { optionsError, requireOneOf } from '../option-checks.js';
import { FrameTable } from '../page-hooks/frame-table.js';
import type { PageHooks } from '../page-hooks/page-hooks.js';
import type { PendingCommits } from '../page-hooks/pending-commits.js';
import type { PageCache } from '../translation/page-cache.js';
import { readEntry } from './entry-read.js';
import { EntryWriteEvent } from './entry-write-event.js';
import { coverageOf, type EntryRoot, TablePage } from './table-page.js';

/** Which page-table entry to watch, and who is asked. */
export interface EntryHookOptions extends NamedHookOptions {
  /** The entry, aligned to its size. */
  readonly gpa: Gpa;
  /** 4 for 32-bit paging, else 8. */
  readonly entrySize: 4 | 8;
  /**
   * What part of the page holds entries: of a `pae` root its 32 bytes, of the top-level table of a process its `user-half`, the lower
   * 2048 bytes. Default all of it.
   */
  readonly root?: EntryRoot | undefined;
  /**
   * Asked before a write that changes P, R/W, U/S, PS or the address is made; not about those that only change other bits, or leave an absent
   * entry absent. Asked again when memory changes before the write is made.
   */
  readonly callback: (event: EntryWriteEvent) => void;
  /** Told after such a write was let through, before the VCPU goes on; and of the engine's own writes. */
  readonly committed?: ((event: EntryWriteEvent) => void) | undefined;
}

/** A watched page-table entry. */
export class EntryHook {
  readonly gpa: Gpa;
  readonly entrySize: 4 | 8;
  readonly callback: (event: EntryWriteEvent) => void;
  readonly committed: ((event: EntryWriteEvent) => void) | undefined;
  /** @internal */
  readonly table: TablePage;
  #removed = false;
  readonly #owner: EntryHooks;

  /** @internal */
  constructor(options: EntryHookOptions, table: TablePage, owner: EntryHooks) {
    this.gpa = options.gpa;
    this.entrySize = options.entrySize;
    this.callback = options.callback;
    this.committed = options.committed;
    this.table = table;
    this.#owner = owner;
  }

  /** Whether it was removed; its callbacks are not called any more. */
  get removed(): boolean {
    return this.#removed;
  }

  /** Removes the hook; its page is given back before the next reply. May be called from inside any callback, and twice. */
  remove(): void {
    if (!this.#removed) {
      this.#removed = true;
      this.#owner.enqueueRemoval(this);
    }
  }
}

/** What a write of the engine may change: the hooks of one entry, and what it holds now. */
interface EngineChange {
  readonly hooks: readonly EntryHook[];
  readonly oldLow: number;
  readonly oldHigh: number;
}

/** @internal */
export type EngineChanges = readonly EngineChange[];

/** Hooks on single page-table entries: any number on one entry, and one page hook for each table whatever their number. */
export class EntryHooks {
  readonly #pageHooks: PageHooks;
  readonly #pages: PageCache;
  readonly #pending: PendingCommits;
  readonly #failed: (cause: unknown) => Verdict;
  /** The tables that lie in a frame: nearly always one. */
  readonly #tables = new FrameTable<readonly TablePage[]>();
  readonly #event = new EntryWriteEvent();
  readonly #calls: HookCalls;
  #removed: EntryHook[] = [];

  /** @internal @param failed tells of a callback that failed, and says what its verdict is */
  constructor(
    pageHooks: PageHooks,
    pages: PageCache,
    pending: PendingCommits,
    calls: HookCalls,
    failed: (cause: unknown) => Verdict,
  ) {
    this.#calls = calls;
    this.#pending = pending;
    this.#pageHooks = pageHooks;
    this.#pages = pages;
    this.#failed = failed;
  }

  /**
   * Sets a hook. Whoever wants to know every change reads the entry after this and {@link PageHooks.flush}, not before.
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE when the entry is not aligned, or lies in the upper half of a `user-half`;
   *   ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CLOSED; what the backend throws. Nothing is set then.
   */
  set(options: EntryHookOptions): EntryHook {
    const { gpa, entrySize, root, callback, committed } = options;
    this.#calls.requireOpen();
    requireCallback(callback);
    if (committed !== undefined) {
      requireCallback(committed);
    }
    if (!Number.isSafeInteger(gpa) || gpa < 0) {
      throw optionsError(`${String(gpa)} is no physical address`, 'Pass a whole number of bytes.');
    }
    if (entrySize !== 4 && entrySize !== 8) {
      throw optionsError(`an entry has no ${String(entrySize)} bytes`, 'It has 4 in 32-bit paging, else 8.');
    }
    requireOneOf('the root', root, ['pae', 'user-half']);
    if (gpa % entrySize !== 0 || (root === 'user-half' && gpa % PAGE_SIZE >= PAGE_SIZE / 2)) {
      throw new CoreHooksError(
        'ERR_CORE_HOOKS_RANGE',
        `there is no watched entry of ${entrySize} bytes at ${hex64(gpa)}`,
        {
          address: hex64(gpa),
          hint: 'An entry is aligned to its size; those of a user half lie in the first 2048 bytes.',
        },
      );
    }
    const name = (): string => options.name ?? `page-table entry ${hex64(gpa)}`;
    return this.guard({
      ...options,
      callback: this.#calls.of(name, callback),
      committed: this.#calls.of(name, committed),
    });
  }

  /** {@link set} for the engine's own hooks, whose calls are nobody's. @internal */
  guard(options: EntryHookOptions): EntryHook {
    const { gpa, entrySize, root } = options;
    const coverage = coverageOf(gpa, entrySize, root);
    const frame = Math.floor(gpa / PAGE_SIZE);
    const tables = this.#tables.get(frame) ?? [];
    let table = tables.find((one) => one.key === coverage.key);
    if (table === undefined) {
      table = new TablePage(frame, coverage.key);
      this.#guard(table, coverage.start, coverage.length, entrySize);
      this.#tables.set(frame, [...tables, table]);
    } else if (table.length < coverage.length) {
      // First watched as a user half, now as a whole.
      const narrow = table.guard;
      this.#guard(table, coverage.start, coverage.length, entrySize);
      narrow.remove();
    }
    const hook = new EntryHook(options, table, this);
    table.add(hook);
    return hook;
  }

  #guard(table: TablePage, start: number, length: number, entrySize: 4 | 8): void {
    table.guard = this.#pageHooks.guard({
      gpa: start as Gpa,
      length,
      access: Access.WRITE,
      pagingStructure: { entrySize },
      concerns: (first, end) => table.watches(first, end, entrySize),
      callback: (event) => this.#ask(table, event),
      committed: (event) => this.#tell(table, event),
    });
    table.length = length;
  }

  /** Number of hooks that are set and not removed. */
  get count(): number {
    let count = 0;
    for (const tables of this.#tables.values()) {
      for (const table of tables) {
        count += table.liveHooks;
      }
    }
    return count;
  }

  #ask(table: TablePage, access: AccessEvent): void {
    const write = access.pageTableWrite!;
    const hooks = table.hooksAt(write.gpa);
    const event = this.#event;
    for (const hook of hooks) {
      if (hook.removed) {
        continue;
      }
      event.write = write;
      event.vcpu = access.vcpu;
      this.#call(hook, hook.callback, event);
      if (event.verdict > access.verdict) {
        access.verdict = event.verdict;
      }
    }
  }

  #tell(table: TablePage, access: AccessEvent): void {
    const write = access.pageTableWrite!;
    if (mapsTheSame(write)) {
      // Somebody replaced the value by one that changes nothing.
      return;
    }
    const event = this.#event;
    event.write = write;
    event.vcpu = access.vcpu;
    this.#tellAll(table.hooksAt(write.gpa), event);
  }

  #tellAll(hooks: readonly EntryHook[], event: EntryWriteEvent): void {
    for (const hook of hooks) {
      if (!hook.removed && hook.committed !== undefined) {
        this.#call(hook, hook.committed, event);
      }
    }
  }

  #call(hook: EntryHook, callback: (event: EntryWriteEvent) => void, event: EntryWriteEvent): void {
    event.hook = hook;
    event.verdict = 0;
    event.removeHook = false;
    try {
      callback(event);
      requireVerdict(event.verdict);
    } catch (cause) {
      event.verdict = this.#failed(cause);
    }
    if (event.removeHook) {
      hook.remove();
    }
  }

  /**
   * Looks at what the engine is about to write.
   * @internal
   * @returns to be given to {@link wrote} once it is written; undefined when no hook is concerned
   */
  beforeWrite(gpa: number, size: number): EngineChanges | undefined {
    if (this.#tables.size === 0) {
      return undefined;
    }
    let changes: EngineChange[] | undefined;
    const last = Math.floor((gpa + size - 1) / PAGE_SIZE);
    for (let frame = Math.floor(gpa / PAGE_SIZE); frame <= last; frame++) {
      for (const table of this.#tables.get(frame) ?? []) {
        for (const hooks of table.hooksBetween(gpa, gpa + size)) {
          const entry = readEntry(this.#pages, hooks[0]!.gpa, hooks[0]!.entrySize);
          if (entry !== undefined) {
            changes ??= [];
            changes.push({ hooks, oldLow: entry.low, oldHigh: entry.high });
          }
        }
      }
    }
    return changes;
  }

  /** Tells the hooks of what the engine wrote. @internal */
  wrote(changes: EngineChanges): void {
    for (const { hooks, oldLow, oldHigh } of changes) {
      const { gpa, entrySize } = hooks[0]!;
      const now = readEntry(this.#pages, gpa, entrySize);
      if (now === undefined) {
        continue;
      }
      // A callback may write in turn, so there is one event for each write.
      const event = new EntryWriteEvent();
      const { write } = event;
      write.gpa = gpa;
      write.oldLow = oldLow;
      write.oldHigh = oldHigh;
      write.newLow = now.low;
      write.newHigh = now.high;
      if (!mapsTheSame(write)) {
        this.#tellAll(hooks, event);
      }
    }
  }

  /** @internal */
  enqueueRemoval(hook: EntryHook): void {
    this.#pending.any = true;
    this.#removed.push(hook);
  }

  /** Takes removed hooks out of their tables, and the page hooks of those that nobody watches any more. @internal */
  commitRemovals(): void {
    if (this.#removed.length === 0) {
      return;
    }
    const removed = this.#removed;
    this.#removed = [];
    for (const hook of removed) {
      const { table } = hook;
      table.delete(hook);
      if (table.isEmpty) {
        this.#drop(table);
      }
    }
  }

  #drop(table: TablePage): void {
    const tables = this.#tables.get(table.frame) ?? [];
    const left = tables.filter((one) => one !== table);
    if (left.length === tables.length) {
      return;
    }
    table.guard.remove();
    if (left.length === 0) {
      this.#tables.delete(table.frame);
    } else {
      this.#tables.set(table.frame, left);
    }
  }

  /** Forgets every hook; the rights are restored by their owner. @internal */
  clear(): void {
    this.#tables.clear();
    this.#removed = [];
  }
}
