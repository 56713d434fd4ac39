import { type Alert, alertTime, type Gpa, hex64, rootOf, ShutdownReason } from '@introd/abi';
import { Engine } from '@introd/core-hooks';
import { buildLabGuest, type LabGuest } from '@introd/guest-lab';
import { WindowsGuest } from '@introd/windows';
import { ProfileStore } from '@introd/windows-profiles';
import { CliError, ExitCode } from '../error.js';
import { openDump } from './dump.js';
import type { DemoOptions } from './options.js';
import type { DemoOutcome, DemoRecord, DemoSummary } from './record.js';
import { type PlannedScenario, planScenarios } from './scenarios.js';

/** Milliseconds of guest time that one step of the loop may take: how often the demo looks at what the guest printed. */
const STEP_MS = 1;
/** The same before anything is attached, in instructions: the lab's kernel boots in a few thousand. */
const BOOT_STEP = 50;
/** Microseconds of guest time within which the guest must boot: ten times what it needs. */
const BOOT_LIMIT = 3_000_000;
/** Microseconds of guest time within which introspection must find the kernel: a few of its timer's CR3 loads. */
const DISCOVERY_LIMIT = 3_000_000;
/** Microseconds of guest time within which a scenario must end; each takes less than three ticks. */
const SCENARIO_LIMIT = 20_000_000;
/** One tick, and a little for the step in which it falls: a late find is in time up to here. */
const LATE_LIMIT = 1_010_000;

/** Receives each record as it happens. */
export type DemoSink = (record: DemoRecord) => void;

/** What only a person wants to know: it depends on the host's clock and is no part of the records. */
export interface DemoTimings {
  /** Milliseconds of host time from the attach to the end. */
  readonly attached: number;
  /** Milliseconds of it that were spent in the engine, between an exit and its reply. */
  readonly engine: number;
}

type Body<R = DemoRecord> = R extends DemoRecord ? Omit<R, 'schemaVersion' | 'time'> : never;

const STOP_TEXT: Record<ShutdownReason, string> = {
  [ShutdownReason.TRIPLE_FAULT]: 'a triple fault',
  [ShutdownReason.HALTED]: 'every virtual CPU halted for good',
  [ShutdownReason.POWER_OFF]: 'it switched itself off',
  [ShutdownReason.UNSUPPORTED]: 'it used an instruction that the embedded machine lacks',
};

/** One run: a guest, an engine, and what happens between them. */
class DemoRun {
  private readonly guest: LabGuest;
  private readonly alerts: Alert[] = [];
  private problems = 0;
  private linesTold = 0;
  private scenario: PlannedScenario | undefined;
  private engine: Engine | undefined;
  private windows: WindowsGuest | undefined;
  /** Host clock, for {@link DemoTimings} only. */
  private attachedAt = 0;
  private inGuest = 0;

  constructor(
    private readonly options: DemoOptions,
    private readonly sink: DemoSink,
  ) {
    this.guest = buildLabGuest({ seed: options.seed, ...(options.hostile ? { hostile: options.hostile } : {}) });
  }

  private get now(): number {
    return this.guest.machine.time;
  }

  private tell(body: Body): void {
    this.sink({ schemaVersion: 1, time: alertTime(this.guest.machine.clockOrigin, this.now), ...body } as DemoRecord);
  }

  /** Lets the guest run until `done`, or fails with what went wrong. */
  private until(done: () => boolean, limit: number, what: string): void {
    const deadline = this.now + limit;
    while (!done()) {
      if (this.engine) this.engine.step(STEP_MS);
      else this.guest.machine.run(BOOT_STEP);
      this.checkGuest();
      if (this.now > deadline) {
        throw new CliError(
          'ERR_INTROD_GUEST_STUCK',
          `the guest made no progress: ${what} did not happen within ${limit / 1e6} s of guest time`,
          { hint: `the guest's last words were: ${this.guest.lines.at(-1) ?? '(none)'}` },
        );
      }
    }
  }

  private checkGuest(): void {
    const crashed = this.guest.lines.find((line) => line.startsWith('lab: bugcheck'));
    if (crashed) throw new CliError('ERR_INTROD_GUEST_CRASHED', `the guest's kernel stopped itself: ${crashed}`);
    const reason = this.guest.machine.shutdownReason;
    if (reason === undefined) return;
    const detail = this.guest.machine.unsupported ? ` (${this.guest.machine.unsupported})` : '';
    throw new CliError('ERR_INTROD_GUEST_STOPPED', `the guest stopped: ${STOP_TEXT[reason]}${detail}`, {
      address: hex64(this.guest.machine.vcpu(0).rip),
    });
  }

  start(): void {
    this.tell({
      type: 'start',
      attack: this.options.attack,
      seed: this.options.seed,
      policy: this.options.policyName,
      backend: 'hv-sim',
    });
  }

  boot(): void {
    const progress = (): boolean => {
      for (; this.linesTold < this.guest.lines.length; this.linesTold++) {
        const step = /^lab: boot (.+)$/.exec(this.guest.lines[this.linesTold]!)?.[1];
        if (step) this.tell({ type: 'boot', step, instructions: this.guest.machine.instructions });
      }
      return this.guest.phase !== 'booting';
    };
    this.until(progress, BOOT_LIMIT, 'the end of its boot');
  }

  attach(): void {
    const port = this.guest.machine.openPort();
    const next = port.next.bind(port);
    port.next = (timeout) => {
      const start = performance.now();
      const index = next(timeout);
      this.inGuest += performance.now() - start;
      return index;
    };
    this.attachedAt = performance.now();
    const engine = new Engine(port);
    engine.onProblem(() => {
      this.problems++;
    });
    const windows = new WindowsGuest(engine, {
      profiles: ProfileStore.bundled(),
      exceptions: this.options.exceptions,
      policy: this.options.policy,
      onAlert: (alert) => {
        this.alerts.push(alert);
        this.tell({ type: 'alert', ...(this.scenario ? { scenario: this.scenario.id } : {}), alert });
      },
    });
    this.engine = engine;
    this.windows = windows;
    this.until(() => windows.state !== 'searching', DISCOVERY_LIMIT, 'a CR3 write that shows the kernel');
    this.checkUnderstood();
    const info = windows.info!;
    this.tell({
      type: 'guest',
      build: info.build,
      arch: info.arch,
      kernelBase: hex64(info.kernelBase),
      kernelSize: info.kernelSize,
      systemCr3: hex64(info.systemCr3),
      selfMapIndex: hex64(info.selfMapIndex),
      kptiActive: info.kptiActive,
      pdb: { guid: info.pdb.guid, age: info.pdb.age },
      processes: windows.processes.map((process) => ({
        pid: process.pid,
        name: process.name,
        eprocess: hex64(process.eprocess),
        cr3: hex64(process.cr3),
      })),
      protections: windows.protections.map(({ id, state, reason }) => ({ id, state, ...(reason ? { reason } : {}) })),
      rulesLoaded: this.options.exceptions.loaded,
    });
  }

  /** Introspection that cannot make sense of the guest protects nothing, and must not look as if it did. */
  private checkUnderstood(): void {
    const windows = this.windows!;
    if (windows.state === 'found') return;
    throw new CliError(
      'ERR_INTROD_GUEST_NOT_UNDERSTOOD',
      `introspection cannot make sense of the guest: ${windows.stateReason ?? windows.state}`,
    );
  }

  play(scenario: PlannedScenario): DemoOutcome['good'] {
    this.scenario = scenario;
    this.tell({ type: 'scenario', scenario: scenario.id, kind: scenario.kind, title: scenario.title });
    const firstLine = this.guest.lines.length;
    const firstAlert = this.alerts.length;
    const said = (start: string): string | undefined =>
      this.guest.lines.slice(firstLine).find((line) => line.startsWith(start));

    this.guest.start(scenario.lab);
    let wroteAt: number | undefined;
    let toldAt: number | undefined;
    const watch = (): void => {
      if (wroteAt === undefined && said('lab: wrote')) wroteAt = this.now;
      if (toldAt === undefined && this.alerts.length > firstAlert) toldAt = this.now;
    };
    const done = (): boolean => {
      watch();
      this.checkUnderstood();
      return said('lab: done') !== undefined;
    };
    this.until(done, SCENARIO_LIMIT, `the end of ${scenario.id}`);
    // What is found by the periodic check is found at the next tick.
    const tick = Math.floor(this.now / 1e6) + 1;
    const settled = (): boolean => {
      watch();
      return toldAt !== undefined || this.now >= tick * 1e6 + STEP_MS * 1000;
    };
    this.until(settled, LATE_LIMIT, 'the next tick');

    const alert = this.alerts[firstAlert];
    const outcome = this.judge(scenario, alert, said('lab: benign') === 'lab: benign ok');
    const userRead = /^lab: user read ([0-9a-fA-F]{1,16})/.exec(said('lab: user read') ?? '')?.[1];
    const entry = this.selfMapEntry(scenario.target);
    const latency = wroteAt !== undefined && toldAt !== undefined ? Math.max(0, toldAt - wroteAt) : undefined;
    const inTime = outcome !== 'found-late' || (latency !== undefined && latency <= LATE_LIMIT);
    const good = (outcome === 'blocked' || outcome === 'found-late' || outcome === 'untouched') && inTime;
    this.tell({
      type: 'outcome',
      scenario: scenario.id,
      kind: scenario.kind,
      result: outcome,
      ...(userRead === undefined ? {} : { userRead: hex64(BigInt(`0x${userRead}`)) }),
      ...(entry === undefined ? {} : { entry: hex64(entry) }),
      ...(latency === undefined ? {} : { latency }),
      good,
    });
    this.scenario = undefined;
    return good;
  }

  private judge(scenario: PlannedScenario, alert: Alert | undefined, benignOk: boolean): DemoOutcome['result'] {
    if (scenario.kind === 'benign') return benignOk && alert === undefined ? 'untouched' : 'disturbed';
    if (alert === undefined) return 'missed';
    if (alert.verdict === 'allowed') return 'let-through';
    return alert.found === 'before' ? 'blocked' : 'found-late';
  }

  /** The self-map entry of a scenario's process in physical memory, as it is now. */
  private selfMapEntry(target: PlannedScenario['target']): bigint | undefined {
    const { truth, machine } = this.guest;
    const address = rootOf(truth.targets[target].cr3) + truth.selfMapIndex * 8;
    const bytes = new Uint8Array(8);
    if (!machine.readPhysical(address as Gpa, bytes)) return undefined;
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }

  /** Writes the last record. */
  summary(played: readonly { scenario: PlannedScenario; good: boolean }[]): ExitCode {
    const count = (kind: PlannedScenario['kind'], good?: boolean): number =>
      played.filter((one) => one.scenario.kind === kind && (good === undefined || one.good === good)).length;
    const exitCode = played.every((one) => one.good) ? ExitCode.OK : ExitCode.NOT_STOPPED;
    this.tell({
      type: 'summary',
      exits: this.exits(),
      instructions: this.guest.machine.instructions,
      alerts: this.alerts.length,
      attacks: count('attack'),
      stopped: count('attack', true),
      benign: count('benign'),
      untouched: count('benign', true),
      problems: this.problems,
      exitCode,
    });
    return exitCode;
  }

  private exits(): DemoSummary['exits'] {
    const { eptViolations, crWrites, ticks, otherExits } = this.engine!.counters;
    return { 'ept-violation': eptViolations, 'cr-write': crWrites, tick: ticks, other: otherExits };
  }

  fail(error: CliError): void {
    this.tell({
      type: 'failure',
      code: error.code,
      message: error.message,
      ...(error.hint ? { hint: error.hint } : {}),
    });
  }

  timings(): DemoTimings {
    const attached = this.attachedAt === 0 ? 0 : performance.now() - this.attachedAt;
    return { attached, engine: Math.max(0, attached - this.inGuest) };
  }

  dumpTo(write: (guest: LabGuest) => number): number {
    return write(this.guest);
  }

  close(): void {
    this.windows?.close();
    this.engine?.close();
  }
}

/** How a run ended. */
export interface DemoResult {
  readonly exitCode: ExitCode;
  readonly timings: DemoTimings;
  /** Bytes written by `--dump`. */
  readonly dumped?: number;
}

/**
 * Boots the lab guest, attaches, runs the attacks asked for and their benign twins, and tells what happened. The records are the same for the
 * same options, whatever the host does.
 * @throws CliError ERR_INTROD_FILE when the dump cannot be written. A guest that fails does not throw: it is told, and gives exit code 3.
 */
export function runDemo(options: DemoOptions, sink: DemoSink): DemoResult {
  const dump = options.dump === undefined ? undefined : openDump(options.dump);
  const run = new DemoRun(options, sink);
  let exitCode: ExitCode;
  run.start();
  try {
    run.boot();
    run.attach();
    const played = planScenarios(options.attack, options.seed).map((scenario) => ({
      scenario,
      good: run.play(scenario),
    }));
    exitCode = run.summary(played);
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode !== ExitCode.GUEST_FAILED) throw error;
    run.fail(error);
    exitCode = error.exitCode;
  } finally {
    run.close();
  }
  const timings = run.timings();
  return { exitCode, timings, ...(dump ? { dumped: run.dumpTo(dump) } : {}) };
}
