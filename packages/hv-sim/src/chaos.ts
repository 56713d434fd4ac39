import { integer, type OptionRule, type OptionRules } from './option-rules.js';
import { RandomNumbers } from './random-numbers.js';

/** Which calls go wrong: a share of them from 0 (none) to 1 (all), by seed; or their numbers, the first being 1. */
export type ChaosShare = number | readonly number[];

/** What the machine does wrong although it says that it did it, as real hypervisors sometimes do. By default nothing. */
export interface ChaosOptions {
  /**
   * Changes of a frame's rights (calls of `setPageAccess` with other rights than the frame has) that are lost: the rights
   * read back as set, but the VCPUs obey the old ones until the frame's rights are set again. That second time always works.
   */
  readonly loseRightsChanges?: ChaosShare;
  /**
   * Injections that lose: another event is delivered in their place, and they are dropped. The switched exit
   * `event-injected` tells which event it was.
   */
  readonly loseInjections?: ChaosShare;
  /**
   * What a lost injection loses against. `interrupt` (default): an interrupt that waits, or the APIC timer's ahead of its
   * time; where the VCPU can take none (RFLAGS.IF clear, no timer, a higher task priority), the injection wins after all.
   * A number: that exception, with error code 0 if it has one; it is always delivered.
   */
  readonly injectionWinner?: 'interrupt' | number;
}

/** Highest vector of an exception (SDM vol. 3A, 6.2). */
const HIGHEST_EXCEPTION = 31;
const VECTOR = integer('a vector', 0, HIGHEST_EXCEPTION);

const SHARE: OptionRule = {
  mustBe: 'a share from 0 to 1 or an array of numbers of calls, the first being 1',
  accepts: (value) =>
    typeof value === 'number'
      ? value >= 0 && value <= 1
      : Array.isArray(value) && value.every((nth) => Number.isInteger(nth) && nth >= 1),
};

/** What {@link ChaosOptions} may hold. */
export const CHAOS_RULES: OptionRules<ChaosOptions> = {
  loseRightsChanges: SHARE,
  loseInjections: SHARE,
  injectionWinner: {
    mustBe: `'interrupt' or a vector from 0 to ${HIGHEST_EXCEPTION}`,
    accepts: (value) => value === 'interrupt' || VECTOR.accepts(value),
  },
};

/** Decides call by call what goes wrong. */
export class ChaosDraw {
  readonly #random: RandomNumbers;
  readonly #share: number;
  readonly #numbers: ReadonlySet<number> | undefined;
  #calls = 0;

  constructor(share: ChaosShare, seed: number) {
    this.#random = new RandomNumbers(seed);
    this.#share = typeof share === 'number' ? share : 0;
    this.#numbers = typeof share === 'number' ? undefined : new Set(share);
  }

  /** Whether the call that is made now goes wrong. */
  next(): boolean {
    if (this.#numbers) return this.#numbers.has(++this.#calls);
    return this.#share > 0 && this.#random.below(2 ** 32) < this.#share * 2 ** 32;
  }
}
