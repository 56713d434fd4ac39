import { Access, gfn, gpa, Reply } from '@introd/abi';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { GlueError } from '../error.js';
import { NO_EXIT, type Port, supports } from '../port.js';
import { createMockPort, type PortCall } from './mock-port.js';
import { createSyntheticPort } from './synthetic-port.js';

describe('the call log', () => {
  test('holds every call with its arguments and result, in order', () => {
    const mock = createMockPort(createSyntheticPort());
    mock.port.writePhysical(gpa(0x1000), Uint8Array.of(1, 2, 3));
    mock.port.readPhysical(gpa(0x1000), new Uint8Array(3));
    mock.port.setPageAccess(gfn(1), Access.READ);
    expect(mock.calls()).toMatchObject([
      { sequence: 0, operation: 'writePhysical', args: [0x1000, Uint8Array.of(1, 2, 3)], returned: true },
      { sequence: 1, operation: 'readPhysical', args: [0x1000, Uint8Array.of(1, 2, 3)], returned: true },
      { sequence: 2, operation: 'setPageAccess', args: [1, Access.READ], thrown: undefined },
    ]);
  });

  test('keeps the bytes as they were at the call', () => {
    const mock = createMockPort(createSyntheticPort());
    const source = Uint8Array.of(7);
    mock.port.writePhysical(gpa(0), source);
    source[0] = 8;
    expect(mock.calls('writePhysical')[0]!.args[1]).toEqual(Uint8Array.of(7));
  });

  test('can be filtered by operation, with the types of that operation', () => {
    const mock = createMockPort(createSyntheticPort());
    mock.port.setPageAccess(gfn(2), Access.NONE);
    mock.port.flushPageAccess();
    mock.port.setPageAccess(gfn(3), Access.ALL);
    const calls = mock.calls('setPageAccess');
    expectTypeOf(calls).toEqualTypeOf<readonly PortCall<'setPageAccess'>[]>();
    expect(calls.map((call) => call.args[0])).toEqual([2, 3]);
    expect(mock.calls('setPageAccess', 'flushPageAccess')).toHaveLength(3);
    mock.clearCalls();
    expect(mock.calls()).toEqual([]);
  });

  test('is bounded, and tells how much it lost', () => {
    const mock = createMockPort(createSyntheticPort(), { logLimit: 3 });
    for (let i = 0; i < 10; i++) mock.port.getPageAccess(gfn(i));
    expect(mock.calls('getPageAccess').map((call) => call.args[0])).toEqual([7, 8, 9]);
    expect(mock.dropped).toBe(7);
  });

  test('says what a call threw', () => {
    const mock = createMockPort(createSyntheticPort());
    expect(() => mock.port.resume()).toThrow(GlueError);
    expect(mock.calls('resume')[0]).toMatchObject({ thrown: { code: 'ERR_GLUE_NOT_PAUSED' }, injected: false });
  });
});

describe('faults', () => {
  test('the n-th call from now throws, the others work', () => {
    const mock = createMockPort(createSyntheticPort());
    mock.port.pause();
    mock.fail({ operation: 'pause', nth: 2 });
    mock.port.pause();
    expect(() => mock.port.pause()).toThrow(expect.objectContaining({ code: 'ERR_GLUE_INJECTED_FAULT' }));
    mock.port.pause();
    // The inner port never saw the call that failed.
    expect(mock.port.pauseCount).toBe(3);
    expect(mock.calls('pause').map((call) => call.injected)).toEqual([false, false, true, false]);
  });

  test('a call with a failing outcome can be made to give it', () => {
    const mock = createMockPort(createSyntheticPort(), {
      faults: [
        { operation: 'readPhysical', by: 'refuse' },
        { operation: 'mapPage', by: 'refuse' },
        { operation: 'compareExchange', by: 'refuse' },
        { operation: 'next', by: 'refuse' },
      ],
    });
    const inner = mock.port;
    expect(inner.readPhysical(gpa(0), new Uint8Array(1))).toBe(false);
    expect(inner.readPhysical(gpa(0), new Uint8Array(1))).toBe(true);
    expect(inner.mapPage(gfn(0))).toBeUndefined();
    expect(inner.mapPage(gfn(0))).toHaveLength(4096);
    expect(inner.compareExchange(gpa(0), 8, 0, 0, 1, 0)).toBe(false);
    expect(inner.compareExchange(gpa(0), 8, 0, 0, 1, 0)).toBe(true);
    expect(inner.next(0)).toBe(NO_EXIT);
    // @ts-expect-error a call without an outcome can only throw
    mock.fail({ operation: 'flushPageAccess', by: 'refuse' });
  });

  test('may last, and can be taken back', () => {
    const mock = createMockPort(createSyntheticPort());
    mock.fail({ operation: 'flushPageAccess', times: Number.POSITIVE_INFINITY });
    for (let i = 0; i < 3; i++) expect(() => mock.port.flushPageAccess()).toThrow(GlueError);
    mock.clearFaults();
    expect(() => mock.port.flushPageAccess()).not.toThrow();
  });
});

describe('the decorated port', () => {
  test('has exactly the capabilities of the inner one', () => {
    const full = createSyntheticPort();
    const narrow: Port<'memory'> = {
      backend: 'narrow',
      capabilities: new Set(['memory'] as const),
      vcpuCount: 1,
      clockOrigin: 5,
      memoryRegions: full.memoryRegions,
      readPhysical: (address, target) => full.readPhysical(address, target),
      close: () => full.close(),
    };
    const { port } = createMockPort(narrow);
    expect(port.backend).toBe('narrow');
    expect(port.clockOrigin).toBe(5);
    expect(port.memoryRegions).toBe(narrow.memoryRegions);
    expect(supports(port, 'exits')).toBe(false);
    expect('next' in port).toBe(false);
    expect('pauseCount' in port).toBe(false);
    expect(supports(createMockPort(full).port, 'memory', 'write', 'map', 'registers', 'pause', 'exits', 'inject')).toBe(
      true,
    );
  });

  test('carries exits, records and replies through', () => {
    const inner = createSyntheticPort();
    const { port } = createMockPort(inner);
    expect(port.vcpu(0)).toBe(inner.vcpu(0));
    expect(port.guestRecord).toBe(inner.guestRecord);
    inner.raiseTick();
    expect(port.next(10)).toBe(1);
    port.reply(1, Reply.RETRY);
    expect(inner.lastReply(1)).toBe(Reply.RETRY);
  });
});
