import { bundledProfiles } from './bundled/index.js';
import { GuestProfile } from './guest-profile.js';
import { parseProfile } from './profile-data.js';

/** Parsed once per process: a profile never changes. */
let bundled: readonly GuestProfile[] | undefined;

/** The profiles that a program knows, found by symbol file or by build. */
export class ProfileStore {
  readonly #profiles: GuestProfile[] = [];

  /** An empty store. */
  constructor(profiles: Iterable<GuestProfile> = []) {
    for (const profile of profiles) this.add(profile);
  }

  /** A store of the profiles that this package ships. */
  static bundled(): ProfileStore {
    bundled ??= bundledProfiles.map((text) => new GuestProfile(parseProfile(text)));
    return new ProfileStore(bundled);
  }

  /** All profiles, in the order in which they were added. */
  get profiles(): readonly GuestProfile[] {
    return this.#profiles;
  }

  /** Build numbers of the profiles, ascending, each once. */
  get builds(): number[] {
    return [...new Set(this.#profiles.map((profile) => profile.build))].toSorted((a, b) => a - b);
  }

  /** Adds a profile; one with the same symbol file is replaced. */
  add(profile: GuestProfile): void {
    const { guid, age } = profile.pdb;
    const at = this.#profiles.findIndex((known) => known.pdb.guid === guid && known.pdb.age === age);
    if (at < 0) this.#profiles.push(profile);
    else this.#profiles[at] = profile;
  }

  /** The profile made from a symbol file. The GUID may be in either case, with or without dashes and braces. */
  byPdb(guid: string, age: number): GuestProfile | undefined {
    const wanted = guid.replace(/[-{}]/g, '').toUpperCase();
    return this.#profiles.find((profile) => profile.pdb.guid === wanted && profile.pdb.age === age);
  }

  /** The first profile of a build. Layouts of public structures are the same in all revisions of a build; symbols are not. */
  byBuild(build: number): GuestProfile | undefined {
    return this.#profiles.find((profile) => profile.build === build);
  }
}
