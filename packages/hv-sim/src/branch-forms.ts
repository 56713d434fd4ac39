import { conditionNames, conditionNumber, type Emit, type FormRule, LETTER_SIZES } from './form-rule.js';
import { opCode } from './op-codes.js';
import { OpFlag } from './op-layout.js';

function branch(name: string): Emit {
  const code = opCode(name);
  const ends = name === 'JMP';
  return (op) => {
    op.code(code);
    op.target();
    op.ends = ends;
  };
}

function indirect(name: string): Emit {
  const registerCode = opCode(`${name}_R`);
  const memoryCode = opCode(`${name}_M`);
  return (op) => {
    if (op.isMemory(0)) {
      op.code(memoryCode);
      op.memory();
    } else {
      op.code(registerCode);
      op.sourceRegister(0);
    }
    op.ends = name === 'JMP';
  };
}

function loop(name: string, counter: string, size: number): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.size(size);
    op.target();
    if (counter === 'CX') op.flag(OpFlag.ADDRESS_16);
    else if (counter === 'ECX') op.flag(OpFlag.ADDRESS_32);
  };
}

/** A direct branch of 16- and 32-bit code: the target is as wide as the operand size. */
function nearBranch(name: string, bits: string, condition?: string): Emit {
  const code = opCode(condition === undefined ? `${name}_NEAR` : 'JCC_NEAR');
  const kind = condition === undefined ? 0 : conditionNumber(condition);
  // EIP wraps where a page ends, and there every instruction is looked up anew: a jump of 64-bit code does.
  const flatCode = name === 'CALL' || bits === '16' ? code : opCode(`J${condition?.toUpperCase() ?? 'MP'}`);
  const ends = name === 'JMP';
  return (op) => {
    op.code(op.flat ? flatCode : code);
    op.size(Number(bits) / 8);
    op.kind(kind);
    op.target();
    op.ends = ends;
  };
}

function nearIndirect(name: string, bits: string): Emit {
  const code = opCode(`${name}_NEAR_INDIRECT`);
  return (op) => {
    op.code(code);
    op.size(Number(bits) / 8);
    op.source(0);
    op.ends = name === 'JMP';
  };
}

function nearReturn(size: number, immediate: boolean): Emit {
  const code = opCode('RET_NEAR');
  return (op) => {
    op.code(code);
    op.size(size);
    if (immediate) op.immediate(0);
    op.ends = true;
  };
}

/** Jumps, calls, returns and loops within a privilege level. */
export const branchForms: readonly FormRule[] = [
  [new RegExp(`^J(${conditionNames})_rel(?:8|32)_64$`), ([, condition]) => branch(`J${condition!.toUpperCase()}`)],
  [/^(Jmp|Call)_rel(?:8|32)_64$/, ([, name]) => branch(name!.toUpperCase())],
  [/^(Jmp|Call)_rm64$/, ([, name]) => indirect(name!.toUpperCase())],
  [
    /^Retnq(_imm16)?$/,
    ([, immediate]) => {
      const code = opCode(immediate ? 'RET_I' : 'RET');
      return (op) => {
        op.code(code);
        if (immediate) op.immediate(0);
        op.ends = true;
      };
    },
  ],
  [
    new RegExp(`^J(${conditionNames})_rel(?:8_|32_)?(16|32)$`),
    ([, condition, bits]) => nearBranch('JCC', bits!, condition!),
  ],
  [/^(Jmp|Call)_rel(?:8_|32_)?(16|32)$/, ([, name, bits]) => nearBranch(name!.toUpperCase(), bits!)],
  [/^(Jmp|Call)_rm(16|32)$/, ([, name, bits]) => nearIndirect(name!.toUpperCase(), bits!)],
  [/^Retn([dw])(_imm16)?$/, ([, letter, immediate]) => nearReturn(LETTER_SIZES[letter!]!, immediate !== undefined)],
  [
    /^(Loopne|Loope|Loop)_rel8_(16|32|64)_(CX|ECX|RCX)$/,
    ([, name, bits, counter]) => loop(name!.toUpperCase(), counter!, Number(bits) / 8),
  ],
  [/^J(e?c|rc)xz_rel8_(16|32|64)$/, ([, width, bits]) => loop('JRCXZ', `${width!.toUpperCase()}X`, Number(bits) / 8)],
];
