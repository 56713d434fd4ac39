import { Register, RegisterExt } from './decoder.js';
import { NO_REGISTER } from './memory-operand.js';

const COUNT = Object.values(Register).filter((value) => typeof value === 'number').length;

/** By register: number 0..15 of the general register that it is a part of, {@link NO_REGISTER} for the others. */
export const GENERAL_NUMBER = new Int8Array(COUNT).fill(NO_REGISTER);
/** By register: number 0..31 of a vector register, {@link NO_REGISTER} for the others. */
export const VECTOR_NUMBER = new Int8Array(COUNT).fill(NO_REGISTER);
/** By register: bits of an address that is made of it; 0 for registers that are in no address. */
export const ADDRESS_BITS = new Uint8Array(COUNT);

for (let register = 1 as Register; register < COUNT; register++) {
  if (RegisterExt.isGPR(register)) {
    GENERAL_NUMBER[register] = RegisterExt.number(RegisterExt.fullRegister(register));
    ADDRESS_BITS[register] = RegisterExt.isGPR8(register) ? 0 : RegisterExt.size(register) * 8;
  } else if (RegisterExt.isVectorRegister(register)) {
    VECTOR_NUMBER[register] = RegisterExt.number(register);
  } else if (RegisterExt.isIP(register)) {
    ADDRESS_BITS[register] = RegisterExt.size(register) * 8;
  }
}

/** AH, CH, DH or BH. */
export function isHighByte(register: Register): boolean {
  return register >= Register.AH && register <= Register.BH;
}

/** The encoding of a segment register, ES 0 to GS 5; -1 for what is none. */
export function segmentNumber(register: Register): number {
  return register >= Register.ES && register <= Register.GS ? register - Register.ES : -1;
}
