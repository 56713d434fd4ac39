import { type Gva, gva, PAGE_SIZE } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import type { AddressSpace } from './address-space.js';
import { LabError } from './error.js';
import { GuestStruct, structAt } from './struct-writer.js';

/** Size of `_POOL_HEADER`, and the granularity of pool blocks, on x64. */
const GRANULE = 16;
/** `_POOL_HEADER.PoolType` of an allocated non-paged block (NonPagedPoolNx with the in-use bit). */
const NON_PAGED = 2;

/** A type of kernel object: its index in `ObTypeIndexTable` and its pool tag. */
export interface ObjectKind {
  readonly index: number;
  readonly tag: string;
}

/** Kernel objects of the lab, with the type indices of build 19041. */
export const OBJECT_KINDS = {
  Token: { index: 5, tag: 'Toke' },
  Process: { index: 7, tag: 'Proc' },
  Thread: { index: 8, tag: 'Thre' },
} as const;

/** Non-paged pool under construction: blocks with pool headers, objects with object headers. */
export class Pool {
  #next: bigint;
  readonly #end: bigint;

  /**
   * @param va page-aligned start of the pool's memory, mapped
   * @param objectCookie value of `ObHeaderCookie`: object headers hold their type index encoded with it
   */
  constructor(
    private readonly space: AddressSpace,
    private readonly profile: GuestProfile,
    va: Gva,
    size: number,
    private readonly objectCookie: number,
  ) {
    this.#next = va;
    this.#end = va + BigInt(size);
  }

  /**
   * Takes a zeroed block and tags it. Blocks of less than a page do not cross a page; larger ones are page-aligned and
   * have no header, as in Windows.
   * @returns address behind the header
   */
  allocate(tag: string, size: number): Gva {
    const large = size > PAGE_SIZE - GRANULE;
    const blockSize = Math.ceil((size + (large ? 0 : GRANULE)) / GRANULE) * GRANULE;
    const left = PAGE_SIZE - Number(this.#next & 0xfffn);
    if (left !== PAGE_SIZE && (large || left < blockSize)) this.#next += BigInt(left);
    const block = this.#next;
    this.#next += BigInt(large ? Math.ceil(blockSize / PAGE_SIZE) * PAGE_SIZE : blockSize);
    if (this.#next > this.#end) throw new LabError('ERR_GUEST_LAB_LAYOUT', 'the pool is too small');
    if (large) return gva(block);
    structAt(this.space, this.profile, '_POOL_HEADER', gva(block)).setAll({
      BlockSize: blockSize / GRANULE,
      PoolType: NON_PAGED,
      PoolTag: tagValue(tag),
    });
    return gva(block + BigInt(GRANULE));
  }

  /** Takes a block for a structure. */
  struct(tag: string, name: string): GuestStruct {
    const layout = this.profile.struct(name);
    return new GuestStruct(this.space, layout, this.allocate(tag, layout.size));
  }

  /** Takes a block for a kernel object of the kind, behind an object header; the body is at least `extra` bytes longer than the structure. */
  object(kind: ObjectKind, name: string, extra = 0): GuestStruct {
    const layout = this.profile.struct(name);
    const headerSize = this.profile.struct('_OBJECT_HEADER').offset('Body');
    const header = this.allocate(kind.tag, headerSize + layout.size + extra);
    const body = gva(header + BigInt(headerSize));
    structAt(this.space, this.profile, '_OBJECT_HEADER', header).setAll({
      PointerCount: 0x8000,
      HandleCount: 1,
      // ObTypeIndexTable is indexed by TypeIndex ^ ObHeaderCookie ^ second byte of the header's address (Windows 10).
      TypeIndex: kind.index ^ this.objectCookie ^ Number((header >> 8n) & 0xffn),
    });
    return new GuestStruct(this.space, layout, body);
  }

  /** Takes a block for bytes, e.g. a text. */
  bytes(tag: string, bytes: Uint8Array): Gva {
    const va = this.allocate(tag, bytes.length);
    this.space.write(va, bytes);
    return va;
  }
}

function tagValue(tag: string): number {
  return [...tag].reduceRight((sum, letter) => sum * 256 + letter.charCodeAt(0), 0);
}
