import { Access, type Cr3, type Gfn, type Gpa, Reply } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel, leafEntry, PML4 } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import { everyAddressSpace } from '../index.js';

/** mov [rbx], rax */
const STORE = '48 89 03';
const ELSEWHERE = 0x8_0000;
const cr3 = BigInt(PML4) as Cr3;
/** Attributes of flat code segments of 32 bits: ring 0, and ring 3. */
const CODE_32 = 0xc09b;

function guestWithHook(vcpus = 1): { guest: SyntheticGuest; texts: (string | undefined)[] } {
  const guest = new SyntheticGuest({}, { vcpus });
  guest.code(STORE);
  guest.vcpu.set('rbx', kernel(DATA));
  const texts: (string | undefined)[] = [];
  guest.engine.hooks.page.set({
    gpa: DATA as Gpa,
    length: 4096,
    access: Access.WRITE,
    callback: (event) => texts.push(event.instruction?.text),
  });
  return { guest, texts };
}

function rights(guest: SyntheticGuest, gpa: number): Access {
  return guest.port.getPageAccess((gpa >> 12) as Gfn);
}

describe('the guarded translation of cached code', () => {
  /** VCPU 0 has been allowed to execute its store; VCPU 1 stands before a write to the entry that maps that code. */
  function remapper(value: bigint): { guest: SyntheticGuest; write: () => Reply | undefined } {
    const { guest } = guestWithHook(2);
    guest.settle(DATA);
    expect(guest.port.lastReply(0)).toBe(Reply.ALLOW_ONCE);
    const other = guest.port.vcpu(1);
    // mov [rcx], rdx
    guest.engine.memory.writePhysical(ELSEWHERE as Gpa, Uint8Array.of(0x48, 0x89, 0x11));
    other.set('rip', kernel(ELSEWHERE));
    other.set('rcx', kernel(leafEntry(CODE)));
    other.set('rdx', value);
    const write = (): Reply | undefined => {
      const gpa = leafEntry(CODE);
      guest.port.raiseViolation(1, { gpa, gla: kernel(gpa), access: Access.WRITE, size: 8 });
      guest.engine.step(1);
      return guest.port.lastReply(1);
    };
    write();
    return { guest, write };
  }

  it('makes a write that puts another page there wait until the VCPU is past the instruction [P11.4]', () => {
    const { guest, write } = remapper(BigInt(ELSEWHERE) | 3n);
    const old = guest.get64(leafEntry(CODE));
    for (let exit = 0; exit < 5; exit++) {
      expect(write()).toBe(Reply.RETRY);
      expect(guest.get64(leafEntry(CODE))).toBe(old);
    }
    guest.vcpu.set('rip', kernel(CODE + 3));
    const flushes = guest.port.pageAccessFlushes;
    expect(write()).toBe(Reply.RETRY);
    expect(guest.get64(leafEntry(CODE))).toBe(BigInt(ELSEWHERE) | 3n);
    // The processors forget the old translation, and the engine the old code.
    expect(guest.port.pageAccessFlushes).toBe(flushes + 1);
    expect(rights(guest, CODE)).toBe(Access.ALL);
    expect([guest.port.pauseCount, guest.problems]).toEqual([0, []]);
  });

  it('lets a write through at once that maps the same page, with other rights [P11.4]', () => {
    const { guest, write } = remapper(BigInt(CODE) | 5n);
    const { cacheInvalidations } = guest.engine.counters;
    expect(write()).toBe(Reply.RETRY);
    expect(guest.get64(leafEntry(CODE))).toBe(BigInt(CODE) | 5n);
    expect(guest.engine.counters.cacheInvalidations).toBe(cacheInvalidations);
    expect(guest.settle(DATA)).toBe(0);
  });

  it('is given up with the last instruction of the page [P11.8]', () => {
    const { guest } = guestWithHook();
    guest.settle(DATA);
    const { translation, pageTable } = guest.engine.hooks;
    expect([translation.count, pageTable.count, rights(guest, CODE), rights(guest, PML4)]).toEqual([1, 4, 5, 5]);
    guest.forgetCode();
    expect([translation.count, pageTable.count, rights(guest, CODE), rights(guest, PML4)]).toEqual([0, 0, 7, 7]);
  });

  it('belongs to both pages of an instruction that spills over, and to none when the second is absent [P11.3] [P11.14]', () => {
    const { guest } = guestWithHook();
    guest.code(STORE, CODE + 0xffe);
    guest.settle(DATA);
    expect(guest.engine.hooks.translation.count).toBe(2);
    guest.forgetCode();
    guest.code(STORE, CODE + 0xffe);
    guest.engine.memory.writePhysical(leafEntry(CODE + 0x1000), new Uint8Array(8));
    guest.violate(DATA);
    guest.engine.step(0);
    expect(guest.port.lastReply(0)).toBe(Reply.RETRY);
    expect(guest.engine.hooks.translation.count).toBe(0);
    expect([rights(guest, CODE), rights(guest, CODE + 0x1000)]).toEqual([7, 7]);
  });
});

describe('the instruction cache', () => {
  it('tells code of one mode from the same bytes in another [P11.11]', () => {
    const { guest, texts } = guestWithHook();
    // In 32-bit code the prefix is an instruction of its own: dec eax.
    guest.code('89 03');
    const modes = [
      { attributes: 0xa09b, text: 'mov [rbx], eax', rip: BigInt(CODE) },
      { attributes: CODE_32, text: 'mov [ebx], eax', rip: BigInt(CODE) },
      { attributes: 0x809b, text: 'mov [bp+di], ax', rip: BigInt(CODE) },
    ];
    const retries: number[] = [];
    for (let round = 0; round < 2; round++) {
      for (const { attributes, rip } of modes) {
        guest.vcpu.set32('csAttributes', attributes);
        guest.vcpu.set('rip', rip);
        guest.vcpu.set('rbx', BigInt(DATA));
        guest.vcpu.set('rbp', BigInt(DATA));
        guest.vcpu.set('rdi', 0n);
        let exits = 0;
        const before = guest.engine.counters.cacheMisses;
        do {
          exits++;
          guest.port.raiseViolation(0, { gpa: DATA as Gpa, gla: BigInt(DATA) as never, access: Access.WRITE, size: 4 });
          guest.engine.step(1);
        } while (guest.port.lastReply(0) === Reply.RETRY && exits < 4);
        retries.push(guest.engine.counters.cacheMisses - before);
      }
    }
    expect(retries).toEqual([1, 1, 1, 0, 0, 0]);
    expect(texts.slice(0, 3).map((text) => text?.replaceAll(/ds:|dword ptr |word ptr /g, ''))).toEqual(
      modes.map(({ text }) => text),
    );
  });

  it('adds the base of the code segment outside of 64-bit mode', () => {
    const { guest, texts } = guestWithHook();
    guest.code('89 03', CODE);
    guest.vcpu.set32('csAttributes', CODE_32);
    guest.vcpu.set('csBase', BigInt(CODE - 0x100));
    guest.vcpu.set('rip', 0x100n);
    guest.vcpu.set('rbx', BigInt(DATA));
    guest.settle(DATA);
    expect(texts).toHaveLength(1);
    expect(rights(guest, CODE)).toBe(Access.READ | Access.EXECUTE);
  });

  it('keeps nothing of user code in a space that nobody knows, nor without paging [P11.6] [P11.10]', () => {
    const { guest, texts } = guestWithHook();
    const { counters } = guest.engine;
    guest.engine.addressSpaces = { ...everyAddressSpace, isKnown: () => false };
    guest.vcpu.set('rip', BigInt(CODE));
    guest.violate(DATA);
    guest.violate(DATA);
    expect([counters.cacheMisses, counters.cacheHits, texts.length, rights(guest, CODE)]).toEqual([2, 0, 2, 7]);
    guest.engine.addressSpaces = { ...everyAddressSpace, pagingMode: '4-level' };
    guest.vcpu.set('efer', 0n);
    guest.vcpu.set('cr0', 0x11n);
    guest.vcpu.set32('csAttributes', CODE_32);
    guest.code('89 03');
    guest.vcpu.set('rip', BigInt(CODE));
    guest.vcpu.set('rbx', BigInt(DATA));
    guest.violate(DATA);
    guest.violate(DATA);
    expect([counters.cacheMisses, counters.cacheHits, texts.length, rights(guest, CODE)]).toEqual([4, 0, 4, 7]);
  });

  it('is flushed by space, page and frame, and whole by a checked write [P11.9] [P11.12]', () => {
    const { guest } = guestWithHook();
    const { engine } = guest;
    const cached = (rip: bigint): boolean => {
      guest.vcpu.set('rip', rip);
      const { cacheHits } = engine.counters;
      const settled = guest.settle(DATA) === 0;
      return settled && engine.counters.cacheHits > cacheHits;
    };
    const user = BigInt(CODE);
    const both = (): boolean[] => [cached(user), cached(kernel(CODE))];
    const fill = (): void => {
      both();
      expect(both()).toEqual([true, true]);
    };
    const scopes: [() => unknown, boolean[]][] = [
      [() => engine.flushInstructions({ cr3 }), [false, true]],
      [() => engine.flushInstructions({ cr3: 0x9000n as Cr3 }), [true, true]],
      [() => engine.flushInstructions({ va: kernel(CODE + 0x123) }), [true, false]],
      [() => engine.flushInstructions({ va: kernel(CODE + 0x1000) }), [true, true]],
      [() => engine.flushInstructions({ gpa: (CODE + 5) as Gpa }), [false, false]],
      [() => engine.flushInstructions(), [false, false]],
      [() => engine.memory.safeWrite(cr3, kernel(ELSEWHERE), Uint8Array.of(1), 0), [false, false]],
    ];
    for (const [flush, left] of scopes) {
      fill();
      const { cacheFlushes } = engine.counters;
      flush();
      expect(engine.counters.cacheFlushes).toBe(cacheFlushes + 1);
      expect(both()).toEqual(left);
    }
  });
});
