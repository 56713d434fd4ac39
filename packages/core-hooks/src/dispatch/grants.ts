import { u32Index, type VcpuRecord } from '@introd/abi';
import { RegisterGroup, type RegistersCapability } from '@introd/glue';
import { type PauseContext, whilePaused } from '../guest-pause.js';

const RIP = u32Index('rip');

/** Stands for no frame. */
export const NO_FRAME = -1;
/** Stands for no VCPU, so that all are looked at. */
export const NOBODY = -1;

/** What {@link Grants} needs of the engine. */
export interface GrantsContext extends PauseContext {
  readonly port: PauseContext['port'] & RegistersCapability;
}

/** Frames noted for each VCPU: two that the instruction lies on, two that it may write to. */
const FRAMES = 4;

/**
 * Instructions that a reply let a VCPU execute by itself ("allow once") and that may not have happened yet. Until they have, what
 * they are must not change, or the processor executes something else than what was decided about; and what they may be writing must
 * not be relied on.
 */
export class Grants {
  readonly #context: GrantsContext;
  readonly #records: readonly VcpuRecord[];
  readonly #frames: Float64Array;
  readonly #ripLow: Uint32Array;
  readonly #ripHigh: Uint32Array;
  readonly #open: Uint8Array;

  constructor(context: GrantsContext, records: readonly VcpuRecord[]) {
    this.#context = context;
    this.#records = records;
    this.#frames = new Float64Array(records.length * FRAMES).fill(NO_FRAME);
    this.#ripLow = new Uint32Array(records.length);
    this.#ripHigh = new Uint32Array(records.length);
    this.#open = new Uint8Array(records.length);
  }

  /**
   * A VCPU may now execute the instruction at its RIP.
   * @param code frame that holds the instruction, when it is guarded
   * @param spill frame that holds the rest of it
   * @param first guarded frame that it writes to
   * @param second another one
   */
  begin(index: number, code: number, spill: number, first: number, second: number): void {
    const registers = this.#records[index]!.u32;
    const at = index * FRAMES;
    this.#frames[at] = code;
    this.#frames[at + 1] = spill;
    this.#frames[at + 2] = first;
    this.#frames[at + 3] = second;
    this.#ripLow[index] = registers[RIP]!;
    this.#ripHigh[index] = registers[RIP + 1]!;
    this.#open[index] = 1;
  }

  /** A VCPU has exited: its instruction has happened, or will be asked about again. */
  end(index: number): void {
    this.#open[index] = 0;
  }

  /** Whether a VCPU other than `index` may yet execute a granted instruction that lies on `frame`. */
  executesFrom(frame: number, index: number): boolean {
    return this.#holds(frame, index, 0);
  }

  /** Whether a VCPU other than `index` may yet write to `frame` with a granted instruction. */
  writesTo(frame: number, index: number): boolean {
    return this.#holds(frame, index, 2);
  }

  #holds(frame: number, index: number, from: number): boolean {
    for (let other = 0; other < this.#open.length; other++) {
      if (this.#open[other] === 1 && other !== index) {
        const at = other * FRAMES + from;
        if ((this.#frames[at] === frame || this.#frames[at + 1] === frame) && !this.#isOver(other)) {
          return true;
        }
      }
    }
    return false;
  }

  /** Looks where the VCPU is now; a granted instruction is over when it is not there any more. It is not while nobody can tell. */
  #isOver(other: number): boolean {
    const { port } = this.#context;
    try {
      whilePaused(this.#context, () => port.fetchRegisters(other, RegisterGroup.GENERAL));
    } catch (cause) {
      this.#context.report('backend', 'the backend refused to tell where a VCPU is', cause);
      return false;
    }
    const registers = this.#records[other]!.u32;
    if (registers[RIP] === this.#ripLow[other] && registers[RIP + 1] === this.#ripHigh[other]) {
      return false;
    }
    this.#open[other] = 0;
    return true;
  }
}
