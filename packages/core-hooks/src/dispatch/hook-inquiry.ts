import { Access, type Gpa, PAGE_SIZE, strongerVerdict, u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import { RegisterGroup } from '@introd/glue';
import { type DecodedInstruction, OperandKind } from '@introd/x86';
import { requireVerdict } from '../callback.js';
import type { HookedPage, PageHook } from '../page-hooks/page-hooks.js';
import { AccessEvent } from './access-event.js';
import { CommitList } from './commit-list.js';
import type { EptContext } from './ept-context.js';
import { NO_FRAME } from './grants.js';
import { InstructionAccesses } from './instruction-accesses.js';
import { mapsTheSame } from './page-table-entry.js';
import type { PageTableWrite } from './page-table-write.js';
import { ReadSupply, Supply } from './read-supply.js';
import { Plan } from './store-plan.js';
import { compareStrings, isStringCompare } from './string-compare.js';

const EXIT_SIZE = u32Index('exitSize');
const EXIT_GPA = u32Index('exitGpa');
const EXIT_GLA = u32Index('exitGla');
const DATA = Access.READ | Access.WRITE;
/** Offset in a page. On an address above 2^32 the bit operation still sees its low bits; `%` would divide doubles. */
const OFFSET_MASK = PAGE_SIZE - 1;

/** Operand number of an access that the processor made without an operand of the instruction. */
const NO_OPERAND = -1;
/** Base and limit of what the processor reads by itself: IDT, GDT, LDT, TSS. */
const STRUCTURES = (['idt', 'gdt', 'ldtr', 'tr'] as const).map(
  (name) => [u32Index(`${name}Base`), u32Index(`${name}Limit`)] as const,
);
/** Last byte of a descriptor table with the highest limit (SDM vol. 3A, 3.5.1). */
const MAX_TABLE_LIMIT = 0xffff;
/** Bytes asked about when a backend does not say how many the processor touched: one descriptor, one stack slot. */
const UNKNOWN_SIZE = 8;

/**
 * Asks the hooks about what one exit touches: every address of the instruction, page by page, and the hooks whose range each of them meets.
 * What they said is in the properties. Made once and used for every exit.
 *
 * Nothing is allocated on the way. V8 boxes a number beyond 32 signed bits when it is passed to a function or returned, so halves
 * of addresses are passed signed, pages as frame numbers, and what may be larger (a physical address) lies in a property.
 */
export class HookInquiry {
  readonly #context: EptContext;
  readonly #supply: ReadSupply;
  readonly #event: AccessEvent;
  readonly #commits: CommitList;
  /** Operand whose hooks are being called. */
  #operand = NO_OPERAND;

  vcpu!: VcpuRecord;
  index = 0;
  /** Its hooks, by which it is restricted. */
  exitPage: HookedPage | undefined;
  /** What the instruction touches, and where that is. */
  readonly accesses: InstructionAccesses;
  /** The instruction at RIP; undefined when only what the hardware reported is asked about. */
  instruction: DecodedInstruction | undefined;
  /** The strongest verdict so far. */
  verdict: Verdict = Verdict.ALLOWED;
  /** Whether a hook was touched whose stores the engine carries out itself where it can. */
  emulationWanted = false;
  /** Whether such a hook holds page-table entries. */
  pageTableTouched = false;
  /** Whether the access has to wait for another VCPU. */
  postponed = false;
  /** Whether hidden bytes may be read as a descriptor or a TSS, which no reply can change. */
  #structureHidden = false;

  constructor(context: EptContext) {
    this.#context = context;
    this.accesses = new InstructionAccesses(context);
    this.#event = new AccessEvent({
      oldBytes: (event) => this.#oldBytes(event),
      newBytes: (event) => this.#newBytes(event),
      overlay: (event, gpa, bytes) => this.#overlay(event, gpa, bytes),
    });
    this.#commits = new CommitList(context);
    this.#supply = new ReadSupply(context.pages, context.overlay);
  }

  /**
   * Turns to the exit of a VCPU.
   * @param violation whether it is an EPT violation, whose record tells an address that the hardware used
   */
  open(vcpu: VcpuRecord, index: number, violation = true): void {
    this.vcpu = vcpu;
    this.index = index;
    this.accesses.open(vcpu, violation);
    this.exitPage = undefined;
    this.#context.vectors.open(vcpu);
    this.instruction = undefined;
    this.reset();
  }

  /** Forgets what the hooks said, and the store that was planned for them. */
  reset(): void {
    this.verdict = Verdict.ALLOWED;
    this.emulationWanted = false;
    this.pageTableTouched = false;
    this.postponed = false;
    this.#structureHidden = false;
    this.#commits.clear();
    this.#context.plan.reset();
    this.#context.overlay.reset();
  }

  /** Turns to the instruction at RIP: makes a list of every address that it touches. */
  list(instruction: DecodedInstruction): void {
    this.instruction = instruction;
    this.accesses.list(instruction);
  }

  /** Frame of the access that the hardware reported. */
  get exitFrame(): number {
    return this.accesses.exitFrame;
  }

  /** Tells the hooks that asked for it that what they let through is done, or will be with the reply. */
  tellCommitted(): void {
    this.#commits.tell(this.#event);
  }

  /** Puts what read hooks want the guest to see into the reply. */
  supplyRead(): Supply {
    if (this.#structureHidden) {
      return Supply.IMPOSSIBLE;
    }
    if (this.instruction === undefined) {
      this.accesses.addresses.count = 0;
    }
    return this.#supply.prepare(this.vcpu, this.accesses.addresses, this.exitFrame, this.accesses.resolve);
  }

  /**
   * Makes one element of CMPS happen with what the guest shall see: its two operands may lie too far from each other for one reply.
   * @returns false when it is another instruction, or not for the engine to end
   */
  emulateCompare(): boolean {
    const { instruction } = this;
    if (instruction === undefined || !isStringCompare(instruction)) {
      return false;
    }
    const of = (kind: OperandKind): number => instruction.memory.findIndex((operand) => operand.kind === kind);
    const source = of(OperandKind.STRING_SOURCE);
    const bytes = new Uint8Array(instruction.memory[source]!.size);
    const other = new Uint8Array(bytes.length);
    if (
      !this.accesses.readOperand(source, bytes) ||
      !this.accesses.readOperand(of(OperandKind.STRING_DESTINATION), other) ||
      !compareStrings(instruction, this.vcpu, bytes, other)
    ) {
      return false;
    }
    this.#context.port.storeRegisters(this.index, RegisterGroup.GENERAL);
    return true;
  }

  /**
   * Ends a repeated string instruction whose store was denied where the engine must do that itself: it goes on behind the denied element.
   * @returns false when it is for the processor to pass the instruction
   */
  passDeniedElement(): boolean {
    const { instruction } = this;
    if (instruction === undefined || !instruction.repeated || instruction.storeOperand < 0) {
      return false;
    }
    const { plan } = this.#context;
    plan.prepare(instruction, this.vcpu, this.accesses.addresses, this.accesses.resolve);
    return plan.passDenied(this.vcpu, this.index);
  }

  /** Calls the hooks of everything that the instruction touches. */
  askInstruction(access: Access): void {
    const instruction = this.instruction!;
    const list = this.accesses.addresses;
    const { cache } = this.#context;
    if ((access & Access.EXECUTE) !== 0) {
      this.#operand = NO_OPERAND;
      this.#askRange(cache.linearLow, cache.linearHigh, instruction.length, Access.EXECUTE);
    }
    let unexplained = access & DATA;
    if (list.count > 1 && instruction.readsMemory && instruction.writesMemory) {
      // What is read may be stored: reads come first, so that a store is planned with what the guest shall see there.
      unexplained = this.#askOperands(Access.READ, unexplained);
      unexplained = this.#askOperands(Access.WRITE, unexplained);
    } else {
      unexplained = this.#askOperands(DATA, unexplained);
    }
    if (unexplained !== 0) {
      // Segment loads read and mark descriptors: no operand tells of them.
      this.#operand = NO_OPERAND;
      this.askHardware(unexplained);
    }
    if (instruction.readsDescriptors && (access & Access.READ) !== 0) {
      this.askStructures();
    }
  }

  /** Whether the page walker is about to take hidden bytes for a page-table entry, which would tell what they are. Nobody is asked. */
  walksOverHidden(): boolean {
    const first = this.vcpu.u32[EXIT_GPA]! & OFFSET_MASK;
    const end = first + (this.vcpu.u32[EXIT_SIZE]! || UNKNOWN_SIZE);
    const reads = this.#pageOf(this.exitFrame)?.reads ?? [];
    return reads.some((hook) => hook.hides && !hook.removed && hook.first < end && first < hook.end);
  }

  /**
   * Looks for hidden bytes in the descriptor tables and the TSS, as far as they lie on the page of the exit: once the processor may read that
   * page, it reads those without a further exit. What the hooks say of them besides does not count.
   */
  askStructures(): void {
    const { exitFrame, verdict } = this;
    if ((this.#pageOf(exitFrame)?.reads.length ?? 0) === 0) {
      return;
    }
    const { overlay } = this.#context;
    const registers = this.vcpu.u32;
    this.#operand = NO_OPERAND;
    for (const [base, limit] of STRUCTURES) {
      const end = Math.min(registers[limit]!, MAX_TABLE_LIMIT) + 1;
      for (let done = 0; done < end; ) {
        const sum = registers[base]! + done;
        const low = sum | 0;
        const high = (registers[base + 1]! + (sum > 0xffff_ffff ? 1 : 0)) | 0;
        const offset = low & OFFSET_MASK;
        const size = Math.min(end - done, PAGE_SIZE - offset);
        if (this.accesses.frameOf(low, high) === exitFrame) {
          this.#askPage(low, high, exitFrame, offset, size, Access.READ);
          this.#structureHidden ||= overlay.touches(exitFrame * PAGE_SIZE + offset, size);
        }
        done += size;
      }
    }
    this.verdict = this.#structureHidden ? strongerVerdict(verdict, Verdict.ALLOWED_PATCHED) : verdict;
  }

  /** Calls the hooks of every operand, as far as it is read or written as `access` says. @returns what of `unexplained` no operand explains */
  #askOperands(access: Access, unexplained: Access): Access {
    const list = this.accesses.addresses;
    let left = unexplained;
    for (let operand = 0; operand < list.count; operand++) {
      const touched = list.access[operand]! & access;
      if (touched === 0) {
        continue;
      }
      this.#operand = operand;
      if (this.#askRange(list.low[operand]! | 0, list.high[operand]! | 0, list.size[operand]!, touched)) {
        left &= (touched & left & Access.WRITE) !== 0 ? 0 : ~touched;
      }
    }
    return left;
  }

  /** Calls the hooks of the access that the hardware reported. */
  askHardware(access: Access): void {
    const registers = this.vcpu.u32;
    const offset = registers[EXIT_GPA]! & OFFSET_MASK;
    const size = Math.min(registers[EXIT_SIZE]! || UNKNOWN_SIZE, PAGE_SIZE - offset);
    this.#operand = NO_OPERAND;
    this.#askPage(registers[EXIT_GLA]! | 0, registers[EXIT_GLA + 1]! | 0, this.exitFrame, offset, size, access);
  }

  /**
   * Splits a linear range over its pages and calls the hooks of each. A page that is not mapped is left out: the processor faults on it.
   * @param low signed, as `high`
   * @returns whether one of the pages is that of the access that the hardware reported
   */
  #askRange(low: number, high: number, size: number, access: Access): boolean {
    const { exitFrame } = this;
    let onExitFrame = false;
    for (let done = 0; done < size; ) {
      const atLow = (low + done) | 0;
      const atHigh = atLow >>> 0 < low >>> 0 ? (high + 1) | 0 : high;
      const offset = atLow & OFFSET_MASK;
      const count = Math.min(size - done, PAGE_SIZE - offset);
      const frame = this.accesses.frameOf(atLow, atHigh);
      if (frame !== NO_FRAME) {
        onExitFrame ||= frame === exitFrame;
        this.#askPage(atLow, atHigh, frame, offset, count, access);
      }
      done += count;
    }
    return onExitFrame;
  }

  /** Hooks of a frame. */
  #pageOf(frame: number): HookedPage | undefined {
    const { hooks } = this.#context;
    if (frame !== this.exitFrame) {
      return hooks.pageOf(frame);
    }
    this.exitPage ??= hooks.pageOf(frame);
    return this.exitPage;
  }

  /** Calls the hooks of one page that an access touches: execute, read, write (behaviour 1.2.5). */
  #askPage(low: number, high: number, frame: number, first: number, size: number, access: Access): void {
    const page = this.#pageOf(frame);
    if (page === undefined) {
      return;
    }
    const event = this.#event;
    event.vcpu = this.vcpu;
    event.vcpuIndex = this.index;
    event.instruction = this.instruction;
    event.gpa = (frame * PAGE_SIZE + first) as Gpa;
    event.size = size;
    event.glaLow = low >>> 0;
    event.glaHigh = high >>> 0;
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
    let usersOver = false;
    for (let at = 0; at < hooks.length; at++) {
      const hook = hooks[at]!;
      if (hook.first >= end || hook.end <= first || hook.removed || (usersOver && !hook.isGuard)) {
        continue;
      }
      if (hook.concerns !== undefined && !hook.concerns(first, end)) {
        continue;
      }
      event.skipOthers = false;
      if (hook.emulateWrites) {
        if (!hook.pagingStructure && this.#context.grants.executesFrom(hook.page.frame, this.index)) {
          // Another VCPU may yet execute from this code page what was decided about; the write has to wait.
          this.postponed = true;
          continue;
        }
        this.#prepareStore(hook);
      }
      if (hook.pagingStructure) {
        this.#askEntries(hook, first, end);
      } else {
        this.#call(hook, undefined);
      }
      usersOver ||= event.skipOthers;
    }
  }

  /** Plans the store that touches a hook whose writes the engine makes itself where it can. */
  #prepareStore(hook: PageHook): void {
    const { plan } = this.#context;
    this.emulationWanted = true;
    this.pageTableTouched ||= hook.pagingStructure;
    if (this.instruction === undefined || this.#operand !== this.instruction.storeOperand) {
      plan.kind = Plan.UNKNOWN;
    } else {
      plan.prepare(this.instruction, this.vcpu, this.accesses.addresses, this.accesses.resolve);
    }
  }

  /** Asks a hook about each entry that a store changes on this page. */
  #askEntries(hook: PageHook, first: number, end: number): void {
    const { plan, counters } = this.#context;
    const event = this.#event;
    if (plan.kind !== Plan.EMULATE && plan.kind !== Plan.NATIVE) {
      // Nobody can judge a value that is not known; the conclusion blocks it.
      return;
    }
    const page = event.gpa - first;
    const { entrySize } = hook;
    const from = Math.max(hook.first, first) & -entrySize;
    const to = Math.min(hook.end, end);
    for (let entry = from; entry < to; entry += entrySize) {
      const write = plan.view(page + entry, entrySize);
      if (mapsTheSame(write)) {
        counters.irrelevantPageTableWrites++;
        this.#context.outcome.reason = 'irrelevant-page-table-write';
      } else {
        this.#call(hook, write);
        plan.takeReplacement(write);
        if (hook.removed) {
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
    event.forceVerdict = false;
    if (!hook.isGuard) {
      this.#context.counters.hookCalls++;
    }
    try {
      hook.callback(event);
      requireVerdict(event.verdict);
    } catch (cause) {
      event.verdict = this.#context.fallback;
      this.#context.report('callback', 'the callback of a page hook failed', cause);
    }
    if (event.forceVerdict) {
      this.#context.counters.forcedVerdicts++;
    }
    if (event.removeHook) {
      hook.removeChain();
    }
    if (hook.committed !== undefined) {
      this.#commits.note(event);
    }
    if (event.verdict > this.verdict) {
      this.verdict = event.verdict;
    }
  }

  #overlay(event: AccessEvent, gpa: number, bytes: Uint8Array): boolean {
    if (event.access !== Access.READ || !this.#context.overlay.add(gpa, bytes, event.gpa, event.size)) {
      return false;
    }
    if (event.verdict < Verdict.ALLOWED_PATCHED) {
      event.verdict = Verdict.ALLOWED_PATCHED;
    }
    return true;
  }

  #oldBytes(event: AccessEvent): Uint8Array {
    const bytes = new Uint8Array(event.size);
    return this.#context.memory.readPhysical(event.gpa, bytes) ? bytes : new Uint8Array(0);
  }

  #newBytes(event: AccessEvent): Uint8Array | undefined {
    const instruction = this.instruction;
    if (event.access !== Access.WRITE || instruction === undefined || this.#operand !== instruction.storeOperand) {
      return undefined;
    }
    const { plan } = this.#context;
    try {
      plan.prepare(instruction, this.vcpu, this.accesses.addresses, this.accesses.resolve);
    } catch (cause) {
      // A value that cannot be told is no failure of the callback that asks for it.
      this.#context.report('backend', 'the memory of a store could not be read', cause);
      return undefined;
    }
    return plan.newBytes(event.gpa, event.size);
  }
}
