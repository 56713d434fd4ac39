import { type Gva, gva } from '@introd/abi';
import type { GuestProfile, StructReader } from '@introd/windows-profiles';
import type { AddressSpace } from './address-space.js';

/** A guest structure at a virtual address, written through its profile. */
export class GuestStruct {
  constructor(
    readonly space: AddressSpace,
    readonly layout: StructReader,
    readonly va: Gva,
  ) {}

  /** Virtual address of a field. */
  at(path: string): Gva {
    return gva(this.va + BigInt(this.layout.offset(path)));
  }

  /** Sets one field; of a bit field only its bits. */
  set(path: string, value: bigint | number): this {
    const field = this.layout.field(path);
    const at = this.va + BigInt(field.offset);
    const bytes = new Uint8Array(field.size);
    let raw = BigInt(value);
    if (field.bits !== undefined) {
      const old = this.space.read(at, field.size).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
      const shift = BigInt(field.bit ?? 0);
      const mask = ((1n << BigInt(field.bits)) - 1n) << shift;
      raw = (old & ~mask) | ((raw << shift) & mask);
    }
    for (let i = 0; i < field.size; i++) {
      bytes[i] = Number(raw & 0xffn);
      raw >>= 8n;
    }
    this.space.write(at, bytes);
    return this;
  }

  /** Sets several fields. */
  setAll(values: { readonly [path: string]: bigint | number }): this {
    for (const [path, value] of Object.entries(values)) this.set(path, value);
    return this;
  }

  /** Writes bytes at a field. */
  bytes(path: string, bytes: Uint8Array): this {
    this.space.write(this.at(path), bytes);
    return this;
  }

  /** Makes a `_LIST_ENTRY` field an empty list: both links point at itself. */
  emptyList(path: string): this {
    linkList(this.space, [this.at(path)]);
    return this;
  }

  /** Points a `_UNICODE_STRING` field at text that lies (NUL-terminated) at `buffer`. */
  unicode(path: string, text: string, buffer: Gva): this {
    return this.set(`${path}.Length`, text.length * 2)
      .set(`${path}.MaximumLength`, text.length * 2 + 2)
      .set(`${path}.Buffer`, buffer);
  }
}

/** Makes the structure of a name at an address. */
export function structAt(space: AddressSpace, profile: GuestProfile, name: string, va: Gva): GuestStruct {
  return new GuestStruct(space, profile.struct(name), va);
}

/** Links `_LIST_ENTRY`s (the first is the head) into one circular list. */
export function linkList(space: AddressSpace, entries: readonly Gva[]): void {
  entries.forEach((entry, i) => {
    const next = entries[(i + 1) % entries.length]!;
    space.write64(entry, next);
    space.write64(next + 8n, entry);
  });
}

/** UTF-16LE text with a NUL. */
export function utf16(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length * 2 + 2);
  for (let i = 0; i < text.length; i++) {
    bytes[i * 2] = text.charCodeAt(i) & 0xff;
    bytes[i * 2 + 1] = text.charCodeAt(i) >>> 8;
  }
  return bytes;
}

/** ASCII text with a NUL. */
export function ascii(text: string): Uint8Array {
  return Uint8Array.from(`${text}\0`, (letter) => letter.charCodeAt(0));
}
