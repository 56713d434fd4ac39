import type { MachineCore } from './machine-core.js';
import { integer, type OptionRules } from './option-rules.js';
import { RandomNumbers } from './random-numbers.js';

/**
 * How many instructions of other VCPUs may run where real ones would run too; 0 (default) closes the window. How many it
 * is each time, from none to the number given, the machine's seed says. A paused guest runs none of them.
 */
export interface RaceOptions {
  /** At most this many between the fault of a VCPU and its delivery by `next`. */
  readonly betweenFaultAndDelivery?: number;
  /** At most this many inside each of the engine's calls: before it takes effect, and between the two parts of a long read or write. */
  readonly insideCalls?: number;
  /** At most this many between the reply to a VCPU's exit and the VCPU's next instruction. After a reply to a paused guest they run when it goes on. */
  readonly betweenReplyAndRetry?: number;
}

/** Most instructions of a window: a second of guest time. */
const LONGEST_WINDOW = 1_000_000;

const WINDOW = integer('a number of instructions', 0, LONGEST_WINDOW);

/** What {@link RaceOptions} may hold. */
export const RACE_RULES: OptionRules<RaceOptions> = {
  betweenFaultAndDelivery: WINDOW,
  insideCalls: WINDOW,
  betweenReplyAndRetry: WINDOW,
};

/** Lets other VCPUs run in the windows of one port, as many instructions as the seed says. */
export class Races {
  readonly #random: RandomNumbers;
  readonly #delivery: number;
  readonly #calls: number;
  readonly #retry: number;
  /** The last exit whose delivery the others have raced with, so that each is raced with once. */
  #raced = -1;
  #racedTime = -1;

  constructor(
    private readonly core: MachineCore,
    options: RaceOptions,
    seed: number,
  ) {
    this.#random = new RandomNumbers(seed);
    this.#delivery = options.betweenFaultAndDelivery ?? 0;
    this.#calls = options.insideCalls ?? 0;
    this.#retry = options.betweenReplyAndRetry ?? 0;
  }

  /** Inside a call of the engine. */
  insideCall(): void {
    if (this.#calls > 0) this.#others(this.#calls);
  }

  /** Where a long read or write is torn, in bytes from its start: a multiple of 8, as real copies are. 0 for nowhere. */
  tear(length: number): number {
    return this.#calls > 0 && length > 8 ? this.#random.below(Math.ceil(length / 8)) * 8 : 0;
  }

  /** Before an exit is handed to the engine. */
  beforeDelivery(index: number): void {
    if (this.#delivery === 0) return;
    const time = this.core.records[index]!.exitTime;
    if (this.#raced === index && this.#racedTime === time) return;
    this.#raced = index;
    this.#racedTime = time;
    this.#others(this.#delivery);
  }

  /** After the reply to a VCPU. */
  afterReply(index: number): void {
    if (this.#retry > 0) this.core.cpu.hold(index, this.#random.below(this.#retry + 1));
  }

  #others(most: number): void {
    const count = this.#random.below(most + 1);
    if (count > 0) this.core.run(count, false);
  }
}
