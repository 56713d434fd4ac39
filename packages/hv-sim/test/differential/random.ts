/**
 * A small seeded generator (mulberry32). Recorded vectors are rebuilt from its output, so its numbers must never
 * change; record the vectors again if they do.
 */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 32 random bits. */
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** 64 random bits. */
  u64(): bigint {
    const low = this.u32();
    return (BigInt(this.u32()) << 32n) | BigInt(low);
  }

  /** 0..bound-1 */
  below(bound: number): number {
    return this.u32() % bound;
  }

  /** True in one of `n` cases. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  /** One of the choices. */
  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  /**
   * A 64-bit value with a bias to where instructions err: 0, ±1, sign bits and maxima of all four operand sizes, powers
   * of two and their neighbours, small numbers that serve as counts.
   */
  edge(): bigint {
    switch (this.below(10)) {
      case 0:
        return this.pick(EDGES);
      case 1:
        return BigInt(this.below(80));
      case 2:
        return BigInt.asUintN(64, -BigInt(this.below(80)));
      case 3:
        return 1n << BigInt(this.below(64));
      case 4:
        return BigInt.asUintN(64, (1n << BigInt(this.below(64))) - 1n);
      case 5:
        // An edge in the low part under random high bits: what an 8, 16 or 32-bit operand sees.
        return (this.u64() & ~0xffffffffn) | (this.pick(EDGES) & 0xffffffffn);
      case 6:
        return (this.u64() & ~0xffffn) | (this.pick(EDGES) & 0xffffn);
      default:
        return this.u64();
    }
  }
}

const EDGES: readonly bigint[] = [
  0n,
  1n,
  0xffff_ffff_ffff_ffffn,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_8000_0000n,
  0x8080_8080_8080_8080n,
  0x0f0f_0f0f_0f0f_0f0fn,
];
