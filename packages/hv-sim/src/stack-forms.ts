import { type Emit, type FormRule, LETTER_SIZES, plain, sourceOnly } from './form-rule.js';
import { opCode } from './op-codes.js';

function push(size: number): Emit {
  if (size === 2) return sourceOnly('PUSH', 2);
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
  const registerCode = opCode(size === 2 ? 'POP' : 'POP_R');
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
  [/^Push(?:_imm16|w_imm8|_r16|_rm16)$/, () => push(2)],
  [/^Pop_rm?(16|64)$/, ([, bits]) => pop(Number(bits) / 8)],
  [/^Push(q|w)_(?:FS|GS)$/, ([, letter]) => sourceOnly('PUSH_SEGMENT', LETTER_SIZES[letter!]!)],
  [/^Pushf(q|w)$/, ([, letter]) => plain('PUSHF', LETTER_SIZES[letter!]!)],
  [/^Popf(q|w)$/, ([, letter]) => plain('POPF', LETTER_SIZES[letter!]!)],
  [/^Enter(q|w)_imm16_imm8$/, ([, letter]) => enter(LETTER_SIZES[letter!]!)],
  [/^Leaveq$/, () => plain('LEAVE', 8)],
  [/^Leavew$/, () => plain('LEAVE_16', 2)],
];
