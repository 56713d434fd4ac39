import { type Gpa, type Gva, gva, Verdict } from '@introd/abi';
import { buildLabGuest, type HookedThing, type LabGuest, type ScenarioTarget } from '@introd/guest-lab';
import type { MachineOptions } from '@introd/hv-sim';
import { Engine, type EngineProblem } from '../../src/index.js';

/** Machines by number of VCPUs and races, used again because making one costs more than most tests. */
const machines = new Map<string, LabGuest['machine']>();
let running: Engine | undefined;

/** What a guard saw: a hook was called, and what its callback said. */
export interface Sighting {
  readonly what: string;
  readonly verdict: Verdict;
}

/** A lab guest under an engine whose hooks are set by the test. There is one at a time. */
export class GuardedLab {
  readonly guest: LabGuest;
  readonly engine: Engine;
  readonly problems: EngineProblem[] = [];
  readonly sightings: Sighting[] = [];

  constructor(options: { readonly seed: number; readonly vcpus?: number; readonly race?: MachineOptions['race'] }) {
    running?.close();
    const key = JSON.stringify([options.vcpus, options.race]);
    const machine = machines.get(key);
    this.guest = buildLabGuest({ ...options, ...(machine ? { machine } : {}) });
    machines.set(key, this.guest.machine);
    this.engine = new Engine(this.guest.machine.openPort());
    running = this.engine;
    this.engine.onProblem((problem) => this.problems.push(problem));
    this.#until(() => this.guest.phase === 'ready', 'boot');
  }

  /** Notes that a hook was called, and gives the verdict: not allowed when `wrong`. */
  judge(what: string, wrong: boolean): Verdict {
    const verdict = wrong ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
    this.sightings.push({ what, verdict });
    return verdict;
  }

  /** Whether a hook of that name denied something, and whether it let something through. */
  seen(what: string): { readonly denied: boolean; readonly allowed: boolean } {
    const mine = this.sightings.filter((sighting) => sighting.what === what);
    return {
      denied: mine.some(({ verdict }) => verdict === Verdict.NOT_ALLOWED),
      allowed: mine.some(({ verdict }) => verdict === Verdict.ALLOWED),
    };
  }

  /** Runs a scenario to its end; what the guest said of it. */
  play(name: HookedThing | `${HookedThing}-benign`, target: ScenarioTarget): readonly string[] {
    const before = this.guest.lines.length;
    this.sightings.length = 0;
    this.guest.start({ name, target });
    this.#until(() => this.guest.phase === 'done', name);
    return this.guest.lines.slice(before);
  }

  /** Address of a label of the lab's code or data. */
  label(name: string, offset = 0): Gva {
    return gva(this.guest.labels.get(name)! + BigInt(offset));
  }

  /** Physical address of a label, as the guest's tables say. */
  physical(name: string, offset = 0): Gpa {
    const { status, gpa } = this.engine.translator.translate(this.guest.truth.systemCr3, this.label(name, offset));
    if (status !== 'ok') throw new Error(`${name} is not mapped`);
    return gpa;
  }

  close(): void {
    this.engine.close();
  }

  #until(holds: () => boolean, what: string): void {
    for (let steps = 0; !holds(); steps++) {
      if (steps > 50_000 || this.engine.step(20) === 'shutdown') {
        throw new Error(`waited in vain for ${what}; guest: ${this.guest.lines.slice(-5).join(' | ')}`);
      }
    }
  }
}
