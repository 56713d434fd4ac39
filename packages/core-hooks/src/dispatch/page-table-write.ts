import type { Gpa } from '@introd/abi';

/** A write to a page-table entry that has not happened yet. There is one object for all; nothing of it may be kept. */
export class PageTableWrite {
  /** Where the entry lies, a multiple of {@link size}. */
  gpa = 0 as Gpa;
  /** Bytes of the entry. The high halves of one of 4 bytes are 0. */
  size: 4 | 8 = 8;
  /** Low half of the entry as it is in memory. */
  oldLow = 0;
  /** High half of it. */
  oldHigh = 0;
  /** Low half of the entry as the write would leave it. Earlier callbacks' replacements show here. */
  newLow = 0;
  /** High half of it. */
  newHigh = 0;
  /** @internal Whether a callback replaced the value. */
  replaced = false;

  /** The entry as it is in memory. Allocates. */
  get old(): bigint {
    return (BigInt(this.oldHigh) << 32n) | BigInt(this.oldLow);
  }

  /** The entry as the write would leave it. Allocates. */
  get new(): bigint {
    return (BigInt(this.newHigh) << 32n) | BigInt(this.newLow);
  }

  /** @internal */
  copyFrom(other: PageTableWrite): void {
    this.gpa = other.gpa;
    this.size = other.size;
    this.oldLow = other.oldLow;
    this.oldHigh = other.oldHigh;
    this.newLow = other.newLow;
    this.newHigh = other.newHigh;
    this.replaced = other.replaced;
  }

  /**
   * Makes the write commit another entry: all its bytes, in one step; of an entry of 4 bytes the low half of `value`. Registers and flags become what the instruction
   * makes of the unreplaced value, so the guest's code does not notice before it reads the entry again.
   */
  replace(value: bigint): void {
    this.newLow = Number(BigInt.asUintN(32, value));
    this.newHigh = this.size === 8 ? Number(BigInt.asUintN(32, value >> 32n)) : 0;
    this.replaced = true;
  }
}
