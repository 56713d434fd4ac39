import { Access, accessText, type Cr3, type Gpa, type Gva, PAGE_SIZE } from '@introd/abi';
import { requireCallback } from '../callback.js';
import type { EngineProblemKind } from '../engine-problem.js';
import type { HookCalls } from '../hook-calls.js';
import {
  optionsError,
  requireAddressSpace,
  requireLinearAddress,
  requireOneAccess,
  requirePriority,
  requireWithinPage,
} from '../option-checks.js';
import type { PageHooks } from '../page-hooks/page-hooks.js';
import type { PageCache } from '../translation/page-cache.js';
import type { Translator } from '../translation/translator.js';
import type { TranslationEvent } from '../translation-hooks/translation-event.js';
import type { TranslationHooks } from '../translation-hooks/translation-hooks.js';
import { VirtualHook, type VirtualHookOptions } from './virtual-hook.js';

/**
 * Puts what the guest believes to be in memory into bytes that were read from it: what is hidden from the guest must not count as a change.
 * @param bytes those at `va`, within one page; to be changed in place
 */
export type HiddenBytes = (cr3: Cr3, va: Gva, bytes: Uint8Array) => void;

/** What the virtual-address hooks need of the engine. */
export interface VirtualHooksContext {
  readonly calls: HookCalls;
  readonly translator: Translator;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/**
 * Hooks on virtual addresses (core-hooks.md section 8): a translation hook that moves a page hook to wherever the page is mapped, before the
 * VCPU that mapped it goes on.
 */
export class VirtualHooks {
  readonly #pageHooks: PageHooks;
  readonly #translations: TranslationHooks;
  readonly #pages: PageCache;
  readonly #context: VirtualHooksContext;
  readonly #hooks = new Set<VirtualHook>();
  /** Hooks whose page is mapped and could not be hooked; tried again before each reply. */
  readonly #refused = new Set<VirtualHook>();

  /** Set by whoever hides memory from the guest. */
  hiddenBytes: HiddenBytes | undefined;

  /** @internal */
  constructor(pageHooks: PageHooks, translations: TranslationHooks, pages: PageCache, context: VirtualHooksContext) {
    this.#pageHooks = pageHooks;
    this.#translations = translations;
    this.#pages = pages;
    this.#context = context;
  }

  /**
   * Sets a hook. When the page is mapped it is in force as a {@link PageHooks.set page hook} is.
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE, ERR_CORE_HOOKS_ACCESS, ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_KERNEL_ADDRESS,
   *   ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CLOSED; what the backend throws. Nothing is set then.
   */
  set(options: VirtualHookOptions): VirtualHook {
    const { va, length, access, cr3, priority } = options;
    this.requireOpen();
    requireAddressSpace(cr3);
    this.requireAddress(va);
    requireCallback(options.callback);
    requirePriority(priority);
    requireWithinPage(va, offsetOf(va), length, 'Hook a region of an object (hooks.regions) to hook several pages.');
    requireOneAccess(access, va);
    if (access !== Access.WRITE) {
      refuseOfWrites(options);
    }
    const hook = new VirtualHook(options, this.#context.calls, this);
    hook.translation = this.#translations.guard({
      cr3,
      va,
      priority,
      parent: hook,
      committed: (event) => this.#follow(hook, event),
    });
    try {
      this.#arm(hook);
    } catch (cause) {
      hook.remove();
      throw cause;
    }
    this.#hooks.add(hook);
    return hook;
  }

  /** @internal @throws CoreHooksError ERR_CORE_HOOKS_CLOSED */
  requireOpen(): void {
    this.#context.calls.requireOpen();
  }

  /** @internal @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS */
  requireAddress(va: Gva): void {
    requireLinearAddress(va, this.#context.translator.guestPaging);
  }

  /** Number of hooks that are set and not removed. */
  get count(): number {
    return this.#hooks.size;
  }

  /** Hooks the page that is mapped; does nothing when none is, or it is not RAM. */
  #arm(hook: VirtualHook): void {
    const { gpa: page } = hook.translation;
    if (page === undefined || this.#pages.get(page / PAGE_SIZE) === undefined) {
      return;
    }
    const { length, access, callback, committed, priority } = hook.options;
    hook.armed = this.#pageHooks.set({
      gpa: (page + offsetOf(hook.va)) as Gpa,
      length,
      access,
      callback,
      committed,
      ...(priority === undefined ? {} : { priority }),
      parent: hook,
    });
  }

  /** The hook's page is mapped elsewhere. */
  #follow(hook: VirtualHook, { oldGpa, newGpa }: TranslationEvent): void {
    if (oldGpa === newGpa) {
      return;
    }
    const hashed = this.#isHashed(hook);
    if (hook.armed !== undefined) {
      if (hashed) {
        hook.kept = this.#believed(hook, hook.armed.gpa);
      }
      hook.armed.remove();
      hook.armed = undefined;
    }
    if (newGpa !== undefined) {
      this.#rearm(hook);
    }
  }

  /** Hooks the page that came, and compares it with the one that went. */
  #rearm(hook: VirtualHook): void {
    try {
      this.#arm(hook);
      this.#refused.delete(hook);
    } catch (cause) {
      if (!this.#refused.has(hook)) {
        this.#refused.add(hook);
        this.#context.report('rights', 'the page under a virtual-address hook could not be hooked', cause);
      }
      return;
    }
    const { armed, kept } = hook;
    if (armed === undefined || kept === undefined) {
      return;
    }
    hook.kept = undefined;
    // The processor's writes exit from here on, so what is compared is what is guarded.
    this.#pageHooks.flush();
    const bytes = this.#believed(hook, armed.gpa);
    if (bytes?.some((byte, at) => byte !== kept[at])) {
      this.#tellMismatch(hook, armed.gpa);
    }
  }

  #tellMismatch(hook: VirtualHook, gpa: Gpa): void {
    try {
      hook.onHashMismatch?.({ hook, gpa });
    } catch (cause) {
      this.#context.report('callback', 'the callback about a changed page threw', cause);
    }
  }

  #isHashed(hook: VirtualHook): boolean {
    return (
      hook.options.hash === true && hook.access === Access.WRITE && !this.#translations.isOtherSpace(hook.translation)
    );
  }

  /** The bytes of the range as the guest believes them to be. */
  #believed(hook: VirtualHook, gpa: Gpa): Uint8Array | undefined {
    const page = this.#pages.get(Math.floor(gpa / PAGE_SIZE));
    if (page === undefined) {
      return undefined;
    }
    const first = gpa % PAGE_SIZE;
    const bytes = page.bytes.slice(first, first + hook.length);
    try {
      this.hiddenBytes?.(hook.cr3, hook.va, bytes);
    } catch (cause) {
      this.#context.report('callback', 'telling hidden bytes failed', cause);
      return undefined;
    }
    return bytes;
  }

  /** Tries again what the backend refused. @internal Before each reply. */
  settle(): void {
    if (this.#refused.size === 0) {
      return;
    }
    for (const hook of this.#refused) {
      if (hook.removed || hook.armed !== undefined || hook.translation.gpa === undefined) {
        this.#refused.delete(hook);
      } else {
        this.#rearm(hook);
      }
    }
  }

  /** @internal */
  release(hook: VirtualHook): void {
    this.#hooks.delete(hook);
    this.#refused.delete(hook);
    hook.translation.remove();
    hook.armed?.remove();
    hook.armed = undefined;
    hook.kept = undefined;
  }

  /** @internal */
  clear(): void {
    this.#hooks.clear();
    this.#refused.clear();
  }
}

function offsetOf(va: Gva): number {
  return Number(va & 0xfffn);
}

/** @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS for what only write hooks have */
function refuseOfWrites({ access, committed, hash, onHashMismatch }: VirtualHookOptions): void {
  if (committed !== undefined || hash === true || onHashMismatch !== undefined) {
    throw optionsError(
      `committed, hash and onHashMismatch are of no use to a hook of access ${accessText(access)}`,
      'They are for write hooks.',
    );
  }
}
