import fc from 'fast-check';
import { expect, inject, test } from 'vitest';
import { U64_MASK } from './address.js';
import { hex64, parseHex64 } from './hex.js';

const runs = { numRuns: 200 * inject('scale') };

test('every 64-bit value survives text', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: U64_MASK }), (value) => {
      expect(hex64(value)).toMatch(/^0x[0-9a-f]{1,16}$/);
      expect(parseHex64(hex64(value))).toBe(value);
    }),
    runs,
  );
});

test('negative values are written as the guest sees them', () => {
  expect(hex64(-1n)).toBe('0xffffffffffffffff');
  expect(hex64(0)).toBe('0x0');
  expect(hex64(2 ** 52 - 1)).toBe('0xfffffffffffff');
});

test('any text is either a value or undefined, and only the written form is a value', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const value = parseHex64(text);
      if (value !== undefined) expect(BigInt(text)).toBe(value);
    }),
    runs,
  );
  for (const text of ['', '0x', '12', '0X1', '0xA', '0x1 ', '-0x1', '0x12345678901234567', '0x1n']) {
    expect(parseHex64(text), text).toBeUndefined();
  }
});
