import type { Gpa } from '@introd/abi';
import { describe, expect, test } from 'vitest';
import { accounting, Ledger } from './index.js';
import { createMockPort, createSyntheticPort } from './testing.js';

/** A clock that goes on by `step` at each look. */
function steppedClock(step: number): () => number {
  let time = 0;
  return () => {
    time += step;
    return time;
  };
}

describe('accounting', () => {
  test('counts and times every call of the port, the ones that throw too, and changes none', () => {
    const inner = createSyntheticPort();
    const mock = createMockPort(inner, { faults: [{ operation: 'writePhysical', nth: 2 }] });
    const { port, ledger } = accounting(mock.port, { now: steppedClock(5) });
    const { start } = port.memoryRegions[0]!;
    expect(port.writePhysical(start, Uint8Array.of(1, 2))).toBe(true);
    expect(() => port.writePhysical(start, Uint8Array.of(9, 9))).toThrow(/made this call of writePhysical fail/);
    const bytes = new Uint8Array(2);
    expect(port.readPhysical(start, bytes)).toBe(true);
    expect([...bytes]).toEqual([1, 2]);
    expect(port.readPhysical((2 ** 51) as Gpa, bytes)).toBe(false);
    expect(ledger.report()).toEqual([
      { kind: 'operation', name: 'readPhysical', calls: 2, time: 10 },
      { kind: 'operation', name: 'writePhysical', calls: 2, time: 10 },
    ]);
  });

  test('keeps exactly the capabilities of the inner port, and reads its properties anew', () => {
    const inner = createSyntheticPort();
    const { port } = accounting(inner);
    expect(Object.keys(port).sort()).toEqual(Object.keys(createMockPort(inner).port).sort());
    expect(port.capabilities).toBe(inner.capabilities);
    port.pause();
    expect(port.pauseCount).toBe(1);
    port.resume();
    expect(port.pauseCount).toBe(0);
  });
});

describe('Ledger', () => {
  test('gives one account per kind and name, sorts by what they cost, and starts again at zero', () => {
    const ledger = new Ledger();
    const hook = ledger.account('hook', 'write 0x1000');
    hook.add(100);
    hook.add(50);
    ledger.account('hook', 'read 0x2000').add(400);
    ledger.account('page', 'write 0x1000').add(1);
    expect(ledger.account('hook', 'write 0x1000')).toBe(hook);
    expect(ledger.report()).toEqual([
      { kind: 'hook', name: 'read 0x2000', calls: 1, time: 400 },
      { kind: 'hook', name: 'write 0x1000', calls: 2, time: 150 },
      { kind: 'page', name: 'write 0x1000', calls: 1, time: 1 },
    ]);
    ledger.reset();
    expect(ledger.report()).toEqual([]);
    hook.add(7);
    expect(ledger.report()).toEqual([{ kind: 'hook', name: 'write 0x1000', calls: 1, time: 7 }]);
  });

  test('puts what is beyond its bound on one account per kind, so that nothing is lost and memory is bounded', () => {
    const ledger = new Ledger({ maxAccounts: 3 });
    for (let page = 0; page < 1000; page++) ledger.account('page', `page ${page}`).add(1);
    const report = ledger.report();
    expect(report.length).toBe(4);
    expect(report.reduce((sum, line) => sum + line.calls, 0)).toBe(1000);
    expect(report.find((line) => line.name === 'others')?.calls).toBe(997);
  });

  test('takes the time from the host when it is given no clock', () => {
    const ledger = new Ledger();
    const earlier = ledger.now();
    expect(ledger.now()).toBeGreaterThanOrEqual(earlier);
  });
});
