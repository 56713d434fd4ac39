const WORD = 0x1_0000_0000;

/** What is known of a byte of a window, besides its value. */
export const ByteState = {
  /** Written by the emulated code. */
  WRITTEN: 1,
  /** First byte of an instruction that was executed. */
  EXECUTED: 2,
  /** Part of an instruction pointer that the processor stored. */
  SAVED_RIP: 4,
} as const;

/** A piece of the address space that the emulation has a copy of: the code, or the stack. */
export class MemoryWindow {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** {@link ByteState} of each byte. */
  readonly state: Uint8Array;
  /** Address of the first byte, in 32-bit halves. */
  readonly baseLow: number;
  readonly baseHigh: number;

  /**
   * @param bytes its content; copied
   * @param base address of the first byte; what would lie behind the end of the address space is cut off
   * @param addressBits 32 or 64
   */
  constructor(bytes: Uint8Array, base: bigint, addressBits: 32 | 64) {
    const address = BigInt.asUintN(addressBits, base);
    const room = (1n << BigInt(addressBits)) - address;
    this.bytes = room < BigInt(bytes.length) ? bytes.slice(0, Number(room)) : bytes.slice();
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.length);
    this.state = new Uint8Array(this.bytes.length);
    this.baseLow = Number(address & 0xffff_ffffn);
    this.baseHigh = Number(address >> 32n);
  }

  /** Offset of `size` bytes at an address; -1 when they do not all lie inside. */
  offsetOf(low: number, high: number, size: number): number {
    let offset = low - this.baseLow;
    let above = high - this.baseHigh;
    if (offset < 0) {
      offset += WORD;
      above--;
    }
    return above === 0 && offset + size <= this.bytes.length ? offset : -1;
  }

  /** Takes over the bytes that another window has of the same addresses; whether there are any. */
  overlay(other: MemoryWindow): boolean {
    const distance = (other.baseHigh - this.baseHigh) * WORD + (other.baseLow - this.baseLow);
    const from = Math.max(0, -distance);
    const to = Math.min(other.bytes.length, this.bytes.length - distance);
    if (from >= to) return false;
    this.bytes.set(other.bytes.subarray(from, to), from + distance);
    return true;
  }

  /** Sets a state of bytes that lie inside. */
  mark(offset: number, size: number, state: number): void {
    for (let i = offset; i < offset + size; i++) this.state[i]! |= state;
  }

  /** Whether any of the bytes has the state. */
  any(offset: number, size: number, state: number): boolean {
    for (let i = offset; i < offset + size; i++) {
      if ((this.state[i]! & state) !== 0) return true;
    }
    return false;
  }

  /** Whether all of the bytes have the state. */
  all(offset: number, size: number, state: number): boolean {
    for (let i = offset; i < offset + size; i++) {
      if ((this.state[i]! & state) === 0) return false;
    }
    return true;
  }
}
