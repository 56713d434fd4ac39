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
import { Fetch } from '../instruction-cache/instruction-cache.js';
import type { DescriptorTableHooks } from '../register-hooks/descriptor-table-hooks.js';
import { Walk } from '../translation/translator.js';
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

  constructor(context: EptContext) {
    this.#context = context;
    this.#progress = Array.from({ length: context.port.vcpuCount }, () => new VcpuProgress());
    this.#inquiry = new HookInquiry(context);
    this.#conclusion = new ExitConclusion(context, this.#inquiry);
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

  /** Decides about an instruction that loads or stores a descriptor table register. */
  dispatchDescriptorTable(vcpu: VcpuRecord, index: number, hooks: DescriptorTableHooks): Verdict {
    const { event } = hooks;
    event.vcpu = vcpu;
    event.vcpuIndex = index;
    event.flags = vcpu.get32('exitRegister');
    return hooks.dispatch();
  }

  #decide(vcpu: VcpuRecord, index: number, progress: VcpuProgress): Verdict | typeof Undecided.AGAIN {
    const { counters, grants, cache } = this.#context;
    const registers = vcpu.u32;
    counters.eptViolations++;
    grants.end(index);
    const cause = registers[EXIT_CAUSE]!;
    if (cause === ExitCause.PAGE_WALK) {
      // The walker's reads, and its accessed and dirty bits, change no mapping.
      counters.pageWalks++;
      return Verdict.ALLOWED;
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
        return Undecided.AGAIN;
      case Fetch.CHANGING:
        return Undecided.AGAIN;
      default:
        // The processor will fault on it by itself, unless it runs on a translation that the tables do not have any more.
        return (access & Access.EXECUTE) !== 0 ? this.#decideHardware(vcpu, progress, false) : Undecided.AGAIN;
    }
  }

  /** Asks about every address of the instruction, again when memory changes before what was decided is done. */
  #decideInstruction(exitAccess: Access, progress: VcpuProgress): Verdict | typeof Undecided.AGAIN {
    const { cache, counters } = this.#context;
    const inquiry = this.#inquiry;
    const instruction = cache.instruction!;
    inquiry.list(instruction);
    // Some processors report a read along with a write.
    const access =
      !instruction.readsMemory && (exitAccess & ~Access.READ) !== 0 ? exitAccess & ~Access.READ : exitAccess;
    for (let attempt = 0; attempt < MAX_CONFLICTS; attempt++) {
      inquiry.reset();
      inquiry.askInstruction(access);
      const verdict = this.#conclusion.conclude(access, progress, false);
      if (verdict !== Undecided.CONFLICT) {
        this.#repairRights();
        return verdict;
      }
      counters.emulationConflicts++;
    }
    return Undecided.AGAIN;
  }

  /** An access that no instruction explains: only what the hardware reported is asked about. */
  #decideHardware(vcpu: VcpuRecord, progress: VcpuProgress, impatient: boolean): Verdict | typeof Undecided.AGAIN {
    const access = vcpu.u32[EXIT_ACCESS]!;
    const inquiry = this.#inquiry;
    inquiry.instruction = undefined;
    inquiry.reset();
    inquiry.askHardware(access);
    this.#repairRights();
    const verdict = this.#conclusion.conclude(access, progress, impatient);
    return verdict === Undecided.CONFLICT ? Undecided.AGAIN : verdict;
  }

  /** Enters the guest again at the same instruction; not for ever. */
  #retry(vcpu: VcpuRecord, progress: VcpuProgress): Verdict {
    if (progress.mayRetry(vcpu.u32)) {
      return Verdict.RETRY;
    }
    this.#context.report('retry-limit', `an exit repeated ${MAX_RETRIES} times at the same instruction`);
    const verdict = this.#decideHardware(vcpu, progress, true);
    return verdict === Undecided.AGAIN ? Verdict.RETRY : verdict;
  }

  /** An exit on a frame that nothing restricts: the processor used stale rights, so they are set anew (behaviour 1.2.5). */
  #repairRights(): void {
    const { rights, counters } = this.#context;
    const frame = this.#inquiry.exitFrame;
    if (!rights.isRestricted(frame)) {
      counters.rightsRepairs++;
      rights.repair(frame as Gfn);
    }
  }
}
