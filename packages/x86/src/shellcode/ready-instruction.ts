import { InstructionInfoFactory } from 'iced-x86';
import { lowMask } from '../arithmetic.js';
import {
  Code,
  ConditionCode,
  CpuidFeature,
  type DecodeFailure,
  decodeInto,
  EncodingKind,
  emptyInstruction,
  type Instruction,
  MemorySizeExt,
  Mnemonic,
  OpAccess,
  OpKind,
  Register,
  RegisterExt,
} from '../decoder.js';
import { handlerOf } from './handlers.js';
import { type EmulatedInstruction, NO_REGISTER, type Operand, OperandKind, Repeat } from './instruction.js';
import { needsRing0, unknownInstruction } from './system.js';
import { x87Instruction } from './x87.js';

const scratch = emptyInstruction();

const NOTHING: Operand = { kind: OperandKind.NONE, size: 0, register: 0, mask: 0 };

/** Condition codes of the processor (SDM vol. 2, appendix B.1.4) by the library's; LOOPE and LOOPNE have one as well. */
const CONDITIONS: Readonly<Record<number, number>> = {
  [ConditionCode.o]: 0,
  [ConditionCode.no]: 1,
  [ConditionCode.b]: 2,
  [ConditionCode.ae]: 3,
  [ConditionCode.e]: 4,
  [ConditionCode.ne]: 5,
  [ConditionCode.be]: 6,
  [ConditionCode.a]: 7,
  [ConditionCode.s]: 8,
  [ConditionCode.ns]: 9,
  [ConditionCode.p]: 10,
  [ConditionCode.np]: 11,
  [ConditionCode.l]: 12,
  [ConditionCode.ge]: 13,
  [ConditionCode.le]: 14,
  [ConditionCode.g]: 15,
};

/** What only looks at its operands, or sends what it reads where no program can keep it: RIP, flags, a segment register. */
const LOOKS_ONLY = new Set<Mnemonic>([
  Mnemonic.Cmp,
  Mnemonic.Test,
  Mnemonic.Bt,
  Mnemonic.Cmpsb,
  Mnemonic.Cmpsw,
  Mnemonic.Cmpsd,
  Mnemonic.Cmpsq,
  Mnemonic.Scasb,
  Mnemonic.Scasw,
  Mnemonic.Scasd,
  Mnemonic.Scasq,
  Mnemonic.Jmp,
  Mnemonic.Call,
  Mnemonic.Ret,
  Mnemonic.Retf,
  Mnemonic.Popf,
  Mnemonic.Popfd,
  Mnemonic.Popfq,
]);

/** Allowed to user code by IOPL or the I/O permission bitmap, so that they are not privileged; nothing answers at a port. */
const PORT_ACCESS = new Set<Mnemonic>([
  Mnemonic.In,
  Mnemonic.Out,
  Mnemonic.Insb,
  Mnemonic.Insw,
  Mnemonic.Insd,
  Mnemonic.Outsb,
  Mnemonic.Outsw,
  Mnemonic.Outsd,
]);

/** Without a further operand these write other registers than those they name, or push what they read. */
const KEEPS_ALWAYS = new Set<Mnemonic>([
  Mnemonic.Push,
  Mnemonic.Popa,
  Mnemonic.Popad,
  Mnemonic.Leave,
  Mnemonic.Enter,
  Mnemonic.Cmpxchg,
  Mnemonic.Cmpxchg8b,
  Mnemonic.Cmpxchg16b,
  Mnemonic.Xlatb,
  Mnemonic.Xchg,
  Mnemonic.Xadd,
  Mnemonic.Mul,
  Mnemonic.Imul,
  Mnemonic.Div,
  Mnemonic.Idiv,
]);

/** Counter size of what counts in CX, ECX or RCX. */
const COUNTER_SIZES = new Map<Code, 2 | 4>([
  [Code.Jcxz_rel8_16, 2],
  [Code.Jcxz_rel8_32, 2],
  [Code.Jecxz_rel8_16, 4],
  [Code.Jecxz_rel8_32, 4],
  [Code.Jecxz_rel8_64, 4],
  [Code.Loop_rel8_16_CX, 2],
  [Code.Loop_rel8_32_CX, 2],
  [Code.Loop_rel8_16_ECX, 4],
  [Code.Loop_rel8_32_ECX, 4],
  [Code.Loop_rel8_64_ECX, 4],
  [Code.Loope_rel8_16_CX, 2],
  [Code.Loope_rel8_32_CX, 2],
  [Code.Loope_rel8_16_ECX, 4],
  [Code.Loope_rel8_32_ECX, 4],
  [Code.Loope_rel8_64_ECX, 4],
  [Code.Loopne_rel8_16_CX, 2],
  [Code.Loopne_rel8_32_CX, 2],
  [Code.Loopne_rel8_16_ECX, 4],
  [Code.Loopne_rel8_32_ECX, 4],
  [Code.Loopne_rel8_64_ECX, 4],
]);

/** Jumps and calls with a selector. */
const FAR = new Set<Code>([
  Code.Jmp_ptr1616,
  Code.Jmp_ptr1632,
  Code.Jmp_m1616,
  Code.Jmp_m1632,
  Code.Jmp_m1664,
  Code.Call_ptr1616,
  Code.Call_ptr1632,
  Code.Call_m1616,
  Code.Call_m1632,
  Code.Call_m1664,
]);

/** Size of a value on the stack, of returns and of what makes frames. */
const FRAME_WORDS = new Map<Code, 2 | 4 | 8>([
  [Code.Retnw, 2],
  [Code.Retnw_imm16, 2],
  [Code.Retnd, 4],
  [Code.Retnd_imm16, 4],
  [Code.Retnq, 8],
  [Code.Retnq_imm16, 8],
  [Code.Retfw, 2],
  [Code.Retfw_imm16, 2],
  [Code.Retfd, 4],
  [Code.Retfd_imm16, 4],
  [Code.Retfq, 8],
  [Code.Retfq_imm16, 8],
  [Code.Iretw, 2],
  [Code.Iretd, 4],
  [Code.Iretq, 8],
  [Code.Enterw_imm16_imm8, 2],
  [Code.Enterd_imm16_imm8, 4],
  [Code.Enterq_imm16_imm8, 8],
  [Code.Leavew, 2],
  [Code.Leaved, 4],
  [Code.Leaveq, 8],
]);

/**
 * Decodes the first instruction of `bytes` for execution at any address.
 * @returns why there is none otherwise
 */
export function makeReady(bytes: Uint8Array, bitness: 32 | 64): EmulatedInstruction | DecodeFailure {
  const failure = decodeInto(bytes, 0n, bitness, scratch);
  if (failure !== undefined) return failure;
  const mnemonic = scratch.mnemonic;
  const operands = [0, 1, 2].map((index) => operandOf(scratch, index));
  const [first = NOTHING, second = NOTHING, third = NOTHING] = operands;
  const immediate = immediateOf(scratch, 0);
  const near = nearTarget(scratch);
  return {
    ...addressOf(scratch, bitness),
    execute: executorOf(scratch, bitness),
    bytes: bytes.slice(0, scratch.length),
    length: scratch.length,
    bitness,
    first,
    second,
    third,
    immediateLow: Number(immediate & 0xffff_ffffn),
    immediateHigh: Number(immediate >> 32n),
    secondImmediate: secondImmediate(scratch),
    size: transferSize(scratch),
    target: near.target,
    targetSize: near.size,
    far: FAR.has(scratch.code),
    condition: CONDITIONS[scratch.conditionCode] ?? 0,
    repeat: repeatOf(scratch),
    vex: scratch.encoding === EncodingKind.VEX,
    keepsLoad: keepsLoad(mnemonic, first, second),
    nop: mnemonic === Mnemonic.Nop,
    nulls: bytes[0] === 0 && bytes[1] === 0,
  };
}

/** Made when it is first needed: a code segment in an operand is rare. */
let infoFactory: InstructionInfoFactory | undefined;

/** Whether the first operand is written. */
function writesFirst(instruction: Instruction): boolean {
  infoFactory ??= new InstructionInfoFactory();
  const info = infoFactory.info(instruction);
  const access = info.op0Access;
  info.free();
  return access !== OpAccess.Read && access !== OpAccess.None && access !== OpAccess.NoMemAccess;
}

/** Code segments are not writable; in 64-bit code the prefix means nothing (SDM vol. 3A, 5.5). */
function executorOf(instruction: Instruction, bitness: 32 | 64): EmulatedInstruction['execute'] {
  const executor = plainExecutorOf(instruction);
  const throughCode = bitness === 32 && instruction.opCount > 0 && instruction.opKind(0) === OpKind.Memory;
  if (!throughCode || instruction.memorySegment !== Register.CS || !writesFirst(instruction)) return executor;
  return (m, i) => {
    if (m.like === 'processor') m.status = 'halted';
    else executor(m, i);
  };
}

function plainExecutorOf(instruction: Instruction): EmulatedInstruction['execute'] {
  // Masks, broadcasts and rounding of EVEX are not known, and nothing of what else there is.
  const known = instruction.encoding === EncodingKind.Legacy || instruction.encoding === EncodingKind.VEX;
  if (!known || PORT_ACCESS.has(instruction.mnemonic)) return unknownInstruction;
  if (instruction.isPrivileged) return needsRing0(handlerOf(instruction));
  const handler = handlerOf(instruction);
  if (handler !== undefined) return handler;
  return instruction.cpuidFeatures().includes(CpuidFeature.FPU) ? x87Instruction : unknownInstruction;
}

function keepsLoad(mnemonic: Mnemonic, first: Operand, second: Operand): boolean {
  if (KEEPS_ALWAYS.has(mnemonic)) return true;
  if (mnemonic === Mnemonic.Pop) return first.kind !== OperandKind.SEGMENT;
  if (LOOKS_ONLY.has(mnemonic)) return false;
  // Read and written back in place: the value does not leave.
  if (first.kind === OperandKind.MEMORY && second.kind !== OperandKind.MEMORY) return false;
  return first.kind !== OperandKind.SEGMENT && first.kind !== OperandKind.NONE;
}

function repeatOf(instruction: Instruction): number {
  if (!instruction.isStringInstruction) return Repeat.NONE;
  if (instruction.hasRepnePrefix) return Repeat.WHILE_NOT_EQUAL;
  return instruction.hasRepPrefix ? Repeat.WHILE_EQUAL : Repeat.NONE;
}

function operandOf(instruction: Instruction, index: number): Operand {
  if (index >= instruction.opCount) return NOTHING;
  const kind = instruction.opKind(index);
  if (kind === OpKind.Register) return registerOperand(instruction.opRegister(index));
  if (kind >= OpKind.Immediate8 && kind <= OpKind.Immediate32to64) {
    return { kind: OperandKind.IMMEDIATE, size: 8, register: 0, mask: 0xffff_ffff };
  }
  if (kind >= OpKind.MemorySegSI) {
    const size = MemorySizeExt.size(instruction.memorySize);
    return { kind: OperandKind.MEMORY, size, register: 0, mask: lowMask(size) };
  }
  return NOTHING;
}

function registerOperand(register: Register): Operand {
  const size = RegisterExt.size(register);
  const number = RegisterExt.number(register);
  const make = (kind: OperandKind, numberOfKind = number, sizeOfKind = size): Operand => ({
    kind,
    size: sizeOfKind,
    register: numberOfKind,
    mask: lowMask(sizeOfKind),
  });
  if (register >= Register.AH && register <= Register.BH) return make(OperandKind.HIGH_BYTE, register - Register.AH);
  if (RegisterExt.isGPR(register)) {
    return make(OperandKind.GENERAL, RegisterExt.number(RegisterExt.fullRegister(register)));
  }
  if (RegisterExt.isSegmentRegister(register)) return make(OperandKind.SEGMENT, number, 2);
  if ((RegisterExt.isXMM(register) || RegisterExt.isYMM(register)) && number < 16) return make(OperandKind.VECTOR);
  if (RegisterExt.isMM(register)) return make(OperandKind.MMX);
  if (RegisterExt.isCR(register)) return make(OperandKind.CONTROL);
  return make(OperandKind.OTHER);
}

function immediateOf(instruction: Instruction, which: number): bigint {
  let seen = 0;
  for (let index = 0; index < instruction.opCount; index++) {
    const kind = instruction.opKind(index);
    if (kind >= OpKind.Immediate8 && kind <= OpKind.Immediate32to64 && seen++ === which) {
      return BigInt.asUintN(64, instruction.immediate(index));
    }
  }
  return 0n;
}

function secondImmediate(instruction: Instruction): number {
  const kind = instruction.opCount > 0 ? instruction.opKind(0) : OpKind.Register;
  if (kind === OpKind.FarBranch16 || kind === OpKind.FarBranch32) return instruction.farBranchSelector;
  return Number(immediateOf(instruction, 1) & 0xffffn);
}

/** Distance of a near branch from the address of the instruction: it was decoded at 0. */
function nearTarget(instruction: Instruction): { target: number; size: number } {
  switch (instruction.opCount > 0 ? instruction.opKind(0) : OpKind.Register) {
    case OpKind.NearBranch16:
      return { target: Number(BigInt.asIntN(16, instruction.nearBranchTarget)), size: 2 };
    case OpKind.NearBranch32:
      return { target: Number(BigInt.asIntN(32, instruction.nearBranchTarget)), size: 4 };
    case OpKind.NearBranch64:
      return { target: Number(BigInt.asIntN(64, instruction.nearBranchTarget)), size: 8 };
    default:
      return { target: 0, size: 0 };
  }
}

/** Bytes of one value that goes over the stack, or else the size of the memory operand. */
function transferSize(instruction: Instruction): number {
  // These move the stack pointer by more than the one value.
  const word = FRAME_WORDS.get(instruction.code);
  if (word !== undefined) return word;
  const moved = Math.abs(instruction.stackPointerIncrement);
  return moved === 0 ? MemorySizeExt.size(instruction.memorySize) : moved;
}

/** The memory operand, or the counter of a loop. */
function addressOf(
  instruction: Instruction,
  bitness: 32 | 64,
): Pick<
  EmulatedInstruction,
  'base' | 'index' | 'scale' | 'displacementLow' | 'displacementHigh' | 'ripRelative' | 'segment' | 'addressSize'
> {
  const base = instruction.memoryBase;
  const index = instruction.memoryIndex;
  const displacement = BigInt.asUintN(64, instruction.memoryDisplacement);
  const ripRelative = base === Register.RIP || base === Register.EIP;
  const segment = instruction.memorySegment;
  // In 64-bit code only FS and GS have a base (SDM vol. 1, 3.4.2.1).
  const counts = segment !== Register.None && (bitness === 32 || segment === Register.FS || segment === Register.GS);
  return {
    base: base === Register.None || ripRelative ? NO_REGISTER : numberOf(base),
    // The index of XLATB is AL alone; its handler knows.
    index: index === Register.None || index === Register.AL ? NO_REGISTER : numberOf(index),
    scale: instruction.memoryIndexScale,
    displacementLow: Number(displacement & 0xffff_ffffn),
    displacementHigh: Number(displacement >> 32n),
    ripRelative,
    segment: counts ? RegisterExt.number(segment) : NO_REGISTER,
    addressSize: addressSize(instruction, bitness),
  };
}

function numberOf(register: Register): number {
  return RegisterExt.isGPR(register) ? RegisterExt.number(RegisterExt.fullRegister(register)) : NO_REGISTER;
}

function addressSize(instruction: Instruction, bitness: 32 | 64): 2 | 4 | 8 {
  const counter = COUNTER_SIZES.get(instruction.code);
  if (counter !== undefined) return counter;
  for (let index = 0; index < instruction.opCount; index++) {
    switch (instruction.opKind(index)) {
      case OpKind.MemorySegSI:
      case OpKind.MemorySegDI:
      case OpKind.MemoryESDI:
        return 2;
      case OpKind.MemorySegESI:
      case OpKind.MemorySegEDI:
      case OpKind.MemoryESEDI:
        return 4;
      default:
    }
  }
  const base = instruction.memoryBase;
  const register = base === Register.None ? instruction.memoryIndex : base;
  if (register === Register.EIP) return 4;
  if (register !== Register.None && RegisterExt.isGPR(register)) {
    const size = RegisterExt.size(register);
    return size === 2 || size === 4 ? size : 8;
  }
  const displacementSize = instruction.memoryDisplSize;
  if (displacementSize === 2 || displacementSize === 4) return displacementSize;
  return bitness === 64 ? 8 : 4;
}
