import { crc32 as zlibCrc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { crc32OfUtf16, hashImageName, NO_NAME, originatorHash, PredefinedName } from './name-hash.js';

const scale = inject('scale');

describe('hashes of names', () => {
  it('equal zlib over the lower-case UTF-16LE name', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'binary' }), (name) => {
        expect(hashImageName(name)).toBe(zlibCrc32(Buffer.from(name.toLowerCase(), 'utf16le')));
      }),
      { numRuns: 200 * scale },
    );
  });

  it('of several texts in a row are the hash of all of them', () => {
    expect(crc32OfUtf16('def', crc32OfUtf16('abc'))).toBe(crc32OfUtf16('abcdef'));
  });

  it('do not depend on the case', () => expect(hashImageName('NTFS.SYS')).toBe(hashImageName('ntfs.sys')));
  it('of nothing is "no name"', () => expect(hashImageName('')).toBe(NO_NAME));
});

describe('who an image is', () => {
  it('is the kernel by its address, whatever its file is called', () => {
    expect(originatorHash('ntkrnlmp.exe', true)).toBe(PredefinedName.KERNEL);
    expect(originatorHash('ntoskrnl.exe', false)).toBe(hashImageName('ntoskrnl.exe'));
  });
  it.each(['hal.dll', 'HALMACPI.dll', 'halacpi.dll'])('is the HAL by its file: %s', (name) => {
    expect(originatorHash(name, false)).toBe(PredefinedName.HAL);
  });
  it('is not the HAL by a similar file', () => {
    expect(originatorHash('hal.sys', false)).toBe(hashImageName('hal.sys'));
  });
});
