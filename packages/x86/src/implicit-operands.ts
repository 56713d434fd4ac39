/**
 * Memory that an instruction touches without naming it: the stack, and memory at fixed registers.
 */
import { Access } from '@introd/abi';
import { type Bitness, Code, type Instruction, Mnemonic, Register } from './decoder.js';
import { type AddressSize, MemoryOperand, NO_REGISTER, OperandKind, STACK_ADDRESS } from './memory-operand.js';
import { ADDRESS_BITS, GENERAL_NUMBER, segmentNumber } from './register-numbers.js';

const RAX = 0;
const RCX = 1;
const RBX = 3;
const RSP = 4;
const RBP = 5;
const SS = 2;

/** How the operands are found. */
export type ImplicitOperands =
  | { readonly same: readonly MemoryOperand[] }
  | { readonly of: (instruction: Instruction, bitness: Bitness) => MemoryOperand[] };

/** An operand on the stack at a distance from a register. */
function onStack(
  access: Access,
  size: number,
  base: number,
  displacement: number,
  bitness: Bitness,
  aligned = false,
): MemoryOperand {
  const long = bitness === 64;
  return new MemoryOperand(
    access === Access.WRITE ? OperandKind.STACK_PUSH : OperandKind.STACK_POP,
    access,
    size,
    base,
    NO_REGISTER,
    0,
    displacement >>> 0,
    displacement < 0 ? 0xffff_ffff : 0,
    long ? -1 : SS,
    long ? 64 : STACK_ADDRESS,
    !long,
    NO_REGISTER,
    false,
    undefined,
    aligned,
  );
}

function push(size: number, bitness: Bitness, aligned = false): ImplicitOperands {
  return { same: [onStack(Access.WRITE, size, RSP, -size, bitness, aligned)] };
}

function pop(size: number, bitness: Bitness): ImplicitOperands {
  return { same: [onStack(Access.READ, size, RSP, 0, bitness)] };
}

/** An operand that a register points to. */
function pointedTo(register: Register, access: Access, size: number, segment: number, bitness: Bitness): MemoryOperand {
  return new MemoryOperand(
    OperandKind.EXPLICIT,
    access,
    size,
    GENERAL_NUMBER[register]!,
    NO_REGISTER,
    0,
    0,
    0,
    bitness === 64 && segment < 4 ? -1 : segment,
    ADDRESS_BITS[register]! as AddressSize,
    bitness !== 64,
  );
}

const FIXED_REGISTERS: Readonly<Record<number, Readonly<Record<string, Register>>>> = {
  [RAX]: { w: Register.AX, d: Register.EAX, q: Register.RAX },
  [RBX]: { w: Register.BX, d: Register.EBX, q: Register.RBX },
  [RCX]: { w: Register.CX, d: Register.ECX, q: Register.RCX },
};

/** The register of the address size that the name of the form ends with. */
function fixedRegister(instruction: Instruction, number: number): Register {
  return FIXED_REGISTERS[number]![Code[instruction.code].at(-1)!] ?? Register.RAX;
}

/** Segment of an operand of which the prefix may choose it. */
function dataSegment(instruction: Instruction): number {
  const prefix = segmentNumber(instruction.segmentPrefix);
  return prefix < 0 ? segmentNumber(Register.DS) : prefix;
}

/** ENTER: pushes RBP, copies the frame pointers of the outer levels, pushes the new one (SDM vol. 2A, ENTER). */
function ofEnter(instruction: Instruction, bitness: Bitness): MemoryOperand[] {
  const size = ENTER_SIZES[instruction.code]!;
  const levels = instruction.immediate8_2nd & 31;
  const operands = [onStack(Access.WRITE, size, RSP, -size, bitness)];
  for (let level = 1; level < levels; level++) {
    operands.push(
      onStack(Access.READ, size, RBP, -size * level, bitness),
      onStack(Access.WRITE, size, RSP, -size * (level + 1), bitness),
    );
  }
  if (levels > 0) {
    operands.push(onStack(Access.WRITE, size, RSP, -size * (levels + 1), bitness));
  }
  return operands;
}

const ENTER_SIZES: Readonly<Partial<Record<Code, number>>> = {
  [Code.Enterw_imm16_imm8]: 2,
  [Code.Enterd_imm16_imm8]: 4,
  [Code.Enterq_imm16_imm8]: 8,
};

/** Operand size in bytes, as the name of a return's form tells it. */
const RETURN_NAME = /^(?:Ret[nf]|Iret|Leave)([wdq])/;
const NAMED_SIZES: Readonly<Record<string, number>> = { w: 2, d: 4, q: 8 };

function returnSize(code: Code): number {
  return NAMED_SIZES[RETURN_NAME.exec(Code[code])?.[1] ?? ''] ?? 0;
}

/**
 * The operands that every instruction of a form has.
 * @param instruction one of the form
 * @returns undefined when it has none
 */
export function implicitOperandsOf(instruction: Instruction, bitness: Bitness): ImplicitOperands | undefined {
  const long = bitness === 64;
  const { code, mnemonic } = instruction;
  switch (mnemonic) {
    case Mnemonic.Push:
    case Mnemonic.Pushf:
    case Mnemonic.Pushfd:
    case Mnemonic.Pushfq:
    case Mnemonic.Pusha:
    case Mnemonic.Pushad:
    case Mnemonic.Call:
      return push(-instruction.stackPointerIncrement, bitness);
    case Mnemonic.Pop:
    case Mnemonic.Popf:
    case Mnemonic.Popfd:
    case Mnemonic.Popfq:
    case Mnemonic.Popa:
    case Mnemonic.Popad:
      return pop(instruction.stackPointerIncrement, bitness);
    case Mnemonic.Ret:
      return pop(returnSize(code), bitness);
    case Mnemonic.Retf:
      return pop(2 * returnSize(code), bitness);
    case Mnemonic.Iret:
    case Mnemonic.Iretd:
    case Mnemonic.Iretq:
      // 64-bit code always pops RSP and SS; other code only when it returns to an outer ring (SDM vol. 2A, IRET).
      return pop((long ? 5 : 3) * returnSize(code), bitness);
    case Mnemonic.Leave:
      return { same: [onStack(Access.READ, returnSize(code), RBP, 0, bitness)] };
    case Mnemonic.Enter:
      return { of: ofEnter };
    case Mnemonic.Int:
    case Mnemonic.Int1:
    case Mnemonic.Int3:
    case Mnemonic.Into:
      // SS, RSP, RFLAGS, CS, RIP of 8 bytes; else FLAGS, CS and IP of the code's size (SDM vol. 3A, 6.12.1 and 6.14.2).
      return push(long ? 40 : (3 * bitness) / 8, bitness, long);
    case Mnemonic.Uiret:
      // RIP, RFLAGS, RSP (SDM vol. 2B, UIRET).
      return pop(24, bitness);
    case Mnemonic.Erets:
    case Mnemonic.Eretu:
      // RIP, CS, RFLAGS, RSP and SS lie behind the error code, which is not read (FRED specification, 6.1).
      return { same: [onStack(Access.READ, 40, RSP, 8, bitness)] };
    case Mnemonic.Clzero:
      return { of: (one) => [pointedTo(fixedRegister(one, RAX), Access.WRITE, 64, dataSegment(one), bitness)] };
    case Mnemonic.Monitor:
    case Mnemonic.Monitorx:
      return { of: (one) => [pointedTo(fixedRegister(one, RAX), Access.READ, 1, dataSegment(one), bitness)] };
    case Mnemonic.Movdir64b:
    case Mnemonic.Enqcmd:
    case Mnemonic.Enqcmds:
      // The register names the destination, always in ES (SDM vol. 2B, MOVDIR64B).
      return { of: (one) => [pointedTo(one.opRegister(0), Access.WRITE, 64, 0, bitness)] };
    case Mnemonic.Umonitor:
      return { of: (one) => [pointedTo(one.opRegister(0), Access.READ, 1, dataSegment(one), bitness)] };
    case Mnemonic.Rdmsrlist:
    case Mnemonic.Wrmsrlist:
      // Two tables of 64 quadwords: the numbers of MSRs, and their values (SDM vol. 2B, RDMSRLIST).
      return {
        same: [
          pointedTo(Register.RSI, Access.READ, 512, -1, bitness),
          pointedTo(Register.RDI, mnemonic === Mnemonic.Rdmsrlist ? Access.WRITE : Access.READ, 512, -1, bitness),
        ],
      };
    case Mnemonic.Rmpupdate:
      // The new entry (AMD64 manual vol. 3, RMPUPDATE).
      return { same: [pointedTo(Register.RCX, Access.READ, 16, -1, bitness)] };
    case Mnemonic.Pbndkb:
      // 256 bytes each (SDM vol. 2B, PBNDKB).
      return {
        same: [
          pointedTo(Register.RBX, Access.READ, 256, -1, bitness),
          pointedTo(Register.RCX, Access.WRITE, 256, -1, bitness),
        ],
      };
    default:
      return undefined;
  }
}
