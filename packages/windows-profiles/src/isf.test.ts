import fc from 'fast-check';
import { expect, inject, test } from 'vitest';
import { GuestProfile, ProfileError, profileFromIsf } from './index.js';

const scale = inject('scale');

const isf = {
  metadata: { windows: { pdb: { database: 'ntkrnlmp.pdb', GUID: '0123456789abcdef0123456789abcdef', age: 1 } } },
  base_types: { pointer: { size: 8 }, 'unsigned long': { size: 4 }, char: { size: 1 } },
  enums: { _COLOUR: { size: 4 } },
  user_types: {
    _A: {
      size: 48,
      fields: {
        Next: { offset: 0, type: { kind: 'pointer', subtype: { kind: 'struct', name: '_A' } } },
        Items: { offset: 8, type: { kind: 'array', count: 3, subtype: { kind: 'struct', name: '_B' } } },
        Bit: {
          offset: 32,
          type: { kind: 'bitfield', bit_position: 4, bit_length: 2, type: { kind: 'base', name: 'unsigned long' } },
        },
        Colour: { offset: 36, type: { kind: 'enum', name: '_COLOUR' } },
        Name: { offset: 40, type: { kind: 'array', count: 8, subtype: { kind: 'base', name: 'char' } } },
      },
    },
    _B: { size: 8, fields: { Value: { offset: 4, type: { kind: 'base', name: 'unsigned long' } } } },
    _UNUSED: { size: 1, fields: {} },
  },
  symbols: { Keep: { address: 16 }, Drop: { address: 32 } },
};
const selection = { structs: ['_A', '_MISSING'], symbol: (name: string): boolean => name === 'Keep' };

test('takes the selected structures, those that they embed, and the selected symbols', () => {
  const profile = new GuestProfile(profileFromIsf(isf, { build: 19041 }, selection));
  expect(Object.keys(profile.data.structs)).toEqual(['_A', '_B', '_KDDEBUGGER_DATA64']);
  expect(profile.struct('_A').field('Items')).toMatchObject({ offset: 8, size: 24 });
  expect(profile.struct('_A').offset('Items.Value')).toBe(12);
  expect(profile.struct('_A').field('Bit')).toEqual({ offset: 32, size: 4, bit: 4, bits: 2 });
  expect(profile.struct('_A').field('Colour')).toEqual({ offset: 36, size: 4 });
  expect(profile.data.symbols).toEqual({ Keep: 16 });
  expect(profile.pdb.guid).toBe('0123456789ABCDEF0123456789ABCDEF');
});

test('property: a symbol file with one value replaced gives a profile or a ProfileError', () => {
  const paths: string[][] = [];
  const walk = (value: unknown, path: string[]): void => {
    if (path.length > 0) paths.push(path);
    if (typeof value !== 'object' || value === null) return;
    for (const [key, member] of Object.entries(value)) walk(member, [...path, key]);
  };
  walk(isf, []);
  fc.assert(
    fc.property(fc.constantFrom(...paths), fc.anything(), (path, value) => {
      const copy = structuredClone(isf);
      let at = copy as unknown as Record<string, unknown>;
      for (const key of path.slice(0, -1)) at = at[key] as Record<string, unknown>;
      at[path.at(-1)!] = value;
      try {
        expect(profileFromIsf(copy, { build: 1 }, selection).build).toBe(1);
      } catch (error) {
        expect(error).toBeInstanceOf(ProfileError);
      }
    }),
    { numRuns: 300 * scale },
  );
});

test('refuses types that nest without end', () => {
  const array: Record<string, unknown> = { kind: 'array', count: 1 };
  array.subtype = array;
  const copy = { ...isf, user_types: { _A: { size: 8, fields: { X: { offset: 0, type: array } } } } };
  expect(() => profileFromIsf(copy, { build: 1 }, selection)).toThrow(/nests too deep/);
});
