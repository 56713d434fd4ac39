import { Access, type Cr3, type Gfn, type Gpa, type Gva, PAGE_SIZE, U64_MASK } from '@introd/abi';
import { createMockPort, createSyntheticPort } from '@introd/glue/testing';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { CODE, DATA, kernel, leafEntry, PML4, pageTables, STACK } from '../../test/guest-layout.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import { Engine } from '../index.js';
import { PageCache } from './page-cache.js';

const scale = inject('scale');
const CR3 = BigInt(PML4) as Cr3;
/** Entry of a supervisor page that may be written, to be added to its address. */
const SUPERVISOR = 3n;

/** Two supervisor pages at DATA, filled with a pattern. */
function guestWithData(): SyntheticGuest {
  const guest = new SyntheticGuest();
  for (const page of [DATA, DATA + PAGE_SIZE]) {
    guest.put64(leafEntry(page), BigInt(page) | SUPERVISOR);
  }
  guest.port.writePhysical(
    DATA as Gpa,
    Uint8Array.from({ length: 3 * PAGE_SIZE }, (_, at) => (at * 7) & 0xff),
  );
  return guest;
}

const pattern = (from: number, count: number): Uint8Array =>
  Uint8Array.from({ length: count }, (_, at) => ((from + at) * 7) & 0xff);
const bytesAt = (guest: SyntheticGuest, gpa: number, count: number): Uint8Array => {
  const bytes = new Uint8Array(count);
  expect(guest.port.readPhysical(gpa as Gpa, bytes)).toBe(true);
  return bytes;
};
const NEW = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
/** Four bytes on each of the two pages. */
const ACROSS = kernel(DATA + PAGE_SIZE - 4);
const before = pattern(PAGE_SIZE - 4, 8);

describe('reading virtual memory', () => {
  it('concatenates pages that lie apart, at any offset and length [P2.1] [P2.7]', () => {
    const guest = guestWithData();
    // The second virtual page is the third physical one and the other way round.
    guest.put64(leafEntry(DATA + PAGE_SIZE), BigInt(DATA + 2 * PAGE_SIZE) | SUPERVISOR);
    guest.put64(leafEntry(DATA + 2 * PAGE_SIZE), BigInt(DATA + PAGE_SIZE) | SUPERVISOR);
    const whole = new Uint8Array([
      ...pattern(0, PAGE_SIZE),
      ...pattern(2 * PAGE_SIZE, PAGE_SIZE),
      ...pattern(PAGE_SIZE, PAGE_SIZE),
    ]);
    fc.assert(
      fc.property(fc.nat(3 * PAGE_SIZE - 1), fc.nat(3 * PAGE_SIZE), (from, wanted) => {
        const target = new Uint8Array(Math.min(wanted, 3 * PAGE_SIZE - from));
        expect(guest.engine.memory.readVirtual(CR3, (kernel(DATA) + BigInt(from)) as Gva, target).status).toBe('ok');
        expect(Buffer.compare(target, whole.subarray(from, from + target.length))).toBe(0);
      }),
      { numRuns: 40 * scale },
    );
    const copy = new Uint8Array(8);
    guest.engine.memory.readVirtual(CR3, kernel(DATA), copy);
    copy.fill(0xff);
    expect(bytesAt(guest, DATA, 8)).toEqual(pattern(0, 8));
  });

  it('tells where it stopped and how many bytes it had when a page in the middle is absent [P2.2]', () => {
    const guest = guestWithData();
    guest.put64(leafEntry(DATA + PAGE_SIZE), 0n);
    const target = new Uint8Array(2 * PAGE_SIZE + 100);
    expect(guest.engine.memory.readVirtual(CR3, kernel(DATA + 100), target)).toEqual({
      status: 'not-present',
      at: kernel(DATA + PAGE_SIZE),
      done: PAGE_SIZE - 100,
    });
    expect(target.subarray(0, PAGE_SIZE - 100)).toEqual(pattern(100, PAGE_SIZE - 100));
  });

  it('returns a text whose NUL is the last byte before an absent page, and none without NUL [P2.8]', () => {
    const guest = guestWithData();
    guest.put64(leafEntry(DATA + PAGE_SIZE), 0n);
    guest.port.writePhysical((DATA + PAGE_SIZE - 4) as Gpa, Buffer.from('abc\0'));
    expect(guest.engine.memory.readAscii(CR3, ACROSS, 64)).toBe('abc');
    guest.port.writePhysical((DATA + PAGE_SIZE - 4) as Gpa, Buffer.from('abcd'));
    expect(guest.engine.memory.readAscii(CR3, ACROSS, 64)).toBeUndefined();
    expect(guest.engine.memory.readAscii(CR3, kernel(DATA + PAGE_SIZE - 5), 3)).toBeUndefined();
  });
});

describe('reading and writing physical memory', () => {
  it('goes over pages, and does nothing when a byte is not RAM [P2.9] [P2.14]', () => {
    const guest = guestWithData();
    const { memory } = guest.engine;
    const end = guest.port.memoryRegions.at(-1)!;
    const last = end.start + end.size;
    expect(memory.writePhysical((DATA + PAGE_SIZE - 4) as Gpa, NEW)).toBe(true);
    expect(bytesAt(guest, DATA + PAGE_SIZE - 4, 8)).toEqual(NEW);
    // The next virtual page is another frame than the next physical one.
    guest.put64(leafEntry(DATA + PAGE_SIZE), BigInt(DATA + 2 * PAGE_SIZE) | SUPERVISOR);
    guest.put64(DATA + 2 * PAGE_SIZE, 0x1111_1111_1111_1111n);
    expect(memory.readU64(CR3, ACROSS)).toBe(0x1111_1111_0403_0201n);
    expect(memory.read64((DATA + PAGE_SIZE - 4) as Gpa)).toBe(0x0807_0605_0403_0201n);
    const before = bytesAt(guest, last - 4, 4);
    expect(memory.writePhysical((last - 4) as Gpa, NEW)).toBe(false);
    expect(bytesAt(guest, last - 4, 4)).toEqual(before);
    expect(memory.readPhysical((last - 4) as Gpa, new Uint8Array(8))).toBe(false);
  });
});

describe('a safe write', () => {
  it('writes across two pages, and what a ring may not write stays as it is to the byte [P2.4]', () => {
    const refusals: [string, (guest: SyntheticGuest) => void, 0 | 3, object][] = [
      [
        'absent',
        (guest) => guest.put64(leafEntry(DATA + PAGE_SIZE), 0n),
        0,
        { status: 'not-present', at: kernel(DATA + PAGE_SIZE) },
      ],
      [
        'read-only',
        (guest) => guest.put64(leafEntry(DATA + PAGE_SIZE), BigInt(DATA + PAGE_SIZE) | 1n),
        0,
        { status: 'access-denied', at: kernel(DATA + PAGE_SIZE), reason: 'read-only' },
      ],
      [
        'of the user',
        (guest) => guest.put64(leafEntry(DATA + PAGE_SIZE), BigInt(DATA + PAGE_SIZE) | 7n),
        0,
        { status: 'access-denied', at: kernel(DATA + PAGE_SIZE), reason: 'ring' },
      ],
      ['of the kernel', () => undefined, 3, { status: 'access-denied', at: ACROSS, reason: 'ring' }],
      [
        'write-hooked',
        (guest) =>
          guest.engine.hooks.page.set({
            gpa: (DATA + PAGE_SIZE + 0x800) as Gpa,
            length: 1,
            access: Access.WRITE,
            callback: () => undefined,
          }),
        0,
        { status: 'access-denied', at: kernel(DATA + PAGE_SIZE), reason: 'write-hooked' },
      ],
      [
        'outside RAM',
        (guest) => guest.put64(leafEntry(DATA + PAGE_SIZE), 0x7fff_0000_0003n),
        0,
        { status: 'no-memory', at: kernel(DATA + PAGE_SIZE) },
      ],
    ];
    for (const [name, prepare, ring, outcome] of refusals) {
      const guest = guestWithData();
      prepare(guest);
      expect(guest.engine.memory.safeWrite(CR3, ACROSS, NEW, ring), name).toEqual(outcome);
      expect(bytesAt(guest, DATA + PAGE_SIZE - 4, 8), name).toEqual(before);
    }
    const benign = guestWithData();
    expect(benign.engine.memory.safeWrite(CR3, ACROSS, NEW, 0)).toEqual({ status: 'ok' });
    expect(bytesAt(benign, DATA + PAGE_SIZE - 4, 8)).toEqual(NEW);
    const user = guestWithData();
    user.put64(leafEntry(DATA), BigInt(DATA) | 7n);
    expect(user.engine.memory.safeWrite(CR3, kernel(DATA), NEW, 3)).toEqual({ status: 'ok' });
  });

  it('is not stopped by a hook that is removed and not yet committed [P2.5] [P18.5]', () => {
    const guest = guestWithData();
    const hook = guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: () => undefined,
    });
    expect(guest.engine.memory.safeWrite(CR3, kernel(DATA), NEW, 0).status).toBe('access-denied');
    hook.remove();
    expect(guest.port.getPageAccess((DATA / PAGE_SIZE) as Gfn) & Access.WRITE).toBe(0);
    expect(guest.engine.memory.safeWrite(CR3, kernel(DATA), NEW, 0)).toEqual({ status: 'ok' });
    guest.port.raiseTick();
    guest.engine.step(1);
    expect(guest.port.getPageAccess((DATA / PAGE_SIZE) as Gfn) & Access.WRITE).toBe(Access.WRITE);
  });

  it('drops every decoded instruction, and the guards of their pages do not stop it [P2.6] [P11.12]', () => {
    const guest = new SyntheticGuest();
    guest.put64(leafEntry(CODE), BigInt(CODE) | SUPERVISOR);
    guest.code('48 89 03');
    guest.vcpu.set('rbx', kernel(DATA));
    guest.engine.hooks.page.set({ gpa: DATA as Gpa, length: 8, access: Access.WRITE, callback: () => undefined });
    guest.settle(DATA);
    guest.settle(DATA);
    const { cacheHits, cacheMisses } = guest.engine.counters;
    expect(cacheHits).toBeGreaterThan(0);
    // The instruction was let through once and may still be about to happen; it happens now.
    guest.vcpu.set('rip', kernel(CODE + 3));
    expect(guest.engine.memory.safeWrite(CR3, kernel(STACK), NEW, 3)).toEqual({ status: 'ok' });
    expect(guest.engine.memory.safeWrite(CR3, kernel(CODE), Uint8Array.of(0x48, 0x89, 0x0b), 0)).toEqual({
      status: 'ok',
    });
    guest.vcpu.set('rip', kernel(CODE));
    guest.settle(DATA);
    expect(guest.engine.counters.cacheMisses).toBe(cacheMisses + 1);
  });

  it('refuses an empty range and one beyond the last address, and writes up to that; reading nothing is no error [P2.3]', () => {
    const guest = guestWithData();
    const { memory } = guest.engine;
    const nothing = new Uint8Array(0);
    expect(memory.safeWrite(CR3, kernel(DATA), nothing, 0).status).toBe('invalid-range');
    expect(memory.writeVirtual(CR3, kernel(DATA), nothing).status).toBe('invalid-range');
    for (const va of [kernel(DATA), 0x4000_0000_0000n as Gva]) {
      expect(memory.readVirtual(CR3, va, nothing)).toEqual({ status: 'ok' });
    }
    expect([memory.readPhysical(0 as Gpa, nothing), memory.writePhysical(0 as Gpa, nothing)]).toEqual([true, true]);
    const last = (U64_MASK - 7n) as Gva;
    expect(guest.engine.memory.safeWrite(CR3, (last + 1n) as Gva, NEW, 0).status).toBe('invalid-range');
    // The tables of the lower half serve the last 2 MiB too.
    const link = (table: number, entry: number): void => guest.put64(table + 511 * 8, BigInt(entry) | SUPERVISOR);
    link(PML4, 0x6000);
    link(0x6000, 0x7000);
    link(0x7000, 0x8000);
    link(0x8000, DATA);
    expect(guest.engine.memory.safeWrite(CR3, last, NEW, 0)).toEqual({ status: 'ok' });
    expect(bytesAt(guest, DATA + PAGE_SIZE - 8, 8)).toEqual(NEW);
  });

  it('takes back the first page when the backend refuses the second', () => {
    const inner = createSyntheticPort();
    for (const [gpa, entry] of pageTables()) {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, entry, true);
      inner.writePhysical(gpa, bytes);
    }
    const mock = createMockPort(inner);
    const engine = new Engine(mock.port);
    mock.fail({ operation: 'writePhysical', nth: 2 });
    expect(() => engine.memory.safeWrite(CR3, ACROSS, NEW, 3)).toThrow(
      expect.objectContaining({ code: 'ERR_GLUE_INJECTED_FAULT' }),
    );
    const bytes = new Uint8Array(8);
    inner.readPhysical((DATA + PAGE_SIZE - 4) as Gpa, bytes);
    expect(bytes).toEqual(new Uint8Array(8));
  });
});

describe('the cache of mapped pages', () => {
  it('looks at a frame through one mapping, anew after a flush [P2.10]', () => {
    const guest = guestWithData();
    let mapped = 0;
    const original = guest.port.mapPage.bind(guest.port);
    guest.port.mapPage = (frame) => {
      mapped++;
      return original(frame);
    };
    const read = (): bigint | undefined => guest.engine.memory.readU64(CR3, kernel(DATA));
    const first = read();
    const needed = mapped;
    expect(needed).toBeGreaterThan(0);
    read();
    guest.put64(DATA, 0x1234n);
    expect(read()).toBe(0x1234n);
    expect(first).not.toBe(0x1234n);
    expect(mapped).toBe(needed);
    guest.engine.memory.flushMappings();
    expect(read()).toBe(0x1234n);
    expect(mapped).toBe(2 * needed);
    guest.engine.close();
  });

  it('drops nothing while there is room, then first what was not used for longest, and everything when cleared [P2.11] [P2.12] [P2.13]', () => {
    const guest = new SyntheticGuest();
    const mapped: number[] = [];
    const cache = new PageCache(
      {
        mapPage: (frame) => {
          mapped.push(frame);
          return guest.port.mapPage(frame);
        },
      },
      4,
    );
    const use = (...frames: number[]): readonly number[] => {
      mapped.length = 0;
      for (const frame of frames) {
        expect(cache.get(frame)!.bytes.length).toBe(PAGE_SIZE);
      }
      return [...mapped];
    };
    expect(use(1, 2, 3, 4, 5, 6, 7, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(use(8, 7, 6, 5)).toEqual([]);
    // 1 and 2 are used again, 3 and 4 are not.
    expect(use(1, 2)).toEqual([]);
    expect(use(9, 10, 11)).toEqual([9, 10, 11]);
    expect(use(1, 2)).toEqual([]);
    expect(use(3, 4)).toEqual([3, 4]);
    for (let frame = 0; frame < 100; frame++) {
      use(frame);
      expect(cache.size).toBeLessThanOrEqual(12);
    }
    expect(cache.get(2 ** 30)).toBeUndefined();
    cache.clear();
    expect(cache.size).toBe(0);
    expect(use(99)).toEqual([99]);
  });
});
