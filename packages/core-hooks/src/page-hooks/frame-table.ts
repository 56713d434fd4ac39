/** Key of an unused slot; no frame has it. */
const EMPTY = -1;

/**
 * A map from frame numbers to objects for the path of every exit: open addressing in a typed array, so that looking a
 * frame up neither allocates nor boxes a number (frame numbers reach 2^40).
 */
export class FrameTable<T> {
  #keys: Float64Array;
  #values: (T | undefined)[];
  #mask: number;
  #size = 0;

  /** @param capacity slots to begin with, a power of two; the table grows when half of them are used */
  constructor(capacity = 64) {
    this.#keys = new Float64Array(capacity).fill(EMPTY);
    this.#values = Array.from({ length: capacity }, () => undefined);
    this.#mask = capacity - 1;
  }

  /** Number of frames in the table. */
  get size(): number {
    return this.#size;
  }

  #home(frame: number): number {
    // Frames come in runs, and runs of one stride; the product's upper bits spread both.
    const product = Math.imul(frame | 0, 0x9e3779b1);
    return (product ^ (product >>> 15)) & this.#mask;
  }

  /** What is stored for a frame. */
  get(frame: number): T | undefined {
    const keys = this.#keys;
    let slot = this.#home(frame);
    for (;;) {
      const key = keys[slot]!;
      if (key === frame) {
        return this.#values[slot];
      }
      if (key === EMPTY) {
        return undefined;
      }
      slot = (slot + 1) & this.#mask;
    }
  }

  /** Stores `value` for a frame, in place of what was there. */
  set(frame: number, value: T): void {
    if (this.#size * 2 >= this.#keys.length) {
      this.#grow();
    }
    const keys = this.#keys;
    let slot = this.#home(frame);
    while (keys[slot] !== EMPTY && keys[slot] !== frame) {
      slot = (slot + 1) & this.#mask;
    }
    if (keys[slot] === EMPTY) {
      keys[slot] = frame;
      this.#size++;
    }
    this.#values[slot] = value;
  }

  /** Forgets a frame. */
  delete(frame: number): void {
    const keys = this.#keys;
    let slot = this.#home(frame);
    while (keys[slot] !== frame) {
      if (keys[slot] === EMPTY) {
        return;
      }
      slot = (slot + 1) & this.#mask;
    }
    // Close the gap: every following entry whose home lies at or before the gap moves into it.
    let gap = slot;
    for (let next = (gap + 1) & this.#mask; keys[next] !== EMPTY; next = (next + 1) & this.#mask) {
      const home = this.#home(keys[next]!);
      if (((next - home) & this.#mask) >= ((next - gap) & this.#mask)) {
        keys[gap] = keys[next]!;
        this.#values[gap] = this.#values[next];
        gap = next;
      }
    }
    keys[gap] = EMPTY;
    this.#values[gap] = undefined;
    this.#size--;
  }

  /** Forgets all frames. */
  clear(): void {
    this.#keys.fill(EMPTY);
    this.#values.fill(undefined);
    this.#size = 0;
  }

  /** Everything stored, in no particular order: a copy, so that the table may change while it is gone through. */
  values(): T[] {
    return this.#values.filter((_, slot) => this.#keys[slot] !== EMPTY) as T[];
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    const capacity = keys.length * 2;
    this.#keys = new Float64Array(capacity).fill(EMPTY);
    this.#values = Array.from({ length: capacity }, () => undefined);
    this.#mask = capacity - 1;
    this.#size = 0;
    for (let slot = 0; slot < keys.length; slot++) {
      if (keys[slot] !== EMPTY) {
        this.set(keys[slot]!, values[slot] as T);
      }
    }
  }
}
