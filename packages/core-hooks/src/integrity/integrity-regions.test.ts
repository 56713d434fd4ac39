import { type Cr3, type Gpa, type Gva, PAGE_SIZE } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel, leafEntry, PML4 } from '../../test/guest-layout.js';
import { code, microMachine, prepare, put64, SimGuest } from '../../test/sim-guest.js';
import { SyntheticGuest } from '../../test/synthetic-guest.js';
import type { IntegrityEvent, IntegrityOptions, IntegrityRegion } from '../index.js';
import { contentHash } from './region-contents.js';

const CR3 = BigInt(PML4) as Cr3;

function setUp(): SyntheticGuest {
  const guest = new SyntheticGuest();
  guest.engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
  guest.port.writePhysical(
    DATA as Gpa,
    Uint8Array.from({ length: 3 * PAGE_SIZE }, (_, at) => at & 0xff),
  );
  return guest;
}

function add(guest: SyntheticGuest | SimGuest, options: IntegrityOptions): IntegrityRegion {
  const addition = guest.engine.integrity.add(options);
  if (addition.status !== 'ok') throw new Error(addition.status);
  return addition.region;
}

describe('integrity regions', () => {
  it('hash as the processor does, page by page as in one piece [P17.9]', () => {
    expect(contentHash(Buffer.from('123456789'))).toBe(0xe306_9283);
    const guest = setUp();
    const bytes = new Uint8Array(2 * PAGE_SIZE);
    guest.port.readPhysical((DATA + 0x800) as Gpa, bytes);
    const region = add(guest, { va: kernel(DATA + 0x800), length: bytes.length, callback: () => undefined });
    expect(region.hash).toBe(contentHash(bytes));
    expect(region.original).toEqual(bytes);
  });

  it('are silent while nothing changes, and tell one changed byte at each tick until it is restored [P17.1] [P17.2] [P17.6]', () => {
    const machine = microMachine();
    prepare(machine);
    // Waits about two ticks, changes one byte, waits again: dec rcx; jnz / mov byte [rbx], 0x99 / dec rdx; jnz / hlt
    machine.writePhysical(CODE as Gpa, code('48 ff c9 75 fb c6 03 99 48 ff ca 75 fb f4'));
    const victim = DATA + PAGE_SIZE + 0x123;
    machine.vcpu(0).set('rbx', kernel(victim));
    machine.vcpu(0).set('rcx', 1_100_000n);
    machine.vcpu(0).set('rdx', 2_500_000n);
    put64(machine, victim & ~7, 0x1122_3344_5566_7788n);
    const guest = new SimGuest(machine);
    guest.engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
    const told: { readonly tick: number; readonly words: unknown }[] = [];
    add(guest, {
      va: kernel(DATA),
      length: 3 * PAGE_SIZE,
      callback: (event) => {
        told.push({ tick: guest.engine.counters.ticks, words: event.changedWords() });
        if (told.length === 3) {
          expect(event.region.restore(PAGE_SIZE, PAGE_SIZE)).toEqual({ status: 'ok' });
        }
      },
    });
    guest.run(100_000);
    expect(guest.problems).toEqual([]);
    expect(guest.engine.counters.ticks).toBeGreaterThanOrEqual(6);
    const words = [
      { offset: PAGE_SIZE + 0x120, size: 8, oldValue: 0x1122_3344_5566_7788n, newValue: 0x1122_3344_9966_7788n },
    ];
    expect(told).toEqual([3, 4, 5].map((tick) => ({ tick, words })));
    guest.close();
  });

  it('restore nothing outside of themselves, and nothing once they are removed', () => {
    const guest = setUp();
    const region = add(guest, { va: kernel(DATA + 0x10), length: 0x100, callback: () => undefined });
    const around = new Uint8Array(0x200);
    guest.port.readPhysical(DATA as Gpa, around);
    const changed = around.map((byte) => byte ^ 0xff);
    guest.port.writePhysical(DATA as Gpa, changed);
    for (const [offset, length] of [
      [-8, 8],
      [0, 0x1000],
      [0x100, 1],
      [0xf8, 9],
      [0, 0],
      [0.5, 1],
    ] as const) {
      const refused = expect.objectContaining({ code: 'ERR_CORE_HOOKS_RANGE', hint: expect.any(String) });
      expect(() => region.restore(offset, length)).toThrow(refused);
    }
    const now = new Uint8Array(0x200);
    guest.port.readPhysical(DATA as Gpa, now);
    expect(now).toEqual(changed);
    expect(region.restore(0xf8)).toEqual({ status: 'ok' });
    changed.set(around.subarray(0x108, 0x110), 0x108);
    region.remove();
    const removed = expect.objectContaining({ code: 'ERR_CORE_HOOKS_REMOVED', hint: expect.any(String) });
    expect(() => region.restore()).toThrow(removed);
    expect(() => region.recalculate()).toThrow(removed);
    guest.port.readPhysical(DATA as Gpa, now);
    expect(now).toEqual(changed);
  });

  it('leave a region with an absent page for later [P17.3]', () => {
    const guest = setUp();
    const events: number[] = [];
    const region = add(guest, {
      va: kernel(DATA),
      length: 2 * PAGE_SIZE,
      callback: (event) => events.push(event.violations),
    });
    guest.port.writePhysical(DATA as Gpa, Uint8Array.of(0xff));
    guest.put64(leafEntry(DATA + PAGE_SIZE), 0n);
    guest.engine.integrity.check();
    expect(events).toEqual([]);
    expect(region.recalculate()).toMatchObject({ status: 'not-present', at: kernel(DATA + PAGE_SIZE) });
    expect(region.restore()).toMatchObject({ status: 'not-present' });
    guest.put64(leafEntry(DATA + PAGE_SIZE), BigInt(DATA + PAGE_SIZE) | 3n);
    guest.engine.integrity.check();
    guest.engine.integrity.check();
    expect(events).toEqual([1, 2]);
  });

  it('take what is there for right after a recalculation, and keep everything when it fails [P17.5] [P17.12]', () => {
    const guest = setUp();
    let reported = 0;
    const region = add(guest, {
      va: kernel(DATA),
      length: 2 * PAGE_SIZE,
      callback: (event) => {
        reported++;
        event.region.recalculate();
      },
    });
    const { hash } = region;
    guest.port.writePhysical((DATA + PAGE_SIZE) as Gpa, Uint8Array.of(0xff));
    guest.put64(leafEntry(DATA + PAGE_SIZE), 0n);
    expect(region.recalculate().status).toBe('not-present');
    expect(region.hash).toBe(hash);
    expect(contentHash(region.original!)).toBe(hash);
    guest.put64(leafEntry(DATA + PAGE_SIZE), BigInt(DATA + PAGE_SIZE) | 3n);
    guest.engine.integrity.check();
    guest.engine.integrity.check();
    expect(reported).toBe(1);
    expect(region.hash).not.toBe(hash);
    expect(region.original![PAGE_SIZE]).toBe(0xff);
  });

  it('may be removed inside any callback, and one that throws stops nobody [P17.4] [P17.11]', () => {
    const guest = setUp();
    const calls: string[] = [];
    const options = (name: string, then: (event: IntegrityEvent) => void): IntegrityOptions => ({
      va: kernel(DATA),
      length: 64,
      callback: (event) => {
        calls.push(name);
        then(event);
      },
    });
    add(
      guest,
      options('first', ({ region }) => {
        region.remove();
        last.remove();
        add(
          guest,
          options('added', () => undefined),
        );
      }),
    );
    add(
      guest,
      options('throws', () => {
        throw new Error('of the test');
      }),
    );
    const last = add(
      guest,
      options('last', () => undefined),
    );
    guest.port.writePhysical((DATA + 5) as Gpa, Uint8Array.of(0xff));
    guest.engine.integrity.check();
    expect(calls).toEqual(['first', 'throws']);
    expect(guest.problems.map((problem) => problem.kind)).toEqual(['callback']);
    expect(guest.engine.integrity.count).toBe(2);
    guest.engine.integrity.check();
    expect(calls).toEqual(['first', 'throws', 'throws']);
  });

  it('are not compared by ticks while inactive [P17.7]', () => {
    const guest = setUp();
    let calls = 0;
    add(guest, { va: kernel(DATA), length: 1, callback: () => calls++ });
    guest.port.writePhysical(DATA as Gpa, Uint8Array.of(0xff));
    guest.engine.integrity.active = false;
    guest.port.raiseTick();
    guest.engine.step(1);
    expect(calls).toBe(0);
    guest.engine.integrity.active = true;
    guest.port.raiseTick();
    guest.engine.step(1);
    expect(calls).toBe(1);
  });

  it('are refused for user memory, empty and endless ranges, and what cannot be read [P17.8]', () => {
    const guest = setUp();
    const attempt = (va: bigint, length: number): string | undefined => {
      try {
        return guest.engine.integrity.add({ va: va as Gva, length, callback: () => undefined }).status;
      } catch (error) {
        return (error as { code?: string }).code;
      }
    };
    expect(attempt(0x1000n, 8)).toBe('ERR_CORE_HOOKS_RANGE');
    expect(attempt(kernel(DATA), 0)).toBe('ERR_CORE_HOOKS_RANGE');
    expect(attempt(kernel(DATA), 2 ** 30)).toBe('ERR_CORE_HOOKS_RANGE');
    expect(attempt((1n << 64n) - 4n, 8)).toBe('ERR_CORE_HOOKS_RANGE');
    guest.put64(leafEntry(DATA), 0n);
    expect(attempt(kernel(DATA), 8)).toBe('not-present');
    guest.engine.addressSpaces = { systemCr3: undefined, isKnown: () => true };
    expect(attempt(kernel(DATA + PAGE_SIZE), 8)).toBe('unknown-address-space');
    expect(guest.engine.integrity.count).toBe(0);
  });
});
