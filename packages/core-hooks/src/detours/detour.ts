import type { Gva } from '@introd/abi';
import type { Cloak } from '../memory-cloak/cloak.js';
import type { ArgumentLocation, DetourDescriptor, DetourHandler, HypercallKind } from './descriptor.js';

/** Bytes of each hypercall, and what stands in its place while it is off: one instruction of the same length. */
export const HYPERCALLS: Readonly<Record<HypercallKind, { readonly on: Uint8Array; readonly off: Uint8Array }>> = {
  int3: { on: Uint8Array.of(0xcc), off: Uint8Array.of(0x90) },
  vmcall: { on: Uint8Array.of(0x0f, 0x01, 0xc1), off: Uint8Array.of(0x66, 0x66, 0x90) },
};

/** Everything that a {@link Detour} was made of. @internal */
export interface DetourParts {
  readonly descriptor: DetourDescriptor;
  readonly handler: DetourHandler;
  readonly argumentLocations: readonly ArgumentLocation[] | undefined;
  readonly function: Gva;
  /** Bytes of the function that the branch replaced. */
  readonly prologueSize: number;
  readonly handlerAddress: Gva;
  readonly handlerSize: number;
  readonly relocatedAt: number;
  readonly handlerCloak: Cloak;
  readonly functionCloak: Cloak;
  /** Does something while every VCPU stands still, or throws what `pause` throws before anything is done. */
  readonly whilePaused: (action: () => void) => void;
  /** Takes the detour out of its list, and gives its memory back. */
  readonly release: (detour: Detour) => void;
}

/** Outcome of {@link Detour.modifyPublicData}. */
export type PublicDataResult = 'ok' | 'unknown-name' | 'too-long' | 'removed' | 'refused';

/** A function of the guest whose calls go through a handler. */
export class Detour {
  readonly #parts: DetourParts;
  #enabled = true;
  #branch = true;
  #removed = false;
  /** Calls of the callback. */
  hits = 0;

  /** @internal */
  constructor(parts: DetourParts) {
    this.#parts = parts;
  }

  get descriptor(): DetourDescriptor {
    return this.#parts.descriptor;
  }

  get name(): string {
    return this.#parts.descriptor.name;
  }

  /** Address of the function. */
  get function(): Gva {
    return this.#parts.function;
  }

  /** Address of the handler. */
  get handler(): Gva {
    return this.#parts.handlerAddress;
  }

  /** Bytes of the handler, with the moved instructions and the jump back. */
  get handlerSize(): number {
    return this.#parts.handlerSize;
  }

  /** Bytes of the function that the branch replaced. */
  get prologueSize(): number {
    return this.#parts.prologueSize;
  }

  get hypercallKind(): HypercallKind | undefined {
    return this.#parts.handler.hypercall?.kind;
  }

  /** RIP of the hypercall; undefined when the handler makes none. */
  get hypercall(): Gva | undefined {
    const { handler, handlerAddress } = this.#parts;
    return handler.hypercall === undefined ? undefined : ((handlerAddress + BigInt(handler.hypercall.offset)) as Gva);
  }

  /** Where the arguments are; undefined for the calling convention. */
  get argumentLocations(): readonly ArgumentLocation[] | undefined {
    return this.#parts.argumentLocations;
  }

  /** Whether the hypercall is made. */
  get enabled(): boolean {
    return this.#enabled;
  }

  /** Whether the function still branches to the handler. */
  get hasBranch(): boolean {
    return this.#branch;
  }

  get removed(): boolean {
    return this.#removed;
  }

  /**
   * Has the hypercall made, or not; the branch stays as it is.
   * @returns whether the guest's code changed
   * @throws what `pause` throws
   */
  setEnabled(enabled: boolean): boolean {
    const { hypercall } = this.#parts.handler;
    if (this.#removed || this.#enabled === enabled) {
      return false;
    }
    if (hypercall !== undefined) {
      const { on, off } = HYPERCALLS[hypercall.kind];
      this.#parts.handlerCloak.modifyPatched(hypercall.offset, enabled ? on : off);
    }
    this.#enabled = enabled;
    return hypercall !== undefined;
  }

  /**
   * Gives the function its bytes back and switches the hypercall off, for good. The handler stays for threads that are inside.
   * @throws what `pause` throws
   */
  disable(): void {
    if (!this.#removed) {
      this.#parts.whilePaused(() => {
        this.#parts.functionCloak.remove({ restore: true });
        this.#branch = false;
        this.setEnabled(false);
      });
    }
  }

  /**
   * Takes everything back: branch, handler, memory. Whether a thread is inside the handler must be looked at before
   * ({@link ThreadSafety}).
   * @throws what `pause` throws
   */
  remove(): void {
    if (!this.#removed) {
      this.#parts.whilePaused(() => {
        this.disable();
        this.#parts.handlerCloak.remove({ restore: true });
        this.#removed = true;
        this.#parts.release(this);
      });
    }
  }

  /** @internal Leaves the handler where it is, for a thread that may be inside when the engine ends. */
  leave(): void {
    this.#parts.handlerCloak.remove({ restore: false });
  }

  /**
   * Changes bytes of the handler that its descriptor names.
   * @returns `too-long`: more than were declared
   */
  modifyPublicData(name: string, bytes: Uint8Array): PublicDataResult {
    const item = this.#parts.handler.publicData?.find((one) => one.name === name);
    if (this.#removed) {
      return 'removed';
    }
    if (item === undefined) {
      return 'unknown-name';
    }
    if (bytes.length < 1 || bytes.length > item.size) {
      return 'too-long';
    }
    return this.#parts.handlerCloak.modifyPatched(item.offset, bytes) ? 'ok' : 'refused';
  }

  /** Whether an address is in the handler. */
  containsInHandler(va: bigint): boolean {
    return !this.#removed && va >= this.handler && va < this.handler + BigInt(this.handlerSize);
  }

  /** Whether an address is in the part of the function that the branch replaced. */
  containsInPrologue(va: bigint): boolean {
    return this.#branch && va >= this.function && va < this.function + BigInt(this.prologueSize);
  }

  /** Where an instruction went that the branch replaced. The start of the function did not: the branch is there. */
  relocate(va: bigint): Gva | undefined {
    return this.containsInPrologue(va) && va !== this.function
      ? ((this.handler + BigInt(this.#parts.relocatedAt) + (va - this.function)) as Gva)
      : undefined;
  }
}
