import { type Cr3, cr3, type Gva, gva, PAGE_SIZE } from '@introd/abi';
import { LabError } from './error.js';
import type { PhysicalImage } from './physical-image.js';

/** Rights of a mapping. */
export interface PageRights {
  readonly write?: boolean;
  readonly execute?: boolean;
  /** Ring 3 may use it. */
  readonly user?: boolean;
}

// Bits of a page-table entry (SDM vol. 3A, table 4-20): P, RW, US, A, D; XD is bit 63, here bit 31 of the high half.
const PRESENT = 0x1;
const WRITE = 0x2;
const USER = 0x4;
const ACCESSED = 0x20;
const DIRTY = 0x40;
const XD_HIGH = 0x8000_0000;

/** Entries of a root that belong to the kernel half begin here. */
const KERNEL_HALF = 256;

/** Where a frame is mapped, for the PFN database. */
export interface FrameUse {
  /** Virtual address, in the self-map, of the entry that maps the frame. */
  readonly pteAddress: Gva;
  /** Frame of the table that holds the entry. */
  readonly table: number;
}

/** Number of a virtual page: bits 12..47. */
function pageNumber(va: bigint): number {
  return Number(BigInt.asUintN(48, va) >> 12n);
}

/** Base of the PTEs in the self-map: where `MmPteBase` points. */
export function pteBase(selfMapIndex: number): Gva {
  return gva(BigInt.asIntN(48, BigInt(selfMapIndex) << 39n));
}

/** Virtual address, in the self-map, of the entry that maps the page of `va`. */
export function pteAddressOf(selfMapIndex: number, va: bigint): Gva {
  return gva(pteBase(selfMapIndex) + (BigInt.asUintN(48, va) >> 12n) * 8n);
}

/**
 * One address space under construction: a four-level page table in a {@link PhysicalImage}, with a self-map entry.
 * Spaces of processes take their kernel half from another space by {@link shareKernelHalf}.
 */
export class AddressSpace {
  readonly #frames = new Map<number, number>();
  readonly #tables = new Map<number, number>();
  readonly #kernel: AddressSpace | undefined;

  /**
   * @param root frame of the PML4
   * @param uses filled with the use of each frame that is mapped
   * @param kernel space that owns the kernel half; absent for the kernel's own
   */
  constructor(
    readonly physical: PhysicalImage,
    readonly root: number,
    readonly selfMapIndex: number,
    readonly uses: Map<number, FrameUse>,
    kernel?: AddressSpace,
  ) {
    this.#kernel = kernel;
    // As the loader leaves it: present, writable, accessed, dirty, never executable, never for ring 3.
    this.#entry(root, selfMapIndex, root, PRESENT | WRITE | ACCESSED | DIRTY, XD_HIGH);
    let top = gva(0n);
    for (let level = 0; level < 4; level++) top = pteAddressOf(selfMapIndex, top);
    this.#use(root, gva(top + BigInt(selfMapIndex * 8)), root);
  }

  /** Value for CR3. */
  get cr3(): Cr3 {
    return cr3(BigInt(this.root * PAGE_SIZE));
  }

  /** Maps one page to a frame. */
  mapPage(page: number, frame: number, rights: PageRights): void {
    const table = this.#tableOf(page);
    let low = PRESENT | ACCESSED;
    if (rights.write) low |= WRITE | DIRTY;
    if (rights.user) low |= USER;
    this.#entry(table, page % 512, frame, low, rights.execute ? 0 : XD_HIGH);
    this.#frames.set(page, frame);
    this.#use(frame, pteAddressOf(this.selfMapIndex, BigInt(page) << 12n), table);
  }

  /** Maps a range to frames of its own, taken from the free ones. */
  map(va: bigint, size: number, rights: PageRights): void {
    const first = pageNumber(va);
    for (let i = 0; i * PAGE_SIZE < size; i++) this.mapPage(first + i, this.physical.allocate(), rights);
  }

  /** Maps a range to consecutive frames. */
  mapTo(va: bigint, size: number, frame: number, rights: PageRights): void {
    const first = pageNumber(va);
    for (let i = 0; i * PAGE_SIZE < size; i++) this.mapPage(first + i, frame + i, rights);
  }

  /** Frame that a virtual address lies in. @throws LabError ERR_GUEST_LAB_LAYOUT when it is not mapped. */
  frameOf(va: bigint): number {
    const frame = this.#find(pageNumber(va));
    if (frame === undefined) throw new LabError('ERR_GUEST_LAB_LAYOUT', `0x${va.toString(16)} is not mapped`);
    return frame;
  }

  /** Writes bytes at a virtual address. */
  write(va: bigint, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = va + BigInt(done);
      const offset = Number(at & 0xfffn);
      const length = Math.min(PAGE_SIZE - offset, bytes.length - done);
      this.physical.page(this.frameOf(at)).set(bytes.subarray(done, done + length), offset);
      done += length;
    }
  }

  /** Reads bytes at a virtual address. */
  read(va: bigint, size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    for (let done = 0; done < size; ) {
      const at = va + BigInt(done);
      const offset = Number(at & 0xfffn);
      const length = Math.min(PAGE_SIZE - offset, size - done);
      bytes.set(this.physical.page(this.frameOf(at)).subarray(offset, offset + length), done);
      done += length;
    }
    return bytes;
  }

  /** Writes a 64-bit value; it must not cross a page. */
  write64(va: bigint, value: bigint): void {
    this.physical.view(this.frameOf(va)).setBigUint64(Number(va & 0xfffn), BigInt.asUintN(64, value), true);
  }

  /** Writes a 32-bit value; it must not cross a page. */
  write32(va: bigint, value: number): void {
    this.physical.view(this.frameOf(va)).setUint32(Number(va & 0xfffn), value, true);
  }

  /** Takes over the kernel's entries of the root: call when the kernel half is complete. */
  shareKernelHalf(): void {
    if (!this.#kernel) return;
    const source = this.physical.view(this.#kernel.root);
    const target = this.physical.view(this.root);
    for (let i = KERNEL_HALF; i < 512; i++) {
      if (i !== this.selfMapIndex) target.setBigUint64(i * 8, source.getBigUint64(i * 8, true), true);
    }
  }

  #find(page: number): number | undefined {
    return this.#frames.get(page) ?? (this.#kernel ? this.#kernel.#find(page) : undefined);
  }

  /** Frame of the page table of a page; missing tables are made on the way. Keys are the page number above each level. */
  #tableOf(page: number): number {
    const directory = Math.floor(page / 512);
    const known = this.#tables.get(directory);
    if (known !== undefined) return known;
    const user = page < KERNEL_HALF * 2 ** 27 ? USER : 0;
    let table = this.root;
    for (let level = 3; level >= 1; level--) {
      const prefix = Math.floor(page / 512 ** level);
      // One key space for three levels: prefixes of different levels are told apart by the level.
      const key = level === 1 ? prefix : prefix + level * 2 ** 36;
      let next = this.#tables.get(key);
      if (next === undefined) {
        next = this.physical.allocate();
        this.#tables.set(key, next);
        this.#entry(table, prefix % 512, next, PRESENT | WRITE | ACCESSED | DIRTY | user, 0);
        let address = BigInt(page) << 12n;
        for (let up = 0; up <= level; up++) address = pteAddressOf(this.selfMapIndex, address);
        this.#use(next, gva(address), table);
      }
      table = next;
    }
    return table;
  }

  #entry(table: number, index: number, frame: number, low: number, high: number): void {
    const view = this.physical.view(table);
    const address = frame * PAGE_SIZE;
    view.setUint32(index * 8, ((address % 2 ** 32) | low) >>> 0, true);
    view.setUint32(index * 8 + 4, (Math.floor(address / 2 ** 32) | high) >>> 0, true);
  }

  #use(frame: number, pteAddress: Gva, table: number): void {
    if (!this.uses.has(frame)) this.uses.set(frame, { pteAddress, table });
  }
}
