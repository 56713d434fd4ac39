/** Bytes that the guest shall see in place of those in memory. */
interface Patch {
  readonly gpa: number;
  readonly bytes: Uint8Array;
}

/** What read hooks want the guest to see at one exit, by physical address. */
export class ReadOverlay {
  readonly #patches: Patch[] = [];

  /** Whether some byte is to look different. */
  get any(): boolean {
    return this.#patches.length > 0;
  }

  reset(): void {
    // Setting the length of an array is slow, and nearly every exit has no patches.
    if (this.#patches.length > 0) {
      this.#patches.length = 0;
    }
  }

  /** Adds bytes, cut to an access; they are copied. @returns false when they lie outside of it */
  add(gpa: number, bytes: Uint8Array, accessGpa: number, accessSize: number): boolean {
    const first = Math.max(gpa, accessGpa);
    const end = Math.min(gpa + bytes.length, accessGpa + accessSize);
    if (first >= end) {
      return false;
    }
    this.#patches.push({ gpa: first, bytes: bytes.slice(first - gpa, end - gpa) });
    return true;
  }

  /** Puts the patches over `count` bytes of `target` that were read at `gpa`. @returns whether one of them was met */
  apply(gpa: number, target: Uint8Array, from: number, count: number): boolean {
    let met = false;
    for (const patch of this.#patches) {
      const first = Math.max(gpa, patch.gpa);
      const end = Math.min(gpa + count, patch.gpa + patch.bytes.length);
      for (let at = first; at < end; at++) {
        target[from + at - gpa] = patch.bytes[at - patch.gpa]!;
        met = true;
      }
    }
    return met;
  }

  /** Whether some patch lies in a physical range. */
  touches(gpa: number, count: number): boolean {
    const { first, end } = this.extent(gpa, count);
    return first < end;
  }

  /** The part of a physical range that holds patches, counted from its start; empty when there are none. */
  extent(gpa: number, count: number): { readonly first: number; readonly end: number } {
    let first = count;
    let end = 0;
    for (const patch of this.#patches) {
      if (patch.gpa < gpa + count && gpa < patch.gpa + patch.bytes.length) {
        first = Math.min(first, Math.max(patch.gpa - gpa, 0));
        end = Math.max(end, Math.min(patch.gpa + patch.bytes.length - gpa, count));
      }
    }
    return { first, end };
  }
}
