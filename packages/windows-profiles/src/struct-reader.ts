import type { FieldLayout } from '@introd/abi';
import { ProfileError } from './error.js';
import type { GuestProfileData, ProfileStruct } from './profile-data.js';

/** How many embedded structures a path may go through: symbol files nest less deep. */
const MAX_DEPTH = 16;

/**
 * One structure of a profile, compiled: finds fields by path (`'UniqueProcessId'`, `'Pcb.DirectoryTableBase'`), and
 * reads and writes them in bytes that the caller holds. Resolved paths are remembered, so a path costs one map lookup.
 */
export class StructReader {
  /** Size of the structure in bytes. */
  readonly size: number;
  readonly #profile: GuestProfileData;
  readonly #struct: ProfileStruct;
  readonly #resolved = new Map<string, FieldLayout>();

  /** Made by {@link GuestProfile.struct}. */
  constructor(
    profile: GuestProfileData,
    /** Name of the structure as the symbols give it. */
    readonly name: string,
    struct: ProfileStruct,
  ) {
    this.#profile = profile;
    this.#struct = struct;
    this.size = struct.size;
  }

  /** Whether the structure has the field. */
  has(path: string): boolean {
    return this.#find(path) !== undefined;
  }

  /**
   * Layout of a field, its offset counted from the start of this structure.
   * @throws ProfileError ERR_PROFILES_NO_FIELD
   */
  field(path: string): FieldLayout {
    const layout = this.#find(path);
    if (layout) return layout;
    throw new ProfileError('ERR_PROFILES_NO_FIELD', `${this.name}.${path} is not in the profile of ${this.#where()}`, {
      hint: 'the symbol file of this kernel has no such field, or the profile was made without it',
    });
  }

  /**
   * Byte offset of a field from the start of this structure.
   * @throws ProfileError ERR_PROFILES_NO_FIELD
   */
  offset(path: string): number {
    return this.field(path).offset;
  }

  /**
   * Reads a field of 1 to 8 bytes as an unsigned number; of a bit field, its bits.
   * @param bytes holds the structure from `base` on, or at least up to the field's end
   * @throws ProfileError ERR_PROFILES_NO_FIELD, ERR_PROFILES_SHORT_BUFFER; RangeError when the field is wider than 8 bytes
   */
  u64(bytes: Uint8Array, path: string, base = 0): bigint {
    const layout = this.field(path);
    const raw = this.#raw(bytes, layout, path, base);
    return layout.bits === undefined ? raw : BigInt.asUintN(layout.bits, raw >> BigInt(layout.bit ?? 0));
  }

  /** As {@link u64}, for values of at most 53 bits. @throws RangeError when the value is larger. */
  number(bytes: Uint8Array, path: string, base = 0): number {
    const value = Number(this.u64(bytes, path, base));
    if (!Number.isSafeInteger(value)) throw new RangeError(`${this.name}.${path} does not fit a number`);
    return value;
  }

  /**
   * Writes a field of 1 to 8 bytes; of a bit field, only its bits. The value is cut to the field's width.
   * @throws ProfileError ERR_PROFILES_NO_FIELD, ERR_PROFILES_SHORT_BUFFER; RangeError when the field is wider than 8 bytes
   */
  write(bytes: Uint8Array, path: string, value: bigint | number, base = 0): void {
    const layout = this.field(path);
    let raw = BigInt(value);
    if (layout.bits !== undefined) {
      const shift = BigInt(layout.bit ?? 0);
      const mask = ((1n << BigInt(layout.bits)) - 1n) << shift;
      raw = (this.#raw(bytes, layout, path, base) & ~mask) | ((raw << shift) & mask);
    } else {
      this.#check(bytes, layout, path, base);
    }
    for (let i = 0; i < layout.size; i++) {
      bytes[base + layout.offset + i] = Number(raw & 0xffn);
      raw >>= 8n;
    }
  }

  #find(path: string): FieldLayout | undefined {
    const known = this.#resolved.get(path);
    if (known) return known;
    let struct: ProfileStruct | undefined = this.#struct;
    let offset = 0;
    const names = path.split('.');
    if (names.length > MAX_DEPTH) return undefined;
    for (let i = 0; i < names.length; i++) {
      const name = names[i]!;
      if (!struct || !Object.hasOwn(struct.fields, name)) return undefined;
      const field: ProfileStruct['fields'][string] = struct.fields[name]!;
      offset += field.offset;
      if (i === names.length - 1) {
        const found = { ...field, offset };
        this.#resolved.set(path, found);
        return found;
      }
      struct =
        field.struct !== undefined && Object.hasOwn(this.#profile.structs, field.struct)
          ? this.#profile.structs[field.struct]
          : undefined;
    }
    return undefined;
  }

  #check(bytes: Uint8Array, layout: FieldLayout, path: string, base: number): void {
    if (layout.size > 8) throw new RangeError(`${this.name}.${path} is ${layout.size} bytes, more than a number holds`);
    if (base < 0 || base + layout.offset + layout.size > bytes.length) {
      throw new ProfileError('ERR_PROFILES_SHORT_BUFFER', `${this.name}.${path} lies beyond the given bytes`, {
        offset: base + layout.offset,
      });
    }
  }

  #raw(bytes: Uint8Array, layout: FieldLayout, path: string, base: number): bigint {
    this.#check(bytes, layout, path, base);
    let value = 0n;
    for (let i = layout.size - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[base + layout.offset + i]!);
    return value;
  }

  #where(): string {
    return `build ${this.#profile.build} (${this.#profile.pdb.guid}-${this.#profile.pdb.age})`;
  }
}
