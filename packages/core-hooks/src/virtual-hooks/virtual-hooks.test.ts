import { Access, type Cr3, type Gfn, type Gpa, type Gva, Reply, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA, kernel, leafEntry, PML4 } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import type { AccessEvent, HashMismatch, VirtualHook } from '../index.js';

const cr3 = BigInt(PML4) as Cr3;
/** A page that is mapped by its own entry, and another frame to map there. */
const PAGE = kernel(DATA);
const OTHER = 0x5_0000;
const ENTRY = leafEntry(DATA);
/** Directory and last table of the layout. */
const DIRECTORY = 0x3000;

function rights(guest: SyntheticGuest, gpa: number): Access {
  return guest.port.getPageAccess((gpa >> 12) as Gfn);
}

const GUARDED = Access.READ | Access.EXECUTE;

/** The guest's VCPU 0 stores 8 bytes, with an instruction of its own. @returns the last reply */
function store(guest: SyntheticGuest, gpa: number, value: bigint): Reply | undefined {
  guest.code('48 89 03');
  guest.vcpu.set('rbx', kernel(gpa));
  guest.vcpu.set('rax', value);
  guest.settle(gpa);
  return guest.port.lastReply(0);
}

describe('a virtual-address hook', () => {
  it('follows its page when it goes, comes back and moves, and gives the old one back [P8.1] [P8.3] [P8.15]', () => {
    const guest = new SyntheticGuest();
    const seen: (Gva | undefined)[] = [];
    const hook = guest.engine.hooks.virtual.set({
      cr3,
      va: (PAGE + 0x10n) as Gva,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        expect(event.hook.parent).toBe(hook);
        seen.push(hook.addressOf(event.gpa));
      },
    });
    expect([hook.gpa, rights(guest, DATA), rights(guest, OTHER)]).toEqual([DATA + 0x10, GUARDED, Access.ALL]);
    store(guest, ENTRY, 0n);
    expect([hook.gpa, rights(guest, DATA)]).toEqual([undefined, Access.ALL]);
    store(guest, ENTRY, BigInt(OTHER) | 3n);
    expect([hook.gpa, rights(guest, DATA), rights(guest, OTHER)]).toEqual([OTHER + 0x10, Access.ALL, GUARDED]);
    store(guest, ENTRY, BigInt(DATA) | 3n);
    expect([hook.gpa, rights(guest, DATA), rights(guest, OTHER)]).toEqual([DATA + 0x10, GUARDED, Access.ALL]);
    // Beside the range nobody is asked, inside it everybody is.
    store(guest, DATA + 0x18, 1n);
    expect(seen).toEqual([]);
    store(guest, DATA + 0x14, 1n);
    expect(seen).toEqual([PAGE + 0x14n]);
    hook.remove();
    hook.remove();
    guest.forgetCode();
    expect(rights(guest, DATA)).toBe(Access.ALL);
    expect([guest.engine.hooks.virtual.count, guest.engine.hooks.translation.watchedEntries]).toEqual([0, 0]);
  });

  it('can be set while its page is absent, at any level [P8.2]', () => {
    for (const entry of [ENTRY, DIRECTORY, PML4 + 256 * 8]) {
      const guest = new SyntheticGuest();
      const old = guest.get64(entry);
      guest.put64(entry, 0n);
      const hook = guest.engine.hooks.virtual.set({
        cr3,
        va: PAGE,
        length: 4096,
        access: Access.READ,
        callback: () => undefined,
      });
      expect(hook.gpa).toBeUndefined();
      guest.engine.memory.writePhysical(entry as Gpa, new Uint8Array(new BigUint64Array([old]).buffer));
      expect([hook.gpa, rights(guest, DATA)]).toEqual([DATA, Access.EXECUTE]);
    }
  });

  it('stays on its page when a large page becomes small ones of the same frames, and back [P8.13]', () => {
    const guest = new SyntheticGuest();
    const table = guest.get64(DIRECTORY);
    guest.put64(DIRECTORY, 0x83n);
    const hook = guest.engine.hooks.virtual.set({
      cr3,
      va: PAGE,
      length: 4096,
      access: Access.WRITE,
      callback: () => undefined,
    });
    expect(hook.gpa).toBe(DATA);
    store(guest, DIRECTORY, table);
    expect([hook.gpa, rights(guest, DATA), rights(guest, 0)]).toEqual([DATA, GUARDED, Access.ALL]);
    // The raw frame of the entry is that of the large page now, and it is another page.
    store(guest, ENTRY, 3n);
    expect([hook.gpa, rights(guest, DATA), rights(guest, 0)]).toEqual([0, Access.ALL, GUARDED]);
    store(guest, DIRECTORY, 0x83n);
    expect([hook.gpa, rights(guest, DATA), rights(guest, 0)]).toEqual([DATA, GUARDED, Access.ALL]);
  });

  it('refuses a range that crosses a page, and two kinds of access [P8.4]', () => {
    const { hooks } = new SyntheticGuest().engine;
    const options = { cr3, va: (PAGE + 0xff9n) as Gva, length: 8, access: Access.WRITE, callback: () => undefined };
    expect(() => hooks.virtual.set(options)).toThrow('not within one page');
    expect(() => hooks.virtual.set({ ...options, length: 7, access: Access.READ | Access.WRITE })).toThrow('one kind');
    expect([hooks.virtual.count, hooks.translation.count, hooks.page.count]).toEqual([0, 0, 0]);
  });

  it('tells when other bytes come back than went, not when the same do, and not for a process [P8.6]', () => {
    for (const { attack, system } of [
      { attack: true, system: true },
      { attack: false, system: true },
      { attack: true, system: false },
    ]) {
      const guest = new SyntheticGuest();
      guest.engine.addressSpaces = {
        ...guest.engine.addressSpaces,
        systemCr3: (system ? cr3 : 0x9000n) as Cr3,
      };
      const mismatches: HashMismatch[] = [];
      const hook = guest.engine.hooks.virtual.set({
        cr3,
        // The user half of the layout leads to the same page.
        va: (system ? PAGE + 0x100n : BigInt(DATA) + 0x100n) as Gva,
        length: 16,
        access: Access.WRITE,
        callback: () => undefined,
        hash: true,
        onHashMismatch: (mismatch) => mismatches.push(mismatch),
      });
      for (let round = 0; round < 2; round++) {
        store(guest, ENTRY, 0n);
        // Nobody watches the frame now; the attacker's byte lies in the range, the other one beside it.
        guest.put64(DATA + (attack && round === 0 ? 0x108 : 0x110), 0x6666n);
        store(guest, ENTRY, BigInt(DATA) | 7n);
        expect(hook.gpa).toBe(DATA + 0x100);
      }
      expect(mismatches).toEqual(attack && system ? [{ hook, gpa: DATA + 0x100 }] : []);
    }
  });

  it('compares what the guest believes in, where bytes are hidden [P8.6] [P13.12]', () => {
    const guest = new SyntheticGuest();
    const mismatches: HashMismatch[] = [];
    guest.engine.hooks.virtual.hiddenBytes = (space, va, bytes) => {
      expect([space, va]).toEqual([cr3, PAGE]);
      bytes[4] = 0xaa;
    };
    guest.engine.hooks.virtual.set({
      cr3,
      va: PAGE,
      length: 16,
      access: Access.WRITE,
      callback: () => undefined,
      hash: true,
      onHashMismatch: (mismatch) => mismatches.push(mismatch),
    });
    store(guest, ENTRY, 0n);
    guest.port.writePhysical((DATA + 4) as Gpa, Uint8Array.of(1));
    store(guest, ENTRY, BigInt(DATA) | 3n);
    expect(mismatches).toHaveLength(0);
  });

  it('is removed as a whole from inside its callback [P4.12] [P8.9]', () => {
    const guest = new SyntheticGuest();
    const hook = guest.engine.hooks.virtual.set({
      cr3,
      va: PAGE,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        event.removeHook = true;
      },
    });
    store(guest, DATA, 1n);
    expect(hook.removed).toBe(true);
    guest.forgetCode();
    expect([rights(guest, DATA), rights(guest, PML4)]).toEqual([Access.ALL, Access.ALL]);
    expect(guest.engine.hooks.pageTable.count).toBe(0);
  });

  it('keeps looking for a page that is not RAM, and hooks the next one that is', () => {
    const guest = new SyntheticGuest();
    const hook = guest.engine.hooks.virtual.set({
      cr3,
      va: PAGE,
      length: 8,
      access: Access.WRITE,
      callback: () => undefined,
    });
    store(guest, ENTRY, 0xf_0000_0003n);
    expect(hook.gpa).toBeUndefined();
    store(guest, ENTRY, BigInt(OTHER) | 3n);
    expect(hook.gpa).toBe(OTHER);
    expect(guest.problems).toEqual([]);
  });
});

describe('a hooked region', () => {
  it('splits over its pages, and finds by address and access [P8.4] [P8.8]', () => {
    const guest = new SyntheticGuest();
    const object = guest.engine.hooks.regions.create({ cr3 });
    const region = object.hook({
      va: (PAGE + 0xff0n) as Gva,
      length: 0x1020,
      access: Access.WRITE,
      callback: () => undefined,
    });
    expect(region.hooks.map(({ va, length }) => [va, length])).toEqual([
      [PAGE + 0xff0n, 16],
      [PAGE + 0x1000n, 4096],
      [PAGE + 0x2000n, 16],
    ]);
    const found = (at: bigint, mask: Access): boolean => object.find((PAGE + at) as Gva, mask) === region;
    expect(found(0xff0n, Access.WRITE)).toBe(true);
    expect(found(0x200fn, Access.ALL)).toBe(true);
    expect(found(0xfefn, Access.ALL)).toBe(false);
    expect(found(0x2010n, Access.ALL)).toBe(false);
    expect(found(0x1000n, Access.READ | Access.EXECUTE)).toBe(false);
    region.remove();
    expect(found(0x1000n, Access.ALL)).toBe(false);
  });

  it('is not hooked at all when one page cannot be [P8.5]', () => {
    const guest = new SyntheticGuest();
    const object = guest.engine.hooks.regions.create({ cr3 });
    const { port } = guest;
    const original = port.setPageAccess.bind(port);
    port.setPageAccess = (frame, access) => {
      if (frame === (DATA >> 12) + 2) {
        throw new Error('refused');
      }
      original(frame, access);
    };
    const options = { va: PAGE, length: 0x3000, access: Access.WRITE, callback: () => undefined };
    expect(() => object.hook(options)).toThrow('refused');
    guest.engine.step(0);
    expect([...object.regions]).toEqual([]);
    const { hooks } = guest.engine;
    expect([hooks.virtual.count, hooks.translation.count, hooks.pageTable.count, hooks.page.count]).toEqual([
      0, 0, 0, 0,
    ]);
    expect([rights(guest, DATA), rights(guest, DATA + 0x1000), rights(guest, PML4)]).toEqual([7, 7, 7]);
    expect(() => object.hook({ ...options, length: 0 })).toThrow('no region of 0 bytes');
    expect(() => object.hook({ ...options, va: 0xffff_ffff_ffff_f000n as Gva, length: 4097 })).toThrow('no region');
  });

  it('goes as a whole when one of its pages is told to, and no sibling is called any more [P8.9] [P8.10]', () => {
    const guest = new SyntheticGuest();
    const object = guest.engine.hooks.regions.create({ cr3 });
    const calls: string[] = [];
    const callback = (event: AccessEvent): void => {
      calls.push('first');
      expect((event.hook.parent as VirtualHook).parent).toBe(first);
      event.removeHook = true;
      event.verdict = Verdict.NOT_ALLOWED;
    };
    const first = object.hook({ va: PAGE, length: 0x2000, access: Access.WRITE, callback });
    const second = object.hook({ va: PAGE, length: 8, access: Access.WRITE, callback: () => calls.push('second') });
    expect(store(guest, DATA + 0x1000, 1n)).toBe(Reply.SKIP);
    expect([first.removed, second.removed]).toEqual([true, false]);
    expect([rights(guest, DATA), rights(guest, DATA + 0x1000)]).toEqual([GUARDED, Access.ALL]);
    expect(store(guest, DATA, 1n)).toBe(Reply.ALLOW_ONCE);
    expect(calls).toEqual(['first', 'second']);
  });

  it('goes with its object, which may be removed twice and from inside a callback [P8.10] [P8.12] [P8.14]', () => {
    const guest = new SyntheticGuest();
    const object = guest.engine.hooks.regions.create({ cr3 });
    const callback = (): void => object.remove();
    object.hook({ va: PAGE, length: 0x2000, access: Access.WRITE, callback });
    object.hook({ va: kernel(OTHER), length: 0x10, access: Access.READ, callback });
    store(guest, DATA, 1n);
    object.remove();
    guest.forgetCode();
    const { hooks } = guest.engine;
    expect([hooks.regions.count, hooks.virtual.count, hooks.translation.watchedEntries]).toEqual([0, 0, 0]);
    expect([hooks.pageTable.count, hooks.page.count]).toEqual([0, 0]);
    expect([DATA, DATA + 0x1000, OTHER, PML4, ENTRY].map((gpa) => rights(guest, gpa))).toEqual([7, 7, 7, 7, 7]);
    expect(() => object.hook({ va: PAGE, length: 1, access: Access.WRITE, callback })).toThrow('was removed');
  });
});
