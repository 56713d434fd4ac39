import { Access, accessText, type Gfn, type Gpa, hex64, PAGE_SIZE } from '@introd/abi';
import { requireCallback } from '../callback.js';
import type { AccessEvent } from '../dispatch/access-event.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { optionsError, requireOneAccess, requireOneOf, requirePriority, requireWithinPage } from '../option-checks.js';
import { FrameTable } from './frame-table.js';
import type { PageRights } from './page-rights.js';
import type { PendingCommits } from './pending-commits.js';

/** What to hook. */
export interface PageHookOptions extends NamedHookOptions {
  /** First byte. */
  readonly gpa: Gpa;
  /** Number of bytes, 1 or more; the range must lie within one page. */
  readonly length: number;
  /** Exactly one of the {@link Access} bits. */
  readonly access: Access;
  /** Called for each access that touches the range. */
  readonly callback: (event: AccessEvent) => void;
  /** High ones are called before normal ones, each in the order in which they were set. Default normal. */
  readonly priority?: 'high' | 'normal';
  /**
   * The range holds page-table entries of 8 bytes. For write hooks: the callback learns old and new value of the entry
   * before the write happens, may replace it, and is not called when no bit that matters changes (see `PageTableWrite`).
   * With `entrySize` 4 the entries are those of 32-bit paging.
   */
  readonly pagingStructure?: boolean | { readonly entrySize: 4 | 8 };
  /**
   * For write hooks: called after the callbacks let a write through, before the VCPU goes on. A write that the engine carries out is in
   * memory then; one that is left to the processor happens with the reply. What the event says of the write is what was decided about.
   */
  readonly committed?: ((event: AccessEvent) => void) | undefined;
  /** For read hooks: the guest must not see the range as it is, so that the page walker does not take it for entries either. */
  readonly hides?: boolean | undefined;
  /**
   * Whether an access to the bytes of the page from `first` up to `end` (offsets in the page, `end` not included) concerns the hook, when
   * not all of its range does. One that does not is none of its business, whatever it writes.
   */
  readonly concerns?: ((first: number, end: number) => boolean) | undefined;
  /** What the hook is a part of; `removeHook` of an event removes that as a whole. */
  readonly parent?: HookParent | undefined;
}

/** Something that consists of hooks: a hooked virtual address, a region. */
export interface HookParent {
  /** Name of its account. */
  readonly name?: string;
  /** What it is a part of itself. */
  readonly parent?: HookParent | undefined;
  /** Removes it and every hook that it consists of. */
  remove(): void;
}

/** Removes the outermost of what a hook is a part of. @internal */
export function removeChain(hook: HookParent): void {
  let outermost = hook;
  while (outermost.parent !== undefined) {
    outermost = outermost.parent;
  }
  outermost.remove();
}

/** A hook on a range of a physical page. */
export class PageHook {
  readonly gpa: Gpa;
  readonly length: number;
  readonly access: Access;
  readonly callback: (event: AccessEvent) => void;
  readonly priority: 'high' | 'normal';
  readonly pagingStructure: boolean;
  /** Size of the entries of a hook with `pagingStructure`. */
  readonly entrySize: 4 | 8;
  readonly committed: ((event: AccessEvent) => void) | undefined;
  readonly concerns: ((first: number, end: number) => boolean) | undefined;
  /** Whether nobody may see the range as it is, the page walker included. */
  readonly hides: boolean;
  /** What the hook is a part of. */
  readonly parent: HookParent | undefined;
  /** @internal First byte in the page. */
  readonly first: number;
  /** @internal First byte in the page behind the range. */
  readonly end: number;
  /** @internal The page that it is part of. */
  readonly page: HookedPage;
  /** @internal It is the engine's own: asked whatever other hooks say, and its calls do not count. */
  readonly isGuard: boolean;
  /** @internal Writes that touch it are carried out by the engine wherever it can, so that they are done before the reply. */
  readonly emulateWrites: boolean;
  #removed = false;
  readonly #name: string | undefined;
  readonly #owner: PageHooks;

  /** @internal */
  constructor(
    options: PageHookOptions,
    page: HookedPage,
    owner: PageHooks,
    calls: HookCalls | undefined,
    emulateWrites: boolean,
  ) {
    this.gpa = options.gpa;
    this.length = options.length;
    this.access = options.access;
    this.isGuard = calls === undefined;
    this.callback = this.#booked(options.callback, calls);
    this.priority = options.priority ?? 'normal';
    const pagingStructure = options.pagingStructure ?? false;
    this.pagingStructure = pagingStructure !== false && options.access === Access.WRITE;
    this.entrySize = typeof pagingStructure === 'object' ? pagingStructure.entrySize : 8;
    this.committed = options.committed && this.#booked(options.committed, calls);
    this.concerns = options.concerns;
    this.hides = options.hides ?? false;
    this.#name = options.name;
    this.parent = options.parent;
    this.first = options.gpa & (PAGE_SIZE - 1);
    this.end = this.first + options.length;
    this.page = page;
    this.emulateWrites = emulateWrites || this.pagingStructure;
    this.#owner = owner;
  }

  #booked(callback: (event: AccessEvent) => void, calls: HookCalls | undefined): (event: AccessEvent) => void {
    return calls === undefined || !calls.isBooked
      ? callback
      : calls.booked(
          () => this.name,
          callback,
          () => hex64(this.page.frame * PAGE_SIZE),
        );
  }

  /** Name of its account. */
  get name(): string {
    return this.#name ?? this.parent?.name ?? `${accessText(this.access)} ${hex64(this.gpa)}`;
  }

  /** Whether it was removed; its callback is not called any more. */
  get removed(): boolean {
    return this.#removed;
  }

  /** Removes the outermost of what the hook is a part of; the hook itself when it stands alone. */
  removeChain(): void {
    removeChain(this);
  }

  /**
   * Removes the hook. From now on its callback is not called; the page's rights follow before the next reply to the
   * guest. May be called from inside any callback. A second call does nothing.
   */
  remove(): void {
    if (!this.#removed) {
      this.#removed = true;
      this.#owner.enqueueRemoval(this);
    }
  }
}

/** The list that all who have no hooks share. */
const NO_HOOKS: readonly PageHook[] = [];

/** The hooks of one page by access, each list in calling order. Lists are replaced, never changed. */
export class HookedPage {
  reads = NO_HOOKS;
  writes = NO_HOOKS;
  executes = NO_HOOKS;
  constructor(readonly frame: Gfn) {}

  hooksOf(access: Access): readonly PageHook[] {
    return access === Access.WRITE ? this.writes : access === Access.READ ? this.reads : this.executes;
  }

  replace(access: Access, hooks: readonly PageHook[]): void {
    if (access === Access.WRITE) {
      this.writes = hooks;
    } else if (access === Access.READ) {
      this.reads = hooks;
    } else {
      this.executes = hooks;
    }
  }

  get isEmpty(): boolean {
    return this.reads.length === 0 && this.writes.length === 0 && this.executes.length === 0;
  }
}

/**
 * Hooks on physical pages. A page exits as a whole for the kinds of access that some hook on it wants to see; callbacks run only
 * for accesses that touch their range.
 */
export class PageHooks {
  readonly #rights: PageRights;
  readonly #pending: PendingCommits;
  readonly #pages = new FrameTable<HookedPage>();
  readonly #calls: HookCalls;
  #removed: PageHook[] = [];

  /** @internal */
  constructor(rights: PageRights, pending: PendingCommits, calls: HookCalls) {
    this.#calls = calls;
    this.#rights = rights;
    this.#pending = pending;
  }

  /**
   * Sets a hook. The backend is told at once; {@link flush} says how the guest's processors learn of it.
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE, ERR_CORE_HOOKS_ACCESS, ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_OPTIONS,
   *   ERR_CORE_HOOKS_CLOSED; what the backend throws. Nothing is set then.
   */
  set(options: PageHookOptions): PageHook {
    this.#calls.requireOpen();
    checkOptions(options);
    return this.#add(options, this.#calls, false);
  }

  /**
   * Makes all rights changed so far effective for every processor. It happens by itself before each reply and before the
   * engine waits for the next exit; whoever must know that no write goes unseen from here on (to read what it hooked) calls it.
   */
  flush(): void {
    this.#rights.flush();
  }

  /** Has the processors forget translations before the next reply. @internal */
  requestFlush(): void {
    this.#rights.requestFlush();
  }

  /** Number of hooks that are set and not removed. */
  get count(): number {
    let count = 0;
    for (const page of this.#pages.values()) {
      for (const hooks of [page.reads, page.writes, page.executes]) {
        count += hooks.filter((hook) => !hook.removed).length;
      }
    }
    return count;
  }

  /**
   * {@link set} for what the engine itself guards: no hook of a user can keep it from being asked, and its calls do not count.
   * @internal
   * @param emulateWrites see {@link PageHook.emulateWrites}
   */
  guard(options: PageHookOptions, emulateWrites = false): PageHook {
    return this.#add(options, undefined, emulateWrites);
  }

  #add(options: PageHookOptions, calls: HookCalls | undefined, emulateWrites: boolean): PageHook {
    const { gpa, access } = options;
    const frame = Math.floor(gpa / PAGE_SIZE) as Gfn;
    this.#rights.restrict(frame, access);
    let page = this.#pages.get(frame);
    if (page === undefined) {
      page = new HookedPage(frame);
      this.#pages.set(frame, page);
    }
    const hook = new PageHook(options, page, this, calls, emulateWrites);
    const hooks = page.hooksOf(access);
    const normal = hook.priority === 'high' ? hooks.findIndex((other) => other.priority === 'normal') : -1;
    if (hooks.length === 0) {
      page.replace(access, [hook]);
    } else {
      page.replace(access, normal < 0 ? [...hooks, hook] : hooks.toSpliced(normal, 0, hook));
    }
    return hook;
  }

  /** @internal The hooks of a frame; undefined when there are none. */
  pageOf(frame: number): HookedPage | undefined {
    return this.#pages.get(frame);
  }

  /** @internal Whether somebody wants to see writes to a frame. The guards of cached instructions do not count. */
  watchesWrites(frame: number): boolean {
    const writes = this.#pages.get(frame)?.writes ?? [];
    return writes.some((hook) => !hook.removed && (hook.pagingStructure || !hook.emulateWrites));
  }

  /** @internal */
  enqueueRemoval(hook: PageHook): void {
    this.#pending.any = true;
    if (this.#removed.length === 0) {
      // A list that is born with its one hook is much smaller than one that grows to it.
      this.#removed = [hook];
    } else {
      this.#removed.push(hook);
    }
  }

  /** @internal Takes removed hooks out of their pages and lifts the rights that only they restricted. */
  commitRemovals(): void {
    if (this.#removed.length === 0) {
      return;
    }
    const removed = this.#removed;
    this.#removed = [];
    for (const hook of removed) {
      const { page, access } = hook;
      const hooks = page.hooksOf(access);
      const at = hooks.indexOf(hook);
      if (at >= 0) {
        page.replace(access, hooks.length === 1 ? NO_HOOKS : hooks.toSpliced(at, 1));
        this.#rights.release(page.frame, access);
        if (page.isEmpty) {
          this.#pages.delete(page.frame);
        }
      }
    }
  }

  /** @internal Forgets every hook; the rights are restored by their owner. */
  clear(): void {
    this.#pages.clear();
    this.#removed = [];
  }
}

/** @throws CoreHooksError */
function checkOptions(options: PageHookOptions): void {
  const { gpa, length, access, pagingStructure, committed } = options;
  requireCallback(options.callback);
  if (!Number.isSafeInteger(gpa) || gpa < 0) {
    throw optionsError(`${String(gpa)} is no physical address`, 'Pass a whole number of bytes.');
  }
  requireWithinPage(gpa, gpa & (PAGE_SIZE - 1), length, 'Set one hook for each page of the range.');
  requireOneAccess(access, gpa);
  requirePriority(options.priority);
  if (committed !== undefined) {
    requireCallback(committed);
    requireWrite('committed', access);
  }
  if (options.hides === true && access !== Access.READ) {
    throw optionsError(`hides is of no use to a hook of access ${accessText(access)}`, 'It is for read hooks.');
  }
  if (pagingStructure !== undefined && pagingStructure !== false) {
    requireWrite('pagingStructure', access);
    checkEntries(gpa, length, pagingStructure === true ? 8 : pagingStructure.entrySize);
  }
}

function requireWrite(option: string, access: Access): void {
  if (access !== Access.WRITE) {
    throw optionsError(`${option} is of no use to a hook of access ${accessText(access)}`, 'It is for write hooks.');
  }
}

function checkEntries(gpa: number, length: number, entrySize: number): void {
  requireOneOf('the size of an entry', entrySize, [4, 8]);
  if (gpa % entrySize !== 0 || length % entrySize !== 0) {
    throw optionsError(
      `${length} bytes at ${hex64(gpa)} are not whole entries of ${entrySize} bytes`,
      'Hook whole page-table entries.',
    );
  }
}
