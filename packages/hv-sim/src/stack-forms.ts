import { type Emit, type FormRule, LETTER_SIZES, plain, sourceOnly } from './form-rule.js';
import { opCode } from './op-codes.js';

function push(size: number): Emit {
  if (size !== 8) return sourceOnly('PUSH', size);
  const registerCode = opCode('PUSH_R');
  const immediateCode = opCode('PUSH_I');
  const memoryCode = opCode('PUSH_M');
  return (op) => {
    op.size(size);
    if (op.isMemory(0)) {
      op.code(memoryCode);
      op.memory();
    } else if (op.isRegister(0)) {
      op.code(registerCode);
      op.sourceRegister(0);
    } else {
      op.code(immediateCode);
      op.immediate(0);
    }
  };
}

function pop(size: number): Emit {
  const registerCode = opCode(size === 8 ? 'POP_R' : 'POP');
  const memoryCode = opCode('POP_M');
  return (op) => {
    op.code(op.isMemory(0) ? memoryCode : registerCode);
    op.size(size);
    op.destination(0);
  };
}

function enter(size: number): Emit {
  const code = opCode('ENTER');
  return (op) => {
    op.code(code);
    op.size(size);
    op.immediateValue(op.instruction.immediate16);
    op.sourceSize(op.instruction.immediate8_2nd);
  };
}

/** Instructions on the stack and its frames. */
export const stackForms: readonly FormRule[] = [
  [/^Push(?:q_imm32|q_imm8|_r64|_rm64)$/, () => push(8)],
  [/^Push(?:d_imm32|d_imm8|_r32|_rm32)$/, () => push(4)],
  [/^Push(?:_imm16|w_imm8|_r16|_rm16)$/, () => push(2)],
  [/^Pop_rm?(16|32|64)$/, ([, bits]) => pop(Number(bits) / 8)],
  [/^Push(q|d|w)_[C-GS]S$/, ([, letter]) => sourceOnly('PUSH_SEGMENT', LETTER_SIZES[letter!]!)],
  [/^Pusha(d|w)$/, ([, letter]) => plain('PUSHA', LETTER_SIZES[letter!]!)],
  [/^Popa(d|w)$/, ([, letter]) => plain('POPA', LETTER_SIZES[letter!]!)],
  [/^Pushf(q|d|w)$/, ([, letter]) => plain('PUSHF', LETTER_SIZES[letter!]!)],
  [/^Popf(q|d|w)$/, ([, letter]) => plain('POPF', LETTER_SIZES[letter!]!)],
  [/^Enter(q|d|w)_imm16_imm8$/, ([, letter]) => enter(LETTER_SIZES[letter!]!)],
  [/^Leaveq$/, () => plain('LEAVE', 8)],
  [/^Leave(d|w)$/, ([, letter]) => plain('LEAVE_SIZED', LETTER_SIZES[letter!]!)],
];
