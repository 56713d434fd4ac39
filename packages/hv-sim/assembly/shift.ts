// Shifts and rotates with their flags (SDM vol. 2: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD).

import { bitsOf, cut, resultFlags } from './alu';
import {
  SHIFT_RCL,
  SHIFT_RCR,
  SHIFT_ROL,
  SHIFT_ROR,
  SHIFT_SAL,
  SHIFT_SAR,
  SHIFT_SHL,
  SHIFT_SHR,
} from './generated/layout';
import { CF, flags, OF, STATUS, setStatus } from './state';

/**
 * Result of a shift or rotate by `count` (masked here), with its flags; a count of 0 changes none. OF is defined for
 * counts of 1 only; for others it is what processors compute by the same rule. AF is undefined and cleared.
 */
// @ts-ignore: decorator
@inline
export function shift<T>(kind: u32, value: u64, count: u32): u64 {
  const bits = u32(bitsOf<T>());
  count &= sizeof<T>() == 8 ? 63 : 31;
  if (count == 0) return value;
  const top = bitsOf<T>() - 1;
  if (kind == SHIFT_SHL || kind == SHIFT_SAL) {
    const result = count < bits ? cut<T>(value << u64(count)) : 0;
    const carry = count <= bits ? u32(value >> u64(bits - count)) & 1 : 0;
    const overflow = (u32(result >> top) ^ carry) & 1;
    setStatus(STATUS, carry | resultFlags<T>(result) | (overflow << 11));
    return result;
  }
  if (kind == SHIFT_SHR) {
    const result = count < bits ? value >> u64(count) : 0;
    const carry = count <= bits ? u32(value >> u64(count - 1)) & 1 : 0;
    // For a count of 1 the operand's sign; for others two top bits of the result differ never but then.
    const overflow = u32((result ^ (result << 1)) >> top) & 1;
    setStatus(STATUS, carry | resultFlags<T>(result) | (overflow << 11));
    return result;
  }
  if (kind == SHIFT_SAR) {
    const extended = <i64>(value << (63 - top)) >> (63 - top);
    const result = cut<T>(u64(extended >> i64(count)));
    const carry = u32(extended >> i64(count - 1)) & 1;
    setStatus(STATUS, carry | resultFlags<T>(result));
    return result;
  }
  if (kind == SHIFT_ROL) {
    const by = u64(count & (bits - 1));
    const result = by == 0 ? value : cut<T>((value << by) | (value >> (u64(bits) - by)));
    const carry = u32(result) & 1;
    setStatus(CF | OF, carry | (((u32(result >> top) ^ carry) & 1) << 11));
    return result;
  }
  if (kind == SHIFT_ROR) {
    const by = u64(count & (bits - 1));
    const result = by == 0 ? value : cut<T>((value >> by) | (value << (u64(bits) - by)));
    const carry = u32(result >> top) & 1;
    setStatus(CF | OF, carry | ((carry ^ (u32(result >> (top - 1)) & 1)) << 11));
    return result;
  }
  // Through carry: one bit a step, at most 63 of them; 8- and 16-bit counts wrap at 9 and 17.
  let carry = flags() & CF;
  let result = value;
  const steps = sizeof<T>() < 4 ? count % (bits + 1) : count;
  if (kind == SHIFT_RCL) {
    for (let step: u32 = 0; step < steps; step++) {
      const out = u32(result >> top) & 1;
      result = cut<T>((result << 1) | u64(carry));
      carry = out;
    }
    setStatus(CF | OF, carry | (((u32(result >> top) ^ carry) & 1) << 11));
    return result;
  }
  for (let step: u32 = 0; step < steps; step++) {
    const out = u32(result) & 1;
    result = (result >> 1) | (u64(carry) << top);
    carry = out;
  }
  setStatus(CF | OF, carry | ((u32((result >> top) ^ (result >> (top - 1))) & 1) << 11));
  return result;
}

/** {@link shift} where the kind comes from the record. */
export function shiftOfKind<T>(kind: u32, value: u64, count: u32): u64 {
  switch (kind) {
    case SHIFT_ROL:
      return shift<T>(SHIFT_ROL, value, count);
    case SHIFT_ROR:
      return shift<T>(SHIFT_ROR, value, count);
    case SHIFT_RCL:
      return shift<T>(SHIFT_RCL, value, count);
    case SHIFT_RCR:
      return shift<T>(SHIFT_RCR, value, count);
    case SHIFT_SHR:
      return shift<T>(SHIFT_SHR, value, count);
    case SHIFT_SAR:
      return shift<T>(SHIFT_SAR, value, count);
    default:
      return shift<T>(SHIFT_SHL, value, count);
  }
}

/**
 * SHLD (`left`) and SHRD. For 16 bits a count above 16 is undefined; processors shift the 48 bits `a:b:a`.
 */
export function doubleShift<T>(left: bool, a: u64, b: u64, count: u32): u64 {
  const bits = u32(bitsOf<T>());
  count &= sizeof<T>() == 8 ? 63 : 31;
  if (count == 0) return a;
  const top = bitsOf<T>() - 1;
  let result: u64;
  let carry: u32;
  if (sizeof<T>() == 2) {
    // SHLD takes from the top of a:b:a, SHRD from the bottom of a:b:a.
    const wide = (a << 32) | (b << 16) | a;
    if (left) {
      result = (wide >> (32 - u64(count))) & 0xffff;
      carry = u32(wide >> (48 - u64(count))) & 1;
    } else {
      result = (wide >> u64(count)) & 0xffff;
      carry = u32(wide >> u64(count - 1)) & 1;
    }
  } else if (left) {
    result = cut<T>((a << u64(count)) | (b >> u64(bits - count)));
    carry = u32(a >> u64(bits - count)) & 1;
  } else {
    result = cut<T>((a >> u64(count)) | (b << u64(bits - count)));
    carry = u32(a >> u64(count - 1)) & 1;
  }
  const overflow = left ? (u32(result >> top) ^ carry) & 1 : u32((result ^ (result << 1)) >> top) & 1;
  setStatus(STATUS, carry | resultFlags<T>(result) | (overflow << 11));
  return result;
}
