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

function rotateLeft(value: bigint, count: number, bits: number): bigint {
  return BigInt.asUintN(bits, (value << BigInt(count)) | (value >> BigInt(bits - count)));
}
