import { ProfileError } from './error.js';
import { type GuestProfileData, type PdbIdentity, validateProfile } from './profile-data.js';
import { StructReader } from './struct-reader.js';

/** The layout of one Windows kernel, ready to be asked. */
export class GuestProfile {
  /** The profile as data: it has been validated. */
  readonly data: GuestProfileData;
  readonly #structs = new Map<string, StructReader>();

  /**
   * @param data a profile; it is validated and must not be changed afterwards
   * @throws ProfileError ERR_PROFILES_INVALID, ERR_PROFILES_INCONSISTENT
   */
  constructor(data: GuestProfileData) {
    this.data = validateProfile(data);
  }

  /** Symbol file that the profile was made from. */
  get pdb(): PdbIdentity {
    return this.data.pdb;
  }

  /** Build number, e.g. 19041. */
  get build(): number {
    return this.data.build;
  }

  /** Whether the profile has the structure. */
  hasStruct(name: string): boolean {
    return Object.hasOwn(this.data.structs, name);
  }

  /**
   * A structure by the name that the symbols give it, e.g. `_EPROCESS`.
   * @throws ProfileError ERR_PROFILES_NO_STRUCT
   */
  struct(name: string): StructReader {
    const known = this.#structs.get(name);
    if (known) return known;
    if (!this.hasStruct(name)) {
      throw new ProfileError('ERR_PROFILES_NO_STRUCT', `${name} is not in the profile of build ${this.build}`, {
        hint: 'the profile was made without it; generate it again with the structure selected',
      });
    }
    const reader = new StructReader(this.data, name, this.data.structs[name]!);
    this.#structs.set(name, reader);
    return reader;
  }

  /** Whether the profile has the symbol. */
  hasSymbol(name: string): boolean {
    return Object.hasOwn(this.data.symbols, name);
  }

  /**
   * Offset of a symbol from the base of the kernel image.
   * @throws ProfileError ERR_PROFILES_NO_SYMBOL
   */
  symbol(name: string): number {
    if (!this.hasSymbol(name)) {
      throw new ProfileError('ERR_PROFILES_NO_SYMBOL', `symbol ${name} is not in the profile of build ${this.build}`, {
        hint: 'the symbol file of this kernel has no such symbol, or the profile was made without it',
      });
    }
    return this.data.symbols[name]!;
  }

  /**
   * Names of `requirements` that the profile lacks, each `_STRUCT.Path.To.Field`, `_STRUCT` or a symbol's name as
   * written: what a protection shows as the reason for being off. Empty when nothing is missing.
   */
  missing(requirements: readonly string[]): string[] {
    return requirements.filter((requirement) => {
      const dot = requirement.indexOf('.');
      if (dot < 0) return !this.hasStruct(requirement) && !this.hasSymbol(requirement);
      const struct = requirement.slice(0, dot);
      return !this.hasStruct(struct) || !this.struct(struct).has(requirement.slice(dot + 1));
    });
  }
}
