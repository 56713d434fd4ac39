import { DescriptorTable, u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import { RegisterGroup } from '@introd/glue';
import type { DecodedInstruction } from '@introd/x86';
import { Fetch } from '../instruction-cache/instruction-cache.js';
import type { DescriptorTableEvent, DescriptorTableHooks } from '../register-hooks/descriptor-table-hooks.js';
import type { EptContext } from './ept-context.js';
import { type ExitConclusion, Undecided } from './exit-conclusion.js';
import type { HookInquiry } from './hook-inquiry.js';
import { storeRegisters } from './store-registers.js';

const EXIT_REGISTER = u32Index('exitRegister');
const CR4 = u32Index('cr4');
const LA57 = 0x1000;

/** Bytes of the operand of LIDT and LGDT: a limit of 2 and a base of 8 in 64-bit code, of 4 elsewhere (SDM vol. 2A, LGDT). */
const OPERAND_64 = 10;
const OPERAND_32 = 6;
/** With an operand size of 16 bits the base has 24. */
const BASE_24 = 0xff_ffffn;
const OPERAND_SIZE_PREFIX = 0x66;

/**
 * Answers exits of the eight descriptor table instructions (behaviour 1.2.8). A hypervisor that emulates them goes past the second-level
 * rights, so the page hooks are asked about the operand here; then, for LIDT and LGDT, the hooks of the registers.
 */
export class DescriptorTableDispatcher {
  readonly #context: EptContext;
  readonly #inquiry: HookInquiry;
  readonly #conclusion: ExitConclusion;
  readonly #operand = new Uint8Array(OPERAND_64);
  readonly #view = new DataView(this.#operand.buffer);

  constructor(context: EptContext, inquiry: HookInquiry, conclusion: ExitConclusion) {
    this.#context = context;
    this.#inquiry = inquiry;
    this.#conclusion = conclusion;
  }

  decide(vcpu: VcpuRecord, index: number, hooks: DescriptorTableHooks): Verdict | typeof Undecided.AGAIN {
    const { cache, outcome } = this.#context;
    const inquiry = this.#inquiry;
    switch (cache.fetch(vcpu, index, this.#context.addressSpaces)) {
      case Fetch.HIT:
      case Fetch.UNGUARDED:
        break;
      case Fetch.ADDED:
        outcome.reason = 'retry-not-cached';
        return Undecided.AGAIN;
      default:
        outcome.reason = 'retry-fetch';
        return Undecided.AGAIN;
    }
    const instruction = cache.instruction!;
    const flags = vcpu.u32[EXIT_REGISTER]!;
    if (!isTableInstruction(instruction)) {
      outcome.reason = 'retry-fetch';
      return Undecided.AGAIN;
    }
    if (instruction.memory.length === 0) {
      return Verdict.ALLOWED;
    }
    inquiry.list(instruction);
    if (inquiry.accesses.meetsPageFault()) {
      this.#conclusion.injectPageFault();
      return Undecided.AGAIN;
    }
    inquiry.askInstruction(0);
    if (inquiry.verdict > Verdict.ALLOWED_PATCHED) {
      return inquiry.verdict;
    }
    if (inquiry.pageTableTouched) {
      // A hypervisor that emulates the instruction would write the entry without a further exit.
      return this.#conclusion.blockUnknown();
    }
    const loads =
      flags === (DescriptorTable.IDTR | DescriptorTable.WRITE) ||
      flags === (DescriptorTable.GDTR | DescriptorTable.WRITE);
    return loads && vcpu.cpl === 0 ? this.#askLoad(vcpu, index, flags, instruction, hooks) : Verdict.ALLOWED;
  }

  #askLoad(
    vcpu: VcpuRecord,
    index: number,
    flags: number,
    instruction: DecodedInstruction,
    hooks: DescriptorTableHooks,
  ): Verdict | typeof Undecided.AGAIN {
    const wide = instruction.bitness === 64;
    const bytes = this.#operand.subarray(0, wide ? OPERAND_64 : OPERAND_32);
    if (!this.#inquiry.accesses.readOperand(0, bytes)) {
      this.#context.outcome.reason = 'retry-fetch';
      if (this.#inquiry.accesses.missesPageOf(0)) {
        this.#conclusion.injectPageFault();
      }
      return Undecided.AGAIN;
    }
    const interrupts = (flags & DescriptorTable.IDTR) !== 0;
    const { event } = hooks;
    event.vcpu = vcpu;
    event.vcpuIndex = index;
    event.flags = flags;
    event.oldBase = vcpu.get(interrupts ? 'idtBase' : 'gdtBase');
    event.oldLimit = vcpu.get32(interrupts ? 'idtLimit' : 'gdtLimit');
    event.newLimit = this.#view.getUint16(0, true);
    event.newBase = wide ? this.#view.getBigUint64(2, true) : BigInt(this.#view.getUint32(2, true));
    if (!wide && hasOperandSize16(instruction)) {
      event.newBase &= BASE_24;
    }
    const same = event.newBase === event.oldBase && event.newLimit === event.oldLimit;
    if (same || (event.oldBase === 0n && event.newBase !== 0n)) {
      return Verdict.ALLOWED;
    }
    const verdict = hooks.dispatch();
    return verdict === Verdict.ALLOWED ? this.#load(vcpu, index, interrupts, event) : verdict;
  }

  /** Loads the register as it was decided about: the processor would read the operand again, which may hold something else by then. */
  #load(vcpu: VcpuRecord, index: number, interrupts: boolean, event: DescriptorTableEvent): Verdict {
    if (!isCanonical(event.newBase, vcpu)) {
      // The processor faults on it.
      return Verdict.ALLOWED;
    }
    vcpu.set(interrupts ? 'idtBase' : 'gdtBase', event.newBase);
    vcpu.set32(interrupts ? 'idtLimit' : 'gdtLimit', event.newLimit);
    storeRegisters(this.#context, index, RegisterGroup.SEGMENTS);
    this.#context.outcome.reason = 'emulated';
    return Verdict.NOT_ALLOWED;
  }
}

/** Offset of the opcode behind prefixes. */
function opcodeAt({ bytes, bitness }: DecodedInstruction): number {
  const opcode = bytes.findIndex((byte) => !isPrefix(byte) && !(bitness === 64 && (byte & 0xf0) === 0x40));
  return Math.max(opcode, 0);
}

function isPrefix(byte: number): boolean {
  return (byte & 0xe7) === 0x26 || (byte >= 0x64 && byte <= 0x67) || byte === 0xf0 || byte === 0xf2 || byte === 0xf3;
}

/** 0F 00 /0 to /3 (SLDT, STR, LLDT, LTR) and 0F 01 /0 to /3 (SGDT, SIDT, LGDT, LIDT). */
function isTableInstruction(instruction: DecodedInstruction): boolean {
  const { bytes } = instruction;
  const at = opcodeAt(instruction);
  return bytes[at] === 0x0f && (bytes[at + 1]! & 0xfe) === 0 && (bytes[at + 2]! & 0x38) <= 0x18;
}

function hasOperandSize16(instruction: DecodedInstruction): boolean {
  const prefixed = instruction.bytes.subarray(0, opcodeAt(instruction)).includes(OPERAND_SIZE_PREFIX);
  return prefixed !== (instruction.bitness === 16);
}

/** Whether an address is sign-extended from 48 bits, or from 57 with CR4.LA57. */
function isCanonical(address: bigint, vcpu: VcpuRecord): boolean {
  const bits = (vcpu.u32[CR4]! & LA57) !== 0 ? 57 : 48;
  return BigInt.asUintN(64, BigInt.asIntN(bits, address)) === address;
}
