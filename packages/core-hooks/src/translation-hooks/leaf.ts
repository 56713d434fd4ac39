import type { Gpa } from '@introd/abi';

/** Where a walk for a hook ended. */
export class Leaf {
  /** Low half of the last-level or large-page entry; 0 when an upper entry is absent. */
  low = 0;
  /** High half of it. */
  high = 0;
  /** Bytes of the page, also of an absent last-level entry; 0 when an upper entry is absent. */
  pageSize = 0;
  /** Physical address of the 4 KiB around the address; -1 when they are not mapped. */
  address = -1;

  get entry(): bigint {
    return (BigInt(this.high) << 32n) | BigInt(this.low);
  }

  get gpa(): Gpa | undefined {
    return this.address < 0 ? undefined : (this.address as Gpa);
  }

  set(low: number, high: number, pageSize: number, address: number): void {
    this.low = low;
    this.high = high;
    this.pageSize = pageSize;
    this.address = address;
  }

  copy(): Leaf {
    const leaf = new Leaf();
    leaf.set(this.low, this.high, this.pageSize, this.address);
    return leaf;
  }
}
