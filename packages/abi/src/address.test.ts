import fc from 'fast-check';
import { describe, expect, expectTypeOf, inject, test } from 'vitest';
import {
  type Cr3,
  cr3,
  type Gfn,
  GPA_LIMIT,
  type Gpa,
  type Gva,
  gfn,
  gfnOf,
  gpa,
  gpaOf,
  gva,
  isCanonical,
  PAGE_SIZE,
  rootOf,
  U64_MASK,
} from './address.js';

const scale = inject('scale');
const runs = { numRuns: 200 * scale };
const anyGpa = fc.oneof(
  fc.maxSafeNat().map((value) => value % GPA_LIMIT),
  fc.constantFrom(0, PAGE_SIZE - 1, PAGE_SIZE, 2 ** 32 - 1, 2 ** 32, GPA_LIMIT - 1),
);
const anyU64 = fc.bigInt({ min: 0n, max: U64_MASK });

describe('physical addresses', () => {
  test('an address lies in its frame', () => {
    fc.assert(
      fc.property(anyGpa, (value) => {
        const frame = gfnOf(gpa(value));
        expect(gpaOf(frame)).toBeLessThanOrEqual(value);
        expect(value - gpaOf(frame)).toBeLessThan(PAGE_SIZE);
        expect(gfnOf(gpaOf(frame))).toBe(frame);
      }),
      runs,
    );
  });

  test('values that are no address are refused', () => {
    for (const value of [-1, 0.5, GPA_LIMIT, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => gpa(value), String(value)).toThrow(RangeError);
    }
    for (const value of [-1, 0.5, 2 ** 40, Number.NaN]) expect(() => gfn(value), String(value)).toThrow(RangeError);
    expect(gpa(GPA_LIMIT - 1)).toBe(2 ** 52 - 1);
    expect(gfn(2 ** 40 - 1)).toBe(2 ** 40 - 1);
  });
});

describe('virtual addresses and CR3', () => {
  test('are reduced to 64 bits', () => {
    fc.assert(
      fc.property(anyU64, fc.bigInt({ min: -5n, max: 5n }), (value, wraps) => {
        expect(gva(value + (wraps << 64n))).toBe(value);
        expect(cr3(value + (wraps << 64n))).toBe(value);
      }),
      runs,
    );
  });

  test('the root leaves out PCID and flag bits', () => {
    fc.assert(
      fc.property(anyGpa, fc.bigInt({ min: 0n, max: 0xfffn }), fc.boolean(), (root, low, keep) => {
        const page = gpaOf(gfnOf(gpa(root)));
        expect(rootOf(cr3(BigInt(page) | low | (keep ? 1n << 63n : 0n)))).toBe(page);
      }),
      runs,
    );
  });

  test('canonical means that bits 47..63 are equal', () => {
    fc.assert(
      fc.property(anyU64, (value) => {
        const top = value >> 47n;
        expect(isCanonical(gva(value))).toBe(top === 0n || top === 0x1_ffffn);
      }),
      runs,
    );
    expect(isCanonical(gva(0x0000_7fff_ffff_ffffn))).toBe(true);
    expect(isCanonical(gva(0x0000_8000_0000_0000n))).toBe(false);
    expect(isCanonical(gva(0xffff_7fff_ffff_ffffn))).toBe(false);
    expect(isCanonical(gva(0xffff_8000_0000_0000n))).toBe(true);
  });
});

test('one kind of address cannot be passed for another', () => {
  expectTypeOf<Gpa>().not.toEqualTypeOf<Gfn>();
  expectTypeOf<Gva>().not.toEqualTypeOf<Cr3>();
  // @ts-expect-error a frame number is not an address
  expect(gfnOf(gfn(1))).toBe(0);
  // @ts-expect-error a plain number is neither
  expect(gpaOf(1)).toBe(PAGE_SIZE);
  // @ts-expect-error a virtual address is not a CR3
  expect(rootOf(gva(0x1000n))).toBe(0x1000);
});
