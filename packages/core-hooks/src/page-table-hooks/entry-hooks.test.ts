import { Access, type Gfn, type Gpa, Reply, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA, kernel } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import type { EntryHook, EntryHookOptions } from '../index.js';

const ENTRY = DATA + 0x100;
const OLD = 0x0012_3456_7000n | 3n;

function set(guest: SyntheticGuest, options: Partial<EntryHookOptions> = {}): EntryHook {
  return guest.engine.hooks.pageTable.set({ gpa: ENTRY as Gpa, entrySize: 8, callback: () => undefined, ...options });
}

/** VCPU 0 stores `size` bytes: mov [rbx], al / ax / eax / rax. @returns the last reply */
function store(guest: SyntheticGuest, gpa: number, value: bigint, size: 1 | 2 | 4 | 8 = 8): Reply | undefined {
  guest.code({ 1: '88 03', 2: '66 89 03', 4: '89 03', 8: '48 89 03' }[size]);
  guest.vcpu.set('rbx', kernel(gpa));
  guest.vcpu.set('rax', value);
  guest.settle(gpa);
  return guest.port.lastReply(0);
}

/** Number of page hooks besides those that guard the code. */
function pageHooks(guest: SyntheticGuest): number {
  guest.forgetCode();
  return guest.engine.hooks.page.count;
}

describe('a page-table hook', () => {
  it('is called with those of its entry in order, and nobody else is [P5.1] [P5.8]', () => {
    const guest = new SyntheticGuest();
    guest.put64(ENTRY, OLD);
    const calls: unknown[] = [];
    const note =
      (name: string) =>
      (event: { old: bigint; new: bigint; gpa: Gpa }): void => {
        calls.push([name, event.gpa, event.old, event.new]);
      };
    set(guest, { callback: note('ask one'), committed: note('one') });
    set(guest, { callback: note('ask two') });
    set(guest, { gpa: (ENTRY + 8) as Gpa, callback: note('another') });
    store(guest, ENTRY, 0x5003n);
    expect(calls).toEqual([
      ['ask one', ENTRY, OLD, 0x5003n],
      ['ask two', ENTRY, OLD, 0x5003n],
      ['one', ENTRY, OLD, 0x5003n],
    ]);
    calls.length = 0;
    // Neither the accessed bit, nor an absent entry that stays absent, nor an entry that nobody watches.
    store(guest, ENTRY, 0x5023n);
    store(guest, ENTRY + 16, 0x5003n);
    guest.put64(ENTRY, 0n);
    store(guest, ENTRY, 0x5000n);
    expect(calls).toEqual([]);
  });

  it('shares one page hook with all others of its table, freed with the last [P5.2] [P5.4] [P5.6]', () => {
    const guest = new SyntheticGuest();
    const hooks = [0, 1, 2, 2].map((slot) => set(guest, { gpa: (ENTRY + slot * 8) as Gpa }));
    expect(pageHooks(guest)).toBe(1);
    for (const hook of hooks) {
      hook.remove();
      hook.remove();
    }
    // Set again before the removal is committed: the page stays guarded all the time.
    const sets = guest.port.pageAccessSets;
    const last = set(guest);
    expect([pageHooks(guest), guest.engine.hooks.pageTable.count]).toEqual([1, 1]);
    expect(guest.port.pageAccessSets).toBe(sets);
    last.remove();
    expect([pageHooks(guest), guest.engine.hooks.pageTable.count]).toEqual([0, 0]);
    expect(guest.port.getPageAccess((DATA >> 12) as Gfn)).toBe(Access.ALL);
  });

  it('covers a page, a root of 32 bytes, or the lower half, which becomes a page when that is needed [P5.3]', () => {
    const guest = new SyntheticGuest();
    const roots = [DATA + 0x40, DATA + 0x58, DATA + 0x60].map((gpa) => set(guest, { gpa: gpa as Gpa, root: 'pae' }));
    expect(pageHooks(guest)).toBe(2);
    for (const hook of roots) {
      hook.remove();
    }
    const half = { root: 'user-half' } as const;
    expect(() => set(guest, { ...half, gpa: (DATA + 2048) as Gpa })).toThrow('no watched entry');
    expect(() => set(guest, { gpa: (ENTRY + 4) as Gpa })).toThrow('no watched entry');
    set(guest, half);
    let upper = 0;
    set(guest, { gpa: (DATA + 2048) as Gpa, callback: () => upper++ });
    expect(pageHooks(guest)).toBe(1);
    store(guest, DATA + 2048, 3n);
    expect(upper).toBe(1);
  });

  it('may be removed by an earlier one in the same write, and by itself [P5.5]', () => {
    const guest = new SyntheticGuest();
    const calls: string[] = [];
    set(guest, {
      callback: (event) => {
        calls.push('first');
        event.removeHook = true;
        second.remove();
      },
    });
    const second = set(guest, { callback: () => calls.push('second') });
    set(guest, { callback: () => calls.push('third') });
    store(guest, ENTRY, 3n);
    store(guest, ENTRY, 5n);
    expect(calls).toEqual(['first', 'third', 'third']);
  });

  it('denies for all, wherever it stands among them, and its benign twin passes [P5.7]', () => {
    for (const at of [0, 1, 2]) {
      const guest = new SyntheticGuest();
      const committed: bigint[] = [];
      for (let number = 0; number < 3; number++) {
        set(guest, {
          callback: (event) => {
            if (number === at && (event.newLow & 4) !== 0) {
              event.verdict = Verdict.NOT_ALLOWED;
            }
          },
          committed: (event) => committed.push(event.new),
        });
      }
      expect(store(guest, ENTRY, 7n)).toBe(Reply.SKIP);
      expect([guest.get64(ENTRY), committed]).toEqual([0n, []]);
      expect(store(guest, ENTRY, 3n)).toBe(Reply.RETRY);
      expect([guest.get64(ENTRY), committed]).toEqual([3n, [3n, 3n, 3n]]);
    }
  });

  it('sees the whole entry at a write of any size and place, and of each half [P5.9] [P5.10] [P5.11]', () => {
    const guest = new SyntheticGuest();
    let seen: bigint[] = [];
    set(guest, { callback: ({ new: value }) => seen.push(value) });
    for (const size of [1, 2, 4] as const) {
      for (let offset = 0; offset + size <= 8; offset += size) {
        guest.put64(ENTRY, OLD);
        seen = [];
        const shift = BigInt(offset * 8);
        const mask = ((1n << BigInt(size * 8)) - 1n) << shift;
        const expected = (OLD & ~mask) | ((0x4321_8765n << shift) & mask);
        store(guest, ENTRY + offset, 0x4321_8765n, size);
        expect(guest.get64(ENTRY)).toBe(expected);
        const matters = ((expected ^ OLD) & 0x000f_ffff_ffff_f087n) !== 0n;
        expect(seen).toEqual(matters ? [expected] : []);
      }
    }
    // Of writes that overlap the later bytes count.
    guest.put64(ENTRY, 0n);
    seen = [];
    store(guest, ENTRY, 0x1111_1111_1111_1111n);
    store(guest, ENTRY + 2, 0x2222_2222n, 4);
    store(guest, ENTRY + 5, 0x33n, 1);
    expect(seen).toEqual([0x1111_1111_1111_1111n, 0x1111_2222_2222_1111n, 0x1111_3322_2222_1111n]);
    // Two halves in either order; the upper one of an absent entry maps nothing yet.
    for (const halves of [
      [4, 0],
      [0, 4],
    ]) {
      guest.put64(ENTRY, 0n);
      seen = [];
      for (const half of halves) {
        store(guest, ENTRY + half, half === 0 ? 0x6003n : 0x12n, 4);
      }
      expect(seen).toEqual(halves[0] === 4 ? [0x12_0000_6003n] : [0x6003n, 0x12_0000_6003n]);
    }
  });

  it('is asked once for each entry of a store across two, and denies both or none [P5.12]', () => {
    for (const attack of [true, false]) {
      const guest = new SyntheticGuest();
      const asked: number[] = [];
      for (const gpa of [ENTRY, ENTRY + 8]) {
        set(guest, {
          gpa: gpa as Gpa,
          callback: (event) => {
            asked.push(event.gpa);
            if (event.newLow === 7) {
              event.verdict = Verdict.NOT_ALLOWED;
            }
          },
        });
      }
      guest.put64(ENTRY, 1n);
      guest.put64(ENTRY + 8, 1n);
      // The upper half of one entry, the lower half of the next.
      const reply = store(guest, ENTRY + 4, ((attack ? 7n : 3n) << 32n) | 0x12n);
      expect(asked).toEqual([ENTRY, ENTRY + 8]);
      expect(reply).toBe(attack ? Reply.SKIP : Reply.ALLOW_ONCE);
    }
  });

  it('leaves a store that touches no watched entry of its table to the processor, whatever it writes', () => {
    const guest = new SyntheticGuest();
    let asked = 0;
    set(guest, { callback: () => asked++ });
    // fxsave [rbx]: 512 bytes that nobody can tell
    guest.code('0f ae 03');
    for (const [gpa, reply] of [
      [DATA + 0x400, Reply.ALLOW_ONCE],
      [DATA, Reply.SKIP],
    ] as const) {
      guest.vcpu.set('rbx', kernel(gpa));
      guest.vcpu.set('rip', kernel(0x1_0000));
      guest.settle(gpa);
      expect(guest.port.lastReply(0)).toBe(reply);
    }
    expect(asked).toBe(0);
  });

  it('commits another value when it is replaced, and tells that one', () => {
    const guest = new SyntheticGuest();
    const told: bigint[] = [];
    set(guest, { callback: (event) => event.replace(event.new & ~4n), committed: (event) => told.push(event.new) });
    store(guest, ENTRY, 0x5007n);
    expect([guest.get64(ENTRY), told]).toEqual([0x5003n, [0x5003n]]);
  });

  it('takes the fallback when its callback throws, and asks the others all the same', () => {
    for (const fallback of ['allow', 'block'] as const) {
      const guest = new SyntheticGuest({ fallback });
      let asked = 0;
      set(guest, {
        callback: () => {
          throw new Error('broken');
        },
      });
      set(guest, { callback: () => asked++ });
      store(guest, ENTRY, 3n);
      expect([guest.get64(ENTRY), asked]).toEqual([fallback === 'allow' ? 3n : 0n, 1]);
      expect(guest.problems.map(({ kind }) => kind)).toEqual(['callback']);
    }
  });

  it('watches entries of 4 bytes apart from their neighbours, at each write of the same instruction [P5.14]', () => {
    const guest = new SyntheticGuest();
    const seen: unknown[] = [];
    set(guest, { entrySize: 4, gpa: (ENTRY + 4) as Gpa, callback: (event) => seen.push([event.gpa, event.new]) });
    store(guest, ENTRY, 0x5003n, 4);
    store(guest, ENTRY + 4, 0x6003n, 4);
    store(guest, ENTRY + 4, 0x7003n, 4);
    expect(seen).toEqual([
      [ENTRY + 4, 0x6003n],
      [ENTRY + 4, 0x7003n],
    ]);
    expect(guest.get64(ENTRY) >> 32n).toBe(0x7003n);
  });
});
