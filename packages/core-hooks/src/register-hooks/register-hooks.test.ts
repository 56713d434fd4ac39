import { DescriptorTable, ExitKind, type Gva, Reply, Verdict } from '@introd/abi';
import type { SwitchedExit } from '@introd/glue';
import { createMockPort, SyntheticPort } from '@introd/glue/testing';
import { describe, expect, it } from 'vitest';
import { Engine, type ExitHook } from '../index.js';

const EFER = 0xc000_0080;
const nothing = (): void => {};

/** Every kind of exit that hooks switch. */
const KINDS: readonly { name: string; exit: SwitchedExit; set: (engine: Engine) => ExitHook }[] = [
  { name: 'CR', exit: { kind: 'cr-write', register: 4 }, set: (engine) => engine.hooks.cr.set(4, nothing) },
  { name: 'MSR', exit: { kind: 'msr-write', register: EFER }, set: (engine) => engine.hooks.msr.set(EFER, nothing) },
  { name: 'XCR', exit: { kind: 'xcr-write' }, set: (engine) => engine.hooks.xcr.set(nothing) },
  {
    name: 'DTR',
    exit: { kind: 'descriptor-table' },
    set: (engine) => engine.hooks.descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, nothing),
  },
  {
    name: 'INT3',
    exit: { kind: 'breakpoint' },
    set: (engine) => engine.hooks.breakpoint.set({ callback: nothing }),
  },
  { name: 'VMCALL', exit: { kind: 'vmcall' }, set: (engine) => engine.hooks.vmcall.set({ callback: nothing }) },
  {
    name: 'injection',
    exit: { kind: 'event-injected' },
    set: (engine) => engine.hooks.injected.set(nothing),
  },
];

describe('the exit of a kind of hook', () => {
  for (const { name, exit, set } of KINDS) {
    it(`${name}: is on from the first hook to the last, off before the next reply [1.2.1] [P10.1] [P10.8]`, () => {
      const port = new SyntheticPort();
      const engine = new Engine(port);
      expect(port.isExitOn(exit)).toBe(false);
      const first = set(engine);
      const second = set(engine);
      expect(port.isExitOn(exit)).toBe(true);
      first.remove();
      first.remove();
      engine.step(0);
      expect(port.isExitOn(exit)).toBe(true);
      second.remove();
      expect(port.isExitOn(exit)).toBe(true);
      engine.step(0);
      expect(port.isExitOn(exit)).toBe(false);
      engine.close();
    });

    it(`${name}: stays on for a hook that is set after the last was removed in the same event [P10.5]`, () => {
      const port = new SyntheticPort();
      const engine = new Engine(port);
      const hook = set(engine);
      let next: ExitHook | undefined;
      engine.hooks.tick.set(() => {
        hook.remove();
        next ??= set(engine);
      });
      port.raiseTick();
      engine.step(1);
      expect(port.isExitOn(exit)).toBe(true);
      next!.remove();
      engine.step(0);
      expect(port.isExitOn(exit)).toBe(false);
      engine.close();
    });

    it(`${name}: a backend that refuses leaves no hook, and one that refuses to switch it off is asked again [P10.9]`, () => {
      const mock = createMockPort(new SyntheticPort());
      const engine = new Engine(mock.port);
      mock.fail({ operation: 'setExit', nth: 1 });
      expect(() => set(engine)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_INJECTED_FAULT' }));
      const hook = set(engine);
      mock.fail({ operation: 'setExit', nth: 1 });
      hook.remove();
      engine.step(0);
      expect(engine.counters.problems).toBe(1);
      engine.step(0);
      expect(mock.calls('setExit').at(-1)).toMatchObject({ args: [exit, false] });
      expect(mock.calls('setExit').at(-1)!.thrown).toBeUndefined();
      engine.close();
      expect(engine.counters.problems).toBe(1);
    });
  }
});

describe('register hooks', () => {
  it('without a callback are refused, and their exit stays off [P10.7]', () => {
    const port = new SyntheticPort();
    const engine = new Engine(port);
    const callback = undefined as never;
    const { hooks } = engine;
    for (const set of [
      () => hooks.cr.set(4, callback),
      () => hooks.msr.set(EFER, callback),
      () => hooks.xcr.set(callback),
      () => hooks.descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, callback),
      () => hooks.breakpoint.set({ callback }),
      () => hooks.breakpoint.set({ rip: 0n as Gva, callback }),
      () => hooks.vmcall.set({ callback }),
      () => hooks.injected.set(callback),
      () => hooks.tick.set(callback),
      () => engine.integrity.add({ va: 0xffff_8000_0000_0000n as Gva, length: 8, callback }),
    ]) {
      expect(set).toThrow(expect.objectContaining({ code: 'ERR_CORE_HOOKS_CALLBACK' }));
    }
    expect(KINDS.filter(({ exit }) => port.isExitOn(exit))).toEqual([]);
    engine.close();
  });

  it('are called in the order in which they were set; one that is removed by an earlier one is not [P10.2] [P10.4]', () => {
    const port = new SyntheticPort();
    const engine = new Engine(port);
    const calls: string[] = [];
    engine.hooks.msr.set(EFER, (event) => {
      calls.push('first');
      event.removeHook = true;
      second.remove();
    });
    const second = engine.hooks.msr.set(EFER, () => calls.push('second'));
    engine.hooks.msr.set(EFER, (event) => {
      calls.push('third');
      event.verdict = Verdict.NOT_ALLOWED;
    });
    for (let exit = 0; exit < 2; exit++) {
      port.raiseRegisterWrite(0, ExitKind.MSR_WRITE, EFER, 0n, 1n);
      engine.step(1);
      expect(port.lastReply(0)).toBe(Reply.SKIP);
    }
    expect(calls).toEqual(['first', 'third', 'third']);
    engine.close();
  });

  it('that throw count as the fallback, and the others are still asked [1.2.2]', () => {
    for (const [fallback, reply] of [
      ['allow', Reply.ALLOW_ONCE],
      ['block', Reply.SKIP],
    ] as const) {
      const port = new SyntheticPort();
      const engine = new Engine(port, { fallback });
      let asked = 0;
      engine.hooks.xcr.set(() => {
        throw new Error('broken');
      });
      engine.hooks.xcr.set(() => {
        asked++;
      });
      port.raiseRegisterWrite(0, ExitKind.XCR_WRITE, 0, 3n, 7n);
      engine.step(1);
      expect(port.lastReply(0)).toBe(reply);
      expect(asked).toBe(1);
      expect(engine.counters.problems).toBe(1);
      engine.close();
    }
  });
});
