import { Access, type Gfn, type Gpa, isExpressible, Reply } from '@introd/abi';
import { createMockPort } from '@introd/glue/testing';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { DATA, kernel } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import { Engine, type PageHook } from '../index.js';

const scale = inject('scale');
const PAGES = 3;

interface Model {
  readonly gpa: number;
  readonly length: number;
  readonly access: Access;
  readonly high: boolean;
  readonly id: number;
  hook: PageHook;
}

const range = fc
  .tuple(fc.integer({ min: 0, max: PAGES - 1 }), fc.integer({ min: 0, max: 4095 }), fc.integer({ min: 1, max: 64 }))
  .map(([page, offset, length]) => ({
    gpa: DATA + page * 4096 + offset,
    length: Math.min(length, 4096 - offset),
  }));

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('set' as const),
      range,
      access: fc.constantFrom(1, 2, 4),
      high: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('remove' as const), which: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('access' as const), range }) },
);

describe('page hooks', () => {
  it('are called exactly as a scan of all hooks says, and leave exactly the rights that are needed [P4.2] [P4.5] [P4.6]', () => {
    let matched = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 40 }), (steps) => {
        const guest = new SyntheticGuest();
        // mov [rbx], rax, and a prefix-free 1-byte twin would differ only in size: one store of 8 bytes serves
        guest.code('48 89 03');
        const model: Model[] = [];
        const called: number[] = [];
        let id = 0;
        for (const one of steps) {
          if (one.kind === 'set') {
            const mine = id++;
            const hook = guest.engine.hooks.page.set({
              gpa: one.range.gpa as Gpa,
              length: one.range.length,
              access: one.access,
              priority: one.high ? 'high' : 'normal',
              callback: () => called.push(mine),
            });
            model.push({ ...one.range, access: one.access, high: one.high, id: mine, hook });
          } else if (one.kind === 'remove' && model.length > 0) {
            const [gone] = model.splice(one.which % model.length, 1);
            gone!.hook.remove();
          } else if (one.kind === 'access') {
            const gpa = one.range.gpa;
            guest.vcpu.set('rbx', kernel(gpa));
            called.length = 0;
            guest.settle(gpa, Access.WRITE);
            const pieces = [
              [gpa, Math.min(gpa + 8, gpa - (gpa % 4096) + 4096)],
              [gpa - (gpa % 4096) + 4096, gpa + 8],
            ] as const;
            const expected: number[] = [];
            for (const [from, to] of pieces) {
              const inRange = model.filter(
                (hook) => hook.access === Access.WRITE && hook.gpa < to && hook.gpa + hook.length > from,
              );
              expected.push(
                ...inRange.filter((hook) => hook.high).map((hook) => hook.id),
                ...inRange.filter((hook) => !hook.high).map((hook) => hook.id),
              );
            }
            expect(called).toEqual(expected);
            matched += expected.length;
            // After an exit the rights are those of the hooks that are left.
            for (let page = 0; page < PAGES; page++) {
              const frame = (DATA >> 12) + page;
              const hooked = (access: Access): boolean =>
                model.some((hook) => hook.access === access && Math.floor(hook.gpa / 4096) === frame);
              const rights =
                (hooked(Access.READ) ? 0 : Access.READ) |
                (hooked(Access.WRITE) || hooked(Access.READ) ? 0 : Access.WRITE) |
                (hooked(Access.EXECUTE) ? 0 : Access.EXECUTE);
              expect(guest.port.getPageAccess(frame as Gfn)).toBe(rights);
              expect(isExpressible(rights)).toBe(true);
            }
          }
        }
        guest.engine.close();
      }),
      { numRuns: 60 * scale, seed: 2 },
    );
    expect(matched).toBeGreaterThan(0);
  });

  for (const { name, access, rights } of [
    { name: 'write', access: Access.WRITE, rights: Access.READ | Access.EXECUTE },
    // What may not be read may not be written: a second-level entry cannot express it.
    { name: 'read', access: Access.READ, rights: Access.EXECUTE },
    { name: 'execute', access: Access.EXECUTE, rights: Access.READ | Access.WRITE },
  ]) {
    it(`take the ${name} right with the first, and give it back with the last [P4.1] [P4.2] [P4.14]`, () => {
      const guest = new SyntheticGuest();
      const { page } = guest.engine.hooks;
      const steps: number[][] = [];
      const note = (): void => {
        guest.engine.step(0);
        steps.push([page.count, guest.port.getPageAccess((DATA >> 12) as Gfn), guest.port.pageAccessSets]);
      };
      const hooks = [0, 8, 0].map((offset) => {
        const hook = page.set({ gpa: (DATA + offset) as Gpa, length: 8, access, callback: () => undefined });
        note();
        return hook;
      });
      for (const hook of hooks) {
        hook.remove();
        hook.remove();
        note();
      }
      expect(steps).toEqual([
        [1, rights, 1],
        [2, rights, 1],
        [3, rights, 1],
        [2, rights, 1],
        [1, rights, 1],
        [0, Access.ALL, 2],
      ]);
      // An exit on the page now is one of stale rights: nothing of it is left.
      guest.code('48 89 03');
      guest.vcpu.set('rbx', kernel(DATA));
      guest.settle(DATA);
      expect([guest.port.lastReply(0), guest.engine.counters.rightsRepairs]).toEqual([Reply.ALLOW_ONCE, 1]);
    });
  }

  it('that the backend refuses leave nothing behind, alone on the page or beside others [P4.15]', () => {
    for (const others of [0, 1]) {
      const guest = new SyntheticGuest();
      const mock = createMockPort(guest.port);
      const engine = new Engine(mock.port);
      const { page } = engine.hooks;
      const set = (access: Access): PageHook =>
        page.set({ gpa: DATA as Gpa, length: 8, access, callback: () => undefined });
      const kept = others === 0 ? [] : [set(Access.EXECUTE)];
      const before = guest.port.getPageAccess((DATA >> 12) as Gfn);
      mock.fail({ operation: 'setPageAccess', nth: 1 });
      expect(() => set(Access.WRITE)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_INJECTED_FAULT' }));
      engine.step(0);
      expect([page.count, guest.port.getPageAccess((DATA >> 12) as Gfn)]).toEqual([others, before]);
      // One hook and its removal are as if the refusal had not been.
      const hook = set(Access.WRITE);
      hook.remove();
      engine.step(0);
      expect(guest.port.getPageAccess((DATA >> 12) as Gfn)).toBe(before);
      for (const one of kept) {
        one.remove();
      }
      engine.step(0);
      expect([page.count, guest.port.getPageAccess((DATA >> 12) as Gfn)]).toEqual([0, Access.ALL]);
      engine.close();
    }
  });
});
