import type { Alert, Hex64 } from '@introd/abi';

/** What every line of `introd demo --json` has. */
interface DemoRecordBase {
  // A change that an old reader would misunderstand raises it.
  readonly schemaVersion: 1;
  /**
   * Guest time in ISO 8601 UTC: the machine's virtual clock, never the host's.
   * @format date-time
   */
  readonly time: string;
}

/** The first line: what was asked for. */
export interface DemoStart extends DemoRecordBase {
  readonly type: 'start';
  readonly attack: 'self-map' | 'none' | 'all';
  readonly seed: number;
  /** Name of a built-in policy, or `file`. */
  readonly policy: string;
  /** Backend that runs the guest. */
  readonly backend: string;
}

/** A step of the guest's boot. */
export interface DemoBoot extends DemoRecordBase {
  readonly type: 'boot';
  /** What the guest's kernel said on its debug port. */
  readonly step: string;
  /** Instructions executed so far. */
  readonly instructions: number;
}

/** A process of the guest. */
export interface DemoProcess {
  readonly pid: number;
  readonly name: string;
  readonly eprocess: Hex64;
  readonly cr3: Hex64;
}

/** What introspection found in the guest. */
export interface DemoGuest extends DemoRecordBase {
  readonly type: 'guest';
  readonly build: number;
  readonly arch: string;
  readonly kernelBase: Hex64;
  readonly kernelSize: number;
  readonly systemCr3: Hex64;
  readonly selfMapIndex: Hex64;
  readonly kptiActive: boolean;
  /** The kernel's symbol file: PDB GUID and age. */
  readonly pdb: { readonly guid: string; readonly age: number };
  readonly processes: readonly DemoProcess[];
  readonly protections: readonly { readonly id: string; readonly state: string; readonly reason?: string }[];
  /** Whether a rule set is loaded; without one the policy decides. */
  readonly rulesLoaded: boolean;
}

/** The guest begins to run an attack or a benign twin. */
export interface DemoScenario extends DemoRecordBase {
  readonly type: 'scenario';
  /** `self-map/bts/system` */
  readonly scenario: string;
  readonly kind: 'attack' | 'benign';
  readonly title: string;
}

/** introd has something to tell. */
export interface DemoAlert extends DemoRecordBase {
  readonly type: 'alert';
  readonly scenario?: string;
  readonly alert: Alert;
}

/** How a scenario ended. */
export interface DemoOutcome extends DemoRecordBase {
  readonly type: 'outcome';
  readonly scenario: string;
  readonly kind: 'attack' | 'benign';
  /**
   * `blocked`: the write had no effect. `found-late`: found and repaired at the next tick. `let-through`: told, not stopped, because the policy
   * is beta or feedback. `missed`: it had its effect and no alert was sent. `contradicted`: what the guest shows, or the number or the victim of the
   * alerts, does not fit what an alert says. `untouched`: a benign twin did all it wanted and no alert was sent. `disturbed`: a benign twin
   * was changed or reported.
   */
  readonly result: 'blocked' | 'found-late' | 'let-through' | 'missed' | 'contradicted' | 'untouched' | 'disturbed';
  /** Page-table value that ring-3 code read through the self-map and the guest printed on its debug port. */
  readonly userRead?: Hex64;
  /** The value of that entry in physical memory when the scenario ended. */
  readonly entry?: Hex64;
  /** Guest time between the attack's write and the alert, in microseconds. */
  readonly latency?: number;
  /** Whether the outcome is what protection is for. */
  readonly good: boolean;
}

/** The last line. */
export interface DemoSummary extends DemoRecordBase {
  readonly type: 'summary';
  /** Exits that the engine handled, by kind. */
  readonly exits: { readonly [kind: string]: number };
  /** Instructions that the guest executed. */
  readonly instructions: number;
  readonly alerts: number;
  /** Alerts that came while no scenario ran; 0 in a healthy run. */
  readonly strayAlerts: number;
  readonly attacks: number;
  readonly stopped: number;
  readonly benign: number;
  readonly untouched: number;
  /** Problems inside the engine; 0 in a healthy run. */
  readonly problems: number;
  /** What the process exits with. */
  readonly exitCode: number;
}

/** Something failed; the process exits with 3. */
export interface DemoFailure extends DemoRecordBase {
  readonly type: 'failure';
  readonly code: string;
  readonly message: string;
  readonly hint?: string;
}

/** One line of `introd demo --json`. */
export type DemoRecord =
  | DemoStart
  | DemoBoot
  | DemoGuest
  | DemoScenario
  | DemoAlert
  | DemoOutcome
  | DemoSummary
  | DemoFailure;

type Body<R = DemoRecord> = R extends DemoRecord ? Omit<R, 'schemaVersion' | 'time'> : never;

/** Writes a record; version and time are added. */
export type Tell = (body: Body) => void;
