import { type Alert, assertAlert, type Gpa, gfnOf, gpa, rootOf } from '@introd/abi';
import { Engine } from '@introd/core-hooks';
import { baselineRules, ExceptionsEngine } from '@introd/exceptions';
import { buildLabGuest, type LabGuest, type LabGuestOptions, type LabScenario } from '@introd/guest-lab';
import { ProfileStore } from '@introd/windows-profiles';
import { describe, expect, inject, it } from 'vitest';
import {
  betaPolicy,
  enforcePolicy,
  offPolicy,
  type Policy,
  WindowsGuest,
  type WindowsGuestOptions,
} from '../src/index.js';

const scale = inject('scale');
const FORMS = ['mov', 'or', 'xchg', 'bts', 'lock-cmpxchg'] as const;
const OPEN = 5;
const profiles = ProfileStore.bundled();
const feedbackPolicy: Policy = { ...enforcePolicy, protections: { 'self-map': 'feedback' } };

/** Machines by number of VCPUs, used again because making one costs more than most tests. */
const machines = new Map<number, LabGuest['machine']>();
/** The engine that stands on one of them. */
let running: Engine | undefined;

/** A lab guest that runs under the engine with the package under test on it. There is one at a time. */
class Run {
  readonly lab: LabGuest;
  readonly engine: Engine;
  readonly guest: WindowsGuest;
  readonly alerts: Alert[] = [];
  readonly problems: string[] = [];

  /** @param unwatched instructions that the guest runs before anybody looks */
  constructor(options: LabGuestOptions, overrides: Partial<WindowsGuestOptions> = {}, unwatched = 0) {
    running?.close();
    const vcpus = options.vcpus ?? 1;
    const machine = machines.get(vcpus);
    this.lab = buildLabGuest({ ...options, ...(machine ? { machine } : {}) });
    machines.set(vcpus, this.lab.machine);
    if (unwatched > 0) this.lab.machine.run(unwatched);
    this.engine = new Engine(this.lab.machine.openPort());
    running = this.engine;
    this.engine.onProblem((problem) =>
      this.problems.push(`${problem.kind}: ${problem.message} ${String(problem.cause)}`),
    );
    this.guest = new WindowsGuest(this.engine, {
      profiles,
      exceptions: ExceptionsEngine.fromJson(baselineRules),
      policy: enforcePolicy,
      onAlert: (alert) => this.alerts.push(assertAlert(JSON.parse(JSON.stringify(alert)))),
      onEvent: (event) => {
        if (event.type === 'problem') this.problems.push(event.message);
      },
      ...overrides,
    });
  }

  /** Lets the guest run until something holds; at most so many seconds of guest time. */
  until(holds: () => boolean, what: string, seconds = 5): void {
    const end = this.engine.time + seconds * 1e6;
    for (let steps = 0; !holds(); steps += 1) {
      if (this.engine.step(20) === 'shutdown' || this.engine.time > end || steps > 20_000) {
        throw new Error(`waited in vain for ${what}; guest: ${this.lab.lines.slice(-5).join(' | ')}`);
      }
    }
  }

  boot(): this {
    this.until(() => this.lab.phase === 'ready' && this.guest.state !== 'searching', 'boot and discovery');
    return this;
  }

  /** Runs a scenario to its end; returns what the guest said meanwhile. */
  play(scenario: LabScenario): readonly string[] {
    const before = this.lab.lines.length;
    this.lab.start(scenario);
    this.until(() => this.lab.phase === 'done', `the end of ${scenario.name}`);
    return this.lab.lines.slice(before);
  }

  tick(): void {
    const second = Math.floor(this.engine.time / 1e6);
    this.until(() => Math.floor(this.engine.time / 1e6) > second, 'a tick');
  }

  entryAddress(target: 'system' | 'ordinary'): Gpa {
    const { processes, selfMapIndex } = this.lab.truth;
    const process = processes.find(({ name }) => name === (target === 'system' ? 'System' : 'notepad.exe'))!;
    return gpa(rootOf(process.cr3) + selfMapIndex * 8);
  }

  entry(target: 'system' | 'ordinary'): number {
    const page = this.lab.machine.mapPage(gfnOf(this.entryAddress(target)))!;
    return new DataView(page.buffer, page.byteOffset).getUint32((this.entryAddress(target) % 4096) as number, true);
  }

  /** Runs something, and looks at the entry after every single instruction: how often it was open. */
  countOpen(target: 'system' | 'ordinary', run: () => void): number {
    const address = this.entryAddress(target);
    const page = this.lab.machine.mapPage(gfnOf(address))!;
    const words = new Uint32Array(page.buffer, page.byteOffset, 1024);
    const low = (address % 4096) / 4;
    let open = 0;
    this.lab.machine.observe(() => {
      if ((words[low]! & OPEN) === OPEN) open += 1;
    });
    try {
      run();
    } finally {
      this.lab.machine.observe(undefined);
    }
    return open;
  }
}

const userRead = (lines: readonly string[]) => lines.filter((line) => line.startsWith('lab: user read'));

describe('discovery of a running guest', () => {
  it.each(Array.from({ length: 3 * scale }, (_, i) => i + 1))('comes to the truth, seed %i', (seed) => {
    const { guest, lab, problems } = new Run({ seed, vcpus: 1 + (seed % 2) }).boot();
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
        const run = new Run({ seed }, {}, unwatched + seed * 37).boot();
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
      const run = new Run({ seed }).boot();
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

  it('is blocked on a guest of two processors, too', () => {
    const run = new Run({ seed: 5, vcpus: 2 }).boot();
    const lines = run.play({ name: 'self-map', form: 'or', target: 'system' });
    expect(userRead(lines)).toEqual([]);
    expect(run.alerts.map(({ verdict }) => verdict)).toEqual(['blocked']);
  });
});

describe('the attack in an ordinary process', () => {
  it.each(FORMS)('by %s is found and repaired within one tick', (form) => {
    for (let seed = 1; seed <= 2 * scale; seed += 1) {
      const run = new Run({ seed }).boot();
      run.play({ name: 'self-map', form, target: 'ordinary' });
      const tick = Math.floor(run.engine.time / 1e6);
      run.until(() => run.alerts.length > 0, 'an alert', 2);
      expect(Math.floor(run.engine.time / 1e6) - tick).toBeLessThanOrEqual(1);
      expect(run.entry('ordinary') & OPEN).toBe(1);
      expect(run.alerts[0]).toMatchObject({
        class: 'translation-violation',
        found: 'late',
        verdict: 'blocked',
        victim: { process: { name: 'notepad.exe' } },
      });
      run.tick();
      run.tick();
      expect(run.alerts).toHaveLength(1);
      expect(run.problems).toEqual([]);
    }
  });
});

describe('the benign twin', () => {
  it.each(['system', 'ordinary'] as const)('in %s is untouched, and nobody is told', (target) => {
    for (let seed = 1; seed <= 2 * scale; seed += 1) {
      const run = new Run({ seed }).boot();
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
    const run = new Run({ seed: 7 }, { policy: offPolicy }).boot();
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
      const run = new Run({ seed: 7 }, { policy }).boot();
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
      const run = new Run({ seed: 7 }, { exceptions, policy: { ...enforcePolicy, withoutRules } }).boot();
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
      const run = new Run({ seed: 11 }).boot();
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
    const run = new Run({ seed: 3 }).boot();
    const frame = gfnOf(run.entryAddress('system'));
    expect(run.engine.port.getPageAccess(frame)).not.toBe(7);
    run.guest.close();
    run.engine.step(1);
    expect(run.engine.port.getPageAccess(frame)).toBe(7);
  });
});

describe('a hostile guest', () => {
  it('with a cyclic process list is given up with the reason, and the engine goes on', () => {
    const run = new Run({ seed: 1, hostile: 'cyclic-processes' });
    run.until(() => run.guest.state !== 'searching', 'a verdict');
    expect(run.guest.state).toBe('failed');
    expect(run.guest.stateReason).toContain('list of processes is cyclic');
    run.until(() => run.lab.phase === 'ready', 'the boot, all the same');
    expect(run.problems).toEqual([]);
  });
});
