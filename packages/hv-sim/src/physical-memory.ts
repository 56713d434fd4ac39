import { GPA_LIMIT, type Gpa, PAGE_SIZE } from '@introd/abi';
import type { MemoryRegion } from '@introd/glue';
import { HvSimError } from './error.js';
import { MACHINE_LIMITS } from './memory-map.js';

/** Most RAM that a machine can have, in bytes. */
const RAM_LIMIT = 2 ** 31;

/** Checks the regions of a machine and returns them in ascending order. */
export function sortedRegions(regions: readonly MemoryRegion[]): readonly MemoryRegion[] {
  const sorted = [...regions].sort((a, b) => a.start - b.start);
  let end = 0;
  let total = 0;
  for (const { start, size } of sorted) {
    const fits = Number.isInteger(start) && Number.isInteger(size) && start % PAGE_SIZE === 0 && size % PAGE_SIZE === 0;
    if (!fits || start < end || size <= 0 || start + size > GPA_LIMIT) {
      throw new HvSimError('ERR_HV_SIM_OPTIONS', 'a region of RAM is not page aligned, empty, or overlaps another', {
        address: `0x${Number(start).toString(16)}`,
        hint: 'start and size must be multiples of 4096 below 2^52',
      });
    }
    end = start + size;
    total += size;
  }
  if (sorted.length === 0 || sorted.length > MACHINE_LIMITS.REGIONS || total > RAM_LIMIT) {
    throw new HvSimError(
      'ERR_HV_SIM_OPTIONS',
      `RAM must be 1 to ${MACHINE_LIMITS.REGIONS} regions of together at most 2 GiB`,
    );
  }
  return sorted.map(({ start, size }) => ({ start, size }));
}

/** Where guest-physical addresses lie in the machine's tables. */
export class PhysicalMap {
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  readonly #firstFrames: number[] = [];
  /** Number of frames of RAM. */
  readonly frames: number;

  /** @param regions ascending, as {@link sortedRegions} returns them */
  constructor(readonly regions: readonly MemoryRegion[]) {
    let frames = 0;
    for (const { start, size } of regions) {
      this.#starts.push(start);
      this.#ends.push(start + size);
      this.#firstFrames.push(frames);
      frames += size / PAGE_SIZE;
    }
    this.frames = frames;
  }

  /** Position in RAM of an address, in bytes from its start; -1 when it is not RAM. */
  position(address: Gpa | number): number {
    for (let i = 0; i < this.#starts.length; i++) {
      if (address >= this.#starts[i]! && address < this.#ends[i]!) {
        return this.#firstFrames[i]! * PAGE_SIZE + (address - this.#starts[i]!);
      }
    }
    return -1;
  }

  /** Whether all `length` bytes at an address are RAM. */
  covers(address: number, length: number): boolean {
    if (!Number.isInteger(address) || address < 0) return false;
    let at = address;
    const end = address + length;
    // Regions ascend: those that touch each other form one range.
    for (let i = 0; i < this.#starts.length && at < end; i++) {
      if (at >= this.#starts[i]! && at < this.#ends[i]!) at = this.#ends[i]!;
    }
    return at >= end && (length > 0 || this.position(address) >= 0);
  }
}
