import { type Cr3, hex64, type VcpuRecord, type Verdict } from '@introd/abi';
import type { PauseCapability } from '@introd/glue';
import { requireCallback, requireVerdict } from '../callback.js';
import { changesMapping } from '../dispatch/page-table-entry.js';
import type { EngineProblemKind } from '../engine-problem.js';
import { CoreHooksError } from '../error.js';
import { resumeGuest } from '../guest-pause.js';
import type { HookCalls } from '../hook-calls.js';
import { requireAddressSpace, requireLinearAddress, requirePriority } from '../option-checks.js';
import { removeChain } from '../page-hooks/page-hooks.js';
import type { PendingCommits } from '../page-hooks/pending-commits.js';
import type { EntryWriteEvent } from '../page-table-hooks/entry-write-event.js';
import type { Paging } from '../translation/paging-mode.js';
import type { Translator } from '../translation/translator.js';
import { TranslationEvent } from './translation-event.js';
import { TranslationHook, type TranslationHookOptions } from './translation-hook.js';
import type { EntryFollower, WatchedEntries, WatchedEntry } from './watched-entries.js';
import { isKernelAddress, WayFinder } from './way-finder.js';

/** Changes followed in one go. A change can only lead to another one through a callback that writes to a watched table. */
const MAX_CHANGES = 64;

/** What the translation hooks need of the engine. */
export interface TranslationHooksContext {
  readonly port: PauseCapability;
  readonly translator: Translator;
  readonly calls: HookCalls;
  readonly fallback: Verdict;
  readonly addressSpaces: { readonly systemCr3: Cr3 | undefined };
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/** An entry got another value. */
interface Change {
  readonly entry: WatchedEntry;
  readonly vcpu: VcpuRecord | undefined;
  readonly low: number;
  readonly high: number;
}

/** A hook to be told. */
interface Told {
  readonly hook: TranslationHook;
  readonly event: TranslationEvent;
}

/**
 * Hooks on what virtual addresses lead to ("swap" hooks; core-hooks.md section 7). Every entry on the way of a hook is watched, absent
 * upper ones included, and the way is found anew after each write that matters: so splits and merges of large pages, remapped tables and
 * tables that several address spaces share are all the same case.
 */
export class TranslationHooks implements EntryFollower {
  readonly #context: TranslationHooksContext;
  readonly #pending: PendingCommits;
  readonly #hooks = new Set<TranslationHook>();
  #entries!: WatchedEntries;
  #way!: WayFinder;
  #removed: TranslationHook[] = [];
  /** Hooks some table on whose way could not be guarded. */
  readonly #incomplete = new Set<TranslationHook>();
  readonly #changes: Change[] = [];
  #following = false;
  #paused = false;
  #nextOrder = 0;

  /** @internal */
  constructor(context: TranslationHooksContext, pending: PendingCommits) {
    this.#context = context;
    this.#pending = pending;
  }

  /** Says which entries to follow by. @internal Called once, before anything else. */
  watchThrough(entries: WatchedEntries): void {
    this.#entries = entries;
    this.#way = new WayFinder(entries, () => this.#context.addressSpaces.systemCr3);
  }

  /**
   * Sets a hook, in the paging mode of the guest's operating system. Nobody is called for how things stand.
   * @throws CoreHooksError ERR_CORE_HOOKS_KERNEL_ADDRESS for a kernel address in another space than that of the operating system;
   *   ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws. Nothing is set then.
   */
  set(options: TranslationHookOptions): TranslationHook {
    const { calls, translator } = this.#context;
    const { cr3, va, callback, committed } = options;
    calls.requireOpen();
    requireAddressSpace(cr3);
    requireLinearAddress(va, translator.guestPaging);
    requirePriority(options.priority);
    for (const given of [callback, committed]) {
      if (given !== undefined) {
        requireCallback(given);
      }
    }
    const name = (): string => options.name ?? `translation of ${hex64(va)}`;
    return this.guard({ ...options, callback: calls.of(name, callback), committed: calls.of(name, committed) });
  }

  /** {@link set} for the engine's own hooks, whose calls are nobody's. @internal */
  guard(options: TranslationHookOptions): TranslationHook {
    return this.#set(options, this.#context.translator.guestPaging, true);
  }

  /** {@link guard} for the VCPU whose exit is handled: in its paging mode, and in whatever address space it is. @internal */
  follow(options: TranslationHookOptions): TranslationHook {
    return this.#set(options, this.#context.translator.vcpuPaging, false);
  }

  #set(options: TranslationHookOptions, paging: Paging, systemOnly: boolean): TranslationHook {
    const hook = new TranslationHook(options, paging, this.#nextOrder++, this);
    if (systemOnly && isKernelAddress(hook) && this.isOtherSpace(hook)) {
      throw new CoreHooksError(
        'ERR_CORE_HOOKS_KERNEL_ADDRESS',
        `the kernel address ${hex64(options.va)} was to be followed with the CR3 of a process`,
        {
          address: hex64(options.va),
          hint: 'Pass the CR3 of the operating system; processes share its kernel tables.',
        },
      );
    }
    try {
      this.#way.find(hook, true);
    } catch (cause) {
      for (const entry of this.#way.path) {
        this.#entries.leave(entry, hook);
      }
      throw cause;
    }
    this.#take(hook);
    this.#hooks.add(hook);
    return hook;
  }

  /** Number of hooks that are set and not removed. */
  get count(): number {
    let count = 0;
    for (const hook of this.#hooks) {
      count += hook.removed ? 0 : 1;
    }
    return count;
  }

  /** Number of page-table entries watched for them, since the last reply. */
  get watchedEntries(): number {
    return this.#entries.size;
  }

  /** Whether a hook follows an address space that is known not to be that of the operating system. @internal */
  isOtherSpace(hook: TranslationHook): boolean {
    return this.#way.isOtherSpace(hook);
  }

  /** Gives a hook the way that was found. */
  #take(hook: TranslationHook): void {
    for (const entry of hook.path) {
      if (!this.#way.path.includes(entry)) {
        this.#entries.leave(entry, hook);
      }
    }
    hook.path = this.#way.path;
    const { low, high, pageSize, address } = this.#way.leaf;
    hook.leaf.set(low, high, pageSize, address);
  }

  /** @internal */
  asked(entry: WatchedEntry, write: EntryWriteEvent): void {
    for (const hook of inOrder(entry)) {
      const high = hook.priority === 'high';
      if (hook.removed || (hook.callback === undefined && !high)) {
        continue;
      }
      this.#way.find(hook, false, entry.gpa, write.newLow, write.newHigh);
      if (hook.leaf.address < 0 && this.#way.leaf.address < 0) {
        continue;
      }
      if (high) {
        this.#pause();
      }
      if (hook.callback !== undefined) {
        const event = new TranslationEvent(hook, write.vcpu, hook.leaf, this.#way.leaf);
        this.#call(hook.callback, event);
        if (event.verdict > write.verdict) {
          write.verdict = event.verdict;
        }
      }
    }
  }

  /** @internal */
  committed(entry: WatchedEntry, { vcpu, newLow, newHigh }: EntryWriteEvent): void {
    if (!this.#isInMemory(entry, newLow, newHigh)) {
      // It is the processor that writes it, a little later; or an interrupt keeps it from doing so.
      this.#entries.doubt(entry);
    }
    this.#change({ entry, vcpu, low: newLow, high: newHigh });
  }

  #isInMemory(entry: WatchedEntry, low: number, high: number): boolean {
    try {
      const now = this.#entries.read(entry.gpa, entry.entrySize);
      return now !== undefined && !changesMapping(now.low, now.high, low, high);
    } catch {
      return false;
    }
  }

  /** Follows a change, after those that are being followed. */
  #change(change: Change): void {
    this.#changes.push(change);
    if (this.#following) {
      return;
    }
    this.#following = true;
    const mayResume = !this.#paused;
    try {
      for (let count = 0; count < this.#changes.length; count++) {
        if (count === MAX_CHANGES) {
          this.#context.report('retry-limit', `more than ${MAX_CHANGES} changes of page tables led to one another`);
          for (const { entry } of this.#changes.slice(count)) {
            this.#entries.doubt(entry);
          }
          break;
        }
        this.#follow(this.#changes[count]!);
      }
    } finally {
      this.#changes.length = 0;
      this.#following = false;
      if (mayResume && this.#paused && change.vcpu === undefined) {
        // No reply follows that would do it.
        this.#entries.flushRights();
        this.resume();
      }
    }
  }

  #follow({ entry, vcpu, low, high }: Change): void {
    entry.low = low;
    entry.high = high;
    const told: Told[] = [];
    for (const hook of inOrder(entry)) {
      if (!hook.removed) {
        this.#update(hook, vcpu, told);
      }
    }
    this.#tell(told);
  }

  /** Finds the way of a hook anew, and notes that it is to be told. */
  #update(hook: TranslationHook, vcpu: VcpuRecord | undefined, told: Told[]): void {
    const before = hook.leaf.copy();
    try {
      this.#way.find(hook, true);
      this.#take(hook);
      this.#incomplete.delete(hook);
    } catch (cause) {
      this.#takeUnguarded(hook, cause);
    }
    if (before.address >= 0 || hook.leaf.address >= 0) {
      if (hook.priority === 'high') {
        this.#pause();
      }
      if (hook.committed !== undefined) {
        told.push({ hook, event: new TranslationEvent(hook, vcpu, before, hook.leaf) });
      }
    }
  }

  /** Gives a hook the way that the tables show, though not all of it could be guarded; that is tried again before each reply. */
  #takeUnguarded(hook: TranslationHook, cause: unknown): void {
    this.#pending.any = true;
    if (!this.#incomplete.has(hook)) {
      this.#incomplete.add(hook);
      this.#context.report('rights', 'a page table on the way of a translation hook could not be guarded', cause);
    }
    const guarded = this.#way.path;
    try {
      this.#way.find(hook, false);
    } catch {
      // Nothing is known; the hook stays where it was.
      const { low, high, pageSize, address } = hook.leaf;
      this.#way.leaf.set(low, high, pageSize, address);
    }
    this.#way.path = guarded;
    this.#take(hook);
  }

  #tell(told: readonly Told[]): void {
    for (const { hook, event } of told) {
      if (!hook.removed) {
        this.#call(hook.committed!, event);
      }
    }
  }

  #call(callback: (event: TranslationEvent) => void, event: TranslationEvent): void {
    try {
      callback(event);
      requireVerdict(event.verdict);
    } catch (cause) {
      event.verdict = this.#context.fallback;
      this.#context.report('callback', 'the callback of a translation hook failed', cause);
    }
    if (event.removeHook) {
      removeChain(event.hook);
    }
  }

  /**
   * Compares entries with memory whose write was left to the processor, and tries again what the backend refused.
   * @internal Before each reply, and before the engine waits.
   */
  settle(): void {
    if (this.#entries.hasUncertain) {
      for (const entry of this.#entries.takeSettled()) {
        try {
          this.#compare(entry);
        } catch (cause) {
          this.#entries.doubt(entry);
          this.#context.report('backend', 'a page-table entry could not be read', cause);
        }
      }
    }
    if (this.#incomplete.size === 0) {
      return;
    }
    for (const hook of this.#incomplete) {
      if (hook.removed) {
        this.#incomplete.delete(hook);
        continue;
      }
      const { low, high, address } = hook.leaf;
      const told: Told[] = [];
      this.#update(hook, undefined, told);
      if (hook.leaf.address !== address || changesMapping(low, high, hook.leaf.low, hook.leaf.high)) {
        this.#tell(told);
      }
    }
  }

  /**
   * Compares every watched entry with memory. A difference that should have been seen is reported and followed.
   * @internal At each tick.
   */
  check(): void {
    if (this.#entries.size === 0) {
      return;
    }
    for (const entry of Array.from(this.#entries.all())) {
      if (!entry.uncertain && this.#compare(entry)) {
        this.#context.report(
          'missed-page-table-write',
          `the page-table entry at ${hex64(entry.gpa)} changed without an exit`,
        );
      }
    }
  }

  #compare(entry: WatchedEntry): boolean {
    const now = this.#entries.read(entry.gpa, entry.entrySize);
    if (entry.users.size === 0 || now === undefined || !changesMapping(entry.low, entry.high, now.low, now.high)) {
      return false;
    }
    this.#change({ entry, vcpu: undefined, low: now.low, high: now.high });
    return true;
  }

  #pause(): void {
    if (!this.#paused) {
      try {
        this.#context.port.pause();
        this.#paused = true;
        this.#pending.any = true;
      } catch (cause) {
        this.#context.report('backend', 'the backend refused to pause the guest', cause);
      }
    }
  }

  /** Lets the VCPUs go on that were stopped for hooks of high priority. @internal After the new rights are in force. */
  resume(): void {
    if (this.#paused) {
      // What was refused is reported, and so it is tried again at the next commit.
      this.#paused = !resumeGuest(this.#context);
    }
  }

  /** @internal */
  enqueueRemoval(hook: TranslationHook): void {
    this.#pending.any = true;
    this.#removed.push(hook);
  }

  /** Gives up the ways of removed hooks. @internal */
  commitRemovals(): void {
    if (this.#removed.length > 0) {
      const removed = this.#removed;
      this.#removed = [];
      for (const hook of removed) {
        this.#hooks.delete(hook);
        for (const entry of hook.path) {
          this.#entries.leave(entry, hook);
        }
        hook.path = [];
      }
    }
    this.#entries.commitRemovals();
  }

  /** Forgets every hook; the rights are restored by their owner. @internal */
  clear(): void {
    this.resume();
    this.#hooks.clear();
    this.#removed = [];
    this.#incomplete.clear();
    this.#entries.clear();
  }
}

/** Hooks whose way leads through an entry, in the order in which they are called. */
function inOrder(entry: WatchedEntry): TranslationHook[] {
  const hooks = [...entry.users];
  if (hooks.length > 1) {
    hooks.sort(
      (one, other) => Number(other.priority === 'high') - Number(one.priority === 'high') || one.order - other.order,
    );
  }
  return hooks;
}
