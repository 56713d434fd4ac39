import { type Gpa, type Gva, PAGE_SIZE } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { CR3 } from '../../test/detour-guest.js';
import { DATA, kernel, leafEntry } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import type { CodePattern } from '../index.js';
import { createCodeImages } from '../testing.js';
import { findFunction } from './function-search.js';

const scale = inject('scale');
const SIZE = 2 * PAGE_SIZE + 100;

/** Two sections of two pages and 100 bytes each, 16 pages apart. */
function setUp(): { guest: SyntheticGuest; find: (...patterns: CodePattern[]) => Gva | undefined } {
  const guest = new SyntheticGuest();
  const image = createCodeImages(guest.engine.memory, CR3, {
    images: [
      {
        name: 'ntoskrnl.exe',
        base: kernel(DATA),
        size: 0x2_0000,
        sections: [
          { name: '.text', start: kernel(DATA), size: SIZE },
          { name: 'PAGE', start: kernel(DATA + 0x1_0000), size: SIZE },
          { name: '.data', start: kernel(DATA + 0x2_0000), size: SIZE, executable: false },
        ],
      },
    ],
  }).kernel!;
  return { guest, find: (...patterns) => findFunction(image, { by: 'pattern', patterns })?.va };
}

const put = (guest: SyntheticGuest, gpa: number, hex: string): void => {
  guest.port.writePhysical(gpa as Gpa, Buffer.from(hex.replaceAll(' ', ''), 'hex'));
};

describe('finding a function by its bytes', () => {
  it('finds it at the first and the last possible position of a section, over page borders, and not behind the end', () => {
    for (const at of [0, PAGE_SIZE - 2, SIZE - 4]) {
      const { guest, find } = setUp();
      put(guest, DATA + at, '48 89 5c 24');
      expect(find({ bytes: '48 89 5C 24' })).toBe(kernel(DATA + at));
      expect(find({ bytes: '48 ?? ?? 24', offset: 3 })).toBe(kernel(DATA + at + 3));
      expect(find({ bytes: '48 ?? ?? 25' })).toBeUndefined();
    }
    const { guest, find } = setUp();
    put(guest, DATA + SIZE - 3, '48 89 5c 24');
    expect(find({ bytes: '48 89 5c 24' })).toBeUndefined();
  });

  it('tries every pattern in its own section first, then all of them in every executable one', () => {
    const { guest, find } = setUp();
    put(guest, DATA + 0x10, 'aa bb');
    put(guest, DATA + 0x1_0000, 'cc dd');
    put(guest, DATA + 0x2_0000, 'ee ff');
    expect(find({ bytes: 'aa bb' }, { bytes: 'cc dd', section: 'PAGE' })).toBe(kernel(DATA + 0x1_0000));
    expect(find({ bytes: 'aa bb', section: 'PAGE' })).toBe(kernel(DATA + 0x10));
    expect(find({ bytes: 'ee ff' })).toBeUndefined();
    expect(find({ bytes: 'ee ff', section: '.data' })).toBe(kernel(DATA + 0x2_0000));
  });

  it('passes over pages that cannot be read', () => {
    const { guest, find } = setUp();
    put(guest, DATA + PAGE_SIZE + 8, 'aa bb');
    put(guest, DATA + 2 * PAGE_SIZE, 'aa bb');
    guest.put64(leafEntry(DATA + PAGE_SIZE), 0n);
    expect(find({ bytes: 'aa bb' })).toBe(kernel(DATA + 2 * PAGE_SIZE));
    // Half of it on the absent page.
    put(guest, DATA + PAGE_SIZE - 1, 'cc dd');
    expect(find({ bytes: 'cc dd' })).toBeUndefined();
  });

  it('equals a plain search over random bytes', () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 60, max: 2 });
    const pattern = fc.array(fc.constantFrom('00', '01', '02', '??'), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(bytes, pattern, (haystack, needle) => {
        fc.pre(needle.some((byte) => byte !== '??'));
        const { guest, find } = setUp();
        const filler = new Uint8Array(SIZE).fill(9);
        filler.set(haystack);
        guest.port.writePhysical(DATA as Gpa, filler);
        guest.port.writePhysical((DATA + 0x1_0000) as Gpa, new Uint8Array(SIZE).fill(9));
        let expected: Gva | undefined;
        for (let at = SIZE - needle.length; at >= 0; at--) {
          if (needle.every((byte, index) => byte === '??' || filler[at + index] === Number(`0x${byte}`))) {
            expected = kernel(DATA + at);
          }
        }
        expect(find({ bytes: needle.join(' ') })).toBe(expected);
      }),
      { numRuns: 40 * scale },
    );
  });

  it('refuses what is no pattern, whatever it is', () => {
    const { find } = setUp();
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), (text) => {
        const pairs = text.replaceAll(/\s/gu, '').match(/^(?:[0-9a-f]{2}|\?\?)+$/iu);
        if (pairs !== null && /[0-9a-f]/iu.test(text)) {
          expect(find({ bytes: text })).toSatisfy((va) => va === undefined || typeof va === 'bigint');
        } else {
          expect(() => find({ bytes: text })).toThrow(expect.objectContaining({ code: 'ERR_CORE_HOOKS_DETOUR' }));
        }
      }),
      { numRuns: 100 * scale },
    );
    expect(() => find({ bytes: '90'.repeat(257) })).toThrow(expect.objectContaining({ code: 'ERR_CORE_HOOKS_DETOUR' }));
  });
});
