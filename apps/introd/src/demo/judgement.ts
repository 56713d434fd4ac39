import type { Alert } from '@introd/abi';
import type { DemoOutcome } from './record.js';
import type { PlannedScenario } from './scenarios.js';

/** Bits of a page-table entry that together let user code through: P and U/S (SDM vol. 3A, table 4-15). */
const OPEN_BITS = 5n;

/** What is known at the end of a scenario. Only the alerts are introspection's own word; the rest is what the guest shows. */
export interface Evidence {
  readonly kind: PlannedScenario['kind'];
  /** Alerts sent during the scenario. */
  readonly alerts: readonly Alert[];
  /** The process that was attacked. */
  readonly targetPid: number;
  /** Its self-map entry in physical memory; `undefined` when that is not RAM. */
  readonly entry: bigint | undefined;
  /** Page-table value that ring-3 code read and the guest printed; `undefined` when it read none. */
  readonly userRead: bigint | undefined;
  /** Whether the benign twin found everything as it had written it. */
  readonly benignDone: boolean;
}

/**
 * How a scenario ended. Introspection's claim is not believed when the guest shows otherwise: an attack counts as stopped only when its entry is closed,
 * and as blocked only when ring 3 read nothing either.
 */
export function judgeScenario(evidence: Evidence): DemoOutcome['result'] {
  const { kind, alerts, targetPid, entry, userRead, benignDone } = evidence;
  if (kind === 'benign') return benignDone && alerts.length === 0 ? 'untouched' : 'disturbed';
  const [alert] = alerts;
  if (alert === undefined) return 'missed';
  if (alerts.length > 1 || alert.victim.process.pid !== targetPid) return 'contradicted';
  if (alert.verdict === 'allowed') return 'let-through';
  const closed = entry !== undefined && (entry & OPEN_BITS) !== OPEN_BITS;
  if (!closed) return 'contradicted';
  if (alert.found === 'late') return 'found-late';
  return userRead === undefined ? 'blocked' : 'contradicted';
}
