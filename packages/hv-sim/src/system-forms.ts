import { Register } from '@introd/x86/decoder';
import { destinationOnly, type Emit, type FormRule, memoryOnly, operandSize, plain, sourceOnly } from './form-rule.js';
import { opCode } from './op-codes.js';
import type { OpWriter } from './op-writer.js';

/** As {@link plain}, for operations after which control is elsewhere. */
function ending(name: string, size = 0): Emit {
  const emit = plain(name, size);
  return (op) => {
    emit(op);
    op.ends = true;
  };
}

/** Moves between general and numbered registers: the number becomes the record's kind. */
function numbered(name: string, numberedOperand: number, first: Register, size: number): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.size(size);
    op.kind(op.instruction.opRegister(numberedOperand) - first);
    if (numberedOperand === 0) op.sourceRegister(1);
    else op.destinationRegister(0);
  };
}

function segmentLoad(op: OpWriter, code: number, segment: Register): void {
  // MOV to CS does not exist (SDM vol. 2, MOV).
  if (segment === Register.CS) {
    op.invalid();
    return;
  }
  op.code(code);
  op.kind(segment - Register.ES);
}

const SIZES: Readonly<Record<string, number>> = { w: 2, d: 4, q: 8 };

/** Instructions that the machine around the instruction core executes. */
export const systemForms: readonly FormRule[] = [
  [/^Mov_r(32|64)_cr$/, ([, bits]) => numbered('MOV_FROM_CR', 1, Register.CR0, Number(bits) / 8)],
  [/^Mov_cr_r(32|64)$/, ([, bits]) => numbered('MOV_TO_CR', 0, Register.CR0, Number(bits) / 8)],
  [/^Mov_r(32|64)_dr$/, ([, bits]) => numbered('MOV_FROM_DR', 1, Register.DR0, Number(bits) / 8)],
  [/^Mov_dr_r(32|64)$/, ([, bits]) => numbered('MOV_TO_DR', 0, Register.DR0, Number(bits) / 8)],
  // The suffix _16 stands for 16-bit operands: LGDT and LIDT then take 24 bits of the base.
  [
    /^(Lgdt|Lidt|Sgdt|Sidt)_m16(32|64)(_16)?$/,
    ([, name, bits, narrow]) => memoryOnly(name!.toUpperCase(), narrow ? 2 : Number(bits) / 8),
  ],
  [/^Invlpg_m$/, () => memoryOnly('INVLPG', 0)],
  [
    /^(Sldt|Str|Smsw)_(rm16|r32m16|r64m16)$/,
    ([, name, operand]) => {
      const code = opCode(name!.toUpperCase());
      const size = operandSize(operand!);
      return (op) => {
        op.code(code);
        op.size(op.isMemory(0) ? 2 : size);
        op.destination(0);
      };
    },
  ],
  [/^(Lldt|Ltr|Lmsw|Verr|Verw)_(?:rm16|r32m16|r64m16)$/, ([, name]) => sourceOnly(name!.toUpperCase(), 2)],
  [
    /^(Lar|Lsl)_(r\d+)_(?:rm16|r32m16|r64m16)$/,
    ([, name, operand]) => {
      const code = opCode(name!.toUpperCase());
      const size = operandSize(operand!);
      return (op) => {
        op.code(code);
        op.size(size);
        op.sourceSize(2);
        op.destinationRegister(0);
        op.source(1);
      };
    },
  ],
  [
    /^Mov_Sreg_(?:rm16|r32m16|r64m16)$/,
    () => {
      const code = opCode('MOV_TO_SEGMENT');
      return (op) => {
        segmentLoad(op, code, op.instruction.op0Register);
        op.size(2);
        op.source(1);
      };
    },
  ],
  [
    /^Pop([wdq])_[C-GS]S$/,
    ([, letter]) => {
      const code = opCode('POP_SEGMENT');
      return (op) => {
        segmentLoad(op, code, op.instruction.op0Register);
        op.size(SIZES[letter!]!);
      };
    },
  ],
  [
    /^L([defgs]s)_(r\d+)_m\d+$/,
    ([, segment, operand]) => {
      const code = opCode('LOAD_FAR_POINTER');
      const number = { es: 0, ss: 2, ds: 3, fs: 4, gs: 5 }[segment!]!;
      const size = operandSize(operand!);
      return (op) => {
        op.code(code);
        op.kind(number);
        op.size(size);
        op.destinationRegister(0);
        op.memory();
      };
    },
  ],
  [/^(Jmp|Call)_m16(16|32|64)$/, ([, name, bits]) => memoryOnly(`${name!.toUpperCase()}_FAR`, Number(bits) / 8)],
  [
    /^(Jmp|Call)_ptr16(16|32)$/,
    ([, name, bits]) => {
      const code = opCode(`${name!.toUpperCase()}_FAR_DIRECT`);
      return (op) => {
        op.code(code);
        op.size(Number(bits) / 8);
        op.farPointer();
        op.ends = name === 'Jmp';
      };
    },
  ],
  [
    /^Retf([wdq])(_imm16)?$/,
    ([, letter, immediate]) => {
      const emit = ending('RET_FAR', SIZES[letter!]!);
      return (op) => {
        emit(op);
        if (immediate) op.immediate(0);
      };
    },
  ],
  [/^Iret([wdq])$/, ([, letter]) => ending('IRET', SIZES[letter!]!)],
  [
    /^Int_imm8$/,
    () => {
      const code = opCode('INT_N');
      return (op) => {
        op.code(code);
        op.immediate(0);
      };
    },
  ],
  [/^(Int1|Int3|Syscall|Sysenter)$/, ([name]) => plain(name!.toUpperCase())],
  [/^(Sysret|Sysexit)([dq])$/, ([, name, letter]) => ending(name!.toUpperCase(), SIZES[letter!]!)],
  [
    /^(In)_(AL|AX|EAX)_(?:imm8|DX)$/,
    ([, name, operand]) => {
      const code = opCode(name!.toUpperCase());
      const size = operandSize(operand!);
      return (op) => {
        op.code(code);
        op.size(size);
        op.destinationRegister(0);
        op.source(1);
      };
    },
  ],
  [/^Out_(?:imm8|DX)_(AL|AX|EAX)$/, ([, operand]) => sourceOnly('OUT', operandSize(operand!), 0)],
  [
    /^(Clts|Swapgs|Cli|Sti|Hlt|Stac|Clac|Cpuid|Rdtsc|Rdtscp|Rdpmc|Rdmsr|Wrmsr|Xgetbv|Xsetbv|Invd|Wbinvd|Vmcall)$/,
    ([name]) => plain(name!.toUpperCase()),
  ],
  [/^Rdpid_r(?:32|64)$/, () => destinationOnly('RDPID', 8)],
  [
    /^(Rd|Wr)(fs|gs)base_(r\d+)$/,
    ([, direction, segment, operand]) => {
      const name = `${direction!}${segment!}BASE`.toUpperCase();
      const size = operandSize(operand!);
      return direction === 'Rd' ? destinationOnly(name, size) : sourceOnly(name, size);
    },
  ],
];
