import { type Access, PAGE_SIZE, Verdict } from '@introd/abi';
import type { EptContext } from './ept-context.js';
import { NO_FRAME } from './grants.js';
import type { HookInquiry } from './hook-inquiry.js';
import { Supply } from './read-supply.js';
import { Plan } from './store-plan.js';
import type { VcpuProgress } from './vcpu-progress.js';

/** What stands in place of a verdict while there can be none. */
export const Undecided = {
  /** Memory changed between the decision about a store and its commit: the hooks have to be asked again. */
  CONFLICT: -1,
  /** The VCPU has to make the same access again. */
  AGAIN: -2,
} as const;
/** One of the {@link Undecided} numbers. */
export type Undecided = (typeof Undecided)[keyof typeof Undecided];

/** Vector of the page fault, and bits of its error code (SDM vol. 3A, 4.7). */
const PAGE_FAULT = 14;
const FAULT_PRESENT = 1;
const FAULT_WRITE = 2;
const FAULT_USER = 4;
/** Set for fetches where pages can be marked as not executable. */
const FAULT_FETCH = 0x10;

/** Makes the verdict about an exit of what the hooks said, and carries out a store that the engine makes itself. */
export class ExitConclusion {
  readonly #context: EptContext;
  readonly #inquiry: HookInquiry;

  constructor(context: EptContext, inquiry: HookInquiry) {
    this.#context = context;
    this.#inquiry = inquiry;
  }

  /**
   * @param progress of the VCPU
   * @param impatient it has waited long enough for another VCPU
   */
  conclude(access: Access, progress: VcpuProgress, impatient: boolean): Verdict | Undecided {
    const { plan, counters, grants, cache } = this.#context;
    const inquiry = this.#inquiry;
    let verdict = inquiry.verdict;
    const patched = verdict === Verdict.ALLOWED_PATCHED && this.#context.overlay.any;
    if (patched) {
      // Other bytes to read do not change who makes the store.
      verdict = Verdict.ALLOWED;
    }
    if (inquiry.postponed && verdict <= Verdict.ALLOWED_PATCHED && !impatient) {
      return Undecided.AGAIN;
    }
    if (inquiry.emulationWanted && verdict <= Verdict.ALLOWED_VIRTUAL) {
      switch (plan.kind) {
        case Plan.EMULATE: {
          const frame = Math.floor(plan.gpa / PAGE_SIZE);
          if (grants.writesTo(frame, inquiry.index)) {
            return Undecided.AGAIN;
          }
          cache.invalidateFrame(frame);
          try {
            if (!plan.commit(inquiry.vcpu, inquiry.index)) {
              return Undecided.CONFLICT;
            }
          } catch (cause) {
            this.#context.report('backend', 'the backend refused an emulated store', cause);
            return Undecided.AGAIN;
          }
          counters.emulatedWrites++;
          if (this.#context.outcome.reason === 'hooks') {
            this.#context.outcome.reason = 'emulated';
          }
          inquiry.tellCommitted();
          return Verdict.ALLOWED_VIRTUAL;
        }
        case Plan.FAULT:
          this.injectPageFault();
          return Undecided.AGAIN;
        case Plan.NATIVE:
          verdict = plan.isReplacedNatively ? Verdict.NOT_ALLOWED : this.#allowNatively();
          break;
        default:
          verdict = inquiry.pageTableTouched ? this.blockUnknown() : this.#allowNatively();
      }
    }
    verdict = this.#context.standstill.judge(verdict, inquiry.vcpu, inquiry.index);
    if (verdict === Verdict.NOT_ALLOWED) {
      counters.blocked++;
      if (inquiry.passDeniedElement()) {
        return Verdict.ALLOWED_VIRTUAL;
      }
    }
    if (patched && verdict === Verdict.ALLOWED) {
      verdict = this.#showPatched();
    }
    if (verdict === Verdict.ALLOWED || verdict === Verdict.ALLOWED_PATCHED) {
      if (!inquiry.emulationWanted) {
        grants.begin(inquiry.index, cache.frame, cache.spillFrame, NO_FRAME, NO_FRAME);
      }
      inquiry.tellCommitted();
    }
    progress.noteVerdict(inquiry.vcpu, access, verdict);
    return verdict;
  }

  /**
   * Lets the processor make a store to a guarded page; until its next exit nobody knows when.
   * @returns RETRY while another VCPU may be writing to the same page-table page; it is not counted, for it ends when that one gets on
   */
  #allowNatively(): Verdict {
    const { plan, grants, cache } = this.#context;
    const { index, pageTableTouched, exitFrame } = this.#inquiry;
    const located = plan.kind === Plan.NATIVE;
    const first = located ? Math.floor(plan.gpa / PAGE_SIZE) : exitFrame;
    const second = located && plan.secondGpa >= 0 ? Math.floor(plan.secondGpa / PAGE_SIZE) : NO_FRAME;
    if (pageTableTouched && (grants.writesTo(first, index) || grants.writesTo(second, index))) {
      return Verdict.RETRY;
    }
    grants.begin(index, cache.frame, cache.spillFrame, first, second);
    return Verdict.ALLOWED;
  }

  /** Gives the guest the bytes that read hooks want it to see. */
  #showPatched(): Verdict {
    const { counters } = this.#context;
    switch (this.#inquiry.supplyRead()) {
      case Supply.READY:
        counters.patchedReads++;
        this.#context.outcome.reason = 'read-supplied';
        return Verdict.ALLOWED_PATCHED;
      case Supply.ELSEWHERE:
        return Verdict.ALLOWED;
      default: {
        if (this.#inquiry.emulateCompare()) {
          counters.patchedReads++;
          this.#context.outcome.reason = 'read-supplied';
          return Verdict.ALLOWED_VIRTUAL;
        }
        return this.blockHidden();
      }
    }
  }

  /** Blocks a read of hidden bytes that no reply can change. */
  blockHidden(): Verdict {
    this.#context.outcome.reason = 'hidden-read';
    const text = this.#inquiry.instruction?.text ?? 'the processor';
    this.#context.report('hidden-read', `blocked a read of hidden bytes that no reply can show, by ${text}`);
    this.#context.counters.blocked++;
    return Verdict.NOT_ALLOWED;
  }

  /** Blocks a store to a page table whose value nobody can tell. */
  blockUnknown(): Verdict {
    this.#context.outcome.reason = 'unknown-value';
    const text = this.#inquiry.instruction?.text ?? 'the processor';
    this.#context.report('unknown-page-table-write', `blocked a page-table write of unknown value by ${text}`);
    return Verdict.NOT_ALLOWED;
  }

  /** Gives the guest the page fault that keeps its instruction from happening. */
  injectPageFault(): void {
    this.#context.outcome.reason = 'page-fault';
    const { plan, port } = this.#context;
    const { vcpu, index } = this.#inquiry;
    const error =
      (plan.faultPresent ? FAULT_PRESENT : 0) |
      (plan.faultWrite ? FAULT_WRITE : 0) |
      (plan.faultFetch ? FAULT_FETCH : 0) |
      (vcpu.cpl === 3 ? FAULT_USER : 0);
    try {
      port.inject(index, PAGE_FAULT, error, (BigInt(plan.faultHigh) << 32n) | BigInt(plan.faultLow));
    } catch (cause) {
      this.#context.report('backend', 'the backend refused a page fault for the guest', cause);
    }
  }
}
