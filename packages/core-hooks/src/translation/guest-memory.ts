import type { Cr3, Gpa, Gva } from '@introd/abi';
import type { FullPort } from '@introd/glue';
import { highHalf, lowHalf } from './address-halves.js';
import type { PageCache } from './page-cache.js';
import { type TranslationStatus, type Translator, WALK_STATUS, Walk } from './translator.js';
import { type SafeWriteResult, VirtualWriter, type WriteResult, type WritingRing } from './virtual-write.js';

const PAGE = 4096;

/** Outcome of reading a virtual range: all of it, or how far it went and why it stopped. */
export type ReadResult =
  | { readonly status: 'ok' }
  | {
      readonly status: Exclude<TranslationStatus, 'ok'>;
      /** First address that could not be read. */
      readonly at: Gva;
      /** Bytes read before it. */
      readonly done: number;
    };

const READ_OK: ReadResult = { status: 'ok' };

/** What the layers above keep of the guest's memory, and have to know when the engine itself changes it. */
export interface MemoryWatch<T = unknown> {
  /**
   * Bytes are about to be changed.
   * @returns what {@link wrote} wants to know once they are; undefined when it need not be called
   */
  beforeWrite(gpa: number, size: number): T | undefined;
  /** Bytes were changed. */
  wrote(before: T): void;
  /** Whether a hook that is set and not removed wants to see writes to a frame. */
  isWriteHooked(frame: number): boolean;
  /** Drops every decoded instruction. */
  flushInstructions(): void;
}

/**
 * The guest's memory, physical and virtual, for the engine and the layers above. Second-level rights do not apply:
 * nothing here raises an exit or calls a hook.
 */
export class GuestMemory {
  readonly #port: FullPort;
  readonly #pages: PageCache;
  readonly #translator: Translator;
  readonly #watch: MemoryWatch;
  readonly #writer: VirtualWriter;
  readonly #scratch = new Uint8Array(8);
  readonly #scratchView = new DataView(this.#scratch.buffer);

  /** @internal */
  constructor(port: FullPort, pages: PageCache, translator: Translator, watch: MemoryWatch) {
    this.#port = port;
    this.#pages = pages;
    this.#translator = translator;
    this.#watch = watch;
    this.#writer = new VirtualWriter({
      translate: (cr3, va) => translator.translate(cr3, va),
      isRam: (frame) => pages.get(frame) !== undefined,
      isWriteHooked: (frame) => watch.isWriteHooked(frame),
      readPhysical: (gpa, target) => this.readPhysical(gpa, target),
      writePhysical: (gpa, source) => this.writePhysical(gpa, source),
    });
  }

  /**
   * Fills `target` from physical memory. May cross pages.
   * @returns false, and `target` is unspecified, when some byte is not RAM
   */
  readPhysical(gpa: Gpa, target: Uint8Array): boolean {
    for (let done = 0; done < target.length; ) {
      const at = gpa + done;
      const offset = at & (PAGE - 1);
      const page = this.#pages.get(Math.floor(at / PAGE));
      if (page === undefined) {
        return false;
      }
      const count = Math.min(PAGE - offset, target.length - done);
      copy(page.bytes, offset, target, done, count);
      done += count;
    }
    return true;
  }

  /**
   * Writes physical memory. May cross pages.
   * @returns false, and nothing is written, when some byte is not RAM
   */
  writePhysical(gpa: Gpa, source: Uint8Array): boolean {
    const before = this.#watch.beforeWrite(gpa, source.length);
    const done = this.#port.writePhysical(gpa, source);
    if (before !== undefined && done) {
      this.#watch.wrote(before);
    }
    return done;
  }

  /** The 8 bytes at `gpa`, which may have any alignment; undefined when they are not RAM. */
  read64(gpa: Gpa): bigint | undefined {
    return this.readPhysical(gpa, this.#scratch) ? this.#scratchView.getBigUint64(0, true) : undefined;
  }

  /**
   * Replaces the 8 bytes at `gpa` (a multiple of 8) if they hold `expected`, in one step.
   * @returns whether they did; undefined when they are not RAM
   */
  compareExchange64(gpa: Gpa, expected: bigint, value: bigint): boolean | undefined {
    if (this.#pages.get(Math.floor(gpa / PAGE)) === undefined) {
      return undefined;
    }
    const before = this.#watch.beforeWrite(gpa, 8);
    const done = this.#port.compareExchange(
      gpa,
      8,
      Number(BigInt.asUintN(32, expected)),
      Number(BigInt.asUintN(32, expected >> 32n)),
      Number(BigInt.asUintN(32, value)),
      Number(BigInt.asUintN(32, value >> 32n)),
    );
    if (before !== undefined && done) {
      this.#watch.wrote(before);
    }
    return done;
  }

  /** Fills `target` from virtual memory, page by page, up to the first page that cannot be read. */
  readVirtual(cr3: Cr3, va: Gva, target: Uint8Array): ReadResult {
    const vaLow = lowHalf(va);
    const vaHigh = highHalf();
    const cr3Low = lowHalf(cr3);
    const cr3High = highHalf();
    const length = target.length;
    const translator = this.#translator;
    for (let done = 0; done < length; ) {
      const sum = vaLow + done;
      const low = sum >>> 0;
      const high = (vaHigh + Math.floor(sum / 0x1_0000_0000)) >>> 0;
      let status = translator.walk(cr3Low, cr3High, low, high, translator.guestPaging);
      if (status === Walk.OK) {
        const offset = low & (PAGE - 1);
        const page = this.#pages.get(Math.floor(translator.gpa / PAGE));
        if (page !== undefined) {
          const count = Math.min(PAGE - offset, length - done);
          copy(page.bytes, offset, target, done, count);
          done += count;
          continue;
        }
        status = Walk.NO_MEMORY;
      }
      return {
        status: WALK_STATUS[status] as Exclude<TranslationStatus, 'ok'>,
        at: ((BigInt(high) << 32n) | BigInt(low)) as Gva,
        done,
      };
    }
    return READ_OK;
  }

  /**
   * Writes virtual memory, all or nothing, whatever the guest's tables allow and whoever hooked it.
   * @throws what the backend throws; nothing is written then
   */
  writeVirtual(cr3: Cr3, va: Gva, bytes: Uint8Array): WriteResult {
    return this.#writer.write(cr3, va, bytes, undefined) as WriteResult;
  }

  /**
   * Writes virtual memory that the guest owns, all or nothing, as code of `ring` could: every page must be present, writable and of the
   * ring's privilege (1 and 2 are not checked), and no write hook may be set on it. Decoded instructions are dropped first.
   * Other VCPUs may see it half done unless they are paused.
   * @throws what the backend throws; nothing is written then
   */
  safeWrite(cr3: Cr3, va: Gva, bytes: Uint8Array, ring: WritingRing): SafeWriteResult {
    // First, because the cache's own write hooks on code pages must not count.
    this.#watch.flushInstructions();
    return this.#writer.write(cr3, va, bytes, ring);
  }

  /**
   * Forgets how guest memory is mapped, and every instruction and page walk with it: to be called when the guest's memory itself has changed
   * (hot removal, ballooning), so that no frame is looked at through an old mapping.
   */
  flushMappings(): void {
    this.#watch.flushInstructions();
    this.#translator.clear();
    this.#pages.clear();
  }

  /** The byte at `va`; undefined when it cannot be read. */
  readU8(cr3: Cr3, va: Gva): number | undefined {
    return this.#readScratch(cr3, va, 1) ? this.#scratch[0] : undefined;
  }

  /** The little-endian 16-bit value at `va`; undefined when it cannot be read. */
  readU16(cr3: Cr3, va: Gva): number | undefined {
    return this.#readScratch(cr3, va, 2) ? this.#scratchView.getUint16(0, true) : undefined;
  }

  /** The little-endian 32-bit value at `va`; undefined when it cannot be read. */
  readU32(cr3: Cr3, va: Gva): number | undefined {
    return this.#readScratch(cr3, va, 4) ? this.#scratchView.getUint32(0, true) : undefined;
  }

  /** The little-endian 64-bit value at `va`; undefined when it cannot be read. */
  readU64(cr3: Cr3, va: Gva): bigint | undefined {
    return this.#readScratch(cr3, va, 8) ? this.#scratchView.getBigUint64(0, true) : undefined;
  }

  readonly #views = [1, 2, 4, 8].map((size) => this.#scratch.subarray(0, size));

  #readScratch(cr3: Cr3, va: Gva, size: 1 | 2 | 4 | 8): boolean {
    return this.readVirtual(cr3, va, this.#views[31 - Math.clz32(size)]!).status === 'ok';
  }

  /**
   * The NUL-terminated text at `va`, one character per byte, at most `max` bytes without the NUL.
   * @returns undefined when a byte before the NUL cannot be read, or there is no NUL in `max` + 1 bytes
   */
  readAscii(cr3: Cr3, va: Gva, max: number): string | undefined {
    const bytes = new Uint8Array(max + 1);
    const result = this.readVirtual(cr3, va, bytes);
    const end = bytes.subarray(0, result.status === 'ok' ? bytes.length : result.done).indexOf(0);
    if (end < 0) {
      return undefined;
    }
    let text = '';
    for (let at = 0; at < end; at++) {
      text += String.fromCharCode(bytes[at]!);
    }
    return text;
  }
}

/** Copies bytes; few of them one by one, which is faster than making views for a block copy. */
function copy(source: Uint8Array, from: number, target: Uint8Array, to: number, count: number): void {
  if (count > 64) {
    target.set(source.subarray(from, from + count), to);
    return;
  }
  for (let at = 0; at < count; at++) {
    target[to + at] = source[from + at]!;
  }
}
