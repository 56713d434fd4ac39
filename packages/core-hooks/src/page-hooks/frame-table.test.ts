import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { FrameTable } from './frame-table.js';

const scale = inject('scale');

describe('FrameTable', () => {
  it('behaves like a Map under random insertions and deletions', () => {
    // Few frames, some of them far apart, so that they meet in the table.
    const frame = fc.oneof(
      fc.integer({ min: 0, max: 40 }),
      fc.integer({ min: 0, max: 40 }).map((n) => n * 2 ** 20),
      fc.integer({ min: 0, max: 7 }).map((n) => 2 ** 40 - 1 - n * 2 ** 32),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(frame, fc.boolean()), { maxLength: 200 }), (steps) => {
        const table = new FrameTable<number>(8);
        const model = new Map<number, number>();
        for (const [number, [key, insert]] of steps.entries()) {
          if (insert) {
            table.set(key, number);
            model.set(key, number);
          } else {
            table.delete(key);
            model.delete(key);
          }
          expect(table.size).toBe(model.size);
          for (const [one] of steps) {
            expect(table.get(one)).toBe(model.get(one));
          }
        }
        expect(new Set(table.values())).toEqual(new Set(model.values()));
        table.clear();
        expect(table.size).toBe(0);
        expect(table.get(steps[0]?.[0] ?? 0)).toBeUndefined();
      }),
      { numRuns: 100 * scale, seed: 5 },
    );
  });
});
