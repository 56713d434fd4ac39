import { alertTime } from '@introd/abi';
import { CliError, ExitCode } from '../error.js';
import { openDump } from './dump.js';
import { Introspection } from './introspection.js';
import type { DemoOptions } from './options.js';
import { playScenario } from './play.js';
import type { DemoRecord, Tell } from './record.js';
import { type DemoTimings, RunningGuest } from './running-guest.js';
import { type PlannedScenario, planScenarios } from './scenarios.js';

/** Microseconds of guest time within which the guest must boot; it needs less than ten thousand. */
const BOOT_LIMIT = 3_000_000;

/** Receives each record as it happens. */
export type DemoSink = (record: DemoRecord) => void;

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
  const guest = new RunningGuest(options);
  const tell: Tell = (body) =>
    sink({ schemaVersion: 1, time: alertTime(guest.lab.machine.clockOrigin, guest.now), ...body } as DemoRecord);
  let exitCode: ExitCode;
  tell({
    type: 'start',
    attack: options.attack,
    seed: options.seed,
    policy: options.policyName,
    backend: 'hv-sim',
  });
  try {
    boot(guest, tell);
    exitCode = introspect(options, guest, tell);
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode !== ExitCode.GUEST_FAILED) throw error;
    tell({
      type: 'failure',
      code: error.code,
      message: error.message,
      ...(error.hint ? { hint: error.hint } : {}),
    });
    exitCode = error.exitCode;
  } finally {
    guest.close();
  }
  const timings = guest.timings();
  return { exitCode, timings, ...(dump ? { dumped: dump(guest.lab) } : {}) };
}

/** Lets the guest run until its kernel is ready, and tells each step of its boot. */
function boot(guest: RunningGuest, tell: Tell): void {
  const { lab } = guest;
  let told = 0;
  const progress = (): boolean => {
    for (; told < lab.lines.length; told++) {
      const step = /^lab: boot (.+)$/.exec(lab.lines[told]!)?.[1];
      if (step) tell({ type: 'boot', step, instructions: lab.machine.instructions });
    }
    return lab.phase !== 'booting';
  };
  guest.until(progress, BOOT_LIMIT, 'the end of its boot');
}

/** Attaches, runs what was asked for, and sums it up. */
function introspect(options: DemoOptions, guest: RunningGuest, tell: Tell): ExitCode {
  const introspection = new Introspection(guest, options, tell);
  try {
    introspection.findKernel(options.exceptions.loaded, tell);
    const played = planScenarios(options.attack, options.seed).map((scenario) => ({
      scenario,
      good: playScenario(scenario, guest, introspection, tell),
    }));
    return summarise(played, guest, introspection, tell);
  } finally {
    introspection.close();
  }
}

/** Writes the last record. */
function summarise(
  played: readonly { readonly scenario: PlannedScenario; readonly good: boolean }[],
  guest: RunningGuest,
  { exits, alerts, strayAlerts, problems }: Introspection,
  tell: Tell,
): ExitCode {
  const count = (kind: PlannedScenario['kind'], good?: boolean): number =>
    played.filter((one) => one.scenario.kind === kind && (good === undefined || one.good === good)).length;
  const healthy = strayAlerts === 0 && problems === 0;
  const exitCode = healthy && played.every((one) => one.good) ? ExitCode.OK : ExitCode.NOT_STOPPED;
  tell({
    type: 'summary',
    exits,
    instructions: guest.lab.machine.instructions,
    alerts: alerts.length,
    strayAlerts,
    attacks: count('attack'),
    stopped: count('attack', true),
    benign: count('benign'),
    untouched: count('benign', true),
    problems,
    exitCode,
  });
  return exitCode;
}
