import { gfnOf } from '@introd/abi';
import { ExceptionsEngine } from '@introd/exceptions';
import { describe, expect, inject, it } from 'vitest';
import { betaPolicy, enforcePolicy, offPolicy, type Policy } from '../src/index.js';
import { LabRun, OPEN, userRead } from './lab-run.js';

const scale = inject('scale');
const FORMS = ['mov', 'or', 'xchg', 'bts', 'lock-cmpxchg'] as const;
const feedbackPolicy: Policy = { ...enforcePolicy, protections: { 'self-map': 'feedback' } };

describe('discovery of a running guest', () => {
  it.each(Array.from({ length: 3 * scale }, (_, i) => i + 1))('comes to the truth, seed %i', (seed) => {
    const { guest, lab, problems } = new LabRun({ seed, vcpus: 1 + (seed % 2) }).boot();
    const { truth } = lab;
    expect(guest.state).toBe('found');
    expect(guest.info).toMatchObject({
      build: truth.build,
      kernelBase: truth.kernelBase,
      kernelSize: truth.kernelSize,
      systemCr3: truth.systemCr3,
      selfMapIndex: truth.selfMapIndex,
      kptiActive: false,
      pdb: { guid: truth.pdb.guid, age: truth.pdb.age },
    });
    expect(guest.processes.map(({ pid, name, eprocess, cr3 }) => ({ pid, name, eprocess, cr3 }))).toEqual(
      truth.processes.map(({ pid, name, eprocess, cr3 }) => ({ pid, name, eprocess, cr3 })),
    );
    expect(problems).toEqual([]);
  });
});

describe('attaching to a running guest', () => {
  it.each([1_000, 20_000, 100_000, 300_000, 1_234_567, 3_000_001])(
    'after %i instructions finds the same',
    (unwatched) => {
      for (let seed = 1; seed <= scale; seed += 1) {
        const run = new LabRun({ seed }, {}, unwatched + seed * 37).boot();
        expect(run.guest.info).toMatchObject({
          systemCr3: run.lab.truth.systemCr3,
          kernelBase: run.lab.truth.kernelBase,
        });
        const lines = run.play({ name: 'self-map', form: 'mov', target: 'system' });
        expect(userRead(lines)).toEqual([]);
        expect(run.alerts.map(({ verdict }) => verdict)).toEqual(['blocked']);
        expect(run.problems).toEqual([]);
      }
    },
  );
});

describe('the attack in System', () => {
  it.each(FORMS)('by %s is blocked: the entry is never open, user code reads nothing', (form) => {
    for (let seed = 1; seed <= 2 * scale; seed += 1) {
      const run = new LabRun({ seed }).boot();
      const before = run.entry('system') & OPEN;
      let lines: readonly string[] = [];
      expect(
        run.countOpen('system', () => {
          lines = run.play({ name: 'self-map', form, target: 'system' });
        }),
      ).toBe(0);
      expect(lines).toContain('lab: wrote');
      expect(userRead(lines)).toEqual([]);
      expect(run.entry('system') & OPEN).toBe(before);
      run.tick();
      expect(run.alerts).toHaveLength(1);
      expect(run.alerts[0]).toMatchObject({
        class: 'ept-violation',
        verdict: 'blocked',
        reason: 'no-exception',
        originator: { module: { name: 'ntoskrnl.exe' }, section: 'LABCODE' },
        victim: { process: { pid: 4 } },
        process: { pid: 4 },
      });
      expect(run.problems).toEqual([]);
    }
  });

  it.each([
    [2, undefined],
    [4, undefined],
    [2, { betweenFaultAndDelivery: 6, insideCalls: 6 }],
    [4, { betweenFaultAndDelivery: 6, insideCalls: 6 }],
  ] as const)('is blocked on %i processors with races %o, and its twin is not', (vcpus, race) => {
    let attacks = 0;
    for (let seed = 1; seed <= 2 * scale; seed += 1) {
      for (const form of FORMS) {
        const run = new LabRun({ seed, vcpus, ...(race ? { race } : {}) }).boot();
        let lines: readonly string[] = [];
        const play = (scenario: Parameters<typeof run.play>[0]) => () => {
          lines = run.play(scenario);
        };
        expect(run.countOpen('system', play({ name: 'self-map-benign', target: 'system' }))).toBe(0);
        expect(lines).toContain('lab: benign ok');
        run.tick();
        expect(run.alerts).toEqual([]);
        expect(run.countOpen('system', play({ name: 'self-map', form, target: 'system' }))).toBe(0);
        expect(lines).toContain('lab: wrote');
        expect(userRead(lines)).toEqual([]);
        run.tick();
        expect(run.alerts.map(({ verdict, victim }) => [verdict, victim.process.pid])).toEqual([['blocked', 4]]);
        expect(run.problems).toEqual([]);
        attacks += 1;
      }
    }
    expect(attacks).toBe(2 * scale * FORMS.length);
  });
});

/** A number below `end` that a seed decides (multiplicative hashing by 2^32 over the golden ratio). */
const seeded = (seed: number, end: number): number =>
  Math.floor(((Math.imul(seed, 0x9e37_79b1) >>> 0) / 2 ** 32) * end);

describe('the attack in an ordinary process', () => {
  /** The attack at a place between two ticks: it must be found and repaired at the first tick after the write. */
  function expectFoundAtNextTick(run: LabRun, form: (typeof FORMS)[number]): number {
    run.lab.start({ name: 'self-map', form, target: 'ordinary' });
    run.untilExactly(() => (run.entry('ordinary') & OPEN) === OPEN, 'the write');
    const written = run.lab.machine.time;
    const tick = Math.floor(written / 1e6) + 1;
    expect(run.alerts).toEqual([]);
    run.until(() => run.alerts.length > 0, 'an alert', 2);
    expect(run.engine.time).toBe(tick * 1e6);
    expect(run.lab.lines).toContain('lab: wrote');
    expect(run.entry('ordinary') & OPEN).toBe(1);
    run.until(() => run.lab.phase === 'done', 'the end of the attack');
    for (let i = 0; i < 2; i += 1) run.tick();
    expect(run.alerts).toHaveLength(1);
    const { pid, name } = run.lab.truth.targets.ordinary;
    expect(run.alerts[0]).toMatchObject({
      class: 'translation-violation',
      found: 'late',
      verdict: 'blocked',
      time: `${new Date(run.lab.machine.clockOrigin + tick * 1000).toISOString().slice(0, -1)}000Z`,
      victim: { process: { pid, name } },
    });
    expect(run.problems).toEqual([]);
    return tick * 1e6 - written;
  }

  it.each(FORMS)('by %s is found and repaired at the next tick, wherever between two ticks it is', (form) => {
    const latencies: number[] = [];
    for (let seed = 1; seed <= 4 * scale; seed += 1) {
      const run = new LabRun({ seed }).boot();
      run.pass(seeded(seed * FORMS.length + FORMS.indexOf(form), 1_000_001));
      latencies.push(expectFoundAtNextTick(run, form));
    }
    expect(latencies).toHaveLength(4 * scale);
    // The place does vary.
    expect(Math.max(...latencies) - Math.min(...latencies)).toBeGreaterThan(100_000);
  });

  it.each(FORMS)('by %s just before a tick is found at that one', (form) => {
    const latencies: number[] = [];
    for (const [index, left] of [30_000, 20_000, 12_000].entries()) {
      const run = new LabRun({ seed: 100 + index }).boot();
      run.tick();
      const { time } = run.lab.machine;
      run.pass(Math.ceil((time + left) / 1e6) * 1e6 - left - time);
      latencies.push(expectFoundAtNextTick(run, form));
    }
    expect(latencies).toHaveLength(3);
    expect(Math.min(...latencies)).toBeLessThan(30_000);
  });
});

describe('the benign twin', () => {
  it.each(['system', 'ordinary'] as const)('in %s is untouched, and nobody is told', (target) => {
    for (let seed = 1; seed <= 2 * scale; seed += 1) {
      const run = new LabRun({ seed }).boot();
      expect(run.play({ name: 'self-map-benign', target })).toContain('lab: benign ok');
      run.tick();
      run.tick();
      expect(run.alerts).toEqual([]);
      expect(run.problems).toEqual([]);
    }
  });
});

describe('modes', () => {
  it.each(['system', 'ordinary'] as const)('off: the attack in %s succeeds, so the block is real', (target) => {
    const run = new LabRun({ seed: 7 }, { policy: offPolicy }).boot();
    let lines: readonly string[] = [];
    const open = run.countOpen(target, () => {
      lines = run.play({ name: 'self-map', form: 'bts', target });
    });
    expect(open).toBeGreaterThan(0);
    expect(userRead(lines)).toHaveLength(1);
    run.tick();
    expect(run.alerts).toEqual([]);
    expect(run.entry(target) & OPEN).toBe(OPEN);
  });

  it.each([
    ['beta', betaPolicy, 'not-allowed'],
    ['feedback', feedbackPolicy, 'allowed'],
  ] as const)('%s: the attack succeeds and is told once', (mode, policy, action) => {
    for (const target of ['system', 'ordinary'] as const) {
      const run = new LabRun({ seed: 7 }, { policy }).boot();
      expect(run.guest.protections).toEqual([{ id: 'self-map', state: mode }]);
      const lines = run.play({ name: 'self-map', form: 'mov', target });
      expect(userRead(lines)).toHaveLength(1);
      for (let i = 0; i < 3; i += 1) run.tick();
      expect(run.alerts).toHaveLength(1);
      expect(run.alerts[0]).toMatchObject({ verdict: 'allowed', action });
    }
  });

  it('no rules loaded: the policy decides, and the alert says so', () => {
    for (const withoutRules of ['allow', 'block'] as const) {
      const exceptions = ExceptionsEngine.withoutRules();
      const run = new LabRun({ seed: 7 }, { exceptions, policy: { ...enforcePolicy, withoutRules } }).boot();
      const lines = run.play({ name: 'self-map', form: 'mov', target: 'system' });
      expect(userRead(lines)).toHaveLength(withoutRules === 'allow' ? 1 : 0);
      run.tick();
      expect(run.alerts).toHaveLength(1);
      expect(run.alerts[0]).toMatchObject({
        reason: 'exceptions-not-loaded',
        verdict: withoutRules === 'allow' ? 'allowed' : 'blocked',
        flags: ['rules-not-loaded', 'system-process'],
      });
    }
  });
});

describe('a run', () => {
  it('gives the same alerts each time', () => {
    const alerts = () => {
      const run = new LabRun({ seed: 11 }).boot();
      run.play({ name: 'self-map', form: 'xchg', target: 'system' });
      run.play({ name: 'self-map', form: 'or', target: 'ordinary' });
      run.tick();
      return JSON.stringify(run.alerts);
    };
    const first = alerts();
    expect(JSON.parse(first)).toHaveLength(2);
    expect(alerts()).toBe(first);
  });

  it('ends with every page as open to the guest as it was', () => {
    const run = new LabRun({ seed: 3 }).boot();
    const frame = gfnOf(run.entryAddress('system'));
    expect(run.engine.port.getPageAccess(frame)).not.toBe(7);
    run.guest.close();
    run.engine.step(1);
    expect(run.engine.port.getPageAccess(frame)).toBe(7);
  });
});

describe('a hostile guest', () => {
  it('with a cyclic process list is given up with the reason, and the engine goes on', () => {
    const run = new LabRun({ seed: 1, hostile: 'cyclic-processes' });
    run.until(() => run.guest.state !== 'searching', 'a verdict');
    expect(run.guest.state).toBe('failed');
    expect(run.guest.stateReason).toContain('list of processes is cyclic');
    run.until(() => run.lab.phase === 'ready', 'the boot, all the same');
    expect(run.problems).toEqual([]);
  });
});
