import { type Cr3, type Gva, rootOf } from '@introd/abi';
import { contentHash } from '../integrity/region-contents.js';
import type { ReadResult } from '../translation/guest-memory.js';
import { Cloak, type CloakContext, type CloakOptions } from './cloak.js';

/** What {@link MemoryCloaks} needs of the engine. */
export interface MemoryCloaksContext extends CloakContext {
  isKernelAddress(va: Gva): boolean;
}

/**
 * Hides bytes that the engine changes in the guest (core-hooks.md section 13). Who reads them sees the originals, who writes to them is
 * denied, and execution is not touched. What is hidden follows its virtual page: it leaves a frame before the guest gets it for something
 * else, and is on the next one before anybody sees that.
 */
export class MemoryCloaks {
  readonly #context: MemoryCloaksContext;
  readonly #cloaks = new Set<Cloak>();

  /** @internal */
  constructor(context: MemoryCloaksContext) {
    this.#context = context;
  }

  /**
   * Hides a region from now on.
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE, ERR_CORE_HOOKS_KERNEL_ADDRESS, ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CALLBACK,
   *   ERR_CORE_HOOKS_CLOSED; what the backend throws. Nothing is left in the guest then.
   */
  hide(options: CloakOptions): Cloak {
    this.#context.calls.requireOpen();
    const cloak = new Cloak(this.#context, options, (one) => this.#cloaks.delete(one));
    cloak.put();
    this.#cloaks.add(cloak);
    return cloak;
  }

  /** Number of regions hidden. */
  get count(): number {
    return this.#cloaks.size;
  }

  /** The region that an address is in. */
  find(cr3: Cr3, va: Gva): Cloak | undefined {
    for (const cloak of this.#cloaks) {
      if (cloak.contains(va) && this.#isSameSpace(cloak, cr3)) {
        return cloak;
      }
    }
    return undefined;
  }

  /** Fills `target` with what the guest believes to be at `va`. */
  readAsGuest(cr3: Cr3, va: Gva, target: Uint8Array): ReadResult {
    const result = this.#context.memory.readVirtual(cr3, va, target);
    this.overlay(cr3, va, target);
    return result;
  }

  /** CRC-32C of what the guest believes to be in a range; undefined when it cannot be read. */
  hash(cr3: Cr3, va: Gva, length: number): number | undefined {
    const bytes = new Uint8Array(length);
    return this.readAsGuest(cr3, va, bytes).status === 'ok' ? contentHash(bytes) : undefined;
  }

  /** Puts what the guest believes to be there into bytes that were read at `va`. */
  overlay(cr3: Cr3, va: Gva, bytes: Uint8Array): void {
    for (const cloak of this.#cloaks) {
      if (this.#isSameSpace(cloak, cr3)) {
        cloak.overlay(va, bytes);
      }
    }
  }

  /** @internal Before each reply. */
  settle(): void {
    for (const cloak of this.#cloaks) {
      cloak.settle();
    }
  }

  /** @internal Gives the guest every byte back that it believes to have. What cannot be written is reported. */
  clear(): void {
    for (const cloak of this.#cloaks) {
      try {
        cloak.remove({ restore: true });
      } catch (cause) {
        this.#context.report('backend', 'a cloaked region could not be taken back', cause);
        cloak.remove({ restore: false });
      }
    }
  }

  /** Kernel memory is the same in every address space. */
  #isSameSpace(cloak: Cloak, cr3: Cr3): boolean {
    return rootOf(cloak.cr3) === rootOf(cr3) || this.#context.isKernelAddress(cloak.va);
  }
}
