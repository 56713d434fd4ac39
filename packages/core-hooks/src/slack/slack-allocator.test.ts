import { type Cr3, type Gpa, type Gva, PAGE_SIZE } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { DATA, kernel, leafEntry, PML4 } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import type { CodeImage, Engine } from '../index.js';
import { type CodeImageData, createCodeImages } from '../testing.js';

const scale = inject('scale');
const CR3 = BigInt(PML4) as Cr3;
/** Bytes that the test's sections hold; the rest of their page is padding. */
const FILLED = 0xf00;
const PADDING = PAGE_SIZE - FILLED;

type SectionData = CodeImageData['sections'][number];
const section = (page: number, more: Partial<SectionData> = {}): SectionData => ({
  name: '.text',
  start: kernel(DATA + page * PAGE_SIZE),
  size: FILLED,
  ...more,
});

function setUp(...sections: SectionData[]): { guest: SyntheticGuest; engine: Engine; image: CodeImage } {
  const guest = new SyntheticGuest();
  const { engine } = guest;
  engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
  engine.codeImages = createCodeImages(engine.memory, CR3, {
    images: [{ name: 'ntoskrnl.exe', base: kernel(DATA), size: 0x10000, sections }],
  });
  return { guest, engine, image: engine.codeImages.kernel! };
}

const end = (page: number): Gva => kernel(DATA + page * PAGE_SIZE + FILLED);

describe('the slack allocator', () => {
  it('takes the padding of executable sections only, that are not writable, not discarded, and as pageable as asked [P14.1]', () => {
    const { engine, image } = setUp(
      section(0, { executable: false }),
      section(1, { writable: true }),
      section(2, { discardable: true }),
      section(3, { pageable: true }),
      section(4, { name: 'INITKDBG' }),
      section(5, { size: PAGE_SIZE }),
      section(6),
    );
    expect(engine.slack.allocate({ image, size: 16, paged: false })).toEqual({ status: 'ok', va: end(6) });
    expect(engine.slack.allocate({ image, size: 16, paged: true })).toEqual({ status: 'ok', va: end(3) });
  });

  it('lays blocks one behind the other, and gives out a freed one again when it was the last [P14.2] [P14.10]', () => {
    const { engine, image } = setUp(section(0));
    const take = (size: number): Gva => {
      const allocation = engine.slack.allocate({ image, size, paged: false });
      if (allocation.status !== 'ok') throw new Error(allocation.status);
      return allocation.va;
    };
    const first = take(10);
    const second = take(20);
    const third = take(30);
    expect([first, second, third]).toEqual([end(0), end(0) + 10n, end(0) + 30n]);
    expect(engine.slack.free((third + 1n) as Gva)).toBe(false);
    expect(engine.slack.free(third)).toBe(true);
    expect(engine.slack.free(third)).toBe(false);
    expect(take(5)).toBe(third);
    engine.slack.free(first);
    expect(take(5)).toBe(third + 5n);
  });

  it('tells of padding that is not zero, and tries no other section then [P14.3]', () => {
    const { guest, engine, image } = setUp(section(0), section(1));
    guest.port.writePhysical((DATA + FILLED + 9) as Gpa, Uint8Array.of(0xcc));
    expect(engine.slack.allocate({ image, size: 32, paged: false })).toEqual({
      status: 'dirty',
      va: end(0),
      at: end(0) + 9n,
    });
    // What is in front of it may be used.
    expect(engine.slack.allocate({ image, size: 9, paged: false })).toEqual({ status: 'ok', va: end(0) });
    expect(engine.slack.count).toBe(1);
  });

  it('keeps to a section that is named, and tells when nothing has room or can be read [P14.4] [P14.5] [P14.8]', () => {
    const { guest, engine, image } = setUp(section(0), section(1, { name: 'POOLCODE' }));
    const ask = (size: number, name?: string): string =>
      engine.slack.allocate({ image, size, paged: false, section: name }).status;
    expect(engine.slack.allocate({ image, size: 8, paged: false, section: 'POOLCODE' })).toEqual({
      status: 'ok',
      va: end(1),
    });
    expect(ask(8, 'NOSUCH')).toBe('no-space');
    expect(ask(PADDING, 'POOLCODE')).toBe('no-space');
    for (const size of [0, -1, 1.5, PAGE_SIZE, Number.NaN]) {
      expect(ask(size)).toBe('no-space');
    }
    guest.put64(leafEntry(DATA), 0n);
    expect(engine.slack.allocate({ image, size: 8, paged: false })).toEqual({ status: 'not-readable', va: end(0) });
  });

  it('fills a page to its last byte, not beyond, at once and piece by piece [P14.2] [P14.9]', () => {
    for (const sizes of [[PADDING], [PADDING - 1, 1], [1, PADDING - 1], [100, PADDING - 100]]) {
      const { engine, image } = setUp(section(0));
      const ask = (size: number) => engine.slack.allocate({ image, size, paged: false });
      expect(ask(PADDING + 1)).toEqual({ status: 'no-space' });
      let at = end(0);
      for (const size of sizes) {
        expect(ask(size)).toEqual({ status: 'ok', va: at });
        at = (at + BigInt(size)) as Gva;
      }
      expect(at).toBe(kernel(DATA + PAGE_SIZE));
      expect(ask(1)).toEqual({ status: 'no-space' });
    }
  });

  it('takes the next section when one is full, of every image its own, and no block leaves its page [P14.6] [P14.9]', () => {
    const other: CodeImageData = { name: 'other.sys', base: kernel(DATA), size: 4096, sections: [section(2)] };
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 90 }), { maxLength: 12 }), (sizes) => {
        const { engine, image } = setUp(section(0), section(1));
        const own = createCodeImages(engine.memory, CR3, { images: [other] }).kernel!;
        const taken: [bigint, bigint][] = [];
        for (const size of sizes) {
          const allocation = engine.slack.allocate({ image, size, paged: false });
          if (allocation.status === 'ok') {
            taken.push([allocation.va, allocation.va + BigInt(size)]);
          }
        }
        expect(engine.slack.allocate({ image: own, size: 8, paged: false })).toEqual({ status: 'ok', va: end(2) });
        for (const [at, [from, to]] of taken.entries()) {
          expect(from >> 12n).toBe((to - 1n) >> 12n);
          expect(from & 0xfffn).toBeGreaterThanOrEqual(BigInt(FILLED));
          for (const [otherFrom, otherTo] of taken.slice(0, at)) {
            expect(to <= otherFrom || from >= otherTo).toBe(true);
          }
        }
      }),
      { numRuns: 50 * scale },
    );
  });
});
