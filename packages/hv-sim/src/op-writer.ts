import { VCPU_RECORD, XSAVE_AREA, XSAVE_HEADER_END } from '@introd/abi';
import { Instruction, MemorySize, MemorySizeExt, Mnemonic, OpKind, Register } from '@introd/x86/decoder';
import { opCode } from './op-codes.js';
import { OP_RECORD, OpFlag } from './op-layout.js';
import { VCPU_SIDE } from './vcpu-block.js';

const ZERO = VCPU_RECORD.size + VCPU_SIDE.offset.zero;
const XMM = VCPU_RECORD.size + VCPU_SIDE.offset.xsave + XSAVE_AREA.offset.xmm;
const AT = OP_RECORD.offset;

/** Byte offset in the VCPU block of each register, by the number of the decoder's `Register`; 0 where there is none. */
const registerOffsets: Uint16Array = (() => {
  const offsets = new Uint16Array(512);
  for (let number = 0; number < 16; number++) {
    const general = VCPU_RECORD.offset.rax + number * 8;
    for (const first of [Register.AX, Register.EAX, Register.RAX]) offsets[first + number] = general;
    offsets[Register.XMM0 + number] = XMM + number * 16;
  }
  // The byte registers are AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L...
  for (let number = 0; number < 4; number++) {
    offsets[Register.AL + number] = VCPU_RECORD.offset.rax + number * 8;
    offsets[Register.AH + number] = VCPU_RECORD.offset.rax + number * 8 + 1;
  }
  for (let number = 4; number < 16; number++) {
    offsets[Register.SPL + number - 4] = VCPU_RECORD.offset.rax + number * 8;
  }
  const selectors = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const;
  selectors.forEach((name, number) => {
    offsets[Register.ES + number] = VCPU_RECORD.offset[`${name}Selector`];
  });
  offsets[Register.RIP] = VCPU_RECORD.offset.rip;
  offsets[Register.EIP] = VCPU_RECORD.offset.rip;
  return offsets;
})();

/** Instructions that read their first operand, or do not touch it; the first operand of all others is written. */
const readsFirstOperand: ReadonlySet<Mnemonic> = new Set([
  Mnemonic.Bt,
  Mnemonic.Call,
  Mnemonic.Clflush,
  Mnemonic.Clflushopt,
  Mnemonic.Clwb,
  Mnemonic.Cmp,
  Mnemonic.Div,
  Mnemonic.Fldcw,
  Mnemonic.Fxrstor,
  Mnemonic.Idiv,
  Mnemonic.Imul,
  Mnemonic.Invlpg,
  Mnemonic.Jmp,
  Mnemonic.Ldmxcsr,
  Mnemonic.Lgdt,
  Mnemonic.Lidt,
  Mnemonic.Lldt,
  Mnemonic.Lmsw,
  Mnemonic.Ltr,
  Mnemonic.Mul,
  Mnemonic.Push,
  Mnemonic.Test,
  Mnemonic.Verr,
  Mnemonic.Verw,
  Mnemonic.Xlatb,
  Mnemonic.Xrstor,
  Mnemonic.Xrstors,
]);

function isRegister32(register: Register): boolean {
  return (register >= Register.EAX && register <= Register.R15D) || register === Register.EIP;
}

/** Writes the fields of one op record from the operands of the instruction at hand. */
export class OpWriter {
  /** The instruction that is being translated. */
  readonly instruction = new Instruction();
  /** Whether the instruction is one of 16- or 32-bit code, where every operand goes through its segment. */
  segmented = false;
  /** Whether it is one of 32-bit code whose segment has all of 4 GiB, so that no near branch leaves it. */
  flat = false;
  /** Whether translation must end after this instruction: control does not reach the next one. */
  ends = false;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  #flags = 0;

  /** @param memory the linear memory that holds the records */
  constructor(memory: ArrayBufferLike) {
    this.#bytes = new Uint8Array(memory);
    this.#view = new DataView(memory);
  }

  /** Starts the record at `at`. */
  begin(at: number, length: number, pageOffset: number, flags: number): void {
    this.#bytes.fill(0, at, at + OP_RECORD.size);
    this.#at = at;
    this.#flags = this.segmented ? flags | OpFlag.SEGMENTED : flags;
    this.ends = false;
    this.#view.setUint8(at + AT.length, length);
    this.#view.setUint16(at + AT.pageOffset, pageOffset, true);
    this.#view.setUint16(at + AT.base, ZERO, true);
    this.#view.setUint16(at + AT.index, ZERO, true);
    this.#view.setUint16(at + AT.segment, ZERO, true);
    this.#view.setUint16(at + AT.flags, this.#flags, true);
  }

  /** Sets the link of the record at `at` to the one at `next`. */
  link(at: number, next: number): void {
    this.#view.setUint32(at + AT.next, next, true);
  }

  code(code: number): void {
    this.#view.setUint16(this.#at + AT.code, code, true);
  }

  size(size: number): void {
    this.#view.setUint8(this.#at + AT.size, size);
  }

  kind(kind: number): void {
    this.#view.setUint8(this.#at + AT.kind, kind);
  }

  sourceSize(size: number): void {
    this.#view.setUint16(this.#at + AT.sourceSize, size, true);
  }

  /** Adds bits of {@link OpFlag}. */
  flag(flag: number): void {
    this.#flags |= flag;
    this.#view.setUint16(this.#at + AT.flags, this.#flags, true);
  }

  isMemory(operand: number): boolean {
    return this.instruction.opKind(operand) === OpKind.Memory;
  }

  isRegister(operand: number): boolean {
    return this.instruction.opKind(operand) === OpKind.Register;
  }

  /** Operand `operand`, a register, becomes the first operand. */
  destinationRegister(operand: number): void {
    this.#view.setUint16(this.#at + AT.dst, registerOffsets[this.instruction.opRegister(operand)]!, true);
  }

  /** Operand `operand`, a register, becomes the second operand. */
  sourceRegister(operand: number): void {
    this.#view.setUint16(this.#at + AT.src, registerOffsets[this.instruction.opRegister(operand)]!, true);
  }

  /** Operand `operand`, a register, becomes the third operand. */
  thirdRegister(operand: number): void {
    this.#view.setUint16(this.#at + AT.third, registerOffsets[this.instruction.opRegister(operand)]!, true);
  }

  /** Operand `operand`, register or memory, becomes the first operand of a generic operation. */
  destination(operand: number): void {
    if (this.isMemory(operand)) {
      this.memory();
      this.flag(OpFlag.MEMORY_DESTINATION);
    } else {
      this.destinationRegister(operand);
    }
  }

  /** Operand `operand`, register, memory or immediate, becomes the second operand of a generic operation. */
  source(operand: number): void {
    if (this.isMemory(operand)) {
      this.memory();
      this.flag(OpFlag.MEMORY_SOURCE);
    } else if (this.isRegister(operand)) {
      this.sourceRegister(operand);
    } else {
      this.immediate(operand);
      this.flag(OpFlag.IMMEDIATE_SOURCE);
    }
  }

  /** Operand `operand`, an immediate, goes to the record, sign-extended as the instruction says. */
  immediate(operand: number): void {
    this.#view.setBigUint64(this.#at + AT.imm, this.instruction.immediate(operand), true);
  }

  immediateValue(value: number): void {
    this.#view.setBigInt64(this.#at + AT.imm, BigInt(value), true);
  }

  /** The instruction's memory operand. */
  memory(): void {
    const { instruction } = this;
    const view = this.#view;
    const base = instruction.memoryBase;
    const index = instruction.memoryIndex;
    let displacement = instruction.memoryDisplacementU64;
    if (base === Register.RIP || base === Register.EIP) {
      displacement = BigInt.asUintN(64, displacement - instruction.ip);
    }
    if (base !== Register.None) view.setUint16(this.#at + AT.base, registerOffsets[base]!, true);
    if (index !== Register.None) {
      view.setUint16(this.#at + AT.index, registerOffsets[index]!, true);
      view.setUint8(this.#at + AT.scale, 31 - Math.clz32(instruction.memoryIndexScale));
    }
    view.setBigUint64(this.#at + AT.disp, displacement, true);
    const bare = base === Register.None && index === Register.None;
    const narrow = isRegister32(base) || isRegister32(index) || (bare && instruction.memoryDisplSize === 4);
    if (narrow) this.flag(OpFlag.ADDRESS_32);
    else if (this.segmented) this.flag(OpFlag.ADDRESS_16);
    this.segment();
  }

  /**
   * Segment of the memory operand. In 64-bit mode only FS and GS have a base; overrides to other segments are ignored,
   * so that RSP and RBP keep going through SS.
   */
  segment(): void {
    const { memorySegment: segment, memoryBase: base } = this.instruction;
    if (this.segmented) {
      this.#checkedSegment(segment);
      return;
    }
    if (segment === Register.FS || segment === Register.GS) {
      const offset = segment === Register.FS ? VCPU_RECORD.offset.fsBase : VCPU_RECORD.offset.gsBase;
      this.#view.setUint16(this.#at + AT.segment, offset, true);
    } else if (base === Register.RSP || base === Register.RBP || base === Register.ESP || base === Register.EBP) {
      this.flag(OpFlag.STACK);
    }
  }

  /** Segment of the memory operand in 16- and 32-bit code, and what its limit and rights must permit. */
  #checkedSegment(segment: Register): void {
    const { instruction } = this;
    const view = this.#view;
    if (segment === Register.SS) this.flag(OpFlag.STACK);
    view.setUint8(this.#at + AT.segmentNumber, segment - Register.ES);
    const { memorySize } = instruction;
    // How long an XSAVE area is decides the processor; its legacy region and header are always there.
    const size = memorySize === MemorySize.Xsave ? XSAVE_HEADER_END : MemorySizeExt.size(memorySize);
    view.setUint16(this.#at + AT.accessSize, size, true);
    const stores = this.isMemory(0) || instruction.mnemonic === Mnemonic.Maskmovdqu;
    const writes = stores && !readsFirstOperand.has(instruction.mnemonic);
    view.setUint8(this.#at + AT.writes, writes ? 1 : 0);
  }

  /** Target of a direct near jump. */
  target(): void {
    const target = this.instruction.nearBranchTarget;
    const distance = BigInt.asIntN(this.segmented ? 32 : 64, target - this.instruction.nextIP);
    this.#view.setBigInt64(this.#at + AT.imm, distance, true);
    if (!(this.#flags & OpFlag.UNLINKED) && target < 4096n) this.flag(OpFlag.TARGET_IN_PAGE);
  }

  /** A far pointer in the instruction: its offset becomes the immediate, its selector takes the place of the source's size. */
  farPointer(): void {
    const { instruction } = this;
    const offset = instruction.op0Kind === OpKind.FarBranch16 ? instruction.farBranch16 : instruction.farBranch32;
    this.immediateValue(offset);
    this.sourceSize(instruction.farBranchSelector);
  }

  /** Makes the record raise #UD. */
  invalid(): void {
    this.code(INVALID);
    this.ends = true;
  }

  /** Makes the record raise #GP: more than 15 bytes (SDM vol. 2, 2.3.11). */
  tooLong(): void {
    this.invalid();
    this.kind(TOO_LONG);
  }

  /** Makes the record stop the machine. */
  unsupported(): void {
    this.code(UNSUPPORTED);
    this.ends = true;
  }
}

const INVALID = opCode('INVALID');
const UNSUPPORTED = opCode('UNSUPPORTED');
/** Kind of an INVALID record that raises #GP. */
const TOO_LONG = 1;
