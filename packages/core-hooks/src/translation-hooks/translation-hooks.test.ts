import { Access, type Cr3, type Gfn, type Gpa, type Gva, Reply } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { kernel } from '../../test/guest-layout.js';
import { bits, type Mode, naive, type Read, SHAPES } from '../../test/naive-walker.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import type { TranslationEvent, TranslationHook } from '../index.js';

const scale = inject('scale');

/** Frames that random entries lead to: tables, and pages that are never written. The first ones are roots. */
const FIRST_FRAME = 0x100;
const TABLES = 8;
const ROOTS = 2;
const INDEXES = [0, 1, 255];
/** P, R/W, U/S, PS and the address. */
const MONITORED = 0x000f_ffff_ffff_f087n;

/** What a hook follows, as the naive walker sees it. */
interface Model {
  readonly hook: TranslationHook;
  readonly cr3: Cr3;
  readonly va: Gva;
  gpa: Gpa | undefined;
}

const step = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      table: fc.nat(TABLES - 1),
      index: fc.nat(INDEXES.length - 1),
      target: fc.nat(TABLES + 3),
      noise: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      shape: fc.nat(15),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('set' as const),
      root: fc.nat(ROOTS - 1),
      indexes: fc.array(fc.nat(INDEXES.length - 1), { minLength: 5, maxLength: 5 }),
      high: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), which: fc.nat() }) },
);

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** Mostly present entries that lead to another table or a page; some large, some beyond RAM. */
function entryOf({ target, noise, shape }: Step & { kind: 'write' }): bigint {
  const flags = noise & 0xfff0_0000_0000_0f66n;
  const present = shape < 2 ? 0n : 1n;
  const large = shape === 3 || shape === 4 ? 0x80n : 0n;
  const far = shape === 5 ? 0x00f0_0000_0000n : 0n;
  return flags | present | large | far | (BigInt(FIRST_FRAME + target) << 12n);
}

describe('translation hooks', () => {
  for (const { mode, by } of [
    ...(Object.keys(SHAPES) as Mode[]).map((one) => ({ mode: one, by: 'engine' as const })),
    { mode: '4-level' as const, by: 'guest' as const },
  ]) {
    it(`equal a naive walk after each random write of the ${by} to ${mode} tables, and leave nothing behind [P7.9] [P7.10] [P7.19]`, () => {
      let told = 0;
      let writes = 0;
      fc.assert(
        fc.property(fc.array(step, { minLength: 100, maxLength: 150 }), (steps) => {
          // Without the TOCTOU rule the code's own tables are not guarded, so what is counted is what the test set.
          const guest = new SyntheticGuest({ toctou: false });
          const { engine, vcpu } = guest;
          const { entry: size, levels } = SHAPES[mode];
          engine.addressSpaces = { ...engine.addressSpaces, pagingMode: mode };
          // mov [rbx], rax
          guest.code('48 89 03');
          const read: Read = (gpa, length) => {
            const bytes = new Uint8Array(8);
            return engine.memory.readPhysical(Number(gpa) as Gpa, bytes.subarray(0, length))
              ? new DataView(bytes.buffer).getBigUint64(0, true)
              : undefined;
          };
          // Something to begin with: every used entry leads to a table.
          for (let table = 0; table < TABLES; table++) {
            for (const [number, index] of INDEXES.entries()) {
              const bytes = Buffer.alloc(8);
              bytes.writeUInt32LE((FIRST_FRAME + ((table + 3 * number + 1) % TABLES)) * 4096 + 7);
              guest.port.writePhysical(((FIRST_FRAME + table) * 4096 + index * size) as Gpa, bytes.subarray(0, size));
            }
          }
          const live = new Set<Model>();
          const events: TranslationEvent[] = [];
          const check = (): void => {
            engine.step(0);
            const entries = new Set<Gpa>();
            for (const { hook, cr3, va } of live) {
              const expected = naive(read, mode, cr3, va);
              for (const { gpa } of expected.trace) {
                entries.add(gpa);
              }
              const isLeaf = expected.status === 'ok' || expected.status === 'not-present';
              expect(hook.gpa).toBe(expected.status === 'ok' ? expected.gpa - (expected.gpa % 4096) : undefined);
              expect(hook.pageSize).toBe(isLeaf ? expected.pageSize : 0);
              if (expected.status === 'ok') {
                expect(hook.entry & MONITORED).toBe(expected.leaf & MONITORED);
              } else {
                expect(hook.entry & 1n).toBe(0n);
              }
            }
            expect(engine.hooks.translation.watchedEntries).toBe(entries.size);
            expect(engine.hooks.pageTable.count).toBe(entries.size);
            expect(engine.hooks.translation.count).toBe(live.size);
            for (let table = 0; table < TABLES; table++) {
              const watched = [...entries].some((gpa) => gpa >> 12 === FIRST_FRAME + table);
              const rights = engine.port.getPageAccess((FIRST_FRAME + table) as Gfn);
              expect(rights).toBe(watched ? Access.READ | Access.EXECUTE : Access.ALL);
            }
            expect(guest.port.pauseCount).toBe(0);
          };
          for (const one of steps) {
            if (one.kind === 'write') {
              writes++;
              const gpa = (FIRST_FRAME + one.table) * 4096 + INDEXES[one.index]! * size;
              const value = BigInt.asUintN(size * 8, entryOf(one));
              events.length = 0;
              if (by === 'guest') {
                vcpu.set('rbx', kernel(gpa));
                vcpu.set('rax', value);
                // As the processor does: only what is guarded exits.
                if (engine.port.getPageAccess((gpa >> 12) as Gfn) === Access.ALL) {
                  guest.put64(gpa, value);
                } else {
                  vcpu.set('rip', kernel(0x1_0000));
                  guest.settle(gpa);
                  if (guest.port.lastReply(0) === Reply.ALLOW_ONCE) {
                    // Nobody watches that entry of the table: the processor writes it.
                    guest.put64(gpa, value);
                  }
                  expect(guest.get64(gpa)).toBe(value);
                }
              } else {
                const bytes = Buffer.alloc(8);
                bytes.writeBigUInt64LE(value);
                engine.memory.writePhysical(gpa as Gpa, bytes.subarray(0, size));
              }
              for (const model of live) {
                const mine = events.filter(({ hook }) => hook === model.hook);
                told += mine.length;
                expect(mine.length).toBeLessThanOrEqual(1);
                const { gpa: now } = model.hook;
                if (mine.length > 0) {
                  expect([mine[0]!.oldGpa, mine[0]!.newGpa]).toEqual([model.gpa, now]);
                } else {
                  expect(now).toBe(model.gpa);
                }
                model.gpa = now;
              }
            } else if (one.kind === 'set') {
              let va = 0n;
              for (const [number, { low, high }] of levels.entries()) {
                va |= bits(BigInt(INDEXES[one.indexes[number]!]!) << BigInt(low), low, high);
              }
              const cr3 = BigInt((FIRST_FRAME + one.root) * 4096) as Cr3;
              const hook = engine.hooks.translation.set({
                cr3,
                va: va as Gva,
                priority: one.high ? 'high' : 'normal',
                committed: (event) => events.push(event),
              });
              live.add({ hook, cr3, va: va as Gva, gpa: hook.gpa });
            } else if (live.size > 0) {
              const model = [...live][one.which % live.size]!;
              model.hook.remove();
              live.delete(model);
            }
            check();
          }
          for (const { hook } of live) {
            hook.remove();
          }
          live.clear();
          check();
          guest.code('90');
          engine.step(0);
          expect(engine.hooks.page.count).toBe(0);
          expect(guest.problems).toEqual([]);
          engine.close();
        }),
        // Five runs of this test make 2,500 writes, and 10^5 and more at full scale.
        { numRuns: 4 * scale, seed: 5, endOnFailure: true },
      );
      expect(writes).toBeGreaterThan(300 * scale);
      expect(told).toBeGreaterThan(writes / 20);
    });
  }
});
