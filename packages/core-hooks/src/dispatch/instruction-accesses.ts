import { Access, PAGE_SIZE, u32Index, type VcpuRecord } from '@introd/abi';
import { AccessList, accessedAddresses, type DecodedInstruction, type OperandContext } from '@introd/x86';
import type { PageHook } from '../page-hooks/page-hooks.js';
import { Walk } from '../translation/translator.js';
import type { EptContext } from './ept-context.js';
import { NO_FRAME } from './grants.js';

const CR3 = u32Index('cr3');
const RCX = u32Index('rcx');
const RFLAGS = u32Index('rflags');
const DIRECTION_FLAG = 0x400;
const EXIT_GPA = u32Index('exitGpa');
const EXIT_GLA = u32Index('exitGla');
const EXIT_GLA_VALID = u32Index('exitGlaValid');
/** Offset in a page. On an address above 2^32 the bit operation still sees its low bits; `%` would divide doubles. */
const OFFSET_MASK = PAGE_SIZE - 1;
const FRAMES_IN_4_GIB = 2 ** 32 / PAGE_SIZE;

/**
 * What the instruction of one exit touches, and where that is in physical memory: on the page that faulted where the hardware went, on others
 * where the guest's tables lead. Nobody is asked. Made once and used for every exit.
 */
export class InstructionAccesses {
  readonly #context: EptContext;
  readonly #operandContext: OperandContext;
  /** Every address that the instruction touches. */
  readonly addresses = new AccessList();
  /** Frame of the access that the hardware reported. */
  exitFrame = 0;
  #vcpu!: VcpuRecord;
  /** Whether the exit is an EPT violation. */
  #violation = true;

  constructor(context: EptContext) {
    this.#context = context;
    this.#operandContext = { xsave: context.vectors };
  }

  /**
   * Turns to the exit of a VCPU.
   * @param violation whether it is an EPT violation, whose record tells an address that the hardware used
   */
  open(vcpu: VcpuRecord, violation: boolean): void {
    this.#vcpu = vcpu;
    this.#violation = violation;
    const registers = vcpu.u32;
    this.exitFrame = (registers[EXIT_GPA]! >>> 12) + registers[EXIT_GPA + 1]! * FRAMES_IN_4_GIB;
  }

  /** Makes a list of every address that an instruction touches. */
  list(instruction: DecodedInstruction): void {
    accessedAddresses(instruction, this.#vcpu, this.addresses, this.#operandContext);
  }

  /**
   * Whether a write of the instruction runs over the end of its page into one that it cannot write to: not mapped, or not for user code. The
   * page fault is in the plan (behaviour 1.2.7).
   */
  meetsPageFault(): boolean {
    const list = this.addresses;
    for (let operand = 0; operand < list.count; operand++) {
      const offset = list.low[operand]! & OFFSET_MASK;
      if ((list.access[operand]! & Access.WRITE) === 0 || offset + list.size[operand]! <= PAGE_SIZE) {
        continue;
      }
      const low = (list.low[operand]! - offset + PAGE_SIZE) >>> 0;
      const high = low === 0 ? (list.high[operand]! + 1) >>> 0 : list.high[operand]!;
      if (this.#isExitPage(low, high)) {
        continue;
      }
      const { translator, plan } = this.#context;
      const registers = this.#vcpu.u32;
      const status = translator.walk(registers[CR3]!, registers[CR3 + 1]!, low, high);
      const forbidden = this.#vcpu.cpl === 3 && !(translator.user && translator.writable);
      if (status === Walk.NO_MEMORY || (status === Walk.OK && !forbidden)) {
        continue;
      }
      plan.fault(low, high, true, status === Walk.OK);
      return true;
    }
    return false;
  }

  /** Whether a page of an operand that is read is not mapped. The page fault is in the plan. */
  missesPageOf(operand: number): boolean {
    const list = this.addresses;
    const { translator, plan } = this.#context;
    const registers = this.#vcpu.u32;
    for (let done = 0; done < list.size[operand]!; ) {
      const sum = list.low[operand]! + done;
      const low = sum >>> 0;
      const high = sum > 0xffff_ffff ? (list.high[operand]! + 1) >>> 0 : list.high[operand]!;
      const status = translator.walk(registers[CR3]!, registers[CR3 + 1]!, low, high);
      if (status === Walk.NOT_PRESENT || status === Walk.NO_MAPPING) {
        plan.fault(low, high, false, false);
        return true;
      }
      done += PAGE_SIZE - (low & OFFSET_MASK);
    }
    return false;
  }

  /**
   * Whether a repeated string instruction would meet a hook before it leaves the pages of its current element, two when that one crosses;
   * a reply lets it do as much when not every element exits.
   */
  nearsHook(): boolean {
    const list = this.addresses;
    const registers = this.#vcpu.u32;
    const counter = registers[RCX + 1] === 0 ? registers[RCX]! : PAGE_SIZE;
    const downwards = (registers[RFLAGS]! & DIRECTION_FLAG) !== 0;
    for (let operand = 0; operand < list.count; operand++) {
      const size = list.size[operand]!;
      const low = list.low[operand]!;
      const high = list.high[operand]!;
      const access = list.access[operand]!;
      const offset = low & OFFSET_MASK;
      const length = Math.min(size * counter, PAGE_SIZE);
      const first = downwards ? Math.max(offset + size - length, 0) : offset;
      const end = downwards ? offset + size : offset + length;
      if (this.#meetsHook(low, high, access, first, end)) {
        return true;
      }
      if (offset + size > PAGE_SIZE) {
        const next = (low - offset + PAGE_SIZE) >>> 0;
        const nextHigh = next === 0 ? (high + 1) >>> 0 : high;
        if (this.#meetsHook(next, nextHigh, access, 0, end - PAGE_SIZE)) {
          return true;
        }
      }
    }
    return false;
  }

  /** Whether some hook on an access lies between two offsets of the page of an address. */
  #meetsHook(low: number, high: number, access: Access, first: number, end: number): boolean {
    const frame = this.frameOf(low | 0, high | 0);
    const page = frame === NO_FRAME ? undefined : this.#context.hooks.pageOf(frame);
    return (
      page !== undefined &&
      (((access & Access.READ) !== 0 && overlapsAny(page.reads, first, end)) ||
        ((access & Access.WRITE) !== 0 && overlapsAny(page.writes, first, end)))
    );
  }

  /** Reads what the guest shall see in an operand. @returns false when some of it is not mapped */
  readOperand(operand: number, target: Uint8Array): boolean {
    const list = this.addresses;
    if (operand >= list.count) {
      return false;
    }
    for (let done = 0; done < target.length; ) {
      const sum = list.low[operand]! + done;
      const low = sum >>> 0;
      const gpa = this.resolve(
        this.#vcpu,
        low,
        sum > 0xffff_ffff ? (list.high[operand]! + 1) >>> 0 : list.high[operand]!,
      );
      const offset = low & OFFSET_MASK;
      const count = Math.min(target.length - done, PAGE_SIZE - offset);
      const page = gpa < 0 ? undefined : this.#context.pages.get(Math.floor(gpa / PAGE_SIZE));
      if (page === undefined) {
        return false;
      }
      target.set(page.bytes.subarray(offset, offset + count), done);
      this.#context.overlay.apply(gpa, target, done, count);
      done += count;
    }
    return true;
  }

  /** Whether a linear address is on the page of the access that the hardware reported. */
  #isExitPage(low: number, high: number): boolean {
    const registers = this.#vcpu.u32;
    return (
      this.#violation &&
      registers[EXIT_GLA_VALID] === 1 &&
      (registers[EXIT_GLA]! ^ low) >>> 12 === 0 &&
      ((registers[EXIT_GLA + 1]! ^ high) | 0) === 0
    );
  }

  /**
   * Frame of a linear address: on the page that faulted the one that the hardware used, on others what the guest's tables say.
   * @returns {@link NO_FRAME} when it is not mapped
   */
  frameOf(low: number, high: number): number {
    if (this.#isExitPage(low, high)) {
      return this.exitFrame;
    }
    const registers = this.#vcpu.u32;
    const { translator } = this.#context;
    const status = translator.walk(registers[CR3]! | 0, registers[CR3 + 1]! | 0, low, high);
    return status === Walk.OK ? Math.floor(translator.gpa / PAGE_SIZE) : NO_FRAME;
  }

  /** Physical address of a linear one of the VCPU at hand, as {@link frameOf} finds it; -1 when it is not mapped. */
  readonly resolve = (_vcpu: VcpuRecord, low: number, high: number): number => {
    const frame = this.frameOf(low | 0, high | 0);
    return frame === NO_FRAME ? -1 : frame * PAGE_SIZE + (low & OFFSET_MASK);
  };
}

function overlapsAny(hooks: readonly PageHook[], first: number, end: number): boolean {
  for (const hook of hooks) {
    if (hook.first < end && first < hook.end && !hook.removed) {
      return true;
    }
  }
  return false;
}
