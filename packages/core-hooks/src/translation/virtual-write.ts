import { type Cr3, type Gpa, type Gva, PAGE_SIZE, U64_MASK } from '@introd/abi';
import type { Translation, TranslationStatus } from './translator.js';

/** Outcome of {@link GuestMemory.writeVirtual}. Unless it is `ok`, nothing was written. */
export type WriteResult =
  | { readonly status: 'ok' }
  | {
      /** `invalid-range`: no byte at all, or the range goes beyond the last address. */
      readonly status: Exclude<TranslationStatus, 'ok'> | 'invalid-range';
      /** First address that could not be written. */
      readonly at: Gva;
    };

/** Outcome of {@link GuestMemory.safeWrite}. Unless it is `ok`, nothing was written. */
export type SafeWriteResult =
  | WriteResult
  | {
      readonly status: 'access-denied';
      /** First address of the range on the page that must not be written. */
      readonly at: Gva;
      /** The tables say read-only; the page belongs to the other privilege level; a write hook is set on the page. */
      readonly reason: 'read-only' | 'ring' | 'write-hooked';
    };

/** The ring on whose behalf bytes are written: 0 must not write to user pages, 3 not to supervisor pages. */
export type WritingRing = 0 | 1 | 2 | 3;

/** What a {@link VirtualWriter} needs of the guest. */
export interface VirtualWriteTarget {
  translate(cr3: Cr3, va: Gva): Translation;
  isRam(frame: number): boolean;
  isWriteHooked(frame: number): boolean;
  readPhysical(gpa: Gpa, target: Uint8Array): boolean;
  writePhysical(gpa: Gpa, source: Uint8Array): boolean;
}

/** The part of a write that lies on one page. */
interface Piece {
  readonly gpa: Gpa;
  readonly from: number;
  readonly to: number;
}

const OK = { status: 'ok' } as const;

/**
 * Writes to virtual ranges, all or nothing: every page is checked before the first byte is written, and what was written is taken back
 * when the backend refuses a later page. Other VCPUs can see it half done unless they are paused.
 */
export class VirtualWriter {
  readonly #target: VirtualWriteTarget;

  constructor(target: VirtualWriteTarget) {
    this.#target = target;
  }

  /** @param ring undefined for a write that no right stops */
  write(cr3: Cr3, va: Gva, bytes: Uint8Array, ring: WritingRing | undefined): SafeWriteResult {
    const pieces: Piece[] = [];
    if (bytes.length === 0 || va + BigInt(bytes.length) > U64_MASK + 1n) {
      return { status: 'invalid-range', at: va };
    }
    for (let from = 0; from < bytes.length; ) {
      const at = (va + BigInt(from)) as Gva;
      const count = Math.min(PAGE_SIZE - Number(at & 0xfffn), bytes.length - from);
      const translation = this.#target.translate(cr3, at);
      if (translation.status !== 'ok') {
        return { status: translation.status, at };
      }
      const frame = Math.floor(translation.gpa / PAGE_SIZE);
      if (!this.#target.isRam(frame)) {
        return { status: 'no-memory', at };
      }
      const reason = ring === undefined ? undefined : this.#objection(translation, frame, ring);
      if (reason !== undefined) {
        return { status: 'access-denied', at, reason };
      }
      pieces.push({ gpa: translation.gpa, from, to: from + count });
      from += count;
    }
    return this.#commit(va, bytes, pieces);
  }

  #objection(
    translation: Translation,
    frame: number,
    ring: WritingRing,
  ): 'read-only' | 'ring' | 'write-hooked' | undefined {
    if (!translation.writable) {
      return 'read-only';
    }
    if ((ring === 0 && translation.user) || (ring === 3 && !translation.user)) {
      return 'ring';
    }
    return this.#target.isWriteHooked(frame) ? 'write-hooked' : undefined;
  }

  #commit(va: Gva, bytes: Uint8Array, pieces: readonly Piece[]): SafeWriteResult {
    const before = new Uint8Array(bytes.length);
    for (const { gpa, from, to } of pieces) {
      if (!this.#target.readPhysical(gpa, before.subarray(from, to))) {
        return { status: 'no-memory', at: (va + BigInt(from)) as Gva };
      }
    }
    let done = 0;
    try {
      for (; done < pieces.length; done++) {
        const { gpa, from, to } = pieces[done]!;
        if (!this.#target.writePhysical(gpa, bytes.subarray(from, to))) {
          this.#takeBack(before, pieces.slice(0, done));
          return { status: 'no-memory', at: (va + BigInt(from)) as Gva };
        }
      }
    } catch (cause) {
      this.#takeBack(before, pieces.slice(0, done));
      throw cause;
    }
    return OK;
  }

  #takeBack(before: Uint8Array, pieces: readonly Piece[]): void {
    for (const { gpa, from, to } of pieces) {
      this.#target.writePhysical(gpa, before.subarray(from, to));
    }
  }
}
