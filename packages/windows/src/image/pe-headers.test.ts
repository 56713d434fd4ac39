import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { peHeaders } from '../../test/synthetic-windows.js';
import { parsePeHeaders, printable, sectionAt } from './pe-headers.js';

const scale = inject('scale');
const NT = 0x80;
const OPTIONAL = NT + 24;
const TABLE = OPTIONAL + 240;

/** Sets size in memory and size in the file of the first section. */
const resize = (view: DataView, virtualSize: number, rawSize: number) => {
  view.setUint32(TABLE + 8, virtualSize, true);
  view.setUint32(TABLE + 16, rawSize, true);
};

const image = (change?: (view: DataView) => void) => {
  const page = peHeaders(
    0x10000,
    [
      { name: '.text', rva: 0x1000, size: 0x1800, flags: 0x6000_0020 },
      { name: 'ALMOSTRO', rva: 0x4000, size: 0x1000, flags: 0xc200_0040 },
    ],
    0x2000,
  );
  change?.(new DataView(page.buffer));
  return page;
};

describe('headers of an image', () => {
  it('are read with sections and directories', () => {
    expect(parsePeHeaders(image())).toMatchObject({
      bits: 64,
      sizeOfImage: 0x10000,
      timeDateStamp: 0x1234_5678,
      entryPoint: 0x1000,
      sections: [
        {
          name: '.text',
          rva: 0x1000,
          virtualSize: 0x1800,
          size: 0x2000,
          executable: true,
          writable: false,
          discardable: false,
        },
        { name: 'ALMOSTRO', rva: 0x4000, virtualSize: 0x1000, executable: false, writable: true, discardable: true },
      ],
    });
    expect(parsePeHeaders(image())).toMatchObject({ directories: { 6: { rva: 0x2000, size: 28 } } });
  });

  it.each<[string, (view: DataView) => void]>([
    ['no MZ', (view) => view.setUint8(0, 0)],
    ['the headers lie outside the first page', (view) => view.setUint32(0x3c, 4096 - 264, true)],
    ['the headers lie outside the first page', (view) => view.setUint32(0x3c, 0xffff_ffff, true)],
    ['no PE signature', (view) => view.setUint8(NT, 0)],
    ['neither x86 nor x64', (view) => view.setUint16(NT + 4, 0xaa64, true)],
    ['unknown kind of optional header', (view) => view.setUint16(OPTIONAL, 0x107, true)],
    ['the optional header has the wrong size', (view) => view.setUint16(NT + 20, 241, true)],
    ['the optional header has the wrong size', (view) => view.setUint32(OPTIONAL + 108, 0xffff_ffff, true)],
    ['the image is larger than 2 GiB', (view) => view.setUint32(OPTIONAL + 56, 0x8000_0001, true)],
    ['no section alignment', (view) => view.setUint32(OPTIONAL + 32, 0, true)],
    ['the section table lies outside the first page', (view) => view.setUint16(NT + 6, 0xffff, true)],
    ['the entry point lies outside the image', (view) => view.setUint32(OPTIONAL + 16, 0x10000, true)],
    ['a section at the base of the image', (view) => view.setUint32(TABLE + 12, 0, true)],
    ['a section outside the image', (view) => view.setUint32(TABLE + 12, 0xf000, true)],
    ['a section outside the image', (view) => view.setUint32(TABLE + 8, 0xffff_ffff, true)],
    ['a section without size', (view) => resize(view, 0, 0)],
    ['a section without size', (view) => resize(view, 0, 4097)],
  ])('are refused: %s', (reason, change) => {
    expect(parsePeHeaders(image(change))).toBe(reason);
  });

  it('accept a section whose size is only known in the file', () => {
    const headers = parsePeHeaders(image((view) => resize(view, 0, 4096)));
    expect(headers).toMatchObject({ sections: [{ virtualSize: 0, size: 4096 }, {}] });
  });

  it('of less than a page are refused', () => {
    expect(parsePeHeaders(image().subarray(0, 4095))).toBe('less than a page');
  });

  it('leave out a directory that lies outside the image', () => {
    const headers = parsePeHeaders(image((view) => view.setUint32(OPTIONAL + 112 + 48 + 4, 0xf000, true)));
    expect(headers).toMatchObject({ directories: { 6: undefined } });
  });

  it('give headers or a reason, whatever the page holds', () => {
    const noise = fc.uint8Array({ minLength: 4096, maxLength: 4096 });
    const fields = fc.array(fc.tuple(fc.nat(0x200), fc.integer({ min: 0, max: 0xffff_ffff })), { maxLength: 12 });
    const mutated = fields.map((changes) =>
      image((view) => {
        for (const [at, value] of changes) view.setUint32(at, value, true);
      }),
    );
    fc.assert(
      fc.property(fc.oneof(noise, mutated), (page) => {
        const headers = parsePeHeaders(page);
        if (typeof headers === 'string') return;
        expect(headers.sections.length).toBeLessThanOrEqual(100);
        expect(headers.directories.length).toBeLessThanOrEqual(16);
        for (const section of headers.sections) {
          expect(section.rva + section.size).toBeLessThanOrEqual(headers.sizeOfImage);
          expect(section.name).toMatch(/^[\x20-\x7e]{0,8}$/);
        }
      }),
      { numRuns: 500 * scale },
    );
  });
});

describe('sectionAt', () => {
  const headers = parsePeHeaders(image()) as Exclude<ReturnType<typeof parsePeHeaders>, string>;
  it.each([
    [0xfff, undefined],
    [0x1000, '.text'],
    [0x2fff, '.text'],
    [0x3000, undefined],
    [0x4fff, 'ALMOSTRO'],
    [0x5000, undefined],
  ])('%i lies in %s', (rva, name) => expect(sectionAt(headers, rva)?.name).toBe(name));
});

describe('printable', () => {
  it('keeps what can be printed and nothing else', () => {
    expect(printable([0x41, 0x1b, 0x7f, 0x7e, 0x20, 0xe9, 0x4e2d])).toBe('A??~ ??');
  });
});
