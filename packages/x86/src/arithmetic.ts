/**
 * Integer arithmetic of 1 to 8 bytes on two unsigned 32-bit halves, with the flags that the processor sets. Results
 * are left in {@link result}: one object for all, so that nothing is allocated.
 */

/** Bits of RFLAGS that arithmetic changes (SDM vol. 1, 3.4.3). */
export const Flag = { CF: 1, PF: 4, AF: 0x10, ZF: 0x40, SF: 0x80, OF: 0x800 } as const;

/** All six status flags. */
export const STATUS_FLAGS = Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.OF;

/** Result of the last operation. */
export const result = {
  low: 0,
  high: 0,
  /** Values of the flags. */
  flags: 0,
};

/** Mask of the low half of a value of `size` bytes. */
export function lowMask(size: number): number {
  return size === 1 ? 0xff : size === 2 ? 0xffff : 0xffff_ffff;
}

function signBit(low: number, high: number, size: number): number {
  return size === 8 ? high >>> 31 : size === 4 ? low >>> 31 : size === 2 ? (low >>> 15) & 1 : (low >>> 7) & 1;
}

/** Whether the low byte has an even number of ones. */
function parity(low: number): boolean {
  const nibbles = (low ^ (low >>> 4)) & 0xf;
  // Bit n of the constant is 1 when n has an even number of ones.
  return ((0x9669 >>> nibbles) & 1) !== 0;
}

function setResult(low: number, high: number, size: number, carryOverflowAdjust: number): void {
  const maskedLow = (low & lowMask(size)) >>> 0;
  const maskedHigh = size === 8 ? high >>> 0 : 0;
  result.low = maskedLow;
  result.high = maskedHigh;
  result.flags =
    carryOverflowAdjust |
    (parity(maskedLow) ? Flag.PF : 0) |
    (maskedLow === 0 && maskedHigh === 0 ? Flag.ZF : 0) |
    (signBit(maskedLow, maskedHigh, size) !== 0 ? Flag.SF : 0);
}

/** a + b + carry. */
export function add(aLow: number, aHigh: number, bLow: number, bHigh: number, carry: number, size: number): void {
  const mask = lowMask(size);
  const a = (aLow & mask) >>> 0;
  const b = (bLow & mask) >>> 0;
  const sumLow = a + b + carry;
  let out = sumLow > mask ? 1 : 0;
  const low = (sumLow & mask) >>> 0;
  let high = 0;
  if (size === 8) {
    const sumHigh = aHigh + bHigh + out;
    out = sumHigh > 0xffff_ffff ? 1 : 0;
    high = sumHigh >>> 0;
  }
  const signA = signBit(a, aHigh, size);
  const signR = signBit(low, high, size);
  const overflow = signA === signBit(b, bHigh, size) && signA !== signR;
  setResult(low, high, size, out | ((a ^ b ^ low) & Flag.AF) | (overflow ? Flag.OF : 0));
}

/** a - b - borrow. */
export function subtract(aLow: number, aHigh: number, bLow: number, bHigh: number, borrow: number, size: number): void {
  const mask = lowMask(size);
  const a = (aLow & mask) >>> 0;
  const b = (bLow & mask) >>> 0;
  const differenceLow = a - b - borrow;
  let out = differenceLow < 0 ? 1 : 0;
  const low = (differenceLow & mask) >>> 0;
  let high = 0;
  if (size === 8) {
    const differenceHigh = aHigh - bHigh - out;
    out = differenceHigh < 0 ? 1 : 0;
    high = differenceHigh >>> 0;
  }
  const signA = signBit(a, aHigh, size);
  const overflow = signA !== signBit(b, bHigh, size) && signA !== signBit(low, high, size);
  setResult(low, high, size, out | ((a ^ b ^ low) & Flag.AF) | (overflow ? Flag.OF : 0));
}

/** Result of AND, OR and XOR: CF and OF are clear, AF is not defined and given as clear. */
export function logic(low: number, high: number, size: number): void {
  setResult(low, high, size, 0);
}
