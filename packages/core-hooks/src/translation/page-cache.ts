import type { Gfn } from '@introd/abi';
import type { MapCapability } from '@introd/glue';
import { FrameTable } from '../page-hooks/frame-table.js';

/** A frame of guest memory, looked at through its mapping: the guest's writes show in it. To be read only. */
export interface MappedPage {
  /** 4096 bytes. */
  readonly bytes: Uint8Array;
  /** The same as 1024 words, little endian as the host is. */
  readonly words: Uint32Array;
}

/**
 * Frames mapped anew until a generation is full; at most three times as many views are kept. A mapping costs three small objects of the host;
 * the guest decides which frames are looked at, so there must be a bound.
 */
const GENERATION = 4096;

/**
 * Views of guest frames, made once (the GPA cache of core-hooks.md section 3). Mappings are live, so they never go stale, and a view stays
 * valid for whoever holds it, so none has to be pinned. There are two generations, of what was used since the last one was full, and of what
 * was used before: a frame that was looked at in neither time is dropped first.
 */
export class PageCache {
  readonly #port: MapCapability;
  readonly #generation: number;
  #recent = new FrameTable<MappedPage>(1024);
  #earlier = new FrameTable<MappedPage>(1024);
  #lastFrame = -1;
  #lastPage: MappedPage | undefined;

  /** @param generation frames mapped anew until a generation is full */
  constructor(port: MapCapability, generation = GENERATION) {
    this.#port = port;
    this.#generation = generation;
  }

  /** The view of a frame; undefined when it is not RAM. */
  get(frame: number): MappedPage | undefined {
    if (frame === this.#lastFrame) {
      return this.#lastPage;
    }
    const page = this.#recent.get(frame) ?? this.#find(frame);
    if (page !== undefined) {
      this.#lastFrame = frame;
      this.#lastPage = page;
    }
    return page;
  }

  /** The view of a frame that was not used recently. */
  #find(frame: number): MappedPage | undefined {
    const known = this.#earlier.get(frame);
    if (known !== undefined) {
      this.#earlier.delete(frame);
      this.#recent.set(frame, known);
      return known;
    }
    const bytes = this.#port.mapPage(frame as Gfn);
    if (bytes === undefined) {
      return undefined;
    }
    if (this.#recent.size >= this.#generation) {
      const oldest = this.#earlier;
      oldest.clear();
      this.#earlier = this.#recent;
      this.#recent = oldest;
    }
    const page: MappedPage = { bytes, words: new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4) };
    this.#recent.set(frame, page);
    return page;
  }

  /** Number of views kept. */
  get size(): number {
    return this.#recent.size + this.#earlier.size;
  }

  /** Drops every view. */
  clear(): void {
    this.#recent.clear();
    this.#earlier.clear();
    this.#lastFrame = -1;
    this.#lastPage = undefined;
  }
}
