import { Flag } from './test-case.js';

const { CF, PF, AF, ZF, SF, OF } = Flag;

/** Count of a shift or rotate and the size of what it shifts, in bits. */
export interface Shift {
  /** As the instruction gives it, not masked yet. */
  count: number;
  bits: number;
}

/**
 * The status flags that the SDM (vol. 2, "Flags Affected" of each instruction) leaves undefined. Whatever is not listed
 * here is compared.
 *
 * @param mnemonic iced's name
 * @param shift for shifts and rotates
 */
export function undefinedFlags(mnemonic: string, shift: Shift | undefined): number {
  if (shift !== undefined) return undefinedByShift(mnemonic, shift);
  return UNDEFINED[mnemonic] ?? 0;
}

const UNDEFINED: Readonly<Record<string, number>> = {
  Aaa: OF | SF | ZF | PF,
  Aas: OF | SF | ZF | PF,
  Daa: OF,
  Das: OF,
  Aam: OF | AF | CF,
  Aad: OF | AF | CF,
  And: AF,
  Or: AF,
  Xor: AF,
  Test: AF,
  Mul: SF | ZF | AF | PF,
  Imul: SF | ZF | AF | PF,
  Div: CF | OF | SF | ZF | AF | PF,
  Idiv: CF | OF | SF | ZF | AF | PF,
  Bsf: CF | OF | SF | AF | PF,
  Bsr: CF | OF | SF | AF | PF,
  Bt: OF | SF | AF | PF,
  Bts: OF | SF | AF | PF,
  Btr: OF | SF | AF | PF,
  Btc: OF | SF | AF | PF,
  Tzcnt: OF | SF | AF | PF,
  Lzcnt: OF | SF | AF | PF,
  Andn: AF | PF,
  Blsr: AF | PF,
  Blsmsk: AF | PF,
  Blsi: AF | PF,
  Bzhi: AF | PF,
  Bextr: SF | AF | PF,
};

function undefinedByShift(mnemonic: string, { count, bits }: Shift): number {
  const masked = count & (bits === 64 ? 63 : 31);
  // "If the count is 0, the flags are not affected", for all of them.
  if (masked === 0) return 0;
  const overflow = masked === 1 ? 0 : OF;
  switch (mnemonic) {
    case 'Rol':
    case 'Ror':
    case 'Rcl':
    case 'Rcr':
      return overflow;
    case 'Shl':
    case 'Sal':
    case 'Shr':
      // CF is undefined when the (masked) count reaches the operand size.
      return overflow | AF | (masked >= bits ? CF : 0);
    case 'Sar':
      return overflow | AF;
    case 'Shld':
    case 'Shrd':
      return overflow | AF;
    default:
      throw new Error(`${mnemonic} does not shift`);
  }
}
