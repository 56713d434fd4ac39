// Bit tests, bit counts, BMI1, BMI2 and ADX on the operands of op records.
import { bitExtract, bitFlags, depositBits, extractBits, leadingZeros, trailingZeros } from './bits';
import { fault } from './fault';
import {
  FLAG_IMMEDIATE_SOURCE,
  FLAG_MEMORY_DESTINATION,
  I_ANDN,
  I_BEXTR,
  I_BLSI,
  I_BLSMSK,
  I_BLSR,
  I_BSF,
  I_BSR,
  I_BT,
  I_BTR,
  I_BTS,
  I_BZHI,
  I_LZCNT,
  I_MULX,
  I_PDEP,
  I_PEXT,
  I_POPCNT,
  I_RORX,
  I_SARX,
  I_SHLX,
  OP_DST,
  OP_FLAGS,
  OP_IMM,
  OP_SIZE,
  OP_SRC,
  OP_THIRD,
} from './generated/layout';
import { multiplyHigh } from './multiply';
import {
  cutToSize,
  effectiveOffset,
  linearAddress,
  loadForUpdateOfSize,
  loadOfSize,
  readSource,
  signExtend,
  storeUpdatedOfSize,
} from './operand';
import {
  AF,
  CF,
  flags,
  general,
  PF,
  RDX,
  registerOfSize,
  SF,
  STATUS,
  setRegisterOfSize,
  setStatus,
  ZF,
} from './state';

/** BT, BTS, BTR, BTC. With a register source a memory operand is a bit string that reaches in both directions. */
export function execBitTest(op: usize, code: u32): void {
  const size = load<u8>(op, OP_SIZE);
  const opFlags = load<u16>(op, OP_FLAGS);
  const bits = u64(size) << 3;
  const immediate = (opFlags & FLAG_IMMEDIATE_SOURCE) != 0;
  const number = immediate ? load<u64>(op, OP_IMM) : registerOfSize(load<u16>(op, OP_SRC), size);
  const bit = number & (bits - 1);
  let address: u64 = 0;
  let value: u64;
  if (opFlags & FLAG_MEMORY_DESTINATION) {
    let offset = effectiveOffset(op);
    if (!immediate) {
      const units = <i64>signExtend(number, size) >> (size == 2 ? 4 : size == 4 ? 5 : 6);
      offset += u64(units * i64(size));
    }
    address = linearAddress(op, offset);
    value = code == I_BT ? loadOfSize(address, size) : loadForUpdateOfSize(address, size);
    if (fault) return;
  } else {
    value = registerOfSize(load<u16>(op, OP_DST), size);
  }
  setStatus(CF, u32(value >> bit) & 1);
  if (code == I_BT) return;
  const mask = u64(1) << bit;
  if (code == I_BTS) value |= mask;
  else if (code == I_BTR) value &= ~mask;
  else value ^= mask;
  if (opFlags & FLAG_MEMORY_DESTINATION) storeUpdatedOfSize(address, size, value);
  else setRegisterOfSize(load<u16>(op, OP_DST), size, value);
}

/** BSF, BSR, POPCNT, LZCNT, TZCNT. */
export function execBitCount(op: usize, code: u32): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readSource(op);
  if (fault) return;
  const destination = load<u16>(op, OP_DST);
  if (code == I_BSF || code == I_BSR) {
    // Without a set bit the destination keeps its value.
    if (value == 0) {
      setStatus(ZF, ZF);
      return;
    }
    setStatus(ZF, 0);
    setRegisterOfSize(destination, size, code == I_BSF ? ctz(value) : 63 - clz(value));
    return;
  }
  if (code == I_POPCNT) {
    setStatus(STATUS, value == 0 ? ZF : 0);
    setRegisterOfSize(destination, size, popcnt(value));
    return;
  }
  const count = code == I_LZCNT ? leadingZeros(value, size) : trailingZeros(value, size);
  setStatus(CF | ZF, (value == 0 ? CF : 0) | (count == 0 ? ZF : 0));
  setRegisterOfSize(destination, size, count);
}

/** The BMI1 and BMI2 operations. */
export function execBitManipulation(op: usize, code: u32): void {
  const size = load<u8>(op, OP_SIZE);
  const source = readSource(op);
  if (fault) return;
  const bits = u64(size) << 3;
  const destination = load<u16>(op, OP_DST);
  const third = registerOfSize(load<u16>(op, OP_THIRD), size);
  let result: u64;
  switch (code) {
    case I_ANDN:
      result = cutToSize(~third & source, size);
      bitFlags(result, size, false);
      break;
    case I_BEXTR:
      result = bitExtract(source, third);
      setStatus(STATUS & ~SF & ~AF & ~PF, result == 0 ? ZF : 0);
      break;
    case I_BLSI:
      result = cutToSize((0 - source) & source, size);
      bitFlags(result, size, source != 0);
      break;
    case I_BLSR:
      result = cutToSize((source - 1) & source, size);
      bitFlags(result, size, source == 0);
      break;
    case I_BLSMSK:
      result = cutToSize((source - 1) ^ source, size);
      bitFlags(result, size, source == 0);
      break;
    case I_BZHI: {
      const keep = third & 0xff;
      result = keep < bits ? source & ((u64(1) << keep) - 1) : source;
      bitFlags(result, size, keep >= bits);
      break;
    }
    case I_MULX: {
      const a = cutToSize(general(RDX), size);
      const low = cutToSize(a * source, size);
      const high = size == 8 ? multiplyHigh(a, source) : (a * source) >> 32;
      // When both destinations are one register it holds the high half.
      setRegisterOfSize(load<u16>(op, OP_THIRD), size, low);
      setRegisterOfSize(destination, size, high);
      return;
    }
    case I_PDEP:
      result = depositBits(third, source);
      break;
    case I_PEXT:
      result = extractBits(third, source);
      break;
    case I_RORX: {
      const count = load<u64>(op, OP_IMM) & (bits - 1);
      result = count == 0 ? source : cutToSize((source >> count) | (source << (bits - count)), size);
      break;
    }
    case I_SARX:
      result = cutToSize(u64(<i64>signExtend(source, size) >> i64(third & (bits - 1))), size);
      break;
    case I_SHLX:
      result = cutToSize(source << (third & (bits - 1)), size);
      break;
    default:
      result = source >> (third & (bits - 1));
  }
  setRegisterOfSize(destination, size, result);
}

/** ADCX and ADOX: addition with a carry in one flag only. */
export function execAddWithFlag(op: usize, flag: u32): void {
  const size = load<u8>(op, OP_SIZE);
  const b = readSource(op);
  if (fault) return;
  const destination = load<u16>(op, OP_DST);
  const a = registerOfSize(destination, size);
  const sum = cutToSize(a + b + u64((flags() & flag) != 0), size);
  const carry = ((a & b) | ((a | b) & ~sum)) >> ((u64(size) << 3) - 1);
  setStatus(flag, carry & 1 ? flag : 0);
  setRegisterOfSize(destination, size, sum);
}
