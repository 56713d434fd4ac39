import { Access, type Cr3, type Gfn, type Gpa, type Gva, Reply, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA, kernel, leafEntry, PML4 } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import type { TranslationEvent, TranslationHook, TranslationHookOptions } from '../index.js';

const cr3 = BigInt(PML4) as Cr3;
/** Tables of the layout, from the root down, and where the entry for the kernel's first 2 MiB lies in each. */
const PML4E = PML4 + 256 * 8;
const PDPTE = 0x2000;
const PDE = 0x3000;
const PTE = leafEntry(DATA);
const VA = kernel(DATA);
const TABLE = 0x4000;
/** Free frames for further tables. */
const SPARE = 0x6_0000;

/** A change as a hook saw it: old and new entry and page size. */
type Seen = readonly [old: bigint, new_: bigint, oldSize: number, newSize: number];

interface Watch {
  readonly guest: SyntheticGuest;
  readonly seen: Seen[];
  readonly hook: TranslationHook;
}

function watch(guest = new SyntheticGuest(), options: Partial<TranslationHookOptions> = {}): Watch {
  const seen: Seen[] = [];
  const hook = guest.engine.hooks.translation.set({
    cr3,
    va: VA,
    committed: ({ oldEntry, newEntry, oldPageSize, newPageSize }) =>
      seen.push([oldEntry, newEntry, oldPageSize, newPageSize]),
    ...options,
  });
  return { guest, seen, hook };
}

/** VCPU 0 writes 8 bytes, as the processor does when the engine leaves it to it. @returns the last reply */
function store(guest: SyntheticGuest, gpa: number, value: bigint): Reply | undefined {
  if (guest.port.getPageAccess((gpa >> 12) as Gfn) === Access.ALL) {
    guest.put64(gpa, value);
    return undefined;
  }
  guest.code('48 89 03');
  guest.vcpu.set('rbx', kernel(gpa));
  guest.vcpu.set('rax', value);
  guest.settle(gpa);
  const reply = guest.port.lastReply(0);
  if (reply === Reply.ALLOW_ONCE) {
    guest.put64(gpa, value);
  }
  return reply;
}

/** The engine writes 8 bytes: what unmaps the code that would do it. */
function write(guest: SyntheticGuest, gpa: number, value: bigint): void {
  guest.engine.memory.writePhysical(gpa as Gpa, new Uint8Array(new BigUint64Array([value]).buffer));
}

describe('a translation hook', () => {
  it('knows how things stand when it is set, and calls nobody for it [P7.1] [P7.16]', () => {
    const guest = new SyntheticGuest();
    guest.put64(PDE + 8, 0x83n | 0x20_0000n);
    guest.put64(PDPTE + 8, 0x83n | 0x4000_0000n);
    guest.put64(PTE + 8, 0x1234_5000n);
    for (const { va, entry, pageSize, gpa } of [
      { va: VA, entry: BigInt(DATA) | 7n, pageSize: 4096, gpa: DATA },
      { va: kernel(0x23_4567), entry: 0x20_0083n, pageSize: 0x20_0000, gpa: 0x23_4000 },
      { va: kernel(0x4765_4321), entry: 0x4000_0083n, pageSize: 0x4000_0000, gpa: 0x4765_4000 },
      { va: kernel(DATA + 4096), entry: 0x1234_5000n, pageSize: 4096, gpa: undefined },
      { va: kernel(0x60_0000), entry: 0n, pageSize: 0, gpa: undefined },
    ]) {
      const { hook, seen } = watch(guest, { va });
      expect([hook.entry, hook.pageSize, hook.gpa, hook.removed]).toEqual([entry, pageSize, gpa, false]);
      expect(seen).toEqual([]);
    }
  });

  it('waits where a table is missing, and is told once when the page is there [P7.2]', () => {
    const guest = new SyntheticGuest();
    const [pdpt, pd, pt] = [SPARE, SPARE + 0x1000, SPARE + 0x2000];
    const steps: [number, bigint][] = [
      [PML4 + 300 * 8, BigInt(pdpt) | 3n],
      [pdpt, BigInt(pd) | 3n],
      [pd, BigInt(pt) | 3n],
      [pt, BigInt(DATA) | 3n],
    ];
    const va = BigInt.asUintN(64, BigInt.asIntN(48, 300n << 39n)) as Gva;
    const { hook, seen } = watch(guest, { va });
    for (const [at, value] of steps) {
      expect([seen, hook.gpa]).toEqual([[], undefined]);
      store(guest, at, value);
    }
    expect([seen, hook.gpa]).toEqual([[[0n, BigInt(DATA) | 3n, 4096, 4096]], DATA]);
    // The tables in reverse: absent from the top, then complete again at one stroke.
    store(guest, PML4 + 300 * 8, 0n);
    store(guest, pd, 0n);
    store(guest, pd, BigInt(pt) | 3n);
    store(guest, PML4 + 300 * 8, BigInt(pdpt) | 3n);
    expect(seen.slice(1)).toEqual([
      [BigInt(DATA) | 3n, 0n, 4096, 0],
      [0n, BigInt(DATA) | 3n, 0, 4096],
    ]);
  });

  it('fires for each bit that matters and for no other [P7.3]', () => {
    const { guest, seen } = watch();
    const old = BigInt(DATA) | 7n;
    for (let bit = 0; bit < 64; bit++) {
      write(guest, PTE, old);
      seen.length = 0;
      store(guest, PTE, old ^ (1n << BigInt(bit)));
      const matters = bit <= 2 || bit === 7 || (bit >= 12 && bit <= 51);
      expect([bit, seen.length]).toEqual([bit, matters ? 1 : 0]);
    }
  });

  it('sees an upper entry cleared, changed, and moved to a table with the same or another leaf [P7.4] [P7.5] [P8.7]', () => {
    const same = SPARE;
    const other = SPARE + 0x1000;
    const { guest, seen, hook } = watch();
    const leaf = BigInt(DATA) | 7n;
    guest.put64(same + (PTE % 4096), leaf);
    guest.put64(other + (PTE % 4096), 0x5_0003n);
    write(guest, PDPTE, 0n);
    write(guest, PDPTE, BigInt(PDE) | 7n);
    write(guest, PDE, BigInt(same) | 7n);
    write(guest, PDE, BigInt(same) | 5n);
    write(guest, PDE, BigInt(other) | 7n);
    expect(seen).toEqual([
      [leaf, 0n, 4096, 0],
      [0n, leaf, 0, 4096],
      [leaf, leaf, 4096, 4096],
      [leaf, leaf, 4096, 4096],
      [leaf, 0x5_0003n, 4096, 4096],
    ]);
    expect(hook.gpa).toBe(0x5_0000);
    // The tables that it left are nobody's any more.
    guest.engine.step(0);
    expect([TABLE, same, other].map((table) => guest.port.getPageAccess((table >> 12) as Gfn))).toEqual([7, 7, 5]);
  });

  it('moves with every other hook when a large page is split, and back when it is merged [P7.6] [P7.7] [P7.8]', () => {
    const guest = new SyntheticGuest();
    const table = guest.get64(PDE);
    guest.put64(PDE, 0x83n);
    const hooks = [0, 1, 511].map((page) => watch(guest, { va: kernel(page * 4096) }));
    const watched = guest.engine.hooks.translation.watchedEntries;
    expect(watched).toBe(3);
    const round = (): void => {
      for (const { seen } of hooks) {
        seen.length = 0;
      }
    };
    store(guest, PDE, table);
    guest.forgetCode();
    expect(guest.engine.hooks.translation.watchedEntries).toBe(6);
    for (const [number, { seen, hook }] of hooks.entries()) {
      const page = [0, 1, 511][number]! * 4096;
      expect(seen).toEqual([[0x83n, BigInt(page) | 7n, 0x20_0000, 4096]]);
      expect(hook.gpa).toBe(page);
    }
    round();
    store(guest, PDE, 0x83n);
    guest.forgetCode();
    expect(guest.engine.hooks.translation.watchedEntries).toBe(3);
    for (const { seen } of hooks) {
      expect(seen.map(([, ...rest]) => rest)).toEqual([[0x83n, 4096, 0x20_0000]]);
    }
    round();
    // By way of nothing.
    write(guest, PDE, 0n);
    write(guest, PDE, table);
    expect(hooks[1]!.seen).toEqual([
      [0x83n, 0n, 0x20_0000, 0],
      [0n, 0x1007n, 0, 4096],
    ]);
  });

  it('of two address spaces fires for their common table, and for its own root [P7.9]', () => {
    const guest = new SyntheticGuest();
    guest.put64(SPARE + 256 * 8, BigInt(PDPTE) | 3n);
    const one = watch(guest);
    const two = watch(guest, { cr3: (BigInt(SPARE) | 0x123n) as Cr3 });
    store(guest, PTE, 0n);
    expect([one.seen.length, two.seen.length]).toEqual([1, 1]);
    store(guest, PTE, BigInt(DATA) | 7n);
    store(guest, SPARE + 256 * 8, 0n);
    expect([one.seen.length, two.seen.length]).toEqual([2, 3]);
    expect([one.hook.gpa, two.hook.gpa]).toEqual([DATA, undefined]);
  });

  it('follows a kernel address in the system only, once it is known, and half of a table in others [P7.11]', () => {
    const guest = new SyntheticGuest();
    guest.put64(SPARE, BigInt(PDPTE) | 7n);
    guest.engine.addressSpaces = { ...guest.engine.addressSpaces, systemCr3: (cr3 | 1n) as Cr3 };
    const process = BigInt(SPARE) as Cr3;
    expect(() => watch(guest, { cr3: process })).toThrow('with the CR3 of a process');
    const { seen } = watch(guest, { cr3: process, va: BigInt(DATA) as Gva });
    watch(guest, { cr3: (cr3 | 0x8000_0000_0000_0002n) as Cr3 });
    // Nobody decides about the kernel half of the process's table: not even a store that cannot be told (fxsave).
    guest.code('0f ae 03');
    guest.vcpu.set('rbx', kernel(SPARE + 0x900));
    guest.settle(SPARE + 0x900);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
    store(guest, SPARE, 0n);
    expect(seen).toHaveLength(1);
  });

  it('is called by priority, with every VCPU standing still if one is high [P7.12]', () => {
    const guest = new SyntheticGuest();
    const order: string[] = [];
    const tell =
      (name: string) =>
      ({ hook }: TranslationEvent): void => {
        order.push(`${name} ${hook.gpa} ${guest.port.pauseCount}`);
      };
    const add = (name: string, priority: 'high' | 'normal'): TranslationHook =>
      guest.engine.hooks.translation.set({
        cr3,
        va: VA,
        priority,
        callback: tell(`ask ${name}`),
        committed: tell(name),
      });
    add('a', 'normal');
    store(guest, PTE, 0x5_0003n);
    expect(order).toEqual([`ask a ${DATA} 0`, `a ${0x5_0000} 0`]);
    const high = [add('b', 'high'), add('c', 'high')];
    order.length = 0;
    store(guest, PTE, BigInt(DATA) | 3n);
    const names = ['b', 'c', 'a'];
    expect(order).toEqual([
      ...names.map((name) => `ask ${name} ${0x5_0000} 1`),
      ...names.map((name) => `${name} ${DATA} 1`),
    ]);
    expect(guest.port.pauseCount).toBe(0);
    // The engine's own writes are told too.
    order.length = 0;
    guest.engine.memory.writePhysical(PTE, new Uint8Array(8));
    expect(order).toEqual(names.map((name) => `${name} undefined 1`));
    expect(guest.port.pauseCount).toBe(0);
    for (const hook of high) {
      hook.remove();
    }
  });

  it('may go, take a sibling along, and set another one from inside its callback [P7.13] [P7.14]', () => {
    const guest = new SyntheticGuest();
    const calls: string[] = [];
    let added: Watch | undefined;
    const { translation } = guest.engine.hooks;
    const first = translation.set({
      cr3,
      va: VA,
      committed: (event) => {
        calls.push('first');
        event.removeHook = true;
        sibling.remove();
        added = watch(guest, { va: kernel(DATA + 4096) });
        expect(added.hook.gpa).toBe(DATA + 4096);
      },
    });
    const sibling = translation.set({ cr3, va: VA, committed: () => calls.push('sibling') });
    const asked = translation.set({
      cr3,
      va: VA,
      callback: (event) => {
        event.removeHook = true;
      },
      committed: () => calls.push('removed while it was asked'),
    });
    store(guest, PDPTE, BigInt(PDE) | 5n);
    expect(calls).toEqual(['first']);
    guest.forgetCode();
    expect([first.removed, sibling.removed, asked.removed, translation.count]).toEqual([true, true, true, 1]);
    store(guest, PTE + 8, 0n);
    expect(added!.seen).toHaveLength(1);
    added!.hook.remove();
    guest.forgetCode();
    expect([translation.watchedEntries, guest.engine.hooks.pageTable.count]).toEqual([0, 0]);
  });

  it('keeps two PAE roots of one page apart [P7.15]', () => {
    const guest = new SyntheticGuest();
    guest.engine.addressSpaces = { ...guest.engine.addressSpaces, pagingMode: 'pae' };
    const roots = [SPARE + 0x20, SPARE + 0xfe0];
    const hooks = roots.map((root) => watch(guest, { cr3: BigInt(root) as Cr3, va: 0xc012_3456n as Gva }));
    // The third entry of each root leads to a directory with a large page.
    write(guest, SPARE + 0x1000, 0x20_0083n);
    write(guest, roots[0]! + 24, BigInt(SPARE + 0x1000) | 1n);
    expect(hooks.map(({ hook }) => hook.gpa)).toEqual([0x32_3000, undefined]);
    write(guest, roots[1]! + 24, BigInt(SPARE + 0x1000) | 1n);
    expect(hooks.map(({ hook }) => hook.gpa)).toEqual([0x32_3000, 0x32_3000]);
    write(guest, SPARE + 0x1000, 0n);
    expect(hooks.map(({ seen }) => seen.length)).toEqual([2, 2]);
  });

  it('notices a change that no exit told of at the next tick, once [P7.18]', () => {
    const { guest, seen, hook } = watch();
    guest.put64(PTE, 0x5_0003n);
    for (let tick = 0; tick < 2; tick++) {
      guest.port.raiseTick();
      guest.engine.step(1);
    }
    expect(seen).toEqual([[BigInt(DATA) | 7n, 0x5_0003n, 4096, 4096]]);
    expect(hook.gpa).toBe(0x5_0000);
    expect(guest.problems.map(({ kind }) => kind)).toEqual(['missed-page-table-write']);
  });

  it('denies an attack on any level before it is made, and lets its benign twin through [P7.20]', () => {
    const evil = 0x5_0003n;
    for (const { at, attack, benign } of [
      { at: PTE, attack: evil, benign: BigInt(DATA) | 5n },
      { at: PDE, attack: 0x20_0083n, benign: BigInt(TABLE) | 5n },
      { at: PDPTE, attack: 0x4000_0083n, benign: BigInt(PDE) | 5n },
      { at: PML4E, attack: 0n, benign: BigInt(PDPTE) | 5n },
    ]) {
      const { guest, seen } = watch(undefined, {
        callback: (event) => {
          if (event.newGpa !== event.oldGpa) {
            event.verdict = Verdict.NOT_ALLOWED;
          }
        },
      });
      const old = guest.get64(at);
      expect(store(guest, at, attack)).toBe(Reply.SKIP);
      expect([guest.get64(at), seen]).toEqual([old, []]);
      store(guest, at, benign);
      expect([guest.get64(at), seen.length]).toEqual([benign, 1]);
    }
  });

  it('does not believe a store that the processor was allowed to make and did not', () => {
    const { guest, seen, hook } = watch();
    // rol qword [rbx], cl: left to the processor
    guest.code('48 d3 03');
    guest.vcpu.set('rbx', kernel(PTE));
    guest.vcpu.set('rcx', 4n);
    guest.settle(PTE);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
    const [, announced] = seen[0]!;
    expect(announced).toBe((BigInt(DATA) << 4n) | 0x70n);
    expect(hook.gpa).toBeUndefined();
    // While the VCPU stands at the instruction it may yet happen.
    guest.engine.step(0);
    expect(seen).toHaveLength(1);
    // An interrupt took it elsewhere.
    guest.vcpu.set('rip', kernel(0x1_0100));
    guest.engine.step(0);
    expect(seen).toHaveLength(2);
    expect([hook.gpa, hook.entry]).toEqual([DATA, BigInt(DATA) | 7n]);
    expect(guest.problems).toEqual([]);
  });

  it('goes on following when the backend refuses to guard a table, and guards it when it can', () => {
    const { guest, hook, seen } = watch();
    const set = guest.port.setPageAccess.bind(guest.port);
    let refusals = 3;
    guest.port.setPageAccess = (frame, access) => {
      if (frame === SPARE >> 12 && refusals-- > 0) {
        throw new Error('refused');
      }
      set(frame, access);
    };
    guest.put64(SPARE + (PTE % 4096), 0x5_0003n);
    store(guest, PDE, BigInt(SPARE) | 7n);
    expect([hook.gpa, seen.length]).toEqual([0x5_0000, 1]);
    expect(guest.problems.map(({ kind }) => kind)).toContain('rights');
    guest.engine.step(0);
    guest.engine.step(0);
    guest.engine.step(0);
    expect(guest.port.getPageAccess((SPARE >> 12) as Gfn)).not.toBe(Access.ALL);
    write(guest, SPARE + (PTE % 4096), 0n);
    expect([hook.gpa, seen.length]).toEqual([undefined, 2]);
  });

  it('leaves nothing behind when it cannot be set', () => {
    const guest = new SyntheticGuest();
    const set = guest.port.setPageAccess.bind(guest.port);
    guest.port.setPageAccess = (frame, access) => {
      if (frame === PDE >> 12 && access !== Access.ALL) {
        throw new Error('refused');
      }
      set(frame, access);
    };
    expect(() => watch(guest)).toThrow('refused');
    guest.engine.step(0);
    const { translation, pageTable, page } = guest.engine.hooks;
    expect([translation.count, translation.watchedEntries, pageTable.count, page.count]).toEqual([0, 0, 0, 0]);
    expect([PML4, PDPTE, PDE].map((gpa) => guest.port.getPageAccess((gpa >> 12) as Gfn))).toEqual([7, 7, 7]);
  });

  it('does not follow a callback that changes the tables again and again without end', () => {
    const guest = new SyntheticGuest();
    let flips = 0;
    guest.engine.hooks.translation.set({
      cr3,
      va: VA,
      committed: () => {
        flips++;
        const value = flips % 2 === 0 ? BigInt(DATA) | 3n : 0x5_0003n;
        guest.engine.memory.writePhysical(PTE, new Uint8Array(new BigUint64Array([value]).buffer));
      },
    });
    store(guest, PTE, 0x5_1003n);
    expect(flips).toBeGreaterThan(10);
    expect(flips).toBeLessThan(1000);
    expect(guest.problems[0]?.kind).toBe('retry-limit');
  });
});
