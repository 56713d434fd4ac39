const NONE = -1;

/**
 * Writes to guarded frames that the engine let a VCPU make by itself ("allow once") and that it cannot know to be over.
 * Until that VCPU's next exit what such a frame holds may change at any moment, so nothing that must not change may be read
 * from it: no instruction is cached from it, and no other write to page tables on it is decided.
 */
export class PendingWrites {
  readonly #frames: Float64Array;
  #vcpus = 0;

  constructor(vcpuCount: number) {
    // Two for each VCPU: one operand lies on two pages at most.
    this.#frames = new Float64Array(vcpuCount * 2).fill(NONE);
  }

  /** A VCPU may now write to one or two frames ({@link NO_FRAME} for none). */
  begin(index: number, first: number, second: number): void {
    this.end(index);
    this.#frames[index * 2] = first;
    this.#frames[index * 2 + 1] = second;
    this.#vcpus++;
  }

  /** A VCPU has exited again: its write is over, or it has not begun and will be asked about again. */
  end(index: number): void {
    if (this.#vcpus > 0 && this.#frames[index * 2] !== NONE) {
      this.#frames[index * 2] = NONE;
      this.#frames[index * 2 + 1] = NONE;
      this.#vcpus--;
    }
  }

  /** Whether some VCPU other than `index` may be writing to a frame. */
  has(frame: number, index: number): boolean {
    if (this.#vcpus === 0) {
      return false;
    }
    for (let at = 0; at < this.#frames.length; at++) {
      if (this.#frames[at] === frame && at >> 1 !== index) {
        return true;
      }
    }
    return false;
  }
}

/** Stands for no frame. */
export const NO_FRAME = NONE;
