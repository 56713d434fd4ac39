import { Register } from '@introd/x86/decoder';
import {
  conditionNames,
  conditionNumber,
  destinationOnly,
  type Emit,
  type FormRule,
  memoryOnly,
  operandSize,
  plain,
  sourceOnly,
} from './form-rule.js';
import { ALU_KINDS, OPERAND_FORMS, opCode, SHIFT_KINDS, UNARY_KINDS } from './op-codes.js';
import { OpFlag } from './op-layout.js';

/** Numbers of an operation's five forms: RR RI RM MR MI. */
function formCodes(name: string, suffix: string): readonly number[] {
  return OPERAND_FORMS.map((form) => opCode(`${name}_${form}_${suffix}`));
}

/** A two-operand instruction with an operation for each form. */
function twoOperands(forms: readonly number[], kind: number, size: number): Emit {
  const [rr, ri, rm, mr, mi] = forms as [number, number, number, number, number];
  return (op) => {
    op.size(size);
    op.kind(kind);
    if (op.isMemory(0)) {
      op.memory();
      if (op.isRegister(1)) {
        op.code(mr);
        op.sourceRegister(1);
      } else {
        op.code(mi);
        op.immediate(1);
      }
      return;
    }
    op.destinationRegister(0);
    if (op.isMemory(1)) {
      op.code(rm);
      op.memory();
    } else if (op.isRegister(1)) {
      op.code(rr);
      op.sourceRegister(1);
    } else {
      op.code(ri);
      op.immediate(1);
    }
  };
}

/** A generic operation whose first operand is the destination and second the source. */
function generic(code: number, size: number, sourceSize = 0, kind = 0): Emit {
  return (op) => {
    op.code(code);
    op.size(size);
    op.sourceSize(sourceSize);
    op.kind(kind);
    op.destination(0);
    op.source(1);
  };
}

/** Register and memory variants of a two-operand load: the destination is a register. */
function registerLoad(registerCode: number, memoryCode: number, size: number, kind = 0): Emit {
  return (op) => {
    op.size(size);
    op.kind(kind);
    op.destinationRegister(0);
    if (op.isMemory(1)) {
      op.code(memoryCode);
      op.memory();
    } else {
      op.code(registerCode);
      op.sourceRegister(1);
    }
  };
}

function extend(kind: string, destination: string, source: string): Emit {
  const size = operandSize(destination);
  const sourceSize = operandSize(source);
  if (sourceSize === size && size === 4) return twoOperands(formCodes('MOV', '32'), 0, 4);
  if (size === 2) return generic(opCode(kind), size, sourceSize);
  const width = kind === 'MOVZX' ? 32 : size * 8;
  return registerLoad(
    opCode(`${kind}_${width}_R${sourceSize * 8}`),
    opCode(`${kind}_${width}_M${sourceSize * 8}`),
    size,
  );
}

function unary(kind: string, operand: string): Emit {
  const size = operandSize(operand);
  const code = opCode('UNARY');
  const registerCode = size >= 4 ? opCode(`${kind}_R_${size * 8}`) : code;
  const number = UNARY_KINDS.indexOf(kind as (typeof UNARY_KINDS)[number]);
  return (op) => {
    op.code(op.isMemory(0) ? code : registerCode);
    op.size(size);
    op.kind(number);
    op.destination(0);
  };
}

function shift(name: string, operand: string): Emit {
  const size = operandSize(operand);
  const kind = name === 'SAL' ? 'SHL' : name;
  const code = opCode('SHIFT');
  const number = SHIFT_KINDS.indexOf(kind as (typeof SHIFT_KINDS)[number]);
  const fast = size >= 4 && ['SHL', 'SHR', 'SAR'].includes(kind) ? opCode(`${kind}_RI_${size * 8}`) : code;
  return (op) => {
    op.code(op.isRegister(0) && !op.isRegister(1) ? fast : code);
    op.size(size);
    op.kind(number);
    op.destination(0);
    op.source(1);
  };
}

/** Three-operand forms with VEX, by the place of the r/m operand and of the one in VEX.vvvv. */
function vex(name: string, operand: string, source: number, third: number): Emit {
  const code = opCode(name);
  const size = operandSize(operand);
  return (op) => {
    op.code(code);
    op.size(size);
    op.destinationRegister(0);
    op.source(source);
    if (third > 0) op.thirdRegister(third);
  };
}

function lea(operand: string): Emit {
  const code = opCode(`LEA_${operandSize(operand) * 8}`);
  return (op) => {
    op.code(code);
    op.destinationRegister(0);
    op.memory();
  };
}

const aluNames = ALU_KINDS.map((name) => name[0] + name.slice(1).toLowerCase()).join('|');

/** General instructions on data: moves, arithmetic, bits, flags; and those that do nothing. */
export const generalForms: readonly FormRule[] = [
  [
    new RegExp(`^(${aluNames})_(rm\\d+|r\\d+|AL|AX|EAX|RAX)_`),
    ([, name, first]) => {
      const size = operandSize(first!);
      const kind = ALU_KINDS.indexOf(name!.toUpperCase() as (typeof ALU_KINDS)[number]);
      if (size < 4) return twoOperands(formCodes('ALU', `${size * 8}`), kind, size);
      return twoOperands(formCodes(name!.toUpperCase(), `${size * 8}`), kind, size);
    },
  ],
  [
    /^Mov_(rm\d+|r\d+|AL|AX|EAX|RAX|moffs\d+)_(rm\d+|r\d+|AL|AX|EAX|RAX|moffs\d+|imm\d+)$/,
    ([, first]) => {
      const size = operandSize(first!);
      return twoOperands(formCodes('MOV', `${size * 8}`), 0, size);
    },
  ],
  [
    /^Movnti_(m\d+)_r\d+$/,
    ([, first]) => {
      const size = operandSize(first!);
      return twoOperands(formCodes('MOV', `${size * 8}`), 0, size);
    },
  ],
  // With a 16-bit destination and source there is nothing to extend; the record says so by equal sizes.
  [/^Movzx_(r\d+)_(rm\d+)$/, ([, destination, source]) => extend('MOVZX', destination!, source!)],
  [/^Movsxd?_(r\d+)_(rm\d+)$/, ([, destination, source]) => extend('MOVSX', destination!, source!)],
  [/^Lea_(r\d+)_m$/, ([, first]) => lea(first!)],
  [/^(Inc|Dec|Not|Neg)_(rm?\d+)$/, ([, name, operand]) => unary(name!.toUpperCase(), operand!)],
  [
    /^(Rol|Ror|Rcl|Rcr|Shl|Shr|Sal|Sar)_(rm\d+)_(?:imm8|1|CL)$/,
    ([, name, operand]) => shift(name!.toUpperCase(), operand!),
  ],
  [
    /^(Shld|Shrd)_(rm\d+)_r\d+_(imm8|CL)$/,
    ([, name, operand, count]) => {
      const code = opCode(name!.toUpperCase());
      const size = operandSize(operand!);
      return (op) => {
        op.code(code);
        op.size(size);
        op.destination(0);
        op.sourceRegister(1);
        if (count === 'imm8') {
          op.immediate(2);
          op.flag(OpFlag.IMMEDIATE_SOURCE);
        }
      };
    },
  ],
  [/^Xchg_(r(?:m?)\d+)_\w+$/, ([, operand]) => generic(opCode('XCHG'), operandSize(operand!))],
  [/^(Xadd|Cmpxchg)_(rm\d+)_r\d+$/, ([, name, operand]) => generic(opCode(name!.toUpperCase()), operandSize(operand!))],
  [/^Cmpxchg8b_m64$/, () => memoryOnly('CMPXCHG8B', 8)],
  [/^Cmpxchg16b_m128$/, () => memoryOnly('CMPXCHG16B', 16)],
  [/^(Mul|Div|Idiv)_(rm\d+)$/, ([, name, operand]) => sourceOnly(name!.toUpperCase(), operandSize(operand!))],
  [/^Imul_(rm\d+)$/, ([, operand]) => sourceOnly('IMUL_1', operandSize(operand!))],
  [
    /^Imul_(r\d+)_rm\d+$/,
    ([, operand]) => {
      const size = operandSize(operand!);
      if (size === 2) return generic(opCode('IMUL_2'), 2);
      return registerLoad(opCode(`IMUL_RR_${size * 8}`), opCode(`IMUL_RM_${size * 8}`), size);
    },
  ],
  [
    /^Imul_(r\d+)_rm\d+_imm\d+$/,
    ([, operand]) => {
      const code = opCode('IMUL_3');
      const size = operandSize(operand!);
      return (op) => {
        op.code(code);
        op.size(size);
        op.destinationRegister(0);
        op.source(1);
        op.immediate(2);
      };
    },
  ],
  [
    /^(Bt|Bts|Btr|Btc|Bsf|Bsr|Popcnt|Lzcnt|Tzcnt)_(rm?\d+)_\w+$/,
    ([, name, operand]) => generic(opCode(name!.toUpperCase()), operandSize(operand!)),
  ],
  [/^VEX_(Andn|Mulx|Pdep|Pext)_(r\d+)_r\d+_rm\d+$/, ([, name, operand]) => vex(name!.toUpperCase(), operand!, 2, 1)],
  [
    /^VEX_(Bextr|Bzhi|Sarx|Shlx|Shrx)_(r\d+)_rm\d+_r\d+$/,
    ([, name, operand]) => vex(name!.toUpperCase(), operand!, 1, 2),
  ],
  [/^VEX_(Blsi|Blsr|Blsmsk)_(r\d+)_rm\d+$/, ([, name, operand]) => vex(name!.toUpperCase(), operand!, 1, 0)],
  [
    /^VEX_Rorx_(r\d+)_rm\d+_imm8$/,
    ([, operand]) => {
      const emit = vex('RORX', operand!, 1, 0);
      return (op) => {
        emit(op);
        op.immediate(2);
      };
    },
  ],
  [/^(Adcx|Adox)_(r\d+)_rm\d+$/, ([, name, operand]) => generic(opCode(name!.toUpperCase()), operandSize(operand!))],
  [/^Movbe_(r\d+|m\d+)_\w+$/, ([, operand]) => generic(opCode('MOVBE'), operandSize(operand!))],
  [/^Bswap_(r\d+)$/, ([, operand]) => destinationOnly('BSWAP', operandSize(operand!))],
  [
    /^Crc32_(r\d+)_(rm\d+)$/,
    ([, destination, source]) => generic(opCode('CRC32'), operandSize(destination!), operandSize(source!)),
  ],
  [
    /^Xlat_m8$/,
    () => {
      const code = opCode('XLAT');
      return (op) => {
        op.code(code);
        op.segment();
        if (op.instruction.memoryBase === Register.EBX) op.flag(OpFlag.ADDRESS_32);
        else if (op.instruction.memoryBase === Register.BX) op.flag(OpFlag.ADDRESS_16);
      };
    },
  ],
  [
    new RegExp(`^Set(${conditionNames})_rm8$`),
    ([, condition]) => {
      const registerCode = opCode('SETCC_R');
      const memoryCode = opCode('SETCC_M');
      const kind = conditionNumber(condition!);
      return (op) => {
        op.code(op.isMemory(0) ? memoryCode : registerCode);
        op.size(1);
        op.kind(kind);
        op.destination(0);
      };
    },
  ],
  [
    new RegExp(`^Cmov(${conditionNames})_(r\\d+)_rm\\d+$`),
    ([, condition, operand]) => {
      const size = operandSize(operand!);
      const kind = conditionNumber(condition!);
      if (size === 2) return generic(opCode('CMOV'), 2, 0, kind);
      return registerLoad(opCode(`CMOV_${size * 8}_R`), opCode(`CMOV_${size * 8}_M`), size, kind);
    },
  ],
  [/^(Cbw|Cwde|Cdqe)$/, ([name]) => plain('CBW', { Cbw: 2, Cwde: 4, Cdqe: 8 }[name!]!)],
  [/^(Cwd|Cdq|Cqo)$/, ([name]) => plain('CWD', { Cwd: 2, Cdq: 4, Cqo: 8 }[name!]!)],
  [/^(Clc|Stc|Cmc|Cld|Std|Lahf|Sahf)$/, ([name]) => plain(name!.toUpperCase())],
  [/^(?:Nop|Reservednop)_|^Nop[wdq]$|^Endbr(?:32|64)$|^Pause$|^Prefetch|^[LMS]fence|^Cldemote/, () => plain('NOP')],
  [/^(?:Clflush|Clflushopt|Clwb)_m8$/, () => memoryOnly('PROBE', 1)],
  [/^Ud[012]/, () => (op) => op.invalid()],
  [
    /^Mov_(rm16|r32m16|r64m16)_Sreg$/,
    ([, operand]) => {
      const code = opCode('MOV_FROM_SEGMENT');
      const size = operandSize(operand!);
      return (op) => {
        op.code(code);
        op.size(op.isMemory(0) ? 2 : size);
        op.destination(0);
        op.sourceRegister(1);
      };
    },
  ],
];
