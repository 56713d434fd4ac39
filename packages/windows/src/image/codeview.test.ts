import { gva } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { parseCodeView, readCodeView } from './codeview.js';
import type { PeHeaders } from './pe-headers.js';

const scale = inject('scale');
// GUID {01020304-0506-0708-090A-0B0C0D0E0F10}, age 3.
const RECORD = Uint8Array.from([
  0x52,
  0x53,
  0x44,
  0x53,
  4,
  3,
  2,
  1,
  6,
  5,
  8,
  7,
  9,
  10,
  11,
  12,
  13,
  14,
  15,
  16,
  3,
  0,
  0,
  0,
  ...new TextEncoder().encode('d:\\x\\nt.pdb\0'),
]);

describe('a CodeView record', () => {
  it('names GUID, age and file', () => {
    expect(parseCodeView(RECORD)).toEqual({ guid: '0102030405060708090A0B0C0D0E0F10', age: 3, name: 'nt.pdb' });
  });
  it('may end without a NUL', () => {
    expect(parseCodeView(RECORD.subarray(0, RECORD.length - 1))).toMatchObject({ name: 'nt.pdb' });
  });
  it('is none when it is cut, or of the older kind', () => {
    expect(parseCodeView(RECORD.subarray(0, 23))).toBeUndefined();
    expect(parseCodeView(Uint8Array.from([0x4e, 0x42, 0x31, 0x30, ...RECORD.subarray(4)]))).toBeUndefined();
  });
});

describe('looking for it in an image', () => {
  it('ends, with a record or without, whatever the directory and the memory hold', () => {
    const headers = (rva: number, size: number): PeHeaders => ({
      bits: 64,
      sizeOfImage: 0x10000,
      timeDateStamp: 0,
      entryPoint: 0,
      sections: [],
      directories: [...Array.from({ length: 6 }, () => undefined), { rva, size }],
    });
    fc.assert(
      fc.property(
        fc.nat(0xffff),
        fc.nat(0xffff_ffff),
        fc.uint8Array({ minLength: 1, maxLength: 900 }),
        fc.boolean(),
        (rva, size, noise, typed) => {
          let bytes = 0;
          const memory = {
            read(_address: bigint, target: Uint8Array) {
              bytes += target.length;
              for (let i = 0; i < target.length; i += 1) target[i] = noise[i % noise.length]!;
              if (typed) for (let i = 12; i < target.length; i += 28) target.set([2, 0, 0, 0], i);
              return true;
            },
          };
          const found = readCodeView(memory, gva(0xffff_f800_0000_0000n), headers(rva, size));
          expect(bytes).toBeLessThan(32 * 28 + 32 * 300);
          if (found) expect(found.guid).toMatch(/^[0-9A-F]{32}$/);
        },
      ),
      { numRuns: 300 * scale },
    );
  });
});
