import { type Access, accessText, type Cr3, type Gva, hex64, PAGE_SIZE } from '@introd/abi';
import type { AccessEvent } from '../dispatch/access-event.js';
import { CoreHooksError } from '../error.js';
import type { NamedHookOptions } from '../hook-calls.js';
import { requireAddressSpace } from '../option-checks.js';
import type { HookParent } from '../page-hooks/page-hooks.js';
import type { HashMismatch, VirtualHook } from './virtual-hook.js';
import type { VirtualHooks } from './virtual-hooks.js';

/** Most bytes of a region: the original warns above it. Each page costs a few hundred bytes of ours. */
const MAX_REGION = 2 ** 30;
const END_OF_ADDRESSES = 1n << 64n;

/** Which part of an object to hook. */
export interface RegionOptions extends NamedHookOptions {
  /** First byte; the region need not be mapped. */
  readonly va: Gva;
  /** Number of bytes, 1 up to 1 GiB. */
  readonly length: number;
  /** Exactly one of the {@link Access} bits. */
  readonly access: Access;
  /** See {@link VirtualHookOptions.callback}; `event.hook.parent.parent` is the region. */
  readonly callback: (event: AccessEvent) => void;
  readonly committed?: ((event: AccessEvent) => void) | undefined;
  readonly priority?: 'high' | 'normal' | undefined;
  /** See {@link VirtualHookOptions.hash}. */
  readonly hash?: boolean | undefined;
  readonly onHashMismatch?: ((mismatch: HashMismatch) => void) | undefined;
}

/** A hooked range of virtual addresses of any length. `removeHook` of an event on one of its pages removes all of it. */
export class HookedRegion implements HookParent {
  readonly va: Gva;
  readonly length: number;
  readonly access: Access;
  /** One hook for each page. */
  readonly hooks: readonly VirtualHook[];
  readonly #pages: VirtualHook[] = [];
  readonly #name: string | undefined;
  readonly #owner: HookedObject;
  #removed = false;

  /** @internal */
  constructor(options: RegionOptions, cr3: Cr3, virtual: VirtualHooks, owner: HookedObject) {
    const { va, length, access, callback, committed, priority, hash, onHashMismatch } = options;
    this.va = va;
    this.length = length;
    this.access = access;
    this.hooks = this.#pages;
    this.#name = options.name;
    this.#owner = owner;
    try {
      for (let done = 0; done < length; ) {
        const at = (va + BigInt(done)) as Gva;
        const count = Math.min(length - done, PAGE_SIZE - Number(at & 0xfffn));
        this.#pages.push(
          virtual.set({
            cr3,
            va: at,
            length: count,
            access,
            callback,
            committed,
            priority,
            hash,
            onHashMismatch,
            parent: this,
          }),
        );
        done += count;
      }
    } catch (cause) {
      this.#release();
      throw cause;
    }
  }

  /** Name of its account. */
  get name(): string {
    return this.#name ?? `region ${accessText(this.access)} ${hex64(this.va)}`;
  }

  /** Whether it was removed; its callback is not called any more. */
  get removed(): boolean {
    return this.#removed;
  }

  /** Removes the region with all its pages. May be called from inside any callback, and twice. */
  remove(): void {
    if (!this.#removed) {
      this.#release();
      this.#owner.forget(this);
    }
  }

  #release(): void {
    this.#removed = true;
    for (const hook of this.#pages) {
      hook.remove();
    }
  }
}

/** Hooked regions that belong together: a driver, a process's image. */
export class HookedObject {
  readonly cr3: Cr3;
  readonly #virtual: VirtualHooks;
  readonly #owner: RegionHooks;
  readonly #regions = new Set<HookedRegion>();
  #removed = false;

  /** @internal */
  constructor(cr3: Cr3, virtual: VirtualHooks, owner: RegionHooks) {
    this.cr3 = cr3;
    this.#virtual = virtual;
    this.#owner = owner;
  }

  /**
   * Hooks a region: all of its pages, or none.
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE, ERR_CORE_HOOKS_ACCESS, ERR_CORE_HOOKS_KERNEL_ADDRESS, ERR_CORE_HOOKS_REMOVED,
   *   ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CLOSED; what the backend throws
   */
  hook(options: RegionOptions): HookedRegion {
    const { va, length } = options;
    if (this.#removed) {
      throw new CoreHooksError('ERR_CORE_HOOKS_REMOVED', 'a region was to be hooked of an object that was removed', {
        hint: 'Create another object.',
      });
    }
    this.#virtual.requireAddress(va);
    if (!Number.isInteger(length) || length < 1 || length > MAX_REGION || va + BigInt(length) > END_OF_ADDRESSES) {
      throw new CoreHooksError('ERR_CORE_HOOKS_RANGE', `there is no region of ${length} bytes at ${hex64(va)}`, {
        address: hex64(va),
        hint: 'A region has 1 byte up to 1 GiB and does not wrap.',
      });
    }
    const region = new HookedRegion(options, this.cr3, this.#virtual, this);
    this.#regions.add(region);
    return region;
  }

  /** The regions, in the order in which they were hooked. */
  get regions(): Iterable<HookedRegion> {
    return this.#regions;
  }

  /** The first region that contains an address and whose access is one of those in `mask`. */
  find(va: Gva, mask: Access): HookedRegion | undefined {
    for (const region of this.#regions) {
      if (va >= region.va && va < region.va + BigInt(region.length) && (region.access & ~mask) === 0) {
        return region;
      }
    }
    return undefined;
  }

  /** Whether it was removed. */
  get removed(): boolean {
    return this.#removed;
  }

  /** Removes the object with all its regions. May be called from inside any callback, and twice. */
  remove(): void {
    if (!this.#removed) {
      this.#removed = true;
      for (const region of this.#regions) {
        region.remove();
      }
      this.#owner.forget(this);
    }
  }

  /** @internal */
  forget(region: HookedRegion): void {
    this.#regions.delete(region);
  }
}

/** Hooks on objects in virtual memory that are larger than a page (core-hooks.md section 9). */
export class RegionHooks {
  readonly #virtual: VirtualHooks;
  readonly #objects = new Set<HookedObject>();

  /** @internal */
  constructor(virtual: VirtualHooks) {
    this.#virtual = virtual;
  }

  /** An object without regions. @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CLOSED */
  create({ cr3 }: { readonly cr3: Cr3 }): HookedObject {
    this.#virtual.requireOpen();
    requireAddressSpace(cr3);
    const object = new HookedObject(cr3, this.#virtual, this);
    this.#objects.add(object);
    return object;
  }

  /** Number of objects that are not removed. */
  get count(): number {
    return this.#objects.size;
  }

  /** @internal */
  forget(object: HookedObject): void {
    this.#objects.delete(object);
  }

  /** @internal */
  clear(): void {
    this.#objects.clear();
  }
}
