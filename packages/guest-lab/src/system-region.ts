import { type Gva, gva, PAGE_SIZE } from '@introd/abi';
import type { AddressSpace } from './address-space.js';

/** Kernel memory for stacks and processor structures, handed out in order with an unmapped page behind each piece. */
export class SystemRegion {
  #next: bigint;

  constructor(
    private readonly space: AddressSpace,
    start: Gva,
  ) {
    this.#next = start;
  }

  /** Maps zeroed read/write memory of whole pages. @returns its first byte */
  allocate(size: number): Gva {
    const va = gva(this.#next);
    const whole = Math.ceil(size / PAGE_SIZE) * PAGE_SIZE;
    this.space.map(va, whole, { write: true });
    this.#next += BigInt(whole + PAGE_SIZE);
    return va;
  }

  /** Maps given consecutive frames read/write. @returns the first byte */
  mapFrames(frame: number, size: number): Gva {
    const va = gva(this.#next);
    this.space.mapTo(va, size, frame, { write: true });
    this.#next += BigInt(size + PAGE_SIZE);
    return va;
  }

  /** Maps a stack. @returns its lowest byte and the first byte above it */
  stack(size: number): { readonly limit: Gva; readonly top: Gva } {
    const limit = this.allocate(size);
    return { limit, top: gva(limit + BigInt(size)) };
  }
}
