// Two- and one-operand arithmetic and its flags (SDM vol. 1, 3.4.3.1). Values are zero-extended to 64 bits; `T` is the
// operand's width. Flags are computed at once: an exit may look at RFLAGS after any instruction.
import {
  ALU_ADC,
  ALU_ADD,
  ALU_AND,
  ALU_CMP,
  ALU_OR,
  ALU_SBB,
  ALU_SUB,
  ALU_TEST,
  ALU_XOR,
  UNARY_DEC,
  UNARY_INC,
  UNARY_NEG,
} from './generated/layout';
import { AF, CF, flags, OF, PF, SF, STATUS, setStatus, ZF } from './state';

/** Number of bits of `T`. */
// @ts-ignore: decorator
@inline
export function bitsOf<T>(): u64 {
  return sizeof<T>() << 3;
}

/** Cuts a value to the width of `T`. */
// @ts-ignore: decorator
@inline
export function cut<T>(value: u64): u64 {
  if (sizeof<T>() == 8) return value;
  return u64(<T>value);
}

/** PF, ZF and SF of a result. */
// @ts-ignore: decorator
@inline
export function resultFlags<T>(result: u64): u32 {
  return (
    ((u32(~popcnt<u32>(<u32>result & 0xff)) & 1) << 2) |
    (u32(result == 0) << 6) |
    (u32(result >> (bitsOf<T>() - 1)) << 7)
  );
}

// @ts-ignore: decorator
@inline
export function addFlags<T>(a: u64, b: u64, result: u64, carryOut: u32): void {
  const overflow = u32(((a ^ result) & (b ^ result)) >> (bitsOf<T>() - 1));
  setStatus(STATUS, carryOut | (<u32>(a ^ b ^ result) & AF) | resultFlags<T>(result) | (overflow << 11));
}

// @ts-ignore: decorator
@inline
export function subFlags<T>(a: u64, b: u64, result: u64, borrowOut: u32): void {
  const overflow = u32(((a ^ b) & (a ^ result)) >> (bitsOf<T>() - 1));
  setStatus(STATUS, borrowOut | (<u32>(a ^ b ^ result) & AF) | resultFlags<T>(result) | (overflow << 11));
}

/** Flags of AND, OR, XOR, TEST. AF is undefined by the SDM; processors clear it. */
// @ts-ignore: decorator
@inline
export function logicFlags<T>(result: u64): void {
  setStatus(STATUS, resultFlags<T>(result));
}

/**
 * Result of a two-operand operation, with its flags. `kind` is a constant at each use, so that one branch remains.
 * For CMP and TEST the result is not to be stored.
 */
// @ts-ignore: decorator
@inline
export function alu<T>(kind: u32, a: u64, b: u64): u64 {
  if (kind == ALU_ADD) {
    const sum = cut<T>(a + b);
    addFlags<T>(a, b, sum, u32(sum < a));
    return sum;
  }
  if (kind == ALU_SUB || kind == ALU_CMP) {
    const difference = cut<T>(a - b);
    subFlags<T>(a, b, difference, u32(a < b));
    return difference;
  }
  if (kind == ALU_AND || kind == ALU_TEST) {
    logicFlags<T>(a & b);
    return a & b;
  }
  if (kind == ALU_XOR) {
    logicFlags<T>(a ^ b);
    return a ^ b;
  }
  if (kind == ALU_OR) {
    logicFlags<T>(a | b);
    return a | b;
  }
  if (kind == ALU_ADC) {
    const sum = cut<T>(a + b + u64(flags() & CF));
    addFlags<T>(a, b, sum, u32(((a & b) | ((a | b) & ~sum)) >> (bitsOf<T>() - 1)) & 1);
    return sum;
  }
  const difference = cut<T>(a - b - u64(flags() & CF));
  subFlags<T>(a, b, difference, u32(((~a & b) | ((~a | b) & difference)) >> (bitsOf<T>() - 1)) & 1);
  return difference;
}

/** {@link alu} where the kind comes from the record. */
export function aluOfKind<T>(kind: u32, a: u64, b: u64): u64 {
  switch (kind) {
    case ALU_ADD:
      return alu<T>(ALU_ADD, a, b);
    case ALU_OR:
      return alu<T>(ALU_OR, a, b);
    case ALU_ADC:
      return alu<T>(ALU_ADC, a, b);
    case ALU_SBB:
      return alu<T>(ALU_SBB, a, b);
    case ALU_AND:
    case ALU_TEST:
      return alu<T>(ALU_AND, a, b);
    case ALU_XOR:
      return alu<T>(ALU_XOR, a, b);
    default:
      return alu<T>(ALU_SUB, a, b);
  }
}

/** INC, DEC, NOT, NEG. INC and DEC leave CF, NOT all flags. */
// @ts-ignore: decorator
@inline
export function unary<T>(kind: u32, value: u64): u64 {
  if (kind == UNARY_INC) {
    const result = cut<T>(value + 1);
    const overflow = u32((~value & result) >> (bitsOf<T>() - 1)) & 1;
    setStatus(STATUS & ~CF, (<u32>(value ^ 1 ^ result) & AF) | resultFlags<T>(result) | (overflow << 11));
    return result;
  }
  if (kind == UNARY_DEC) {
    const result = cut<T>(value - 1);
    const overflow = u32((value & ~result) >> (bitsOf<T>() - 1)) & 1;
    setStatus(STATUS & ~CF, (<u32>(value ^ 1 ^ result) & AF) | resultFlags<T>(result) | (overflow << 11));
    return result;
  }
  if (kind == UNARY_NEG) {
    const result = cut<T>(0 - value);
    subFlags<T>(0, value, result, u32(value != 0));
    return result;
  }
  return cut<T>(~value);
}

/** {@link unary} where the kind comes from the record. */
export function unaryOfKind<T>(kind: u32, value: u64): u64 {
  switch (kind) {
    case UNARY_INC:
      return unary<T>(UNARY_INC, value);
    case UNARY_DEC:
      return unary<T>(UNARY_DEC, value);
    case UNARY_NEG:
      return unary<T>(UNARY_NEG, value);
    default:
      return cut<T>(~value);
  }
}

/** Whether a condition of the encoding's order (O, NO, B, ...) holds for the flags `f`. */
// @ts-ignore: decorator
@inline
export function condition(code: u32, f: u32): bool {
  let holds: bool;
  switch (code >> 1) {
    case 0:
      holds = (f & OF) != 0;
      break;
    case 1:
      holds = (f & CF) != 0;
      break;
    case 2:
      holds = (f & ZF) != 0;
      break;
    case 3:
      holds = (f & (CF | ZF)) != 0;
      break;
    case 4:
      holds = (f & SF) != 0;
      break;
    case 5:
      holds = (f & PF) != 0;
      break;
    case 6:
      holds = ((f >> 7) & 1) != ((f >> 11) & 1);
      break;
    default:
      holds = (f & ZF) != 0 || ((f >> 7) & 1) != ((f >> 11) & 1);
  }
  return holds != ((code & 1) != 0);
}

/** {@link condition} out of line, for operations that are not worth the code size. */
export function conditionHolds(code: u32): bool {
  return condition(code, flags());
}

/** {@link aluOfKind} for operands of 1, 2, 4 or 8 bytes. */
export function aluOfSize(kind: u32, size: u32, a: u64, b: u64): u64 {
  switch (size) {
    case 1:
      return aluOfKind<u8>(kind, a, b);
    case 2:
      return aluOfKind<u16>(kind, a, b);
    case 4:
      return aluOfKind<u32>(kind, a, b);
    default:
      return aluOfKind<u64>(kind, a, b);
  }
}
