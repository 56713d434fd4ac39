import { type Access, accessText, type Cr3, type Gpa, type Gva, hex64 } from '@introd/abi';
import type { AccessEvent } from '../dispatch/access-event.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import type { HookParent, PageHook } from '../page-hooks/page-hooks.js';
import type { TranslationHook } from '../translation-hooks/translation-hook.js';
import type { VirtualHooks } from './virtual-hooks.js';

/** What came back on a page that was away is not what had been there. */
export interface HashMismatch {
  readonly hook: VirtualHook;
  /** Where the first hooked byte is now. */
  readonly gpa: Gpa;
}

/** What to hook. */
export interface VirtualHookOptions extends NamedHookOptions {
  /** Address space, see {@link TranslationHookOptions.cr3}. */
  readonly cr3: Cr3;
  /** First byte; it need not be mapped. */
  readonly va: Gva;
  /** Number of bytes, 1 or more; the range must lie within one page of 4096 bytes. */
  readonly length: number;
  /** Exactly one of the {@link Access} bits. */
  readonly access: Access;
  /** Called for each access that touches the range, by whatever address. `event.hook.parent` is the virtual hook. */
  readonly callback: (event: AccessEvent) => void;
  /** See {@link PageHookOptions.committed}. */
  readonly committed?: ((event: AccessEvent) => void) | undefined;
  /** Among the hooks of one access, and among those told of a translation. Default normal. */
  readonly priority?: 'high' | 'normal' | undefined;
  /**
   * Whether the bytes of the range are kept while the page is away, and compared when it comes back. Only write hooks in the address
   * space of the operating system do so: others cannot know who may have changed the page.
   */
  readonly hash?: boolean | undefined;
  /** Called when they differ. The new bytes stay. */
  readonly onHashMismatch?: ((mismatch: HashMismatch) => void) | undefined;
  /** What the hook is a part of; `removeHook` of an event removes that as a whole. */
  readonly parent?: HookParent | undefined;
}

/** A hook on a range of a virtual page: on the physical page that is mapped there, whichever it is, and on none while none is. */
export class VirtualHook implements HookParent {
  readonly cr3: Cr3;
  readonly va: Gva;
  readonly length: number;
  readonly access: Access;
  readonly priority: 'high' | 'normal';
  readonly parent: HookParent | undefined;
  /** @internal */
  readonly options: VirtualHookOptions;
  /** @internal */
  readonly onHashMismatch: ((mismatch: HashMismatch) => void) | undefined;
  /** @internal */
  translation!: TranslationHook;
  /** @internal The hook on the page that is mapped. */
  armed: PageHook | undefined;
  /** @internal The bytes of the range when the page went away. */
  kept: Uint8Array | undefined;
  #removed = false;
  readonly #owner: VirtualHooks;

  /** @internal */
  constructor(options: VirtualHookOptions, calls: HookCalls, owner: VirtualHooks) {
    this.cr3 = options.cr3;
    this.va = options.va;
    this.length = options.length;
    this.access = options.access;
    this.priority = options.priority ?? 'normal';
    this.parent = options.parent;
    this.options = options;
    this.onHashMismatch = calls.of(() => this.name, options.onHashMismatch);
    this.#owner = owner;
  }

  /** Where the first hooked byte is; undefined while the page is not mapped, or what is mapped cannot be hooked. */
  get gpa(): Gpa | undefined {
    return this.armed?.gpa;
  }

  /** Virtual address of a physical one on the page where the hook is now: what an access by another mapping means here. */
  addressOf(gpa: Gpa): Gva | undefined {
    return this.armed === undefined ? undefined : (BigInt.asUintN(64, this.va + BigInt(gpa - this.armed.gpa)) as Gva);
  }

  /** Name of its account. */
  get name(): string {
    return this.options.name ?? this.parent?.name ?? `virtual ${accessText(this.access)} ${hex64(this.va)}`;
  }

  /** Whether it was removed; its callback is not called any more. */
  get removed(): boolean {
    return this.#removed;
  }

  /** Removes the hook; rights follow before the next reply. May be called from inside any callback, and twice. */
  remove(): void {
    if (!this.#removed) {
      this.#removed = true;
      this.#owner.release(this);
    }
  }
}
