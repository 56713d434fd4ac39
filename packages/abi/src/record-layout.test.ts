import fc from 'fast-check';
import { describe, expect, inject, test } from 'vitest';
import { defineRecord, type FieldType, fieldSize } from './record-layout.js';

const scale = inject('scale');
const fieldType: fc.Arbitrary<FieldType> = fc.oneof(
  fc.constantFrom<FieldType[]>('u8', 'u16', 'u32', 'u64'),
  fc.integer({ min: 1, max: 100 }).map((size): FieldType => `bytes:${size}`),
);
const fieldList = fc.array(fieldType, { minLength: 1, maxLength: 40 }).map((types) => {
  const fields: Record<string, FieldType> = {};
  types.forEach((type, i) => {
    fields[`field${i}`] = type;
  });
  return fields;
});

describe('defineRecord', () => {
  test('lays fields out as a C compiler would', () => {
    const layout = defineRecord({ a: 'u8', b: 'u32', c: 'u16', d: 'u64', e: 'bytes:3', f: 'u8' });
    expect(layout.offset).toEqual({ a: 0, b: 4, c: 8, d: 16, e: 24, f: 27 });
    expect(layout.size).toBe(64);
  });

  test('keeps every field aligned and apart, in order, within a size of whole cache lines', () => {
    fc.assert(
      fc.property(fieldList, (fields) => {
        const layout = defineRecord(fields);
        let end = 0;
        for (const [name, type] of Object.entries(fields)) {
          const at = layout.offset[name]!;
          const alignment = type.startsWith('bytes:') ? 8 : fieldSize(type);
          expect(at % alignment).toBe(0);
          expect(at).toBeGreaterThanOrEqual(end);
          // No more padding than the alignment asks for.
          expect(at - end).toBeLessThan(alignment);
          end = at + fieldSize(type);
        }
        expect(layout.size).toBeGreaterThanOrEqual(end);
        expect(layout.size % 64).toBe(0);
        expect(layout.size - end).toBeLessThan(64);
      }),
      { numRuns: 100 * scale },
    );
  });
});
