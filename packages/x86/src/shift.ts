import { result } from './arithmetic.js';
import { StoreOperation } from './store-operation.js';

/**
 * Shifts and rotates a value of 1 to 8 bytes; the result is in the halves of {@link result}, whose flags are not touched. Shifts of
 * page-table entries are rare, so this one uses 64-bit integers of the language.
 * @param count as the instruction gives it; cut to 5 bits, or 6 for 8 bytes (SDM vol. 2B, SAL)
 * @param carry CF before, for RCL and RCR
 */
export function rotateOrShift(
  operation: StoreOperation,
  low: number,
  high: number,
  count: number,
  carry: number,
  size: number,
): void {
  const bits = size * 8;
  const masked = count & (size === 8 ? 63 : 31);
  const value = BigInt.asUintN(bits, (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0));
  let out: bigint;
  switch (operation) {
    case StoreOperation.SHL:
      out = value << BigInt(masked);
      break;
    case StoreOperation.SHR:
      out = value >> BigInt(masked);
      break;
    case StoreOperation.SAR:
      out = BigInt.asIntN(bits, value) >> BigInt(masked);
      break;
    case StoreOperation.ROL:
      out = rotateLeft(value, masked % bits, bits);
      break;
    case StoreOperation.ROR:
      out = rotateLeft(value, (bits - (masked % bits)) % bits, bits);
      break;
    default: {
      // The carry flag is one more bit on top of the value.
      const turn = masked % (bits + 1);
      const wide = (BigInt(carry) << BigInt(bits)) | value;
      const left = operation === StoreOperation.RCL ? turn : (bits + 1 - turn) % (bits + 1);
      out = rotateLeft(wide, left, bits + 1);
    }
  }
  const stored = BigInt.asUintN(bits, out);
  result.low = Number(stored & 0xffff_ffffn);
  result.high = Number(stored >> 32n);
}

/**
 * SHLD and SHRD: shifts a value of 2 to 8 bytes and fills it from another; the result is in the halves of {@link result}. A count above
 * the size, which only 2 bytes can have, is not defined (SDM vol. 2B, SHLD); it is taken as a shift through value, source, value.
 * @param left SHLD
 * @param count as the instruction gives it
 */
export function doubleShift(
  left: boolean,
  low: number,
  high: number,
  sourceLow: number,
  sourceHigh: number,
  count: number,
  size: number,
): void {
  const bits = BigInt(size * 8);
  const by = BigInt(count & (size === 8 ? 63 : 31));
  const cut = (half: number, upper: number): bigint =>
    BigInt.asUintN(size * 8, (BigInt(upper >>> 0) << 32n) | BigInt(half >>> 0));
  const value = cut(low, high);
  const source = cut(sourceLow, sourceHigh);
  const three = (value << (2n * bits)) | (source << bits) | value;
  const stored = BigInt.asUintN(size * 8, left ? (three << by) >> (2n * bits) : three >> by);
  result.low = Number(stored & 0xffff_ffffn);
  result.high = Number(stored >> 32n);
}

function rotateLeft(value: bigint, count: number, bits: number): bigint {
  return BigInt.asUintN(bits, (value << BigInt(count)) | (value >> BigInt(bits - count)));
}
