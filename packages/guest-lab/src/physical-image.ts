import { PAGE_SIZE } from '@introd/abi';
import { LabError } from './error.js';

/** Physical memory under construction: the pages that are not zero, by frame number, and the frames still free. */
export class PhysicalImage {
  /** Content of every page that was touched. */
  readonly pages = new Map<number, Uint8Array>();
  readonly #views = new Map<number, DataView>();
  #free: number[];

  /** @param free frames to hand out, from the last to the first */
  constructor(free: number[]) {
    this.#free = free;
  }

  /** Takes a free frame. @throws LabError ERR_GUEST_LAB_LAYOUT when none is left. */
  allocate(): number {
    const frame = this.#free.pop();
    if (frame === undefined) throw new LabError('ERR_GUEST_LAB_LAYOUT', 'the lab guest does not fit its memory');
    return frame;
  }

  /** Bytes of a frame; zero until written. */
  page(frame: number): Uint8Array {
    const known = this.pages.get(frame);
    if (known) return known;
    const fresh = new Uint8Array(PAGE_SIZE);
    this.pages.set(frame, fresh);
    return fresh;
  }

  /** The same as {@link page}, as a view. */
  view(frame: number): DataView {
    const known = this.#views.get(frame);
    if (known) return known;
    const page = this.page(frame);
    const fresh = new DataView(page.buffer, page.byteOffset, PAGE_SIZE);
    this.#views.set(frame, fresh);
    return fresh;
  }
}
