/**
 * Which operands a form of an instruction takes.
 */
import { OpCodeOperandKind as K, OpKind, Register } from 'iced-x86';
import type { Bitness } from '../decoder.js';
import type { InstructionForm } from './instruction-forms.js';
import type { Operand, RegisterClass, RegisterOperand, ValueOperand } from './operand.js';

/** How far a branch reaches: one byte or four. */
export type BranchDistance = 'short' | 'near';

const REGISTER_KINDS: Partial<Record<K, RegisterClass>> = {
  [K.r8_reg]: 'r8',
  [K.r8_opcode]: 'r8',
  [K.r8_or_mem]: 'r8',
  [K.r16_reg]: 'r16',
  [K.r16_reg_mem]: 'r16',
  [K.r16_rm]: 'r16',
  [K.r16_opcode]: 'r16',
  [K.r16_or_mem]: 'r16',
  [K.r32_reg]: 'r32',
  [K.r32_reg_mem]: 'r32',
  [K.r32_rm]: 'r32',
  [K.r32_opcode]: 'r32',
  [K.r32_or_mem]: 'r32',
  [K.r64_reg]: 'r64',
  [K.r64_reg_mem]: 'r64',
  [K.r64_rm]: 'r64',
  [K.r64_opcode]: 'r64',
  [K.r64_or_mem]: 'r64',
  [K.mm_reg]: 'mm',
  [K.mm_rm]: 'mm',
  [K.mm_or_mem]: 'mm',
  [K.xmm_reg]: 'xmm',
  [K.xmm_rm]: 'xmm',
  [K.xmm_or_mem]: 'xmm',
  [K.seg_reg]: 'segment',
  [K.cr_reg]: 'control',
  [K.dr_reg]: 'debug',
};

const FIXED_REGISTERS: Partial<Record<K, Register>> = {
  [K.es]: Register.ES,
  [K.cs]: Register.CS,
  [K.ss]: Register.SS,
  [K.ds]: Register.DS,
  [K.fs]: Register.FS,
  [K.gs]: Register.GS,
  [K.al]: Register.AL,
  [K.cl]: Register.CL,
  [K.ax]: Register.AX,
  [K.dx]: Register.DX,
  [K.eax]: Register.EAX,
  [K.rax]: Register.RAX,
};

const MEMORY_KINDS: ReadonlySet<K> = new Set([
  K.mem,
  K.r8_or_mem,
  K.r16_or_mem,
  K.r32_or_mem,
  K.r64_or_mem,
  K.mm_or_mem,
  K.xmm_or_mem,
]);

/** How branches of code of one size are encoded. */
interface BranchKinds {
  readonly short: K;
  readonly near: K;
  readonly far: K;
  /** Bytes of a near displacement and of a far offset. */
  readonly size: number;
  readonly opKind: OpKind;
}

/** By size of the code. */
export const BRANCHES: Readonly<Record<Bitness, BranchKinds>> = {
  16: { short: K.br16_1, near: K.br16_2, far: K.farbr2_2, size: 2, opKind: OpKind.NearBranch16 },
  32: { short: K.br32_1, near: K.br32_4, far: K.farbr4_2, size: 4, opKind: OpKind.NearBranch32 },
  // There is no far branch with an immediate in 64-bit code.
  64: { short: K.br64_1, near: K.br64_4, far: K.None, size: 4, opKind: OpKind.NearBranch64 },
};

/** Kinds of relative branches. */
export const BRANCH_KINDS: ReadonlySet<K> = new Set(
  Object.values(BRANCHES).flatMap(({ short, near }: BranchKinds) => [short, near]),
);

/** The kind of immediate that holds an address. */
const ADDRESS_IMMEDIATES: Readonly<Record<Bitness, K>> = { 16: K.imm16, 32: K.imm32, 64: K.imm64 };

/** Whether a value fits into `bits` bits, signed or unsigned. */
export function fits(value: bigint, bits: number): boolean {
  return value >= -(1n << BigInt(bits - 1)) && value < 1n << BigInt(bits);
}

/** Whether `value`, as a number of `width` bits, is the sign extension of its low `bits` bits. */
export function fitsSigned(value: bigint, bits: number, width: number): boolean {
  return fits(value, width) && BigInt.asIntN(bits, value) === BigInt.asIntN(width, value);
}

/** The operand kind of an immediate that holds the value, undefined when none of that kind does. */
export function immediateKind(kind: K, value: bigint): OpKind | undefined {
  switch (kind) {
    case K.imm8:
      return fits(value, 8) ? OpKind.Immediate8 : undefined;
    case K.imm8_const_1:
      return value === 1n ? OpKind.Immediate8 : undefined;
    case K.imm8sex16:
      return fitsSigned(value, 8, 16) ? OpKind.Immediate8to16 : undefined;
    case K.imm8sex32:
      return fitsSigned(value, 8, 32) ? OpKind.Immediate8to32 : undefined;
    case K.imm8sex64:
      return fitsSigned(value, 8, 64) ? OpKind.Immediate8to64 : undefined;
    case K.imm16:
      return fits(value, 16) ? OpKind.Immediate16 : undefined;
    case K.imm32:
      return fits(value, 32) ? OpKind.Immediate32 : undefined;
    case K.imm32sex64:
      return fitsSigned(value, 32, 64) ? OpKind.Immediate32to64 : undefined;
    case K.imm64:
      return fits(value, 64) ? OpKind.Immediate64 : undefined;
    default:
      return undefined;
  }
}

function acceptsRegister(kind: K, operand: RegisterOperand): boolean {
  return REGISTER_KINDS[kind] === operand.class || FIXED_REGISTERS[kind] === operand.register;
}

function acceptsValue(kind: K, operand: ValueOperand, { bitness, distance }: Mode): boolean {
  if (BRANCH_KINDS.has(kind)) {
    return kind === BRANCHES[bitness][distance];
  }
  return operand.symbol === undefined
    ? immediateKind(kind, operand.value) !== undefined
    : kind === ADDRESS_IMMEDIATES[bitness];
}

/** What the encoding depends on beside the text. */
export interface Mode {
  readonly bitness: Bitness;
  readonly distance: BranchDistance;
}

function acceptsOperand(form: InstructionForm, kind: K, operand: Operand, mode: Mode): boolean {
  if (operand.kind === 'register') {
    return acceptsRegister(kind, operand);
  }
  if (operand.kind === 'value') {
    return acceptsValue(kind, operand, mode);
  }
  if (operand.kind === 'far') {
    return kind === BRANCHES[mode.bitness].far;
  }
  const sizeFits = operand.size === undefined || form.memorySize === 0 || operand.size === form.memorySize;
  return MEMORY_KINDS.has(kind) && sizeFits;
}

/** Whether a form takes these operands. */
export function accepts(form: InstructionForm, operands: readonly Operand[], mode: Mode): boolean {
  return (
    form.operands.length === operands.length &&
    operands.every((operand, i) => acceptsOperand(form, form.operands[i]!, operand, mode))
  );
}
