import { u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import type { EngineProblemKind } from '../engine-problem.js';
import { MAX_RETRIES } from './vcpu-progress.js';

const RIP = u32Index('rip');
const RCX = u32Index('rcx');

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
  /** Low halves of RIP and RCX of each VCPU at its exit: one that gets on changes them, the instruction or how often it is to be repeated. */
  readonly #rip: Uint32Array;
  readonly #rcx: Uint32Array;
  /** RIP at which each was last found to stand still, and how often in a row. */
  readonly #stuckAt: Uint32Array;
  readonly #counts: Uint32Array;

  /** @param records number of records that exits come with: one for each VCPU, one for the guest */
  constructor(context: StandstillContext, records: number) {
    this.#context = context;
    this.#rip = new Uint32Array(records);
    this.#rcx = new Uint32Array(records);
    this.#stuckAt = new Uint32Array(records);
    this.#counts = new Uint32Array(records);
  }

  /** A VCPU exits. */
  enter({ u32 }: VcpuRecord, index: number): void {
    this.#rip[index] = u32[RIP]!;
    this.#rcx[index] = u32[RCX]!;
  }

  /** @returns the verdict of hooks; the fallback once a VCPU has been said to be emulated too often where it still stands */
  judge(verdict: Verdict, { u32 }: VcpuRecord, index: number): Verdict {
    if (verdict !== Verdict.ALLOWED_VIRTUAL || this.#rip[index] !== u32[RIP] || this.#rcx[index] !== u32[RCX]) {
      this.#counts[index] = 0;
      return verdict;
    }
    if (this.#stuckAt[index] !== u32[RIP]) {
      this.#stuckAt[index] = u32[RIP]!;
      this.#counts[index] = 0;
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
