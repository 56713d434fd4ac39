import { OpKind } from '@introd/x86/decoder';
import type { Emit, FormRule } from './form-rule.js';
import { opCode } from './op-codes.js';
import { OpFlag } from './op-layout.js';
import { ARRANGED_KINDS, BINARY_KINDS, MASK_KINDS, VECTOR_KINDS, VECTOR_SHIFT_KINDS } from './vector-kinds.js';

/** Floating-point instructions that do with bits what an integer one does. */
const EQUIVALENTS: Readonly<Record<string, string>> = {
  Xorps: 'PXOR',
  Xorpd: 'PXOR',
  Orps: 'POR',
  Orpd: 'POR',
  Andps: 'PAND',
  Andpd: 'PAND',
  Andnps: 'PANDN',
  Andnpd: 'PANDN',
  Unpcklps: 'PUNPCKLDQ',
  Unpckhps: 'PUNPCKHDQ',
  Unpcklpd: 'PUNPCKLQDQ',
  Unpckhpd: 'PUNPCKHQDQ',
};

/** The decoder's mnemonics of kinds, as alternatives of a pattern. */
function mnemonics(kinds: readonly string[]): string {
  return kinds.map((name) => name.charAt(0) + name.slice(1).toLowerCase()).join('|');
}

/** Number of the kind of a mnemonic. */
function vectorKind(mnemonic: string): number {
  return VECTOR_KINDS.indexOf(EQUIVALENTS[mnemonic] ?? mnemonic.toUpperCase());
}

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
  [
    new RegExp(`^(${[mnemonics(BINARY_KINDS), ...Object.keys(EQUIVALENTS)].join('|')})_xmm_xmmm128$`),
    ([, mnemonic]) => vector('VECTOR', vectorKind(mnemonic!)),
  ],
  [
    new RegExp(`^(${mnemonics(VECTOR_SHIFT_KINDS)})_xmm_(?:xmmm128|imm8)$`),
    ([, mnemonic]) => vector('VECTOR_SHIFT', vectorKind(mnemonic!)),
  ],
  [/^(Pslldq|Psrldq)_xmm_imm8$/, ([, mnemonic]) => byteShift(vectorKind(mnemonic!))],
  [
    new RegExp(`^(${mnemonics(ARRANGED_KINDS)})_xmm_xmmm128_imm8$`),
    ([, mnemonic]) => vector('VECTOR_ARRANGE', vectorKind(mnemonic!), 2),
  ],
  [
    new RegExp(`^(${mnemonics(MASK_KINDS)})_r(?:32|64)_xmm$`),
    ([, mnemonic]) => vector('VECTOR_MASK', vectorKind(mnemonic!)),
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
