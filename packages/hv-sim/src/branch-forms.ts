import { conditionNames, type Emit, type FormRule } from './form-rule.js';
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

function loop(name: string, narrow: boolean): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.target();
    if (narrow) op.flag(OpFlag.ADDRESS_32);
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
  [/^(Loopne|Loope|Loop)_rel8_64_(ECX|RCX)$/, ([, name, counter]) => loop(name!.toUpperCase(), counter === 'ECX')],
  [/^J(e|r)cxz_rel8_64$/, ([, width]) => loop('JRCXZ', width === 'e')],
];
