import { u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import type { EngineProblemKind } from '../engine-problem.js';
import { MAX_RETRIES } from './vcpu-progress.js';

/** What a VCPU that gets on changes: the instruction, or how often it is still to be repeated. */
const PLACE = ['rip', 'rcx'].flatMap((name) => {
  const low = u32Index(name as 'rip' | 'rcx');
  return [low, low + 1];
});

/** What {@link Standstill} needs of the engine. */
export interface StandstillContext {
  readonly fallback: Verdict;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/**
 * Keeps a VCPU from standing still for ever: a hook that says "emulated" moves RIP, or an element of a repeated instruction on; one that
 * does not would be asked again without end.
 */
export class Standstill {
  readonly #context: StandstillContext;
  /** Where each VCPU stood at its exit. */
  readonly #places: Uint32Array;
  /** How often in a row it was let go from there without having moved. */
  readonly #counts: Uint32Array;

  /** @param records number of records that exits come with: one for each VCPU, one for the guest */
  constructor(context: StandstillContext, records: number) {
    this.#context = context;
    this.#places = new Uint32Array(records * PLACE.length);
    this.#counts = new Uint32Array(records);
  }

  /** A VCPU exits. */
  enter({ u32 }: VcpuRecord, index: number): void {
    const at = index * PLACE.length;
    for (let part = 0; part < PLACE.length; part++) {
      const now = u32[PLACE[part]!]!;
      if (this.#places[at + part] !== now) {
        this.#places[at + part] = now;
        this.#counts[index] = 0;
      }
    }
  }

  /** @returns the verdict of hooks; the fallback once a VCPU has been said to be emulated too often where it still stands */
  judge(verdict: Verdict, { u32 }: VcpuRecord, index: number): Verdict {
    if (verdict !== Verdict.ALLOWED_VIRTUAL) {
      this.#counts[index] = 0;
      return verdict;
    }
    const at = index * PLACE.length;
    for (let part = 0; part < PLACE.length; part++) {
      if (this.#places[at + part] !== u32[PLACE[part]!]) {
        return verdict;
      }
    }
    if (++this.#counts[index]! <= MAX_RETRIES) {
      return verdict;
    }
    this.#counts[index] = 0;
    this.#context.report(
      'retry-limit',
      `a hook said ${MAX_RETRIES} times in a row to have emulated what it left RIP at`,
    );
    return this.#context.fallback;
  }
}
