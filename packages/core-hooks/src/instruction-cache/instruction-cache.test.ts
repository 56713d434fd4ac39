import { Access, type Cr3, type Gfn, type Gpa, Reply } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel, leafEntry, PML4 } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';

/** mov [rbx], rax */
const STORE = '48 89 03';
const ELSEWHERE = 0x8_0000;

function guestWithHook(vcpus = 1): SyntheticGuest {
  const guest = new SyntheticGuest({}, { vcpus });
  guest.code(STORE);
  guest.vcpu.set('rbx', kernel(DATA));
  guest.engine.hooks.page.set({ gpa: DATA as Gpa, length: 4096, access: Access.WRITE, callback: () => undefined });
  return guest;
}

function rights(guest: SyntheticGuest, gpa: number): Access {
  return guest.port.getPageAccess((gpa >> 12) as Gfn);
}

/** Lets VCPU 0 store one byte to a physical address with an instruction on another code page, and answers the exits. */
function guestWrites(guest: SyntheticGuest, gpa: number, value: number): void {
  const { vcpu } = guest;
  const before = { rip: vcpu.get('rip'), rcx: vcpu.get('rcx'), rax: vcpu.get('rax') };
  // mov [rcx], al
  guest.code('88 01', ELSEWHERE);
  vcpu.set('rcx', kernel(gpa));
  vcpu.set('rax', BigInt(value));
  guest.settle(gpa);
  vcpu.set('rip', before.rip);
  vcpu.set('rcx', before.rcx);
  vcpu.set('rax', before.rax);
}

describe('the instruction cache', () => {
  it('keeps an instruction until its page is written, and makes that write itself [P11.1] [P11.8]', () => {
    const guest = guestWithHook();
    const { counters } = guest.engine;
    expect(guest.settle(DATA)).toBe(1);
    expect(counters).toMatchObject({ cacheMisses: 1, cacheHits: 1, cacheInvalidations: 0 });
    expect(guest.settle(DATA)).toBe(0);
    expect(counters).toMatchObject({ cacheMisses: 1, cacheHits: 2, cacheInvalidations: 0 });
    guestWrites(guest, CODE + 0xfff, 0x77);
    expect(guest.engine.memory.readPhysical((CODE + 0xfff) as Gpa, new Uint8Array(1))).toBe(true);
    expect(guest.port.mapPage((CODE >> 12) as Gfn)![0xfff]).toBe(0x77);
    expect(guest.port.lastReply(0)).toBe(Reply.RETRY);
    // Nothing of the page is cached any more, so nothing guards it.
    expect(rights(guest, CODE)).toBe(Access.ALL);
    expect(guest.settle(DATA)).toBe(1);
  });

  it('drops all instructions of a page at a write to any of its bytes, and no others [P11.2]', () => {
    const guest = guestWithHook();
    const { counters } = guest.engine;
    const rips = [CODE, CODE + 0x800, CODE + 0x1000].map((at) => {
      guest.code(STORE, at);
      return kernel(at);
    });
    const misses = (): number[] =>
      rips.map((rip) => {
        const before = counters.cacheMisses;
        guest.vcpu.set('rip', rip);
        guest.settle(DATA);
        return counters.cacheMisses - before;
      });
    expect(misses()).toEqual([1, 1, 1]);
    // The first byte, one between the instructions, one of an instruction, the last.
    for (const offset of [0, 0x400, 0x802, 0xfff]) {
      expect(misses()).toEqual([0, 0, 0]);
      const byte = new Uint8Array(1);
      guest.engine.memory.readPhysical((CODE + offset) as Gpa, byte);
      guestWrites(guest, CODE + offset, byte[0]!);
      expect(misses()).toEqual([1, 1, 0]);
    }
  });

  it('drops an instruction that spills over, on a write to either page [P11.3]', () => {
    for (const written of [CODE + 0x10, CODE + 0x1000 + 0x10]) {
      const guest = guestWithHook();
      guest.code(STORE, CODE + 0xfff);
      expect(guest.settle(DATA)).toBe(1);
      expect([rights(guest, CODE), rights(guest, CODE + 0x1000)]).toEqual([5, 5]);
      expect(guest.settle(DATA)).toBe(0);
      guestWrites(guest, written, 0);
      expect([rights(guest, CODE), rights(guest, CODE + 0x1000)]).toEqual([7, 7]);
      expect(guest.settle(DATA)).toBe(1);
    }
  });

  it('does not guard the next page for an instruction that ends before it', () => {
    const guest = guestWithHook();
    guest.code(STORE, CODE + 0xffd);
    expect(guest.settle(DATA)).toBe(1);
    expect(rights(guest, CODE + 0x1000)).toBe(Access.ALL);
  });

  it('drops an instruction whose address leads elsewhere, not one whose entry was accessed [P11.4]', () => {
    const guest = guestWithHook();
    guest.settle(DATA);
    guest.put64(leafEntry(CODE), BigInt(CODE) | 0x63n);
    expect(guest.settle(DATA)).toBe(0);
    const entry = new Uint8Array(new BigUint64Array([BigInt(ELSEWHERE) | 3n]).buffer);
    guest.engine.memory.writePhysical(leafEntry(CODE), entry);
    guest.engine.memory.writePhysical(ELSEWHERE as Gpa, Uint8Array.of(0x48, 0x89, 0x03));
    expect(guest.settle(DATA)).toBe(1);
    expect([rights(guest, CODE), rights(guest, ELSEWHERE)]).toEqual([7, 5]);
  });

  it('shares kernel code between address spaces, and no user code [P11.5]', () => {
    const guest = guestWithHook();
    // A second address space with the same tables.
    for (let offset = 0; offset < 4096; offset += 8) {
      guest.put64(0x9000 + offset, guest.get64(PML4 + offset));
    }
    guest.settle(DATA);
    const { counters } = guest.engine;
    const misses = counters.cacheMisses;
    guest.vcpu.set('cr3', 0x9000n);
    // The same instruction; but that the address leads to it has to be guarded in these tables too.
    expect([guest.settle(DATA), guest.settle(DATA)]).toEqual([1, 0]);
    expect([counters.cacheMisses, rights(guest, 0x9000)]).toEqual([misses, Access.READ | Access.EXECUTE]);
    guest.engine.flushInstructions({ cr3: 0x9000n as Cr3 });
    expect([guest.settle(DATA), counters.cacheMisses]).toEqual([1, misses]);
    guest.vcpu.set('rip', BigInt(CODE));
    expect(guest.settle(DATA)).toBe(1);
    expect(guest.settle(DATA)).toBe(0);
    guest.vcpu.set('cr3', BigInt(PML4));
    expect(guest.settle(DATA)).toBe(1);
  });

  it('guards kernel code in few of the address spaces that a guest makes up', () => {
    const guest = guestWithHook();
    for (let space = 0; space < 300; space++) {
      const cr3 = 0x10_0000 + space * 4096;
      guest.put64(cr3 + 256 * 8, guest.get64(PML4 + 256 * 8));
      guest.vcpu.set('cr3', BigInt(cr3));
      guest.settle(DATA);
      expect(guest.engine.hooks.translation.count).toBeLessThanOrEqual(64);
    }
    // The first ones were given up, with their tables.
    expect([rights(guest, 0x10_0000), rights(guest, 0x10_0000 + 299 * 4096)]).toEqual([7, 5]);
  });

  it('forgets what the engine itself writes', () => {
    const guest = guestWithHook();
    guest.settle(DATA);
    guest.engine.memory.writePhysical((CODE + 2) as Gpa, Uint8Array.of(0x0b));
    const texts: (string | undefined)[] = [];
    guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => texts.push(event.instruction?.text),
    });
    expect(guest.settle(DATA)).toBe(1);
    expect(texts).toEqual(['mov [rbx], rcx']);
  });

  it('makes the oldest give way when it is full, and guards only what it holds [P11.7] [P11.8]', () => {
    const guest = guestWithHook();
    const pages = 24;
    // 3-byte stores back to back: more of them than fit.
    const code = Uint8Array.from({ length: pages * 4096 }, (_, at) => [0x48, 0x89, 0x03][at % 3]!);
    const base = 0x10_0000;
    guest.engine.memory.writePhysical(base as Gpa, code);
    const count = 4096 + 1400;
    for (let n = 0; n < count; n++) {
      guest.vcpu.set('rip', kernel(base + n * 3));
      expect(guest.settle(DATA)).toBe(1);
    }
    guest.vcpu.set('rip', kernel(base));
    expect(rights(guest, base)).toBe(Access.ALL);
    expect(rights(guest, base + 3 * count)).toBe(Access.READ | Access.EXECUTE);
    expect(guest.settle(DATA)).toBe(1);
    guest.engine.close();
  });

  /** Two VCPUs: 0 has been allowed to execute its store, 1 stands at a vector store to that code, whose bytes nobody can tell. */
  function rewriter(): { guest: SyntheticGuest; otherExits: () => Reply | undefined } {
    const guest = guestWithHook(2);
    guest.settle(DATA);
    const other = guest.port.vcpu(1);
    guest.engine.memory.writePhysical(ELSEWHERE as Gpa, Uint8Array.of(0x0f, 0x11, 0x01));
    other.set('rip', kernel(ELSEWHERE));
    other.set('rcx', kernel(CODE));
    const otherExits = (): Reply | undefined => {
      guest.port.raiseViolation(1, { gpa: CODE as Gpa, gla: kernel(CODE), access: Access.WRITE, size: 16 });
      guest.engine.step(1);
      return guest.port.lastReply(1);
    };
    otherExits();
    return { guest, otherExits };
  }

  it('lets no VCPU rewrite an instruction that another was allowed to execute and has not yet', () => {
    const { guest, otherExits } = rewriter();
    for (let exit = 0; exit < 5; exit++) {
      expect(otherExits()).toBe(Reply.RETRY);
      expect(rights(guest, CODE)).toBe(Access.READ | Access.EXECUTE);
    }
    guest.vcpu.set('rip', kernel(CODE + 3));
    expect(otherExits()).toBe(Reply.ALLOW_ONCE);
    expect(guest.port.pauseCount).toBe(0);
  });

  it('does not let that wait last for ever', () => {
    const { otherExits } = rewriter();
    let retries = 0;
    while (otherExits() === Reply.RETRY) {
      retries++;
    }
    expect(retries).toBeGreaterThan(10);
    expect(retries).toBeLessThan(1000);
  });

  it('trusts no bytes that another VCPU may be writing at this moment', () => {
    const { guest, otherExits } = rewriter();
    guest.vcpu.set('rip', kernel(CODE + 3));
    expect(otherExits()).toBe(Reply.ALLOW_ONCE);
    guest.vcpu.set('rip', kernel(CODE));
    for (let exit = 0; exit < 5; exit++) {
      guest.violate(DATA);
      expect(guest.port.lastReply(0)).toBe(Reply.RETRY);
    }
    // The write is over when the other VCPU has moved on.
    guest.port.vcpu(1).set('rip', kernel(ELSEWHERE + 3));
    expect(guest.settle(DATA)).toBe(1);
  });
});
