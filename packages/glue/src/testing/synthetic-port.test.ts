import {
  Access,
  ExitCause,
  ExitKind,
  gfn,
  gpa,
  gva,
  PAGE_SIZE,
  Reply,
  ShutdownReason,
  XSAVE_AREA,
  XSAVE_HEADER_END,
  XStateComponent,
} from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, test } from 'vitest';
import { NO_EXIT } from '../port.js';
import { createSyntheticPort } from './synthetic-port.js';

const scale = inject('scale');
const HIGH = 2 ** 40;

const isRam = (at: number) => at < 2 * PAGE_SIZE || (at >= HIGH && at < HIGH + PAGE_SIZE);
const range = (at: number, length: number) => Array.from({ length }, (_, i) => at + i);
const low = (x: bigint) => Number(x & 0xffff_ffffn);
const high = (x: bigint) => Number(x >> 32n);

describe('memory', () => {
  test('agrees with a model for reads, writes and compare-exchanges at any address', () => {
    // Two regions that touch, a hole, and one above 4 GiB.
    const memory = [
      { start: gpa(0), size: PAGE_SIZE },
      { start: gpa(PAGE_SIZE), size: PAGE_SIZE },
      { start: gpa(HIGH), size: PAGE_SIZE },
    ];
    const address = fc.oneof(
      fc.integer({ min: 0, max: 2 * PAGE_SIZE + 16 }),
      fc.integer({ min: HIGH - 16, max: HIGH + PAGE_SIZE + 16 }),
    );
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('write' as const),
        at: address,
        bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }),
      }),
      fc.record({ kind: fc.constant('read' as const), at: address, length: fc.integer({ min: 1, max: 40 }) }),
      fc.record({
        kind: fc.constant('exchange' as const),
        at: address,
        size: fc.constantFrom(1 as const, 2 as const, 4 as const, 8 as const),
        hit: fc.boolean(),
        value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const port = createSyntheticPort({ memory });
        const model = new Map<number, number>();
        for (const action of steps) {
          if (action.kind === 'write') {
            const addresses = range(action.at, action.bytes.length);
            expect(port.writePhysical(gpa(action.at), action.bytes)).toBe(addresses.every(isRam));
            if (addresses.every(isRam)) for (const [i, at] of addresses.entries()) model.set(at, action.bytes[i]!);
          } else if (action.kind === 'read') {
            const addresses = range(action.at, action.length);
            const target = new Uint8Array(action.length);
            expect(port.readPhysical(gpa(action.at), target)).toBe(addresses.every(isRam));
            if (addresses.every(isRam)) expect([...target]).toEqual(addresses.map((at) => model.get(at) ?? 0));
          } else {
            const at = action.at - (action.at % action.size);
            const addresses = range(at, action.size);
            if (!addresses.every(isRam)) continue;
            const bits = 8 * action.size;
            let held = 0n;
            addresses.forEach((byte, i) => {
              held |= BigInt(model.get(byte) ?? 0) << BigInt(8 * i);
            });
            const expected = action.hit ? held : BigInt.asUintN(bits, held + 1n);
            const value = BigInt.asUintN(bits, action.value);
            expect(
              port.compareExchange(gpa(at), action.size, low(expected), high(expected), low(value), high(value)),
            ).toBe(action.hit);
            if (!action.hit) continue;
            for (const [i, byte] of addresses.entries()) model.set(byte, Number((value >> BigInt(8 * i)) & 0xffn));
          }
        }
        for (const [at, byte] of model) {
          const target = new Uint8Array(1);
          port.readPhysical(gpa(at), target);
          expect(target[0]).toBe(byte);
        }
      }),
      { numRuns: 50 * scale },
    );
  });

  test('a mapped page is live and always the same view', () => {
    const port = createSyntheticPort();
    const page = port.mapPage(gfn(3))!;
    port.writePhysical(gpa(3 * PAGE_SIZE + 5), Uint8Array.of(9));
    expect(page[5]).toBe(9);
    expect(page.byteOffset % 8).toBe(0);
    expect(port.mapPage(gfn(3))).toBe(page);
  });
});

describe('exits', () => {
  test('come in the order in which they were raised, and once', () => {
    const port = createSyntheticPort({ vcpus: 3 });
    port.raiseViolation(2, { gpa: gpa(0x1000), access: Access.WRITE });
    port.time = 5_000_000_000;
    port.raiseTick();
    port.raiseViolation(0, { gpa: gpa(2 ** 33), gla: gva(-1n), access: Access.EXECUTE });
    expect([port.next(0), port.next(0), port.next(0), port.next(0)]).toEqual([2, 3, 0, NO_EXIT]);
    expect(port.guestRecord).toMatchObject({ exitKind: ExitKind.TICK, exitTime: 5_000_000_000 });
    expect(port.vcpu(0)).toMatchObject({
      exitKind: ExitKind.EPT_VIOLATION,
      exitCause: ExitCause.FETCH,
      exitGpa: 2 ** 33,
    });
    expect(port.vcpu(0).get32('exitGlaValid')).toBe(1);
    expect(port.vcpu(2)).toMatchObject({ exitCause: ExitCause.DATA, exitTime: 0 });
    expect(port.vcpu(2).get32('exitGlaValid')).toBe(0);
  });

  test('are replied to once, by the VCPU that stands at one', () => {
    const port = createSyntheticPort();
    const notAtExit = expect.objectContaining({ code: 'ERR_GLUE_NOT_AT_EXIT' });
    expect(port.lastReply(0)).toBeUndefined();
    expect(() => port.reply(0, Reply.RETRY)).toThrow(notAtExit);
    port.raiseRegisterWrite(0, ExitKind.CR_WRITE, 4, 1n, 2n);
    expect(() => port.reply(0, Reply.RETRY)).toThrow(notAtExit);
    expect(() => port.raise(0)).toThrow(notAtExit);
    expect(port.next(0)).toBe(0);
    expect(port.vcpu(0).get('replyValue')).toBe(2n);
    port.reply(0, Reply.SKIP);
    expect(port.lastReply(0)).toBe(Reply.SKIP);
    expect(() => port.reply(0, Reply.SKIP)).toThrow(notAtExit);
    expect(port.replies).toBe(1);
  });

  test('a shutdown has no reply', () => {
    const port = createSyntheticPort();
    port.raiseShutdown(ShutdownReason.TRIPLE_FAULT);
    expect(port.next(0)).toBe(1);
    expect(() => port.reply(1, Reply.RETRY)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_NOT_AT_EXIT' }));
  });

  test('switches are remembered by register', () => {
    const port = createSyntheticPort();
    port.setExit({ kind: 'cr-write', register: 4 }, true);
    port.setExit({ kind: 'vmcall' }, true);
    port.setExit({ kind: 'vmcall' }, false);
    expect(port.isExitOn({ kind: 'cr-write', register: 4 })).toBe(true);
    expect(port.isExitOn({ kind: 'cr-write', register: 3 })).toBe(false);
    expect(port.isExitOn({ kind: 'vmcall' })).toBe(false);
  });
});

describe('vector registers', () => {
  test('are kept per VCPU, with AVX once XCR0 has it', () => {
    const port = createSyntheticPort({ vcpus: 2 });
    const area = new Uint8Array(XSAVE_AREA.size);
    expect(port.readXsaveArea(1, area)).toBe(XSAVE_HEADER_END);
    expect(area[XSAVE_AREA.offset.xstateBv]).toBe(0);
    port.vcpu(1).set('xcr0', 7n);
    area[XSAVE_AREA.offset.ymmHigh + 5] = 0x5a;
    area[XSAVE_AREA.offset.xmm + 3] = 0xa5;
    area[XSAVE_AREA.offset.xstateBv] = XStateComponent.AVX;
    port.writeXsaveArea(1, area);
    const read = new Uint8Array(XSAVE_AREA.size);
    expect(port.readXsaveArea(1, read)).toBe(XSAVE_AREA.size);
    expect(read[XSAVE_AREA.offset.ymmHigh + 5]).toBe(0x5a);
    // The bit of SSE was not set.
    expect(read[XSAVE_AREA.offset.xmm + 3]).toBe(0);
    expect(read[XSAVE_AREA.offset.xstateBv]).toBe(XStateComponent.AVX);
    port.readXsaveArea(0, read);
    expect(read[XSAVE_AREA.offset.ymmHigh + 5]).toBe(0x5a); // beyond the area of VCPU 0, and so left alone
    expect(read[XSAVE_AREA.offset.xstateBv]).toBe(0);
    const cut = area.subarray(0, XSAVE_AREA.size - 1);
    const bad = expect.objectContaining({ code: 'ERR_GLUE_BAD_XSAVE_AREA' });
    expect(() => port.writeXsaveArea(1, cut)).toThrow(bad);
    port.vcpu(1).set('xcr0', 3n);
    expect(() => port.writeXsaveArea(1, area)).toThrow(bad);
  });
});

describe('an XSAVE area of any bytes', () => {
  const AT = XSAVE_AREA.offset;
  const header = fc.record({
    // About a fifth is taken; a component that does not exist comes from what is spoilt.
    present: fc.nat(7),
    spoilt: fc.option(fc.record({ at: fc.integer({ min: AT.xstateBv, max: AT.ymmHigh - 1 }), bit: fc.nat(7) }), {
      freq: 1,
    }),
    mxcsrHigh: fc.constantFrom(0, 0, 0, 0x80),
    length: fc.oneof(
      { weight: 3, arbitrary: fc.constant(XSAVE_AREA.size) },
      { weight: 1, arbitrary: fc.nat(XSAVE_AREA.size + 64) },
    ),
    xcr0: fc.constantFrom(1n, 3n, 7n),
  });

  test('is taken over component by component, or refused with nothing changed', () => {
    let taken = 0;
    const bytes = fc.uint8Array({ minLength: XSAVE_AREA.size, maxLength: XSAVE_AREA.size });
    fc.assert(
      fc.property(bytes, bytes, header, (first, second, { present, spoilt, mxcsrHigh, length, xcr0 }) => {
        const port = createSyntheticPort();
        const make = (area: Uint8Array, components: number): void => {
          area.fill(0, AT.xstateBv, AT.ymmHigh);
          area[AT.xstateBv] = components;
          area[AT.mxcsr + 2] = 0;
          area[AT.mxcsr + 3] = 0;
        };
        port.vcpu(0).set('xcr0', 7n);
        make(first, 7);
        port.writeXsaveArea(0, first);
        const before = new Uint8Array(XSAVE_AREA.size);
        port.readXsaveArea(0, before);
        port.vcpu(0).set('xcr0', xcr0);
        make(second, present);
        second[AT.mxcsr + 3] = mxcsrHigh;
        if (spoilt) second[spoilt.at]! ^= 1 << spoilt.bit;
        const components = second[AT.xstateBv]!;
        const source = new Uint8Array(length);
        source.set(second.subarray(0, length));
        let refused = false;
        try {
          port.writeXsaveArea(0, source);
          taken++;
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_GLUE_BAD_XSAVE_AREA' });
          refused = true;
        }
        port.vcpu(0).set('xcr0', 7n);
        const after = new Uint8Array(XSAVE_AREA.size);
        port.readXsaveArea(0, after);
        if (refused) {
          expect(after).toEqual(before);
          return;
        }
        for (const [component, from, to] of [
          [XStateComponent.X87, AT.st, AT.xmm],
          [XStateComponent.SSE, AT.xmm, AT.legacyRest],
          [XStateComponent.AVX, AT.ymmHigh, XSAVE_AREA.size],
        ] as const) {
          const expected = (components & component) === 0 ? new Uint8Array(to - from) : source.subarray(from, to);
          expect(after.subarray(from, to)).toEqual(expected);
        }
        expect(after.subarray(AT.mxcsr, AT.mxcsrMask)).toEqual(source.subarray(AT.mxcsr, AT.mxcsrMask));
        expect(components & ~(Number(xcr0) | 3)).toBe(0);
        expect(length).toBeGreaterThanOrEqual(XSAVE_HEADER_END);
      }),
      { numRuns: 100 * scale },
    );
    expect(taken).toBeGreaterThan(0);
  });
});

describe('rights and injection', () => {
  test('rights are kept per frame, and sets and flushes counted', () => {
    const port = createSyntheticPort();
    port.setPageAccess(gfn(7), Access.READ);
    port.setPageAccess(gfn(8), Access.NONE);
    port.flushPageAccess();
    expect([6, 7, 8].map((frame) => port.getPageAccess(gfn(frame)))).toEqual([Access.ALL, Access.READ, Access.NONE]);
    expect(port).toMatchObject({ pageAccessSets: 2, pageAccessFlushes: 1 });
    port.close();
    expect(() => port.getPageAccess(gfn(7))).toThrow(expect.objectContaining({ code: 'ERR_GLUE_CLOSED' }));
  });

  test('one injection waits until it is reported', () => {
    const port = createSyntheticPort();
    expect(() => port.inject(0, 46, 0, 0n)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_BAD_EVENT' }));
    expect(() => port.inject(0, 6, 0, 0n)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_BAD_EVENT' }));
    expect(() => port.inject(0, 13, -1, 0n)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_BAD_EVENT' }));
    port.inject(0, 14, 4, 0x1000n);
    expect(() => port.inject(0, 13, 0, 0n)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_INJECTION_PENDING' }));
    port.reportInjection(0, 14, 4, 0x1000n);
    expect(port.next(0)).toBe(0);
    expect(port.vcpu(0).get32('exitVector')).toBe(14);
    port.reply(0, Reply.RETRY);
    port.inject(0, 6, -1, 0n);
    expect(port.injections).toEqual([
      { index: 0, vector: 14, errorCode: 4, cr2: 0x1000n },
      { index: 0, vector: 6, errorCode: -1, cr2: 0n },
    ]);
  });
});

test('a single step is raised once for each reply that asks for it', () => {
  const port = createSyntheticPort({ vcpus: 2 });
  expect(() => port.raiseSingleStep(0)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_NOT_AT_EXIT' }));
  port.raiseViolation(0, { gpa: gpa(0x1000), access: Access.WRITE });
  port.next(1);
  port.reply(0, Reply.SINGLE_STEP);
  expect(() => port.raiseSingleStep(1)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_NOT_AT_EXIT' }));
  port.raiseSingleStep(0);
  expect(port.next(1)).toBe(0);
  expect(port.vcpu(0).exitKind).toBe(ExitKind.SINGLE_STEP);
  port.reply(0, Reply.RETRY);
  expect(() => port.raiseSingleStep(0)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_NOT_AT_EXIT' }));
  port.setExit({ kind: 'rep-iterations' }, true);
  expect(port.isExitOn({ kind: 'rep-iterations' })).toBe(true);
});
