import {
  Access,
  ExitCause,
  type Gfn,
  type Gpa,
  PAGE_SIZE,
  strongerVerdict,
  u32Index,
  type VcpuRecord,
  Verdict,
} from '@introd/abi';
import type { FullPort } from '@introd/glue';
import { AccessList, accessedAddresses, type DecodedInstruction } from '@introd/x86';
import { AccessEvent } from './access-event.js';
import type { AddressSpaces } from './address-spaces.js';
import type { EngineCounters } from './counters.js';
import type { EngineProblemKind } from './engine-problem.js';
import { type Grants, NO_FRAME } from './grants.js';
import type { GuestMemory } from './guest-memory.js';
import { Fetch, type InstructionCache } from './instruction-cache.js';
import type { PageHook, PageHooks } from './page-hooks.js';
import type { PageRights } from './page-rights.js';
import type { PageTableWrite } from './page-table-write.js';
import { Plan, type StorePlan } from './store-plan.js';
import { type Translator, Walk } from './translator.js';

const RIP = u32Index('rip');
const CR3 = u32Index('cr3');
const EXIT_CAUSE = u32Index('exitCause');
const EXIT_ACCESS = u32Index('exitAccess');
const EXIT_SIZE = u32Index('exitSize');
const EXIT_GPA = u32Index('exitGpa');
const EXIT_GLA = u32Index('exitGla');
const EXIT_GLA_VALID = u32Index('exitGlaValid');
const DATA = Access.READ | Access.WRITE;
/** Offset in a page. On an address above 2^32 the bit operation still sees its low bits; `%` would divide doubles. */
const OFFSET_MASK = PAGE_SIZE - 1;

/** Operand number of an access that the processor made without an operand of the instruction. */
const NO_OPERAND = -1;
/** Bytes asked about when a backend does not say how many the processor touched: one descriptor, one stack slot. */
const UNKNOWN_SIZE = 8;
/** Stands for no verdict: memory changed between the decision about a store and its commit. */
const CONFLICT = -1;
/** How often a store is decided again because memory changed before it was committed. */
const MAX_CONFLICTS = 4;
/** How often in a row a VCPU may be sent back to the same RIP. */
const MAX_RETRIES = 256;
/** How often in a row the handling of a VCPU's exit may fail before it is answered with the fallback verdict. */
const MAX_FAILURES = 3;
/** Vector of the page fault, and bits of its error code (SDM vol. 3A, 4.7). */
const PAGE_FAULT = 14;
const FAULT_PRESENT = 1;
const FAULT_WRITE = 2;
const FAULT_USER = 4;

/** What each VCPU did at its last exit. */
class VcpuState {
  retryLow = 0;
  retryHigh = 0;
  retries = 0;
  /** Exits in a row whose handling threw. */
  failures = 0;
  /** Execution at this RIP and GPA was allowed at the last exit (behaviour 1.2.4, step 14). */
  executed = false;
  executedLow = 0;
  executedHigh = 0;
  executedGpa = 0;
}

/** What the dispatcher needs of the engine. */
export interface EptContext {
  readonly port: FullPort;
  readonly hooks: PageHooks;
  readonly rights: PageRights;
  readonly memory: GuestMemory;
  readonly translator: Translator;
  readonly cache: InstructionCache;
  readonly grants: Grants;
  readonly plan: StorePlan;
  readonly counters: EngineCounters;
  readonly fallback: Verdict;
  addressSpaces: AddressSpaces;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/**
 * Answers EPT violations in the order of behaviour 1.2.4: the instruction, the TOCTOU rule, every address that the instruction
 * touches, the hooks in range, and for stores to page tables the decision before the write.
 */
export class EptDispatcher {
  readonly #context: EptContext;
  readonly #vcpus: VcpuState[];
  readonly #list = new AccessList();
  readonly #event: AccessEvent;
  #vcpu!: VcpuRecord;
  #index = 0;
  #instruction: DecodedInstruction | undefined;
  #verdict: Verdict = Verdict.ALLOWED;
  /** Operand whose hooks are being called. */
  #operand = NO_OPERAND;
  /** Whether a hook was touched whose stores the engine carries out itself where it can. */
  #emulationWanted = false;
  /** Whether such a hook holds page-table entries. */
  #pageTableTouched = false;
  /** Whether the access has to wait for another VCPU. */
  #postponed = false;
  /** Whether a VCPU has waited long enough. */
  #impatient = false;

  constructor(context: EptContext) {
    this.#context = context;
    this.#vcpus = Array.from({ length: context.port.vcpuCount }, () => new VcpuState());
    this.#event = new AccessEvent({
      oldBytes: (event) => this.#oldBytes(event),
      newBytes: (event) => this.#newBytes(event),
    });
  }

  /** Decides about the EPT violation that a VCPU stands at. Does not throw: a failure gives the fallback verdict, or the stronger one that was reached. */
  dispatch(vcpu: VcpuRecord, index: number): Verdict {
    this.#begin();
    const state = this.#vcpus[index]!;
    try {
      const verdict = this.#decide(vcpu, index);
      state.failures = 0;
      return verdict;
    } catch (cause) {
      this.#context.report('handler', 'handling an EPT violation failed', cause);
      if (state.failures++ < MAX_FAILURES) {
        // What failed may work the next time; the guest makes the same access again.
        return Verdict.RETRY;
      }
      state.failures = 0;
      if (this.#context.plan.write.replaced && this.#emulationWanted) {
        // Somebody wanted another value than the one that the processor would write.
        return Verdict.NOT_ALLOWED;
      }
      return strongerVerdict(this.#verdict, this.#context.fallback);
    }
  }

  #decide(vcpu: VcpuRecord, index: number): Verdict {
    const { counters, grants } = this.#context;
    const registers = vcpu.u32;
    this.#vcpu = vcpu;
    this.#index = index;
    this.#instruction = undefined;
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
      return this.#decideHardware(registers);
    }
    const access = registers[EXIT_ACCESS]!;
    const fetched = this.#context.cache.fetch(vcpu, index, this.#context.addressSpaces);
    this.#noteReexecution(registers, access);
    switch (fetched) {
      case Fetch.HIT:
      case Fetch.UNGUARDED:
        return this.#decideInstruction(registers, access);
      case Fetch.ADDED:
        // What faulted may have been other bytes than those that are guarded now.
        return this.#retry(registers);
      case Fetch.CHANGING:
        return this.#retry(registers);
      case Fetch.OTHER_MODE:
        return this.#decideHardware(registers);
      default:
        // The processor will fault on it by itself, unless it runs on a translation that the tables do not have any more.
        return (access & Access.EXECUTE) !== 0 ? this.#decideHardware(registers) : this.#retry(registers);
    }
  }

  /** Enters the guest again at the same instruction; not for ever. */
  #retry(registers: Uint32Array): Verdict {
    const state = this.#vcpus[this.#index]!;
    if (state.retryLow === registers[RIP] && state.retryHigh === registers[RIP + 1]) {
      if (++state.retries > MAX_RETRIES) {
        state.retries = 0;
        this.#context.report('retry-limit', `an exit repeated ${MAX_RETRIES} times at the same instruction`);
        this.#instruction = undefined;
        this.#impatient = true;
        const verdict = this.#decideHardware(registers);
        this.#impatient = false;
        return verdict;
      }
    } else {
      state.retryLow = registers[RIP]!;
      state.retryHigh = registers[RIP + 1]!;
      state.retries = 1;
    }
    return Verdict.RETRY;
  }

  #noteReexecution(registers: Uint32Array, access: Access): void {
    const state = this.#vcpus[this.#index]!;
    if (!state.executed) {
      return;
    }
    const same = state.executedLow === registers[RIP] && state.executedHigh === registers[RIP + 1];
    if (same && (access !== Access.EXECUTE || state.executedGpa !== this.#vcpu.exitGpa)) {
      this.#context.counters.reexecutions++;
    } else {
      state.executed = false;
    }
  }

  /** An access that no instruction explains: only what the hardware reported is asked about. */
  #decideHardware(registers: Uint32Array): Verdict {
    const access = registers[EXIT_ACCESS]!;
    this.#begin();
    this.#askHardware(registers, access);
    this.#repairRights();
    const verdict = this.#conclude(registers, access);
    return verdict === CONFLICT ? this.#retry(registers) : verdict;
  }

  #decideInstruction(registers: Uint32Array, exitAccess: Access): Verdict {
    const instruction = this.#context.cache.instruction!;
    this.#instruction = instruction;
    accessedAddresses(instruction, this.#vcpu, this.#list);
    // Some processors report a read along with a write.
    const access =
      !instruction.readsMemory && (exitAccess & ~Access.READ) !== 0 ? exitAccess & ~Access.READ : exitAccess;
    for (let attempt = 0; attempt < MAX_CONFLICTS; attempt++) {
      this.#begin();
      this.#askInstruction(registers, access);
      const verdict = this.#conclude(registers, access);
      if (verdict !== CONFLICT) {
        this.#repairRights();
        return verdict;
      }
      this.#context.counters.emulationConflicts++;
    }
    return this.#retry(registers);
  }

  #begin(): void {
    this.#verdict = Verdict.ALLOWED;
    this.#emulationWanted = false;
    this.#pageTableTouched = false;
    this.#postponed = false;
    this.#context.plan.reset();
  }

  /** Calls the hooks of everything that the instruction touches. */
  #askInstruction(registers: Uint32Array, access: Access): void {
    const instruction = this.#instruction!;
    const list = this.#list;
    if ((access & Access.EXECUTE) !== 0) {
      this.#operand = NO_OPERAND;
      this.#askRange(registers[RIP]!, registers[RIP + 1]!, instruction.length, Access.EXECUTE);
    }
    let unexplained = access & DATA;
    const exitFrame = frameOfExit(registers);
    for (let operand = 0; operand < list.count; operand++) {
      this.#operand = operand;
      const touched = list.access[operand]!;
      if (this.#askRange(list.low[operand]!, list.high[operand]!, list.size[operand]!, touched, exitFrame)) {
        unexplained &= (touched & unexplained & Access.WRITE) !== 0 ? 0 : ~touched;
      }
    }
    if (unexplained !== 0) {
      // Segment loads read and mark descriptors, XSAVE areas have no fixed size: no operand tells of them.
      this.#operand = NO_OPERAND;
      this.#askHardware(registers, unexplained);
    }
  }

  #askHardware(registers: Uint32Array, access: Access): void {
    const gpa = gpaOfExit(registers);
    const size = Math.min(registers[EXIT_SIZE]! || UNKNOWN_SIZE, PAGE_SIZE - (gpa & OFFSET_MASK));
    this.#operand = NO_OPERAND;
    this.#askPage(registers[EXIT_GLA]!, registers[EXIT_GLA + 1]!, gpa, size, access);
  }

  /**
   * Splits a linear range over its pages and calls the hooks of each. A page that is not mapped is left out: the processor faults on it.
   * @returns whether one of the pages is `exitFrame`
   */
  #askRange(low: number, high: number, size: number, access: Access, exitFrame = NO_FRAME): boolean {
    let onExitFrame = false;
    for (let done = 0; done < size; ) {
      const sum = low + done;
      const atLow = sum >>> 0;
      const atHigh = sum > 0xffff_ffff ? (high + 1) >>> 0 : high;
      const count = Math.min(size - done, PAGE_SIZE - (atLow & (PAGE_SIZE - 1)));
      const gpa = this.resolve(this.#vcpu, atLow, atHigh);
      if (gpa >= 0) {
        onExitFrame ||= Math.floor(gpa / PAGE_SIZE) === exitFrame;
        this.#askPage(atLow, atHigh, gpa, count, access);
      }
      done += count;
    }
    return onExitFrame;
  }

  /**
   * Physical address of a linear one: on the page that faulted the one that the hardware used, on others what the guest's tables say.
   * @returns -1 when it is not mapped
   */
  readonly resolve = (vcpu: VcpuRecord, low: number, high: number): number => {
    const registers = vcpu.u32;
    if (
      registers[EXIT_GLA_VALID] === 1 &&
      registers[EXIT_GLA + 1] === high &&
      (registers[EXIT_GLA]! ^ low) >>> 12 === 0
    ) {
      const page = (registers[EXIT_GPA]! & ~OFFSET_MASK) | (low & OFFSET_MASK);
      return (page >>> 0) + registers[EXIT_GPA + 1]! * 0x1_0000_0000;
    }
    const { translator } = this.#context;
    return translator.walk(registers[CR3]!, registers[CR3 + 1]!, low, high) === Walk.OK ? translator.gpa : -1;
  };

  /** Calls the hooks of one page that an access touches: execute, read, write (behaviour 1.2.5). */
  #askPage(low: number, high: number, gpa: number, size: number, access: Access): void {
    const page = this.#context.hooks.pageOf(Math.floor(gpa / PAGE_SIZE));
    if (page === undefined) {
      return;
    }
    const event = this.#event;
    event.vcpu = this.#vcpu;
    event.vcpuIndex = this.#index;
    event.instruction = this.#instruction;
    event.gpa = gpa as Gpa;
    event.size = size;
    event.glaLow = low;
    event.glaHigh = high;
    const first = gpa & OFFSET_MASK;
    const end = first + size;
    if ((access & Access.EXECUTE) !== 0 && page.executes.length > 0) {
      this.#callAll(page.executes, Access.EXECUTE, first, end);
    }
    if ((access & Access.READ) !== 0 && page.reads.length > 0) {
      this.#callAll(page.reads, Access.READ, first, end);
    }
    if ((access & Access.WRITE) !== 0 && page.writes.length > 0) {
      this.#callAll(page.writes, Access.WRITE, first, end);
    }
  }

  #callAll(hooks: readonly PageHook[], access: Access, first: number, end: number): void {
    const event = this.#event;
    event.access = access;
    for (let at = 0; at < hooks.length; at++) {
      const hook = hooks[at]!;
      if (hook.first >= end || hook.end <= first || hook.removed) {
        continue;
      }
      event.skipOthers = false;
      if (hook.emulateWrites) {
        if (!hook.pagingStructure && this.#context.grants.executesFrom(hook.page.frame, this.#index)) {
          // Another VCPU may yet execute from this code page what was decided about; the write has to wait.
          this.#postponed = true;
          continue;
        }
        this.#prepareStore(hook);
      }
      if (hook.pagingStructure) {
        this.#askEntries(hook, first, end);
      } else {
        this.#call(hook, undefined);
      }
      if (event.skipOthers) {
        return;
      }
    }
  }

  /** Plans the store that touches a hook whose writes the engine makes itself where it can. */
  #prepareStore(hook: PageHook): void {
    const { plan } = this.#context;
    this.#emulationWanted = true;
    this.#pageTableTouched ||= hook.pagingStructure;
    if (this.#instruction === undefined || this.#operand !== this.#instruction.storeOperand) {
      plan.kind = Plan.UNKNOWN;
    } else {
      plan.prepare(this.#instruction, this.#vcpu, this.#list, this.resolve);
    }
  }

  /** Asks a hook about each entry that a store changes on this page. */
  #askEntries(hook: PageHook, first: number, end: number): void {
    const { plan, counters } = this.#context;
    const event = this.#event;
    if (plan.kind !== Plan.EMULATE && plan.kind !== Plan.NATIVE) {
      // Nobody can judge a value that is not known; #conclude blocks it.
      return;
    }
    const page = event.gpa - first;
    const from = Math.max(hook.first, first) & ~7;
    const to = Math.min(hook.end, end);
    for (let entry = from; entry < to; entry += 8) {
      plan.selectEntry(page + entry);
      if (plan.isIrrelevant) {
        counters.irrelevantPageTableWrites++;
      } else {
        this.#call(hook, plan.write);
        if (hook.removed || event.skipOthers) {
          return;
        }
      }
    }
  }

  #call(hook: PageHook, pageTableWrite: PageTableWrite | undefined): void {
    const event = this.#event;
    event.hook = hook;
    event.pageTableWrite = pageTableWrite;
    event.verdict = Verdict.ALLOWED;
    event.removeHook = false;
    this.#context.counters.hookCalls++;
    try {
      hook.callback(event);
    } catch (cause) {
      event.verdict = this.#context.fallback;
      this.#context.report('callback', 'the callback of a page hook threw', cause);
    }
    if (event.removeHook) {
      hook.remove();
    }
    if (event.verdict > this.#verdict) {
      this.#verdict = event.verdict;
    }
  }

  /**
   * Makes the verdict of what the hooks said, and carries out a store that the engine makes itself.
   * @returns CONFLICT when memory changed since the hooks were asked
   */
  #conclude(registers: Uint32Array, access: Access): Verdict | typeof CONFLICT {
    const { plan, counters, grants, cache } = this.#context;
    let verdict = this.#verdict;
    if (this.#postponed && verdict <= Verdict.ALLOWED_PATCHED && !this.#impatient) {
      return this.#retry(registers);
    }
    if (this.#emulationWanted && verdict <= Verdict.ALLOWED_VIRTUAL) {
      switch (plan.kind) {
        case Plan.EMULATE: {
          const frame = Math.floor(plan.gpa / PAGE_SIZE);
          if (grants.writesTo(frame, this.#index)) {
            return this.#retry(registers);
          }
          cache.invalidateFrame(frame);
          try {
            if (!plan.commit(this.#vcpu, this.#index)) {
              return CONFLICT;
            }
          } catch (cause) {
            this.#context.report('backend', 'the backend refused an emulated store', cause);
            return this.#retry(registers);
          }
          counters.emulatedWrites++;
          return Verdict.ALLOWED_VIRTUAL;
        }
        case Plan.FAULT:
          return this.#injectPageFault();
        case Plan.NATIVE:
          verdict = plan.isReplacedNatively ? Verdict.NOT_ALLOWED : this.#allowNatively(registers);
          break;
        default:
          verdict = this.#pageTableTouched ? this.#blockUnknown() : this.#allowNatively(registers);
      }
    }
    if (verdict === Verdict.NOT_ALLOWED) {
      counters.blocked++;
      if (this.#emulationWanted && plan.passDenied(this.#vcpu, this.#index)) {
        return Verdict.ALLOWED_VIRTUAL;
      }
    }
    this.#noteExecution(registers, access, verdict);
    return verdict;
  }

  /** Lets the processor make a store to a guarded page; until its next exit nobody knows when. */
  #allowNatively(registers: Uint32Array): Verdict {
    const { plan, grants, cache } = this.#context;
    const located = plan.kind === Plan.NATIVE;
    const first = located ? Math.floor(plan.gpa / PAGE_SIZE) : frameOfExit(registers);
    const second = located && plan.secondGpa >= 0 ? Math.floor(plan.secondGpa / PAGE_SIZE) : NO_FRAME;
    if (this.#pageTableTouched && (grants.writesTo(first, this.#index) || grants.writesTo(second, this.#index))) {
      return this.#retry(registers);
    }
    grants.begin(this.#index, cache.frame, cache.spillFrame, first, second);
    return Verdict.ALLOWED;
  }

  #blockUnknown(): Verdict {
    const text = this.#instruction?.text ?? 'the processor';
    this.#context.report('unknown-page-table-write', `blocked a page-table write of unknown value by ${text}`);
    return Verdict.NOT_ALLOWED;
  }

  /** Gives the guest the page fault that keeps its instruction from happening. */
  #injectPageFault(): Verdict {
    const { plan, port } = this.#context;
    const error =
      (plan.faultPresent ? FAULT_PRESENT : 0) |
      (plan.faultWrite ? FAULT_WRITE : 0) |
      (this.#vcpu.cpl === 3 ? FAULT_USER : 0);
    try {
      port.inject(this.#index, PAGE_FAULT, error, (BigInt(plan.faultHigh) << 32n) | BigInt(plan.faultLow));
    } catch (cause) {
      this.#context.report('backend', 'the backend refused a page fault for the guest', cause);
    }
    return this.#retry(this.#vcpu.u32);
  }

  #noteExecution(registers: Uint32Array, access: Access, verdict: Verdict): void {
    const state = this.#vcpus[this.#index]!;
    state.retries = 0;
    if (verdict === Verdict.ALLOWED && !this.#emulationWanted) {
      const { grants, cache } = this.#context;
      grants.begin(this.#index, cache.frame, cache.spillFrame, NO_FRAME, NO_FRAME);
    }
    if (verdict === Verdict.ALLOWED && (access & Access.EXECUTE) !== 0) {
      state.executed = true;
      state.executedLow = registers[RIP]!;
      state.executedHigh = registers[RIP + 1]!;
      state.executedGpa = this.#vcpu.exitGpa;
    }
  }

  /** An exit on a frame that nothing restricts: the processor used stale rights, so they are set anew (behaviour 1.2.5). */
  #repairRights(): void {
    const { rights, counters } = this.#context;
    const frame = frameOfExit(this.#vcpu.u32);
    if (!rights.isRestricted(frame)) {
      counters.rightsRepairs++;
      rights.repair(frame as Gfn);
    }
  }

  #oldBytes(event: AccessEvent): Uint8Array {
    const bytes = new Uint8Array(event.size);
    return this.#context.memory.readPhysical(event.gpa, bytes) ? bytes : new Uint8Array(0);
  }

  #newBytes(event: AccessEvent): Uint8Array | undefined {
    const instruction = this.#instruction;
    if (event.access !== Access.WRITE || instruction === undefined || this.#operand !== instruction.storeOperand) {
      return undefined;
    }
    const { plan } = this.#context;
    plan.prepare(instruction, this.#vcpu, this.#list, this.resolve);
    return plan.newBytes(event.gpa, event.size);
  }
}

function gpaOfExit(registers: Uint32Array): number {
  return registers[EXIT_GPA]! + registers[EXIT_GPA + 1]! * 0x1_0000_0000;
}

function frameOfExit(registers: Uint32Array): number {
  return (registers[EXIT_GPA]! >>> 12) + registers[EXIT_GPA + 1]! * 0x10_0000;
}
