import { HvSimError } from './error.js';
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

/** @throws HvSimError ERR_HV_SIM_OPTIONS */
export function checkChaos(options: ChaosOptions): void {
  const { injectionWinner = 'interrupt' } = options;
  const isVector = Number.isInteger(injectionWinner) && (injectionWinner as number) >= 0;
  if (injectionWinner !== 'interrupt' && !(isVector && (injectionWinner as number) <= HIGHEST_EXCEPTION)) {
    throw new HvSimError('ERR_HV_SIM_OPTIONS', `no exception has the vector ${injectionWinner}`);
  }
  for (const name of ['loseRightsChanges', 'loseInjections'] as const) {
    const share = options[name] ?? 0;
    const isGood =
      typeof share === 'number' ? share >= 0 && share <= 1 : share.every((nth) => Number.isInteger(nth) && nth >= 1);
    if (!isGood) {
      throw new HvSimError(
        'ERR_HV_SIM_OPTIONS',
        `chaos.${name} is a share from 0 to 1 or numbers of calls, not ${share}`,
      );
    }
  }
}

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
