import { hex64, ShutdownReason } from '@introd/abi';
import { Engine } from '@introd/core-hooks';
import { buildLabGuest, type LabGuest } from '@introd/guest-lab';
import { CliError } from '../error.js';
import type { DemoOptions } from './options.js';

/** Milliseconds of guest time that one step of the loop may take: how often the demo looks at what the guest printed. */
export const STEP_MS = 1;
/** The same before anything is attached, in instructions: the lab's kernel boots in about a thousand. */
const BOOT_STEP = 50;

const STOP_TEXT: Record<ShutdownReason, string> = {
  [ShutdownReason.TRIPLE_FAULT]: 'a triple fault',
  [ShutdownReason.HALTED]: 'every virtual CPU halted for good',
  [ShutdownReason.POWER_OFF]: 'it switched itself off',
  [ShutdownReason.UNSUPPORTED]: 'it used an instruction that the embedded machine lacks',
};

/** What only a person wants to know: it depends on the host's clock and is no part of the records. */
export interface DemoTimings {
  /** Milliseconds of host time from the attach to the end. */
  readonly attached: number;
  /** Milliseconds of it that were spent in the engine, between an exit and its reply. */
  readonly engine: number;
}

/** The lab guest of a run, and the loop that it runs in: the machine alone at first, the engine once it is attached. */
export class RunningGuest {
  readonly lab: LabGuest;
  #engine: Engine | undefined;
  /** Host clock, for {@link DemoTimings} only. */
  #attachedAt = 0;
  #inGuest = 0;

  constructor({ seed, hostile }: DemoOptions) {
    this.lab = buildLabGuest({ seed, ...(hostile ? { hostile } : {}) });
  }

  /** Guest time in microseconds. */
  get now(): number {
    return this.lab.machine.time;
  }

  /**
   * Lets the guest run until `done`.
   * @param limit microseconds of guest time
   * @param what is waited for, for the error's text
   * @throws CliError ERR_INTROD_GUEST_STUCK, ERR_INTROD_GUEST_CRASHED, ERR_INTROD_GUEST_STOPPED
   */
  until(done: () => boolean, limit: number, what: string): void {
    const deadline = this.now + limit;
    while (!done()) {
      if (this.#engine) this.#engine.step(STEP_MS);
      else this.lab.machine.run(BOOT_STEP);
      this.#check();
      if (this.now > deadline) {
        throw new CliError(
          'ERR_INTROD_GUEST_STUCK',
          `the guest made no progress: ${what} did not happen within ${limit / 1e6} s of guest time`,
          { hint: `the guest's last words were: ${this.lab.lines.at(-1) ?? '(none)'}` },
        );
      }
    }
  }

  #check(): void {
    const { lines, machine } = this.lab;
    const crashed = lines.find((line) => line.startsWith('lab: bugcheck'));
    if (crashed) throw new CliError('ERR_INTROD_GUEST_CRASHED', `the guest's kernel stopped itself: ${crashed}`);
    const reason = machine.shutdownReason;
    if (reason === undefined) return;
    const detail = machine.unsupported ? ` (${machine.unsupported})` : '';
    throw new CliError('ERR_INTROD_GUEST_STOPPED', `the guest stopped: ${STOP_TEXT[reason]}${detail}`, {
      address: hex64(machine.vcpu(0).rip),
    });
  }

  /** Puts an engine on the guest's port; from now on the guest runs under it. */
  attach(): Engine {
    const port = this.lab.machine.openPort();
    const next = port.next.bind(port);
    port.next = (timeout) => {
      const start = performance.now();
      const index = next(timeout);
      this.#inGuest += performance.now() - start;
      return index;
    };
    this.#attachedAt = performance.now();
    this.#engine = new Engine(port);
    return this.#engine;
  }

  timings(): DemoTimings {
    const attached = this.#attachedAt === 0 ? 0 : performance.now() - this.#attachedAt;
    return { attached, engine: Math.max(0, attached - this.#inGuest) };
  }

  close(): void {
    this.#engine?.close();
  }
}
