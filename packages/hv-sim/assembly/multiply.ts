// Multiplication and division (SDM vol. 2: MUL, IMUL, DIV, IDIV).
import { bitsOf, cut, resultFlags } from './alu';
import { raise } from './fault';
import { AF, CF, OF, STATUS, setStatus, ZF } from './state';

/** High half of the unsigned 128-bit product. */
export function multiplyHigh(a: u64, b: u64): u64 {
  const aLow = a & 0xffff_ffff;
  const aHigh = a >> 32;
  const bLow = b & 0xffff_ffff;
  const bHigh = b >> 32;
  const middle = aHigh * bLow + ((aLow * bLow) >> 32);
  const cross = aLow * bHigh + (middle & 0xffff_ffff);
  return aHigh * bHigh + (middle >> 32) + (cross >> 32);
}

/** High half of the signed 128-bit product. */
export function multiplyHighSigned(a: u64, b: u64): u64 {
  let high = multiplyHigh(a, b);
  if (<i64>a < 0) high -= b;
  if (<i64>b < 0) high -= a;
  return high;
}

/**
 * Flags of a multiplication: CF and OF say whether the upper half is significant. SF and PF are undefined by the SDM;
 * Intel's processors set them from the lower half, and clear ZF and AF.
 */
// @ts-ignore: decorator
@inline
export function multiplyFlags<T>(low: u64, significant: bool): void {
  setStatus(STATUS, (resultFlags<T>(low) & ~ZF & ~AF) | (significant ? CF | OF : 0));
}

/** Two-operand signed multiplication: the lower half, with flags. */
// @ts-ignore: decorator
@inline
export function multiply<T>(a: u64, b: u64): u64 {
  if (sizeof<T>() == 8) {
    const low = a * b;
    multiplyFlags<T>(low, multiplyHighSigned(a, b) != u64(<i64>low >> 63));
    return low;
  }
  const shift = 64 - bitsOf<T>();
  const product = (<i64>(a << shift) >> shift) * (<i64>(b << shift) >> shift);
  const low = cut<T>(<u64>product);
  multiplyFlags<T>(low, product != <i64>(low << shift) >> shift);
  return low;
}

/** Quotient and remainder of the last {@link divideWide}. */
export let quotient: u64 = 0;
export let remainder: u64 = 0;

/**
 * Divides the 128-bit `high:low` by `divisor`, unsigned.
 * @returns whether the quotient fits 64 bits; `false` also for a zero divisor.
 */
export function divideWide(high: u64, low: u64, divisor: u64): bool {
  if (high >= divisor) return false;
  if (high == 0) {
    quotient = low / divisor;
    remainder = low % divisor;
    return true;
  }
  // Long division, one bit a step; `rest` stays below the divisor.
  let rest = high;
  let result: u64 = 0;
  for (let bit = 63; bit >= 0; bit--) {
    const carry = rest >> 63;
    rest = (rest << 1) | ((low >> u64(bit)) & 1);
    result <<= 1;
    if (carry || rest >= divisor) {
      rest -= divisor;
      result |= 1;
    }
  }
  quotient = result;
  remainder = rest;
  return true;
}

/** {@link divideWide} for signed numbers; the quotient is cut towards zero, the remainder has the dividend's sign. */
export function divideWideSigned(high: u64, low: u64, divisor: u64): bool {
  const negativeDividend = <i64>high < 0;
  const negativeDivisor = <i64>divisor < 0;
  if (negativeDividend) {
    low = 0 - low;
    high = ~high + u64(low == 0);
  }
  if (!divideWide(high, low, negativeDivisor ? 0 - divisor : divisor)) return false;
  if (negativeDividend != negativeDivisor) {
    if (quotient > 0x8000_0000_0000_0000) return false;
    quotient = 0 - quotient;
  } else if (quotient > 0x7fff_ffff_ffff_ffff) return false;
  if (negativeDividend) remainder = 0 - remainder;
  return true;
}

/** #DE. */
export function divideError(): void {
  raise(0, 0, 0);
}
