import type { DecodeFailure } from '../decoder.js';
import type { EmulatedInstruction } from './instruction.js';
import { instructionAt } from './instruction-pool.js';
import type { MemoryWindow } from './memory-window.js';

/** Longest instruction less one: how far before a byte an instruction that holds it may begin. */
const REACH = 14;

/** The instructions of the code by offset, each looked up once; stores into the code drop those that they change. */
export class FetchedCode {
  readonly #code: MemoryWindow;
  readonly #bitness: 32 | 64;
  readonly #at: (EmulatedInstruction | undefined)[] = [];
  /** Lowest and highest offset that was fetched from. */
  #lowest = Number.POSITIVE_INFINITY;
  #highest = -1;

  /**
   * @param code the code
   * @param bitness of its segment
   */
  constructor(code: MemoryWindow, bitness: 32 | 64) {
    this.#code = code;
    this.#bitness = bitness;
    this.#at.length = code.bytes.length;
  }

  /** The instruction at an offset inside the code, when it was fetched before and is still the same. */
  known(offset: number): EmulatedInstruction | undefined {
    return this.#at[offset];
  }

  /**
   * Decodes the instruction at an offset inside the code.
   * @returns why there is none otherwise
   */
  fetch(offset: number): EmulatedInstruction | DecodeFailure {
    const instruction = instructionAt(this.#code.view, offset, this.#bitness);
    if (typeof instruction === 'string') return instruction;
    this.#at[offset] = instruction;
    if (offset < this.#lowest) this.#lowest = offset;
    if (offset > this.#highest) this.#highest = offset;
    return instruction;
  }

  /** Bytes were written. */
  drop(offset: number, size: number): void {
    const first = Math.max(offset - REACH, this.#lowest);
    const last = Math.min(offset + size - 1, this.#highest);
    for (let at = first; at <= last; at++) this.#at[at] = undefined;
  }
}
