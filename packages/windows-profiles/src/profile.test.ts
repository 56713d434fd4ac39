import fc from 'fast-check';
import { describe, expect, inject, test } from 'vitest';
import {
  GuestProfile,
  type GuestProfileData,
  ProfileError,
  ProfileStore,
  parseProfile,
  validateProfile,
} from './index.js';

const scale = inject('scale');

const small: GuestProfileData = {
  schemaVersion: 1,
  pdb: { name: 'ntkrnlmp.pdb', guid: '0123456789ABCDEF0123456789ABCDEF', age: 2 },
  build: 12345,
  revision: 7,
  arch: 'x64',
  pointerSize: 8,
  structs: {
    _OUTER: {
      size: 32,
      fields: {
        Head: { offset: 0, size: 8 },
        Inner: { offset: 8, size: 16, struct: '_INNER' },
        Flags: { offset: 24, size: 4 },
        Low: { offset: 24, size: 4, bit: 0, bits: 3 },
        High: { offset: 24, size: 4, bit: 3, bits: 29 },
        Elsewhere: { offset: 28, size: 4, struct: '_NOT_HERE' },
      },
    },
    _INNER: { size: 16, fields: { A: { offset: 0, size: 8 }, B: { offset: 8, size: 2 } } },
  },
  symbols: { Main: 0x1000 },
};

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof ProfileError) return error.code;
    throw error;
  }
  return 'no error';
}

describe('GuestProfile', () => {
  const profile = new GuestProfile(small);

  test('finds fields by path, through embedded structures', () => {
    const outer = profile.struct('_OUTER');
    expect(outer.offset('Head')).toBe(0);
    expect(outer.offset('Inner.B')).toBe(16);
    expect(outer.has('Inner.C')).toBe(false);
    expect(profile.symbol('Main')).toBe(0x1000);
  });

  test('names what is missing in a typed error', () => {
    expect(() => profile.struct('_OUTER').offset('Inner.C')).toThrow(/_OUTER\.Inner\.C/);
    expect(codeOf(() => profile.struct('_OUTER').offset('Inner.C'))).toBe('ERR_PROFILES_NO_FIELD');
    expect(codeOf(() => profile.struct('_OUTER').offset('Elsewhere.X'))).toBe('ERR_PROFILES_NO_FIELD');
    expect(codeOf(() => profile.struct('_NOT_HERE'))).toBe('ERR_PROFILES_NO_STRUCT');
    expect(codeOf(() => profile.symbol('Other'))).toBe('ERR_PROFILES_NO_SYMBOL');
  });

  test('is not fooled by the names that every object has', () => {
    expect(codeOf(() => profile.struct('constructor'))).toBe('ERR_PROFILES_NO_STRUCT');
    expect(codeOf(() => profile.symbol('toString'))).toBe('ERR_PROFILES_NO_SYMBOL');
    expect(profile.struct('_OUTER').has('constructor')).toBe(false);
    expect(profile.struct('_OUTER').has('Inner.__proto__')).toBe(false);
  });

  test('reads and writes fields and bit fields', () => {
    const outer = profile.struct('_OUTER');
    const bytes = new Uint8Array(40).fill(0xff);
    outer.write(bytes, 'Inner.A', 0x1122334455667788n, 4);
    outer.write(bytes, 'Low', 2, 4);
    outer.write(bytes, 'High', 0, 4);
    expect(outer.u64(bytes, 'Inner.A', 4)).toBe(0x1122334455667788n);
    expect(outer.number(bytes, 'Low', 4)).toBe(2);
    expect(outer.number(bytes, 'Flags', 4)).toBe(2);
    expect(bytes[32]).toBe(0xff);
  });

  test('refuses bytes that end before the field', () => {
    const outer = profile.struct('_OUTER');
    expect(codeOf(() => outer.u64(new Uint8Array(15), 'Inner.A'))).toBe('ERR_PROFILES_SHORT_BUFFER');
    expect(codeOf(() => outer.write(new Uint8Array(27), 'Flags', 1))).toBe('ERR_PROFILES_SHORT_BUFFER');
    expect(codeOf(() => outer.u64(new Uint8Array(64), 'Head', -1))).toBe('ERR_PROFILES_SHORT_BUFFER');
  });

  test('lists the requirements that it lacks', () => {
    expect(profile.missing(['_OUTER', '_OUTER.Inner.A', 'Main'])).toEqual([]);
    expect(profile.missing(['_OUTER.Inner.Z', '_GONE', '_GONE.X', 'Nowhere'])).toEqual([
      '_OUTER.Inner.Z',
      '_GONE',
      '_GONE.X',
      'Nowhere',
    ]);
  });
});

describe('ProfileStore', () => {
  test('has the profile of build 19041', () => {
    const store = ProfileStore.bundled();
    const profile = store.byBuild(19041)!;
    expect(store.byPdb('{06564d34-7782-2c7d-97f0-4852cbd5afd6}', 1)).toBe(profile);
    expect(store.byPdb('06564D3477822C7D97F04852CBD5AFD6', 2)).toBeUndefined();
    expect(store.byBuild(7601)).toBeUndefined();
    expect(profile.struct('_EPROCESS').offset('Pcb.DirectoryTableBase')).toBe(0x28);
    expect(profile.struct('_KDDEBUGGER_DATA64').offset('PsActiveProcessHead')).toBe(0x50);
  });

  test('replaces a profile of the same symbol file, and keeps others', () => {
    const store = ProfileStore.bundled();
    const before = store.profiles.length;
    store.add(new GuestProfile(small));
    store.add(new GuestProfile({ ...small, build: 12346 }));
    expect(store.profiles.length).toBe(before + 1);
    expect(store.builds).toEqual([12346, 19041]);
    expect(ProfileStore.bundled().profiles.length).toBe(before);
  });
});

describe('a profile that is not one', () => {
  test('is refused with the property that is wrong', () => {
    expect(codeOf(() => parseProfile('{'))).toBe('ERR_PROFILES_NOT_JSON');
    expect(() => validateProfile({ ...small, pdb: { ...small.pdb, guid: 'xyz' } })).toThrow(/pdb\.guid/);
    expect(() => validateProfile({ ...small, symbols: { Main: -1 } })).toThrow(/symbols\.Main/);
    expect(codeOf(() => validateProfile({ ...small, schemaVersion: 2 }))).toBe('ERR_PROFILES_INVALID');
  });

  test('is refused when a field lies outside its structure', () => {
    expect(codeOf(() => validateProfile(bad({ offset: 4, size: 8 })))).toBe('ERR_PROFILES_INCONSISTENT');
    expect(codeOf(() => validateProfile(bad({ offset: 0, size: 4, bit: 30, bits: 3 })))).toBe(
      'ERR_PROFILES_INCONSISTENT',
    );
    expect(codeOf(() => validateProfile(bad({ offset: 0, size: 4, bit: 30 })))).toBe('ERR_PROFILES_INCONSISTENT');
  });

  test('property: garbage and truncations give a ProfileError, never anything else', () => {
    const text = JSON.stringify(small);
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          fc.nat(text.length - 1).map((n) => text.slice(0, n)),
        ),
        (input) => {
          expect(codeOf(() => parseProfile(input))).toMatch(/^ERR_PROFILES_(NOT_JSON|INVALID|INCONSISTENT)$/);
        },
      ),
      { numRuns: 200 * scale },
    );
  });

  test('property: a profile with one value replaced is refused or still answers safely', () => {
    const paths = leaves(small);
    fc.assert(
      fc.property(fc.constantFrom(...paths), fc.anything(), (path, value) => {
        const copy = structuredClone(small);
        set(copy, path, value);
        let profile: GuestProfile;
        try {
          profile = new GuestProfile(copy);
        } catch (error) {
          expect(error).toBeInstanceOf(ProfileError);
          return;
        }
        for (const struct of Object.keys(profile.data.structs)) {
          const reader = profile.struct(struct);
          for (const field of Object.keys(profile.data.structs[struct]!.fields)) {
            const { offset, size } = reader.field(field);
            expect(offset + size).toBeLessThanOrEqual(reader.size);
          }
        }
      }),
      { numRuns: 300 * scale },
    );
  });
});

/** A profile whose only structure has 8 bytes and the given field. */
function bad(field: object): unknown {
  return { ...small, structs: { _S: { size: 8, fields: { F: field } } } };
}

function leaves(value: unknown, path: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [path];
  return Object.entries(value).flatMap(([key, member]) => leaves(member, [...path, key]));
}

function set(target: unknown, path: readonly string[], value: unknown): void {
  let at = target as Record<string, unknown>;
  for (const key of path.slice(0, -1)) at = at[key] as Record<string, unknown>;
  at[path.at(-1)!] = value;
}
