import { type Code, CodeExt, type Instruction, OpCodeOperandKind, OpKind, Register } from 'iced-x86';
import type { Gpr } from './register-names.js';

/** Names of the kinds of a form's operands. */
export function operandKinds(code: Code): string[] {
  const info = CodeExt.opCode(code);
  const kinds = Array.from({ length: info.opCount }, (_, i) => OpCodeOperandKind[info.opKind(i)] as string);
  info.free();
  return kinds;
}

/** Size of an operand that is a general register, or may be one instead of memory; undefined for other operands. */
export function generalOperand(kind: string): { bits: Gpr; orMemory: boolean } | undefined {
  const match = /^r(8|16|32|64)_(.*)$/.exec(kind);
  if (match === null || kind.endsWith('mpx')) return undefined;
  return { bits: Number(match[1]) as Gpr, orMemory: match[2] === 'or_mem' };
}

const FIXED_REGISTERS: Readonly<Record<string, Register>> = {
  al: Register.AL,
  cl: Register.CL,
  ax: Register.AX,
  dx: Register.DX,
  eax: Register.EAX,
  rax: Register.RAX,
  es: Register.ES,
  cs: Register.CS,
  ss: Register.SS,
  ds: Register.DS,
  fs: Register.FS,
  gs: Register.GS,
};

/** The register that an operand always is. */
export function fixedRegister(kind: string): Register | undefined {
  return FIXED_REGISTERS[kind];
}

/** Makes an operand a register. */
export function setRegister(instruction: Instruction, operand: number, register: Register): void {
  instruction.setOpKind(operand, OpKind.Register);
  instruction.setOpRegister(operand, register);
}

const IMMEDIATES: Readonly<Record<string, readonly [kind: OpKind, bits: number]>> = {
  imm8: [OpKind.Immediate8, 8],
  imm8_const_1: [OpKind.Immediate8, 8],
  imm16: [OpKind.Immediate16, 16],
  imm32: [OpKind.Immediate32, 32],
  imm64: [OpKind.Immediate64, 64],
  imm8sex16: [OpKind.Immediate8to16, 8],
  imm8sex32: [OpKind.Immediate8to32, 8],
  imm8sex64: [OpKind.Immediate8to64, 8],
  imm32sex64: [OpKind.Immediate32to64, 32],
};

/** Whether an operand is an immediate. */
export function isImmediate(kind: string): boolean {
  return kind in IMMEDIATES;
}

/**
 * Makes an operand an immediate with the low bits of `value`; 1 where the form has no other.
 *
 * @throws Error when the operand is none
 */
export function setImmediate(instruction: Instruction, operand: number, kind: string, value: bigint): void {
  const immediate = IMMEDIATES[kind];
  if (immediate === undefined) throw new Error(`operand kind ${kind} is no immediate`);
  const [opKind, bits] = immediate;
  // ENTER is the only instruction with two.
  const isSecond = operand > 0 && instruction.opKind(0) === OpKind.Immediate16;
  instruction.setOpKind(operand, isSecond ? OpKind.Immediate8_2nd : opKind);
  instruction.setImmediateI64(operand, kind === 'imm8_const_1' ? 1n : BigInt.asIntN(bits, value));
}
