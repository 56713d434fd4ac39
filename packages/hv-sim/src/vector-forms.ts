import { OpKind } from '@introd/x86/decoder';
import type { Emit, FormRule } from './form-rule.js';
import { opCode } from './op-codes.js';
import { OpFlag } from './op-layout.js';
import { binaryKind, vectorKind, vectorMnemonics } from './vector-kinds.js';

/** An operation whose first operand is a register and whose second is a register, memory or an immediate. */
function vector(name: string, kind: number, immediate?: number): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.kind(kind);
    op.size(16);
    op.destinationRegister(0);
    op.source(1);
    if (immediate !== undefined) op.immediate(immediate);
  };
}

/** A shift of all bytes of a register: the immediate is its second operand. */
function byteShift(kind: number): Emit {
  const code = opCode('VECTOR_ARRANGE');
  return (op) => {
    op.code(code);
    op.kind(kind);
    op.destinationRegister(0);
    op.sourceRegister(0);
    op.immediate(1);
  };
}

/** A word that goes between a vector register and a general one or memory; the immediate is its number. */
function wordElement(name: string): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.size(2);
    op.destinationRegister(0);
    op.source(1);
    op.immediate(2);
  };
}

/** Forms of the vector instructions that compute with integers or move elements about; the moves are in sse-forms.ts. */
export const vectorForms: readonly FormRule[] = [
  [new RegExp(`^(${vectorMnemonics.binary})_xmm_xmmm128$`), ([, mnemonic]) => vector('VECTOR', binaryKind(mnemonic!)!)],
  [
    new RegExp(`^(${vectorMnemonics.shift})_xmm_(?:xmmm128|imm8)$`),
    ([, mnemonic]) => vector('VECTOR_SHIFT', vectorKind(mnemonic!.toUpperCase())),
  ],
  [/^(Pslldq|Psrldq)_xmm_imm8$/, ([, mnemonic]) => byteShift(vectorKind(mnemonic!.toUpperCase()))],
  [
    new RegExp(`^(${vectorMnemonics.arranged})_xmm_xmmm128_imm8$`),
    ([, mnemonic]) => vector('VECTOR_ARRANGE', vectorKind(mnemonic!.toUpperCase()), 2),
  ],
  [
    new RegExp(`^(${vectorMnemonics.mask})_r(?:32|64)_xmm$`),
    ([, mnemonic]) => vector('VECTOR_MASK', vectorKind(mnemonic!.toUpperCase())),
  ],
  [/^Pinsrw_xmm_r(?:32|64)m16_imm8$/, () => wordElement('PINSRW')],
  [/^Pextrw_r(?:32|64)_xmm_imm8$/, () => wordElement('PEXTRW')],
  [
    /^Maskmovdqu_rDI_xmm_xmm$/,
    () => {
      const code = opCode('MASKMOVDQU');
      return (op) => {
        op.code(code);
        if (op.instruction.opKind(0) === OpKind.MemorySegDI) op.flag(OpFlag.ADDRESS_16);
        if (op.instruction.opKind(0) === OpKind.MemorySegEDI) op.flag(OpFlag.ADDRESS_32);
        op.segment();
        op.destinationRegister(1);
        op.sourceRegister(2);
      };
    },
  ],
];
