import type { Cr3, Gpa, Gva } from '@introd/abi';
import type { NamedHookOptions } from '../hook-calls.js';
import type { HookParent } from '../page-hooks/page-hooks.js';
import { type Paging, rootAddress } from '../translation/paging-mode.js';
import { Leaf } from './leaf.js';
import type { TranslationEvent } from './translation-event.js';
import type { TranslationHooks } from './translation-hooks.js';
import type { WatchedEntry } from './watched-entries.js';

/** Which address to follow, and who is asked and told. */
export interface TranslationHookOptions extends NamedHookOptions {
  /**
   * Address space. PCID and flag bits do not count. Of kernel addresses it is that of the operating system, once it is known
   * (`AddressSpaces.systemCr3`): other spaces share its tables.
   */
  readonly cr3: Cr3;
  /** Address; it need not be mapped. */
  readonly va: Gva;
  /**
   * High ones are called before normal ones, each in the order in which they were set. Every VCPU stands still from the moment a write is
   * asked about that concerns a high one until everybody was told. Default normal.
   */
  readonly priority?: 'high' | 'normal' | undefined;
  /** Asked before the write that changes the translation is made, perhaps more than once. */
  readonly callback?: ((event: TranslationEvent) => void) | undefined;
  /** Told after it was made, before the VCPU goes on. */
  readonly committed?: ((event: TranslationEvent) => void) | undefined;
  /** What the hook is a part of; `removeHook` of an event removes that as a whole. */
  readonly parent?: HookParent | undefined;
}

/** A hook on what a virtual address leads to. */
export class TranslationHook implements HookParent {
  readonly cr3: Cr3;
  readonly va: Gva;
  readonly priority: 'high' | 'normal';
  readonly callback: ((event: TranslationEvent) => void) | undefined;
  readonly committed: ((event: TranslationEvent) => void) | undefined;
  readonly parent: HookParent | undefined;
  /** @internal */
  readonly paging: Paging;
  /** @internal Physical address of the root table. */
  readonly root: number;
  /** @internal */
  readonly vaLow: number;
  /** @internal */
  readonly vaHigh: number;
  /** @internal Hooks are called in ascending order of it, high ones first. */
  readonly order: number;
  /** @internal The entries on the way, from the root down; an absent one is the last. */
  path: readonly WatchedEntry[] = [];
  /** @internal Where the way ends. */
  readonly leaf = new Leaf();
  #removed = false;
  readonly #owner: TranslationHooks;

  /** @internal */
  constructor(options: TranslationHookOptions, paging: Paging, order: number, owner: TranslationHooks) {
    this.cr3 = options.cr3;
    this.va = options.va;
    this.priority = options.priority ?? 'normal';
    this.callback = options.callback;
    this.committed = options.committed;
    this.parent = options.parent;
    this.paging = paging;
    const low32 = (value: bigint): number => Number(BigInt.asUintN(32, value));
    this.root = rootAddress(paging, low32(options.cr3), low32(options.cr3 >> 32n));
    this.vaLow = low32(options.va);
    this.vaHigh = low32(options.va >> 32n);
    this.order = order;
    this.#owner = owner;
  }

  /** The last-level or large-page entry, as last told; 0 while an upper entry is absent. Allocates. */
  get entry(): bigint {
    return this.leaf.entry;
  }

  /** Size in bytes of the page that it maps, or of an absent last-level entry; 0 while an upper entry is absent. */
  get pageSize(): number {
    return this.leaf.pageSize;
  }

  /** Where the 4 KiB around the address are; undefined while they are not mapped. */
  get gpa(): Gpa | undefined {
    return this.leaf.gpa;
  }

  /** Whether it was removed; its callbacks are not called any more. */
  get removed(): boolean {
    return this.#removed;
  }

  /** Removes the hook; the tables are given back before the next reply. May be called from inside any callback, and twice. */
  remove(): void {
    if (!this.#removed) {
      this.#removed = true;
      this.#owner.enqueueRemoval(this);
    }
  }
}
