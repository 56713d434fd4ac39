import { ALERT_SCHEMA_VERSION, type Alert, type AlertAttack, type AlertEnvelope, type AlertFlag } from '@introd/abi';
import type { ExceptionsEngine } from '@introd/exceptions';
import type { GuestInfo } from './guest-info.js';
import type { ProtectionId } from './protections/index.js';
import type { Judgement } from './protections/judgement.js';

/** What a protection says about an alert; the rest of the envelope is the same for all. */
export interface AlertDetails {
  readonly protection: ProtectionId;
  readonly attack: AlertAttack;
  readonly summary: string;
  readonly judgement: Judgement;
  /** Whether the change stands in the guest all the same. */
  readonly verdict: AlertEnvelope['verdict'];
  /** Flags beside those of the judgement. */
  readonly flags: readonly AlertFlag[];
}

/** Numbers alerts, puts them into their envelope, and hands them out. */
export class AlertWriter {
  #sequence = 0;
  readonly #held = new Map<object, () => void>();

  constructor(
    private readonly info: GuestInfo,
    private readonly exceptions: ExceptionsEngine,
    /** Guest time now, as alerts write it. */
    private readonly now: () => string,
    private readonly send: (alert: Alert) => void,
  ) {}

  /**
   * As {@link write}, but right before the reply to the exit at hand: the engine asks again when memory changes under it,
   * and only the last answer counts.
   * @param about what the alert is about; an alert held about it before is dropped
   */
  hold<T extends Alert>(about: object, details: AlertDetails, body: Omit<T, keyof AlertEnvelope>): void {
    this.#held.set(about, () => this.write<T>(details, body));
  }

  /** Drops what is held about something. */
  drop(about: object): void {
    this.#held.delete(about);
  }

  /** Writes what is held. */
  release(): void {
    if (this.#held.size === 0) return;
    const held = [...this.#held.values()];
    this.#held.clear();
    for (const write of held) write();
  }

  /** Makes an alert of an envelope and the body of its class, and sends it. */
  write<T extends Alert>(details: AlertDetails, body: Omit<T, keyof AlertEnvelope>): void {
    this.#sequence += 1;
    const { info, exceptions } = this;
    const { judgement } = details;
    const envelope: AlertEnvelope = {
      schemaVersion: ALERT_SCHEMA_VERSION,
      alertId: `${details.protection}-${this.#sequence}`,
      sequence: this.#sequence,
      time: this.now(),
      protection: details.protection,
      summary: details.summary,
      action: judgement.action,
      verdict: details.verdict,
      reason: judgement.reason,
      ...(judgement.rule === undefined ? {} : { rule: judgement.rule }),
      flags: [...judgement.flags, ...details.flags],
      attack: details.attack,
      versions: {
        os: { family: 'windows', build: info.build, arch: info.arch },
        profile: `${info.pdb.guid}-${info.pdb.age}`,
        rules: {
          loaded: exceptions.loaded,
          count: exceptions.ruleCount,
          ...(exceptions.revision === undefined ? {} : { revision: exceptions.revision }),
        },
      },
    };
    this.send({ ...envelope, ...body } as unknown as T);
  }
}
