import { type Alert, assertAlert, type Gpa, gfnOf, gpa, rootOf } from '@introd/abi';
import { Engine } from '@introd/core-hooks';
import { baselineRules, ExceptionsEngine } from '@introd/exceptions';
import { buildLabGuest, type LabGuest, type LabGuestOptions, type LabScenario } from '@introd/guest-lab';
import { ProfileStore } from '@introd/windows-profiles';
import { enforcePolicy, WindowsGuest, type WindowsGuestOptions } from '../src/index.js';

/** P and U/S of an entry. */
export const OPEN = 5;
const profiles = ProfileStore.bundled();

/** What a lab guest under the engine is made of. */
export type LabRunOptions = Omit<LabGuestOptions, 'machine'>;

/** Machines by number of VCPUs and races, used again because making one costs more than most tests. */
const machines = new Map<string, LabGuest['machine']>();
/** The engine that stands on one of them. */
let running: Engine | undefined;

/** A lab guest that runs under the engine with the package under test on it. There is one at a time. */
export class LabRun {
  readonly lab: LabGuest;
  readonly engine: Engine;
  readonly guest: WindowsGuest;
  readonly alerts: Alert[] = [];
  readonly problems: string[] = [];

  /** @param unwatched instructions that the guest runs before anybody looks */
  constructor(options: LabRunOptions, overrides: Partial<WindowsGuestOptions> = {}, unwatched = 0) {
    running?.close();
    const { vcpus = 1, race } = options;
    const key = `${vcpus} ${race?.betweenFaultAndDelivery} ${race?.insideCalls}`;
    const machine = machines.get(key);
    this.lab = buildLabGuest({ ...options, ...(machine ? { machine } : {}) });
    machines.set(key, this.lab.machine);
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

  /** The same, but stops at the very instruction after which it holds. */
  untilExactly(holds: () => boolean, what: string, seconds = 5): void {
    const end = this.engine.time + seconds * 1e6;
    while (!holds()) {
      // A thousandth of a millisecond is one instruction.
      if (this.engine.step(0.001) === 'shutdown' || this.lab.machine.time > end) {
        throw new Error(`waited in vain for ${what}; guest: ${this.lab.lines.slice(-5).join(' | ')}`);
      }
    }
  }

  /** Lets the guest run so many microseconds, an instruction each. */
  pass(microseconds: number): void {
    const end = this.lab.machine.time + microseconds;
    while (this.lab.machine.time < end) {
      this.engine.step(Math.min(20, Math.max(0.001, (end - this.lab.machine.time) / 1000)));
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

/** What ring 3 has read through the self-map. */
export const userRead = (lines: readonly string[]): readonly string[] =>
  lines.filter((line) => line.startsWith('lab: user read'));
