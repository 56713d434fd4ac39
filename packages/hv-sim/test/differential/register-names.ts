import { Register } from 'iced-x86';

/** Size of a general register in bits. */
export type Gpr = 8 | 16 | 32 | 64;

/** AL, CL, DL, BL, SPL, BPL, SIL, DIL, R8L..R15L: the low bytes in the order of their encoding with REX. */
export const LOW_BYTES: readonly Register[] = [
  ...range(Register.AL, 4),
  ...range(Register.SPL, 4),
  ...range(Register.R8L, 8),
];
/** AH, CH, DH, BH. */
export const HIGH_BYTES: readonly Register[] = range(Register.AH, 4);

const FIRST: Readonly<Record<16 | 32 | 64, Register>> = { 16: Register.AX, 32: Register.EAX, 64: Register.RAX };

function range(first: Register, count: number): Register[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** The general register with that encoding; low byte for 8 bits. */
export function gprRegister(number: number, bits: Gpr): Register {
  return bits === 8 ? (LOW_BYTES[number] as Register) : FIRST[bits] + number;
}

/** Where a general register lies: number of its 64-bit register, its size, and the bit it begins at. */
export interface RegisterPart {
  number: number;
  bits: Gpr;
  shift: number;
}

/** The part of the register file that a general register is, or undefined for other registers. */
export function registerPart(register: Register): RegisterPart | undefined {
  const high = HIGH_BYTES.indexOf(register);
  if (high >= 0) return { number: high, bits: 8, shift: 8 };
  const low = LOW_BYTES.indexOf(register);
  if (low >= 0) return { number: low, bits: 8, shift: 0 };
  for (const bits of [16, 32, 64] as const) {
    const number = register - FIRST[bits];
    if (number >= 0 && number < 16) return { number, bits, shift: 0 };
  }
  return undefined;
}
