import { expect, test } from 'vitest';
import { PeDirectory, type PeHeaders, peDebug, peExports, peHeaderPage } from './pe-image.js';

const headers: PeHeaders = {
  imageBase: 0xffff_f800_1234_0000n,
  sizeOfImage: 0x6000,
  entryPoint: 0x1010,
  timeDateStamp: 0x5000_0000,
  dll: true,
  subsystem: 1,
  sections: [
    { name: '.text', rva: 0x1000, size: 0x1234, use: 'code' },
    { name: 'ALMOSTRO', rva: 0x3000, size: 0x800, use: 'data' },
    { name: 'INIT', rva: 0x4000, size: 0x1000, use: 'discardable-code' },
    { name: 'PAGE', rva: 0x5000, size: 0x1000, use: 'code', pageable: true },
  ],
  directories: new Map([[PeDirectory.EXPORT, { rva: 0x2000, size: 0x100 }]]),
};

test('headers say what the image is, as the loader reads them', () => {
  const page = peHeaderPage(headers);
  const view = new DataView(page.buffer);
  const nt = view.getUint32(0x3c, true);
  expect(view.getUint16(0, true)).toBe(0x5a4d);
  expect(view.getUint32(nt, true)).toBe(0x4550);
  expect(view.getUint16(nt + 4, true)).toBe(0x8664);
  const optional = nt + 24;
  expect(view.getUint16(optional, true)).toBe(0x20b);
  // The optional header is exactly as long as its directories say.
  expect(view.getUint16(nt + 20, true)).toBe(112 + 8 * view.getUint32(optional + 108, true));
  expect(view.getUint32(optional + 16, true)).toBe(headers.entryPoint);
  expect(view.getBigUint64(optional + 24, true)).toBe(headers.imageBase);
  expect(view.getUint32(optional + 56, true)).toBe(headers.sizeOfImage);
  expect(view.getUint32(optional + 112, true)).toBe(0x2000);
  const table = optional + view.getUint16(nt + 20, true);
  const sections = headers.sections.map((_, i) => {
    const at = table + i * 40;
    return {
      name: Buffer.from(page.subarray(at, at + 8))
        .toString('latin1')
        .replace(/\0+$/, ''),
      size: view.getUint32(at + 8, true),
      rva: view.getUint32(at + 12, true),
      characteristics: view.getUint32(at + 36, true),
    };
  });
  expect(sections).toEqual([
    { name: '.text', size: 0x1234, rva: 0x1000, characteristics: 0x68000020 },
    { name: 'ALMOSTRO', size: 0x800, rva: 0x3000, characteristics: 0xc8000040 },
    { name: 'INIT', size: 0x1000, rva: 0x4000, characteristics: 0x62000020 },
    { name: 'PAGE', size: 0x1000, rva: 0x5000, characteristics: 0x60000020 },
  ]);
});

test('sections that do not fit the header page are refused', () => {
  const sections = Array.from({ length: 100 }, (_, i) => ({ ...headers.sections[0]!, rva: 0x1000 * (i + 1) }));
  expect(() => peHeaderPage({ ...headers, sections })).toThrow(/too many sections/);
});

test('every export is found by binary search, and no other name', () => {
  const rva = 0x2000;
  const exports = new Map([
    ['NtBuildNumber', 0x10],
    ['ExAllocatePoolWithTag', 0x20],
    ['KeBugCheckEx', 0x30],
    ['Ke', 0x40],
  ]);
  const bytes = peExports(rva, 'ntoskrnl.exe', 1, exports);
  const view = new DataView(bytes.buffer);
  const text = (at: number): string => Buffer.from(bytes.subarray(at - rva, bytes.indexOf(0, at - rva))).toString();
  const count = view.getUint32(24, true);
  const find = (name: string): number | undefined => {
    let low = 0;
    let high = count - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const candidate = text(view.getUint32(view.getUint32(32, true) - rva + middle * 4, true));
      if (candidate === name) {
        const ordinal = view.getUint16(view.getUint32(36, true) - rva + middle * 2, true);
        return view.getUint32(view.getUint32(28, true) - rva + ordinal * 4, true);
      }
      if (candidate < name) low = middle + 1;
      else high = middle - 1;
    }
    return undefined;
  };
  expect(text(view.getUint32(12, true))).toBe('ntoskrnl.exe');
  for (const [name, address] of exports) expect(find(name)).toBe(address);
  expect(find('KeBugCheck')).toBeUndefined();
});

test('the RSDS record holds the GUID in its memory order', () => {
  const { bytes, directorySize } = peDebug(0x3000, 1, {
    name: 'ntkrnlmp.pdb',
    guid: '06564D3477822C7D97F04852CBD5AFD6',
    age: 1,
  });
  const view = new DataView(bytes.buffer);
  expect(directorySize).toBe(28);
  expect(view.getUint32(12, true)).toBe(2);
  const at = view.getUint32(20, true) - 0x3000;
  expect(Buffer.from(bytes.subarray(at)).toString('hex')).toBe(
    `${Buffer.from('RSDS').toString('hex')}344d560682777d2c97f04852cbd5afd601000000${Buffer.from('ntkrnlmp.pdb\0').toString('hex')}`,
  );
  expect(view.getUint32(16, true)).toBe(bytes.length - at);
});
