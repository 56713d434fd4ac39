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
 * Most pages kept mapped. A mapping costs three small objects of the host; the guest decides which frames are looked
 * at, so there must be a bound.
 */
const MAX_PAGES = 8192;

/** Views of guest frames, made once (the GPA cache of core-hooks.md section 3). Mappings are live, so they never go stale. */
export class PageCache {
  readonly #port: MapCapability;
  readonly #pages = new FrameTable<MappedPage>(1024);
  #lastFrame = -1;
  #lastPage: MappedPage | undefined;

  constructor(port: MapCapability) {
    this.#port = port;
  }

  /** The view of a frame; undefined when it is not RAM. */
  get(frame: number): MappedPage | undefined {
    if (frame === this.#lastFrame) {
      return this.#lastPage;
    }
    const page = this.#pages.get(frame) ?? this.#map(frame);
    if (page !== undefined) {
      this.#lastFrame = frame;
      this.#lastPage = page;
    }
    return page;
  }

  #map(frame: number): MappedPage | undefined {
    const bytes = this.#port.mapPage(frame as Gfn);
    if (bytes === undefined) {
      return undefined;
    }
    if (this.#pages.size >= MAX_PAGES) {
      this.#pages.clear();
    }
    const page: MappedPage = { bytes, words: new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4) };
    this.#pages.set(frame, page);
    return page;
  }

  /** Drops every view. */
  clear(): void {
    this.#pages.clear();
    this.#lastFrame = -1;
    this.#lastPage = undefined;
  }
}
