import { type Alert, hex64 } from '@introd/abi';
import type { Engine } from '@introd/core-hooks';
import { WindowsGuest } from '@introd/windows';
import { ProfileStore } from '@introd/windows-profiles';
import { CliError } from '../error.js';
import type { DemoOptions } from './options.js';
import type { DemoSummary, Tell } from './record.js';
import type { RunningGuest } from './running-guest.js';

/** Microseconds of guest time within which introspection must find the kernel: a few of its timer's CR3 loads. */
const DISCOVERY_LIMIT = 3_000_000;

/** What watches the guest of a run: the engine and the layer that knows Windows. */
export class Introspection {
  /** Everything told so far. */
  readonly alerts: Alert[] = [];
  /** Alerts that came while no scenario ran. */
  strayAlerts = 0;
  /** Problems inside the engine. */
  problems = 0;
  /** Scenario that the guest runs at this moment. */
  scenario: string | undefined;
  readonly #guest: RunningGuest;
  readonly #engine: Engine;
  readonly #windows: WindowsGuest;

  constructor(guest: RunningGuest, { exceptions, policy }: DemoOptions, tell: Tell) {
    this.#guest = guest;
    this.#engine = guest.attach();
    this.#engine.onProblem(() => {
      this.problems++;
    });
    this.#windows = new WindowsGuest(this.#engine, {
      profiles: ProfileStore.bundled(),
      exceptions,
      policy,
      onAlert: (alert) => {
        this.alerts.push(alert);
        if (this.scenario === undefined) this.strayAlerts++;
        tell({ type: 'alert', ...(this.scenario ? { scenario: this.scenario } : {}), alert });
      },
    });
  }

  /**
   * Lets the guest run until its kernel is found, and tells what was found.
   * @throws CliError ERR_INTROD_GUEST_NOT_UNDERSTOOD; what {@link RunningGuest.until} throws
   */
  findKernel(rulesLoaded: boolean, tell: Tell): void {
    const windows = this.#windows;
    this.#guest.until(() => windows.state !== 'searching', DISCOVERY_LIMIT, 'a CR3 write that shows the kernel');
    this.checkUnderstood();
    const info = windows.info!;
    tell({
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
      rulesLoaded,
    });
  }

  /**
   * Introspection that cannot make sense of the guest protects nothing, and must not look as if it did.
   * @throws CliError ERR_INTROD_GUEST_NOT_UNDERSTOOD
   */
  checkUnderstood(): void {
    const { state, stateReason } = this.#windows;
    if (state === 'found') return;
    throw new CliError(
      'ERR_INTROD_GUEST_NOT_UNDERSTOOD',
      `introspection cannot make sense of the guest: ${stateReason ?? state}`,
    );
  }

  /** Exits so far, by kind. */
  get exits(): DemoSummary['exits'] {
    const { eptViolations, crWrites, ticks, otherExits } = this.#engine.counters;
    return { 'ept-violation': eptViolations, 'cr-write': crWrites, tick: ticks, other: otherExits };
  }

  close(): void {
    this.#windows.close();
  }
}
