import type { Hex64 } from './hex.js';

/**
 * The wire contract of alerts: what leaves the process when a violation was seen. One type is the source of the
 * validator and of the JSON Schema (`alert-schema.ts`), and a golden file per class holds them to it. Values of 64 bits
 * are hex strings; nothing here depends on the host's clock.
 */

/** Version of this contract. Rises when a reader of the old one would misread the new one. */
export const ALERT_SCHEMA_VERSION = 1;

/** Whether a rule set let something pass, and why or why not (the original's INTRO_ACTION_REASON, behaviour 1.5.1). */
export type AlertReason =
  /** A rule allows it. */
  | 'allowed'
  /** A feedback rule allows it and asks to be told. */
  | 'allowed-feedback'
  /** A rule fitted, but none of its signatures did. */
  | 'signature-not-matched'
  /** No rule fitted, or the check consults none. */
  | 'no-exception'
  /** A rule fitted, but its extra checks failed. */
  | 'extra-checks-failed'
  /** No rules are loaded; the policy decided. */
  | 'exceptions-not-loaded'
  /** The evidence could not be gathered. */
  | 'internal-error'
  | 'value-code-not-matched'
  | 'value-not-matched'
  | 'export-not-matched'
  | 'idt-not-matched'
  | 'version-os-not-matched'
  | 'version-intro-not-matched'
  | 'process-creation-not-matched'
  /** Old and new value are the same. */
  | 'same-value'
  | 'unknown';

/** What a reader must know beside the verdict (behaviour 3.1, core flags). */
export type AlertFlag =
  /** Found by a periodic check, not at the moment of the change. */
  | 'async'
  /** The protection runs in beta mode: it tells, and lets everything pass. */
  | 'beta'
  /** Told for information only: the protection or the rule is in feedback mode. */
  | 'feedback-only'
  /** The code that did it did not run in ring 0. */
  | 'not-ring0'
  /** The victim is a process of the operating system itself. */
  | 'system-process'
  /** No exception rules are loaded, so the policy decided instead of them. */
  | 'rules-not-loaded'
  /** The change was found in place and could not be taken back; the next check tries again. */
  | 'repair-failed';

/** An image (driver) in the guest's kernel. */
export interface AlertModule {
  /** Base name as the guest lists it: `ntoskrnl.exe`. */
  name: string;
  /** First address of the image. */
  base: Hex64;
  /**
   * Size of the image in bytes.
   * @type uint32
   */
  size: number;
}

/** Kernel code that did something. */
export interface AlertOriginator {
  /** Address of the instruction. */
  rip: Hex64;
  /** The image that holds the instruction; absent when none does. */
  module?: AlertModule;
  /** Section of that image that holds the instruction; absent when unknown. */
  section?: string;
  /** The image that the code returns to, when another one called; absent when unknown. */
  returnModule?: AlertModule;
}

/** A process of the guest. */
export interface AlertProcess {
  /** @type uint32 */
  pid: number;
  /** Image name as the kernel keeps it (at most 15 characters). */
  name: string;
  /** Address of its `_EPROCESS`. */
  eprocess: Hex64;
  /** CR3 of its kernel page tables. */
  cr3: Hex64;
  /** CR3 of its user page tables, where the kernel keeps separate ones (KPTI). */
  userCr3?: Hex64;
}

/** What was attacked. */
export interface AlertVictim {
  /** Kind of object. */
  type: 'self-map-entry';
  /** Virtual address of the attacked field. */
  address: Hex64;
  /** Physical address of the attacked field. */
  physicalAddress: Hex64;
  /** The process that owns it. */
  process: AlertProcess;
  /** Which of the process's page tables: the kernel's or, under KPTI, the user ones. */
  table: 'kernel' | 'user';
}

/** A change of a value. */
export interface AlertWrite {
  old: Hex64;
  new: Hex64;
  /**
   * Bytes changed.
   * @type uint32
   * @minimum 1
   * @maximum 64
   */
  size: number;
}

/** Where a VCPU stood. */
export interface AlertCpu {
  /**
   * Number of the VCPU.
   * @type uint32
   */
  index: number;
  rip: Hex64;
  cr3: Hex64;
  /** The instruction at RIP as text. */
  instruction: string;
}

/** The technique by its current name in MITRE ATT&CK (Enterprise, version 19). */
export interface AlertAttack {
  /** @pattern ^T[0-9]{4}(\.[0-9]{3})?$ */
  id: string;
  name: string;
  tactic: {
    /** @pattern ^TA[0-9]{4}$ */
    id: string;
    name: string;
  };
}

/** What the alert was made with. */
export interface AlertVersions {
  /** The guest's operating system. */
  os: {
    family: 'windows';
    /** @type uint32 */
    build: number;
    arch: 'x64' | 'x86';
  };
  /** The structure layouts used, by their PDB: GUID, `-`, age. */
  profile: string;
  /** The exception rules that were in force. */
  rules: {
    loaded: boolean;
    /**
     * Number of rules.
     * @type uint32
     */
    count: number;
    /** CRC-32 of the sources, 8 hex digits; absent when none are loaded. */
    revision?: string;
  };
}

/** What every alert carries. */
export interface AlertEnvelope {
  schemaVersion: typeof ALERT_SCHEMA_VERSION;
  /** Name of this alert, unique in one run over a guest and the same when the run is repeated: `self-map-1`. */
  alertId: string;
  /**
   * Position among all alerts of the run, from 1, without gaps.
   * @type uint32
   * @minimum 1
   */
  sequence: number;
  /**
   * Guest time of the event, UTC, with microseconds.
   * @format date-time
   */
  time: string;
  /** The protection that saw it. */
  protection: string;
  /** One or two sentences that a person understands without knowing introd. */
  summary: string;
  /** What was decided (the original's action). In beta and feedback mode the guest is let through all the same. */
  action: 'allowed' | 'not-allowed';
  /** What happened to the guest: the change was stopped or taken back, or it stands. */
  verdict: 'blocked' | 'allowed';
  reason: AlertReason;
  /** Name of the rule that decided, where one did. */
  rule?: string;
  flags: AlertFlag[];
  attack: AlertAttack;
  versions: AlertVersions;
}

/** An access to a hooked page, caught before anything was committed (the original's EVENT_EPT_VIOLATION). */
export interface EptViolationAlert extends AlertEnvelope {
  class: 'ept-violation';
  /** Caught before it took effect. */
  found: 'before';
  violation: 'read' | 'write' | 'execute';
  originator: AlertOriginator;
  victim: AlertVictim;
  write: AlertWrite;
  cpu: AlertCpu;
  /** The process in whose address space the instruction ran; absent when no known process has that CR3. */
  process?: AlertProcess;
}

/**
 * A change of the guest's own address translation, found by a periodic check (the original's
 * EVENT_TRANSLATION_VIOLATION). Who did it and on which VCPU is no longer known, so there is neither originator nor cpu.
 */
export interface TranslationViolationAlert extends AlertEnvelope {
  class: 'translation-violation';
  /** Found after it had taken effect; what was done with it until then is not known. */
  found: 'late';
  violation: 'self-map';
  victim: AlertVictim;
  write: AlertWrite;
}

/** Any alert. */
export type Alert = EptViolationAlert | TranslationViolationAlert;

/** What an alert is about. */
export type AlertClass = Alert['class'];

/**
 * Guest time as the text that alerts carry.
 * @param clockOrigin Unix time in milliseconds at which guest time is 0
 * @param microseconds guest time
 */
export function alertTime(clockOrigin: number, microseconds: number): string {
  const whole = Math.floor(microseconds / 1000);
  const date = new Date(clockOrigin + whole).toISOString();
  return `${date.slice(0, -1)}${String(Math.floor(microseconds - whole * 1000)).padStart(3, '0')}Z`;
}
