import { Flag, logic, lowMask, result } from '../arithmetic.js';
import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import type { EmulatedInstruction, Handler } from './instruction.js';

const { CF, PF, ZF, SF, OF, AF } = Flag;

/** A value in the making: unsigned halves. One object for all. */
const value = { low: 0, high: 0 };

/** Shifts the 64 bits of {@link value} left by 0 to 63. */
function left(low: number, high: number, count: number): void {
  if (count >= 32) {
    value.high = (low << (count - 32)) >>> 0;
    value.low = 0;
  } else if (count === 0) {
    value.low = low >>> 0;
    value.high = high >>> 0;
  } else {
    value.high = ((high << count) | (low >>> (32 - count))) >>> 0;
    value.low = (low << count) >>> 0;
  }
}

/** Shifts 64 bits right by 0 to 63, filling with zeros. */
function right(low: number, high: number, count: number): void {
  if (count >= 32) {
    value.low = high >>> (count - 32);
    value.high = 0;
  } else if (count === 0) {
    value.low = low >>> 0;
    value.high = high >>> 0;
  } else {
    value.low = ((low >>> count) | (high << (32 - count))) >>> 0;
    value.high = high >>> count;
  }
}

/** Shifts 64 bits right by 0 to 63, filling with the sign. */
function rightSigned(low: number, high: number, count: number): void {
  if (count >= 32) {
    value.low = (high >> (count - 32)) >>> 0;
    value.high = (high >> 31) >>> 0;
  } else if (count === 0) {
    value.low = low >>> 0;
    value.high = high >>> 0;
  } else {
    value.low = ((low >>> count) | (high << (32 - count))) >>> 0;
    value.high = (high >> count) >>> 0;
  }
}

/** Bit of a 64-bit value; 0 beyond it. */
export function bitOf(low: number, high: number, bit: number): number {
  if (bit < 0 || bit > 63) return 0;
  return bit < 32 ? (low >>> bit) & 1 : (high >>> (bit - 32)) & 1;
}

/** The count, cut as the processor does (SDM vol. 2B, SAL). */
function countOf(m: Emulation, i: EmulatedInstruction, operand: EmulatedInstruction['second']): number {
  const size = i.first.size;
  const count = operand.size === 0 ? 1 : m.read(i, operand);
  return count & (size === 8 ? 63 : 31);
}

type ShiftKind = 'shl' | 'shr' | 'sar';

function shift(kind: ShiftKind): Handler {
  return (m, i) => {
    const size = i.first.size;
    const bits = size * 8;
    const count = countOf(m, i, i.second);
    let low = m.read(i, i.first);
    let high = m.high;
    if (count === 0) {
      m.writeBack(i.first, low, high);
      return;
    }
    let carry: number;
    let overflow = (m.rflags & OF) !== 0;
    if (kind === 'shl') {
      carry = bitOf(low, high, bits - count);
      if (count === 1) overflow = bitOf(low, high, bits - 1) !== bitOf(low, high, bits - 2);
      left(low, high, count);
    } else if (kind === 'shr') {
      carry = bitOf(low, high, count - 1);
      if (count === 1) overflow = bitOf(low, high, bits - 1) !== 0;
      right(low, high, count);
    } else {
      // The sign goes on as far as the count reaches.
      if (size < 8) {
        low = size === 4 ? low : (low << (32 - bits)) >> (32 - bits);
        high = low >> 31;
      }
      carry = bitOf(low, high, count - 1);
      overflow = false;
      rightSigned(low, high, count);
    }
    finish(m, i, size, carry, overflow);
  };
}

/** Stores {@link value} and sets the flags of a shift; AF is undefined and kept. */
function finish(m: Emulation, i: EmulatedInstruction, size: number, carry: number, overflow: boolean): void {
  logic(value.low, value.high, size);
  m.writeBack(i.first, result.low, result.high);
  m.setFlags(CF | PF | ZF | SF | OF, (result.flags & ~AF) | carry | (overflow ? OF : 0));
}

function rotate(direction: 'left' | 'right'): Handler {
  return (m, i) => {
    const size = i.first.size;
    const bits = size * 8;
    const masked = countOf(m, i, i.second);
    const low = m.read(i, i.first);
    const high = m.high;
    const count = direction === 'left' ? masked % bits : (bits - (masked % bits)) % bits;
    rotateLeft(low, high, count, bits);
    m.writeBack(i.first, value.low, value.high);
    if (masked === 0) return;
    const top = bitOf(value.low, value.high, bits - 1);
    const carry = direction === 'left' ? value.low & 1 : top;
    setRotateFlags(
      m,
      carry,
      masked === 1,
      direction === 'left' ? top !== carry : top !== bitOf(value.low, value.high, bits - 2),
    );
  };
}

/** Rotates a value of `bits` bits. */
function rotateLeft(low: number, high: number, count: number, bits: number): void {
  if (bits === 64) {
    left(low, high, count);
    const outLow = value.low;
    const outHigh = value.high;
    if (count !== 0) {
      right(low, high, 64 - count);
      value.low = (value.low | outLow) >>> 0;
      value.high = (value.high | outHigh) >>> 0;
    }
  } else {
    left(low, 0, count);
    const spilled = bits === 32 ? value.high : value.low >>> bits;
    value.low = ((value.low | spilled) & lowMask(bits / 8)) >>> 0;
    value.high = 0;
  }
}

/** CF, and for a count of one OF, which is undefined and kept otherwise. */
function setRotateFlags(m: Emulation, carry: number, once: boolean, overflow: boolean): void {
  m.setFlags(once ? CF | OF : CF, carry | (overflow ? OF : 0));
}

/** RCL and RCR: the carry flag is one more bit on top of the value. */
function rotateThroughCarry(direction: 'left' | 'right'): Handler {
  return (m, i) => {
    const bits = i.first.size * 8;
    const masked = countOf(m, i, i.second);
    let low = m.read(i, i.first);
    let high = m.high;
    let carry = m.rflags & CF;
    const overflowBefore = bitOf(low, high, bits - 1) !== carry;
    for (let turn = masked % (bits + 1); turn > 0; turn--) {
      if (direction === 'left') {
        const out = bitOf(low, high, bits - 1);
        left(low, high, 1);
        low = (value.low | carry) & lowMask(i.first.size);
        high = bits === 64 ? value.high : 0;
        carry = out;
      } else {
        const out = low & 1;
        right(low, high, 1);
        low = value.low | (bits <= 32 ? carry << (bits - 1) : 0);
        high = bits === 64 ? value.high | (carry << 31) : 0;
        carry = out;
      }
    }
    m.writeBack(i.first, low >>> 0, high >>> 0);
    if (masked === 0) return;
    const overflow = direction === 'left' ? bitOf(low, high, bits - 1) !== carry : overflowBefore;
    setRotateFlags(m, carry, masked === 1, overflow);
  };
}

/** SHLD and SHRD: the second operand fills what the shift leaves free. */
function doubleShift(direction: 'left' | 'right'): Handler {
  return (m, i) => {
    const size = i.first.size;
    const bits = size * 8;
    const count = countOf(m, i, i.third);
    const fillLow = m.read(i, i.second);
    const fillHigh = m.high;
    const low = m.read(i, i.first);
    const high = m.high;
    if (count === 0) {
      m.writeBack(i.first, low, high);
      return;
    }
    if (count > bits) {
      // Result and flags are undefined; this is what the C emulator makes of it.
      m.writeBack(i.first, 0, 0);
      return;
    }
    if (direction === 'left') left(low, high, count);
    else right(low, high, count);
    const outLow = value.low;
    const outHigh = value.high;
    // What comes from the other operand; nothing is left of 64 bits that are moved by 64.
    if (bits === 64 || bits - count < 32) {
      if (direction === 'left') right(fillLow, fillHigh, bits - count);
      else left(fillLow, fillHigh, bits - count);
    } else {
      value.low = 0;
      value.high = 0;
    }
    value.low = (value.low | outLow) >>> 0;
    value.high = (value.high | outHigh) >>> 0;
    const top = bitOf(low, high, bits - 1);
    const carry = direction === 'left' ? bitOf(low, high, bits - count) : bitOf(low, high, count - 1);
    // A change of sign; bddisasm's emulator treats SHRD like SHR, where that is the old sign.
    const changed = bitOf(value.low, value.high, bits - 1) !== top;
    const once = direction === 'right' && m.like === 'bddisasm' ? top !== 0 : changed;
    const overflow = count === 1 ? once : (m.rflags & OF) !== 0;
    finish(m, i, size, carry, overflow);
  };
}

/** SHLX, SHRX, SARX and RORX change no flags. */
function withoutFlags(kind: ShiftKind | 'ror'): Handler {
  return (m, i) => {
    const bits = i.first.size * 8;
    const count = m.read(i, i.third) & (bits - 1);
    const low = m.read(i, i.second);
    const high = m.high;
    if (kind === 'ror') rotateLeft(low, high, (bits - count) % bits, bits);
    else if (kind === 'shl') left(low, high, count);
    else if (kind === 'shr') right(low, high, count);
    else rightSigned(low, bits === 64 ? high : low >> 31, count);
    m.write(i, i.first, value.low, value.high);
  };
}

/** Shifts and rotates. */
export const shiftHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Shl, shift('shl')],
  [Mnemonic.Sal, shift('shl')],
  [Mnemonic.Shr, shift('shr')],
  [Mnemonic.Sar, shift('sar')],
  [Mnemonic.Rol, rotate('left')],
  [Mnemonic.Ror, rotate('right')],
  [Mnemonic.Rcl, rotateThroughCarry('left')],
  [Mnemonic.Rcr, rotateThroughCarry('right')],
  [Mnemonic.Shld, doubleShift('left')],
  [Mnemonic.Shrd, doubleShift('right')],
  [Mnemonic.Shlx, withoutFlags('shl')],
  [Mnemonic.Shrx, withoutFlags('shr')],
  [Mnemonic.Sarx, withoutFlags('sar')],
  [Mnemonic.Rorx, withoutFlags('ror')],
]);
