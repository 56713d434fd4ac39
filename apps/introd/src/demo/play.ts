import { type Gpa, hex64, rootOf } from '@introd/abi';
import type { LabGuest } from '@introd/guest-lab';
import type { Introspection } from './introspection.js';
import { judgeScenario } from './judgement.js';
import type { DemoOutcome, Tell } from './record.js';
import { type RunningGuest, STEP_MS } from './running-guest.js';
import type { PlannedScenario } from './scenarios.js';

/** Microseconds of guest time within which a scenario must end; each takes less than three ticks. */
const SCENARIO_LIMIT = 20_000_000;
/** One tick, and a little for the step in which it falls: a late find is in time up to here. */
const LATE_LIMIT = 1_010_000;

/**
 * Lets the guest run a scenario, judges what introspection made of it, and tells both.
 * @returns whether the outcome is what protection is for
 * @throws CliError when the guest fails
 */
export function playScenario(
  scenario: PlannedScenario,
  guest: RunningGuest,
  introspection: Introspection,
  tell: Tell,
): DemoOutcome['good'] {
  const { lab } = guest;
  const { alerts } = introspection;
  // The moment between two ticks at which an attack falls is the seed's, too.
  const startAt = guest.now + scenario.delay;
  guest.until(() => guest.now >= startAt, SCENARIO_LIMIT, 'the moment of the next scenario');
  introspection.scenario = scenario.id;
  tell({ type: 'scenario', scenario: scenario.id, kind: scenario.kind, title: scenario.title });
  const firstLine = lab.lines.length;
  const firstAlert = alerts.length;
  const said = (start: string): string | undefined => lab.lines.slice(firstLine).find((line) => line.startsWith(start));

  lab.start(scenario.lab);
  let wroteAt: number | undefined;
  let toldAt: number | undefined;
  const watch = (): void => {
    if (wroteAt === undefined && said('lab: wrote')) wroteAt = guest.now;
    if (toldAt === undefined && alerts.length > firstAlert) toldAt = guest.now;
  };
  const done = (): boolean => {
    watch();
    introspection.checkUnderstood();
    return said('lab: done') !== undefined;
  };
  guest.until(done, SCENARIO_LIMIT, `the end of ${scenario.id}`);
  // What is found by the periodic check is found at the next tick.
  const tick = Math.floor(guest.now / 1e6) + 1;
  const settled = (): boolean => {
    watch();
    return toldAt !== undefined || guest.now >= tick * 1e6 + STEP_MS * 1000;
  };
  guest.until(settled, LATE_LIMIT, 'the next tick');

  const read = /^lab: user read ([0-9a-fA-F]{1,16})/.exec(said('lab: user read') ?? '')?.[1];
  const userRead = read === undefined ? undefined : BigInt(`0x${read}`);
  const entry = selfMapEntry(lab, scenario.target);
  const result = judgeScenario({
    kind: scenario.kind,
    alerts: alerts.slice(firstAlert),
    targetPid: lab.truth.targets[scenario.target].pid,
    entry,
    userRead,
    benignDone: said('lab: benign') === 'lab: benign ok',
  });
  const latency = wroteAt !== undefined && toldAt !== undefined ? Math.max(0, toldAt - wroteAt) : undefined;
  const inTime = result !== 'found-late' || (latency !== undefined && latency <= LATE_LIMIT);
  const good = (result === 'blocked' || result === 'found-late' || result === 'untouched') && inTime;
  tell({
    type: 'outcome',
    scenario: scenario.id,
    kind: scenario.kind,
    result,
    ...(userRead === undefined ? {} : { userRead: hex64(userRead) }),
    ...(entry === undefined ? {} : { entry: hex64(entry) }),
    ...(latency === undefined ? {} : { latency }),
    good,
  });
  introspection.scenario = undefined;
  return good;
}

/** The self-map entry of a scenario's process in physical memory, as it is now. */
function selfMapEntry({ truth, machine }: LabGuest, target: PlannedScenario['target']): bigint | undefined {
  const address = rootOf(truth.targets[target].cr3) + truth.selfMapIndex * 8;
  const bytes = new Uint8Array(8);
  if (!machine.readPhysical(address as Gpa, bytes)) return undefined;
  return new DataView(bytes.buffer).getBigUint64(0, true);
}
