import type { Access } from '@introd/abi';

/** Most addresses of one instruction: ENTER with 31 levels reads and writes 62. */
export const MAX_ACCESSES = 64;

/**
 * The addresses that an instruction touches: parallel arrays, so that one list serves every exit without allocating.
 */
export class AccessList {
  /** Number of entries that hold. */
  count = 0;
  /** Whether addresses are missing, because the registers that they depend on are not to be had. */
  incomplete = false;
  /** Low halves of the linear addresses. */
  readonly low = new Uint32Array(MAX_ACCESSES);
  /** High halves. */
  readonly high = new Uint32Array(MAX_ACCESSES);
  /** Sizes in bytes; 0 when the size depends on the processor's state. */
  readonly size = new Uint32Array(MAX_ACCESSES);
  /** READ and WRITE bits of `Access`. */
  readonly access = new Uint8Array(MAX_ACCESSES);

  /** The linear address of an entry. Allocates. */
  address(index: number): bigint {
    return (BigInt(this.high[index]!) << 32n) | BigInt(this.low[index]!);
  }

  /** READ and WRITE bits of an entry. */
  accessOf(index: number): Access {
    return this.access[index]!;
  }
}
