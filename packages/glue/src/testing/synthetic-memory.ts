import { Access, type Gfn, gpaOf, hex64, PAGE_SIZE } from '@introd/abi';
import { noMemory } from '../argument-checks.js';
import { GlueError } from '../error.js';
import type { MemoryRegion } from '../port.js';

/** RAM of one region with what belongs to it. */
class Region {
  readonly end: number;
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
  readonly rights: Uint8Array;
  readonly pages: (Uint8Array | undefined)[];

  constructor(
    readonly start: number,
    size: number,
  ) {
    if (start % PAGE_SIZE !== 0 || size % PAGE_SIZE !== 0 || size <= 0) {
      throw new GlueError('ERR_GLUE_NO_MEMORY', `not a page-aligned region: ${hex64(start)}, ${size} bytes`);
    }
    this.end = start + size;
    this.bytes = new Uint8Array(size);
    this.words = new Uint32Array(this.bytes.buffer);
    this.rights = new Uint8Array(size / PAGE_SIZE).fill(Access.ALL);
    this.pages = Array.from({ length: size / PAGE_SIZE });
  }
}

/** RAM of a guest in arrays, and the rights of its pages. */
export class SyntheticMemory {
  readonly #regions: readonly Region[];

  /** @throws GlueError ERR_GLUE_NO_MEMORY for a region that is not page aligned */
  constructor(regions: readonly MemoryRegion[]) {
    this.#regions = regions.map((region) => new Region(region.start, region.size));
  }

  /** Copies RAM into `target`. @returns false, and nothing is copied, when not all of it is RAM */
  read(address: number, target: Uint8Array): boolean {
    const region = this.#regionOf(address, target.length);
    if (region === undefined) return this.#copyAcross(address, target, false);
    const at = address - region.start;
    if (target.length <= 16) {
      const bytes = region.bytes;
      for (let i = 0; i < target.length; i++) target[i] = bytes[at + i]!;
    } else {
      target.set(region.bytes.subarray(at, at + target.length));
    }
    return true;
  }

  /** Copies `source` into RAM. @returns false, and nothing is copied, when not all of it is RAM */
  write(address: number, source: Uint8Array): boolean {
    const region = this.#regionOf(address, source.length);
    if (region === undefined) return this.#copyAcross(address, source, true);
    region.bytes.set(source, address - region.start);
    return true;
  }

  /**
   * @param address a multiple of `size`
   * @throws GlueError ERR_GLUE_NO_MEMORY when the bytes are not RAM
   */
  compareExchange(
    address: number,
    size: 1 | 2 | 4 | 8,
    expectedLow: number,
    expectedHigh: number,
    newLow: number,
    newHigh: number,
  ): boolean {
    const region = this.#regionOf(address, size);
    if (region === undefined) {
      throw new GlueError('ERR_GLUE_NO_MEMORY', 'compare-exchange outside of RAM', { address: hex64(address) });
    }
    const at = address - region.start;
    if (size >= 4) {
      const words = region.words;
      const word = at >>> 2;
      if (words[word] !== expectedLow >>> 0) return false;
      if (size === 8) {
        if (words[word + 1] !== expectedHigh >>> 0) return false;
        words[word + 1] = newHigh;
      }
      words[word] = newLow;
      return true;
    }
    const bytes = region.bytes;
    if (bytes[at] !== (expectedLow & 0xff)) return false;
    if (size === 2) {
      if (bytes[at + 1] !== ((expectedLow >>> 8) & 0xff)) return false;
      bytes[at + 1] = newLow >>> 8;
    }
    bytes[at] = newLow;
    return true;
  }

  /** The live view of a frame; undefined when it is not RAM. */
  page(frame: Gfn): Uint8Array | undefined {
    const region = this.#regionOfFrame(frame);
    if (region === undefined) return undefined;
    const page = (gpaOf(frame) - region.start) / PAGE_SIZE;
    let view = region.pages[page];
    if (view === undefined) {
      view = region.bytes.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
      region.pages[page] = view;
    }
    return view;
  }

  /** Rights of a frame; all for what is not RAM. */
  access(frame: Gfn): Access {
    const region = this.#regionOfFrame(frame);
    return region === undefined ? Access.ALL : region.rights[(gpaOf(frame) - region.start) / PAGE_SIZE]!;
  }

  /** @throws GlueError ERR_GLUE_NO_MEMORY when the frame is not RAM */
  setAccess(frame: Gfn, access: Access): void {
    const region = this.#regionOfFrame(frame);
    if (region === undefined) throw noMemory(frame);
    region.rights[(gpaOf(frame) - region.start) / PAGE_SIZE] = access;
  }

  /** Gives every page all rights. */
  allowAll(): void {
    for (const region of this.#regions) region.rights.fill(Access.ALL);
  }

  #regionOfFrame(frame: Gfn): Region | undefined {
    return Number.isInteger(frame) ? this.#regionOf(gpaOf(frame), PAGE_SIZE) : undefined;
  }

  #regionOf(address: number, length: number): Region | undefined {
    const regions = this.#regions;
    if (!Number.isInteger(address)) return undefined;
    for (let i = 0; i < regions.length; i++) {
      const region = regions[i]!;
      if (address >= region.start && address + length <= region.end) return region;
    }
    return undefined;
  }

  /** A range that no single region holds: it may still be RAM when regions touch. Checks all before it copies. */
  #copyAcross(address: number, bytes: Uint8Array, write: boolean): boolean {
    for (const copy of [false, true]) {
      for (let done = 0; done < bytes.length; ) {
        const region = this.#regionOf(address + done, 1);
        if (region === undefined) return false;
        const at = address + done - region.start;
        const length = Math.min(bytes.length - done, region.bytes.length - at);
        if (copy && write) region.bytes.set(bytes.subarray(done, done + length), at);
        else if (copy) bytes.set(region.bytes.subarray(at, at + length), done);
        done += length;
      }
    }
    return true;
  }
}
