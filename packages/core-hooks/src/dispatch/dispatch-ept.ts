import {
  Access,
  ExitCause,
  type Gfn,
  PAGE_SIZE,
  strongerVerdict,
  u32Index,
  type VcpuRecord,
  Verdict,
} from '@introd/abi';
import { type DecodedInstruction, MAX_INSTRUCTION_LENGTH } from '@introd/x86';
import { Fetch } from '../instruction-cache/instruction-cache.js';
import type { DescriptorTableHooks } from '../register-hooks/descriptor-table-hooks.js';
import { Walk } from '../translation/translator.js';
import { DescriptorTableDispatcher } from './dispatch-descriptor-table.js';
import type { EptContext } from './ept-context.js';
import { ExitConclusion, Undecided } from './exit-conclusion.js';
import { HookInquiry } from './hook-inquiry.js';
import { MAX_RETRIES, VcpuProgress } from './vcpu-progress.js';

const RIP = u32Index('rip');
const CR3 = u32Index('cr3');
const EXIT_CAUSE = u32Index('exitCause');
const EXIT_ACCESS = u32Index('exitAccess');

/** How often a store is decided again because memory changed before it was committed. */
const MAX_CONFLICTS = 4;

/**
 * Answers EPT violations in the order of behaviour 1.2.4: the instruction and the TOCTOU rule, then the hooks of every address that it
 * touches ({@link HookInquiry}), then the verdict and, for stores to page tables, the write itself ({@link ExitConclusion}).
 */
export class EptDispatcher {
  readonly #context: EptContext;
  readonly #progress: readonly VcpuProgress[];
  readonly #inquiry: HookInquiry;
  readonly #conclusion: ExitConclusion;
  readonly #descriptorTables: DescriptorTableDispatcher;

  constructor(context: EptContext) {
    this.#context = context;
    this.#progress = Array.from({ length: context.port.vcpuCount }, () => new VcpuProgress());
    this.#inquiry = new HookInquiry(context);
    this.#conclusion = new ExitConclusion(context, this.#inquiry);
    this.#descriptorTables = new DescriptorTableDispatcher(context, this.#inquiry, this.#conclusion);
  }

  /** Decides about the EPT violation that a VCPU stands at. Does not throw: a failure gives the fallback verdict, or the stronger one that was reached. */
  dispatch(vcpu: VcpuRecord, index: number): Verdict {
    const inquiry = this.#inquiry;
    const progress = this.#progress[index]!;
    inquiry.open(vcpu, index);
    try {
      let verdict = this.#decide(vcpu, index, progress);
      if (verdict === Undecided.AGAIN) {
        verdict = this.#retry(vcpu, progress);
      }
      progress.noteHandled();
      return verdict;
    } catch (cause) {
      this.#context.report('handler', 'handling an EPT violation failed', cause);
      this.#context.outcome.reason = 'retry-failed';
      if (progress.mayFail()) {
        // What failed may work the next time; the guest makes the same access again.
        return Verdict.RETRY;
      }
      if (this.#context.plan.write.replaced && inquiry.emulationWanted) {
        // Somebody wanted another value than the one that the processor would write.
        return Verdict.NOT_ALLOWED;
      }
      return strongerVerdict(inquiry.verdict, this.#context.fallback);
    }
  }

  /** Whether there is really an INT3 at RIP (CC, or CD 03). */
  isBreakpoint(vcpu: VcpuRecord): boolean {
    const { translator, pages } = this.#context;
    const registers = vcpu.u32;
    const bytes = [0, 0];
    for (let at = 0; at < 2; at++) {
      const low = (registers[RIP]! + at) >>> 0;
      const high = low < at ? (registers[RIP + 1]! + 1) >>> 0 : registers[RIP + 1]!;
      const gpa = translator.walk(registers[CR3]!, registers[CR3 + 1]!, low, high) === Walk.OK ? translator.gpa : -1;
      bytes[at] = gpa < 0 ? 0 : (pages.get(Math.floor(gpa / PAGE_SIZE))?.bytes[gpa % PAGE_SIZE] ?? 0);
    }
    return bytes[0] === 0xcc || (bytes[0] === 0xcd && bytes[1] === 3);
  }

  /** Decides about an instruction that loads or stores a descriptor table register. Does not throw, as {@link dispatch}. */
  dispatchDescriptorTable(vcpu: VcpuRecord, index: number, hooks: DescriptorTableHooks): Verdict {
    const progress = this.#progress[index]!;
    this.#inquiry.open(vcpu, index, false);
    this.#context.grants.end(index);
    try {
      let verdict = this.#descriptorTables.decide(vcpu, index, hooks);
      if (verdict === Undecided.AGAIN) {
        if (progress.mayRetry(vcpu.u32)) {
          return Verdict.RETRY;
        }
        this.#reportLimit();
        verdict = strongerVerdict(this.#inquiry.verdict, this.#context.fallback);
      }
      progress.noteHandled();
      return verdict;
    } catch (cause) {
      this.#context.report('handler', 'handling a descriptor table exit failed', cause);
      this.#context.outcome.reason = 'retry-failed';
      return progress.mayFail() ? Verdict.RETRY : strongerVerdict(this.#inquiry.verdict, this.#context.fallback);
    }
  }

  #decide(vcpu: VcpuRecord, index: number, progress: VcpuProgress): Verdict | typeof Undecided.AGAIN {
    const { counters, grants, cache, outcome } = this.#context;
    const registers = vcpu.u32;
    counters.eptViolations++;
    grants.end(index);
    const cause = registers[EXIT_CAUSE]!;
    if (cause === ExitCause.PAGE_WALK) {
      // The walker's reads, and its accessed and dirty bits, change no mapping.
      counters.pageWalks++;
      outcome.reason = 'page-walk';
      return this.#inquiry.walksOverHidden() ? this.#conclusion.blockHidden() : Verdict.ALLOWED;
    }
    if (cause === ExitCause.EVENT_DELIVERY) {
      counters.eventDeliveries++;
      return this.#decideHardware(vcpu, progress, false);
    }
    const access = registers[EXIT_ACCESS]!;
    const fetched = cache.fetch(vcpu, index, this.#context.addressSpaces);
    if (progress.isReexecution(vcpu, access)) {
      counters.reexecutions++;
    }
    switch (fetched) {
      case Fetch.HIT:
      case Fetch.UNGUARDED:
        return this.#decideInstruction(access, progress);
      case Fetch.ADDED:
        // What faulted may have been other bytes than those that are guarded now.
        outcome.reason = 'retry-not-cached';
        return Undecided.AGAIN;
      case Fetch.CHANGING:
        outcome.reason = 'retry-changing';
        return Undecided.AGAIN;
      default:
        if ((access & Access.EXECUTE) === 0) {
          // The processor will fault on it by itself, unless it runs on a translation that the tables do not have any more.
          outcome.reason = 'retry-fetch';
          return Undecided.AGAIN;
        }
        if (fetched === Fetch.NOT_MAPPED && this.#nextPageIsMissing(registers)) {
          this.#conclusion.injectPageFault();
          return Undecided.AGAIN;
        }
        return this.#decideHardware(vcpu, progress, false);
    }
  }

  /** Asks about every address of the instruction, again when memory changes before what was decided is done. */
  #decideInstruction(exitAccess: Access, progress: VcpuProgress): Verdict | typeof Undecided.AGAIN {
    const { cache, counters } = this.#context;
    const inquiry = this.#inquiry;
    const instruction = cache.instruction!;
    inquiry.list(instruction);
    if (this.#stepsOverHook(instruction)) {
      this.#context.outcome.reason = 'retry-rep';
      return Undecided.AGAIN;
    }
    // Some processors report a read along with a write.
    const access =
      !instruction.readsMemory && (exitAccess & ~Access.READ) !== 0 ? exitAccess & ~Access.READ : exitAccess;
    for (let attempt = 0; attempt < MAX_CONFLICTS; attempt++) {
      if (attempt > 0) {
        inquiry.reset();
      }
      if (inquiry.accesses.meetsPageFault()) {
        this.#conclusion.injectPageFault();
        return Undecided.AGAIN;
      }
      inquiry.askInstruction(access);
      const verdict = this.#conclusion.conclude(access, progress, false);
      if (verdict !== Undecided.CONFLICT) {
        this.#repairRights();
        return verdict;
      }
      counters.emulationConflicts++;
    }
    this.#context.outcome.reason = 'retry-conflict';
    return Undecided.AGAIN;
  }

  /** An access that no instruction explains: only what the hardware reported is asked about. */
  #decideHardware(vcpu: VcpuRecord, progress: VcpuProgress, impatient: boolean): Verdict | typeof Undecided.AGAIN {
    const access = vcpu.u32[EXIT_ACCESS]!;
    const inquiry = this.#inquiry;
    inquiry.instruction = undefined;
    inquiry.reset();
    inquiry.askHardware(access);
    if ((access & Access.READ) !== 0) {
      inquiry.askStructures();
    }
    this.#repairRights();
    const verdict = this.#conclusion.conclude(access, progress, impatient);
    return verdict === Undecided.CONFLICT ? Undecided.AGAIN : verdict;
  }

  /** Enters the guest again at the same instruction; not for ever. */
  #retry(vcpu: VcpuRecord, progress: VcpuProgress): Verdict {
    if (progress.mayRetry(vcpu.u32)) {
      return Verdict.RETRY;
    }
    this.#reportLimit();
    const verdict = this.#decideHardware(vcpu, progress, true);
    return verdict === Undecided.AGAIN ? Verdict.RETRY : verdict;
  }

  /**
   * Has each element of a repeated string instruction exit when it comes near a hook, and no longer when the VCPU is at another instruction.
   * @returns whether a reply would let it go past the hook, because that is not in force yet
   */
  #stepsOverHook(instruction: DecodedInstruction): boolean {
    const { rep } = this.#context;
    const { index } = this.#inquiry;
    if (instruction.repeated) {
      if (!this.#inquiry.accesses.nearsHook()) {
        return false;
      }
      const inForce = rep.on;
      rep.want(index);
      return !inForce;
    }
    if (!rep.on) {
      return false;
    }
    try {
      rep.release(index);
    } catch (cause) {
      this.#context.report('backend', 'switching an exit off failed', cause);
    }
    return false;
  }

  /**
   * Whether the instruction at RIP goes on behind its page, where nothing is mapped: the fetch cannot end, and not every processor reports
   * the page fault by itself (behaviour 1.2.4, step 14).
   */
  #nextPageIsMissing(registers: Uint32Array): boolean {
    const { translator, plan } = this.#context;
    const { linearLow: low, linearHigh: high } = this.#context.cache;
    const left = PAGE_SIZE - (low & (PAGE_SIZE - 1));
    if (
      left >= MAX_INSTRUCTION_LENGTH ||
      translator.walk(registers[CR3]!, registers[CR3 + 1]!, low, high) !== Walk.OK
    ) {
      return false;
    }
    const next = (low + left) >>> 0;
    plan.fault(next, (next === 0 ? high + 1 : high) >>> 0, false, false, true);
    return true;
  }

  #reportLimit(): void {
    this.#context.outcome.reason = 'retry-limit';
    this.#context.report('retry-limit', `an exit repeated ${MAX_RETRIES} times at the same instruction`);
  }

  /** An exit on a frame that nothing restricts: the processor used stale rights, so they are set anew (behaviour 1.2.5). */
  #repairRights(): void {
    const { rights, counters } = this.#context;
    if (this.#inquiry.exitPage !== undefined) {
      // Its hooks restrict it.
      return;
    }
    const frame = this.#inquiry.exitFrame;
    if (!rights.isRestricted(frame)) {
      counters.rightsRepairs++;
      this.#context.outcome.reason = 'rights-repaired';
      rights.repair(frame as Gfn);
    }
  }
}
