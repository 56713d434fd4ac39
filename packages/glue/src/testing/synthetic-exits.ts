import { ExitKind, Reply, u32Index, type VcpuRecord } from '@introd/abi';
import { GlueError } from '../error.js';
import { NO_EXIT } from '../port.js';

/** Exits that can wait at once: every VCPU and the guest record have one at most, so this is never full. */
const QUEUE_SIZE = 256;

const KIND = u32Index('exitKind');
const TIME = u32Index('exitTime');

/** Where the exit of a record is. */
const RUNS = 0;
const RAISED = 1;
const DELIVERED = 2;

/** The exits that a test raises: from the queue to `next`, and from there to `reply`. Nothing here allocates. */
export class SyntheticExits {
  readonly #queue = new Uint8Array(QUEUE_SIZE);
  #head = 0;
  #tail = 0;
  readonly #state: Uint8Array;
  readonly #lastReply: Int8Array;
  /** 1 after the reply SINGLE_STEP, until its exit is raised. */
  readonly #stepping: Uint8Array;

  /** @param records those of the VCPUs, and that of the guest behind them */
  constructor(private readonly records: readonly VcpuRecord[]) {
    this.#state = new Uint8Array(records.length);
    this.#lastReply = new Int8Array(records.length).fill(-1);
    this.#stepping = new Uint8Array(records.length);
  }

  /**
   * Queues the exit that a record holds.
   * @param time guest time in microseconds
   * @throws GlueError ERR_GLUE_NOT_AT_EXIT when it holds one already
   */
  raise(index: number, time: number): void {
    if (this.#state[index] !== RUNS) {
      throw new GlueError('ERR_GLUE_NOT_AT_EXIT', `record ${index} already holds an exit without a reply`);
    }
    const words = this.records[index]!.u32;
    words[TIME] = time % 2 ** 32;
    words[TIME + 1] = time / 2 ** 32;
    this.#state[index] = RAISED;
    this.#queue[this.#tail] = index;
    this.#tail = (this.#tail + 1) % QUEUE_SIZE;
  }

  /** @throws GlueError ERR_GLUE_NOT_AT_EXIT when no reply asked for the step, or its exit was raised already */
  raiseSingleStep(index: number, time: number): void {
    if (this.#stepping[index] !== 1) {
      throw new GlueError('ERR_GLUE_NOT_AT_EXIT', `nobody asked for a single step of VCPU ${index}`);
    }
    this.records[index]!.u32[KIND] = ExitKind.SINGLE_STEP;
    this.raise(index, time);
    this.#stepping[index] = 0;
  }

  /** Delivers the exit that has waited longest: the number of its record, or {@link NO_EXIT}. */
  next(): number {
    if (this.#head === this.#tail) return NO_EXIT;
    const index = this.#queue[this.#head]!;
    this.#head = (this.#head + 1) % QUEUE_SIZE;
    this.#state[index] = DELIVERED;
    return index;
  }

  /** @throws GlueError ERR_GLUE_NOT_AT_EXIT when the record holds no delivered exit, or a shutdown */
  reply(index: number, action: Reply): void {
    const isGuest = index === this.records.length - 1;
    if (this.#state[index] !== DELIVERED || (isGuest && this.records[index]!.u32[KIND] === ExitKind.SHUTDOWN)) {
      throw new GlueError('ERR_GLUE_NOT_AT_EXIT', `record ${index} holds no exit that waits for a reply`);
    }
    this.#state[index] = RUNS;
    this.#lastReply[index] = action;
    if (action === Reply.SINGLE_STEP && !isGuest) this.#stepping[index] = 1;
  }

  /** The last reply that a record got, `undefined` before the first. */
  lastReply(index: number): Reply | undefined {
    const action = this.#lastReply[index]!;
    return action < 0 ? undefined : (action as Reply);
  }

  /** Forgets all that wait or stand. */
  clear(): void {
    this.#state.fill(RUNS);
    this.#head = this.#tail;
  }
}
