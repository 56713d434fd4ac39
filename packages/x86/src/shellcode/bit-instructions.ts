import { Flag } from '../arithmetic.js';
import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, OperandKind } from './instruction.js';
import { bitOf } from './shift-instructions.js';

const { CF, PF, AF, ZF, SF, OF } = Flag;
const WORD = 0x1_0000_0000;

type BitChange = 'test' | 'set' | 'reset' | 'complement';

/** BT and its kin: with a register as the second operand, a bit of memory may lie far from the address. */
function bitTest(change: BitChange): Handler {
  return (m, i) => {
    const bits = i.first.size * 8;
    const low = m.read(i, i.second);
    const bit = low & (bits - 1);
    if (i.first.kind === OperandKind.MEMORY && i.second.kind === OperandKind.GENERAL) bitAddress(m, i, low);
    else if (i.first.kind === OperandKind.MEMORY) m.linearAddress(i);
    const valueLow = i.first.kind === OperandKind.MEMORY ? m.load(i, i.first.size) : m.read(i, i.first);
    const valueHigh = m.high;
    if (change !== 'test') {
      const maskLow = bit < 32 ? (1 << bit) >>> 0 : 0;
      const maskHigh = bit < 32 ? 0 : (1 << (bit - 32)) >>> 0;
      m.writeBack(i.first, changed(valueLow, maskLow, change), changed(valueHigh, maskHigh, change));
    }
    m.setFlags(CF, bitOf(valueLow, valueHigh, bit));
  };
}

function changed(value: number, mask: number, change: BitChange): number {
  switch (change) {
    case 'set':
      return (value | mask) >>> 0;
    case 'reset':
      return (value & ~mask) >>> 0;
    default:
      return (value ^ mask) >>> 0;
  }
}

/** Address of the operand that holds a bit: the signed bit offset counts in operands from the address. */
function bitAddress(m: Emulation, i: EmulatedInstruction, offsetLow: number): void {
  const size = i.first.size;
  // Which operand of that size it is, counted from the address: the offset divided by its bits, rounded down.
  const operands =
    size === 8
      ? (m.high | 0) * (WORD / 64) + (offsetLow >>> 6)
      : (size === 4 ? offsetLow | 0 : (offsetLow << 16) >> 16) >> (size === 4 ? 5 : 4);
  m.effectiveAddress(i);
  m.moveAddress(operands * size, i.addressSize);
  if (i.segment >= 0) m.addSegment(i.segment);
}

/** Zeros above the highest one; as many as there are bits when there is none. */
function leadingZeros(low: number, high: number, bits: number): number {
  if (bits === 64) return high === 0 ? 32 + Math.clz32(low) : Math.clz32(high);
  return Math.clz32(low) - (32 - bits);
}

/** Zeros below the lowest one; as many as there are bits when there is none. */
function trailingZeros(low: number, high: number, bits: number): number {
  if (low !== 0) return 31 - Math.clz32(low & -low);
  return high === 0 ? bits : 63 - Math.clz32(high & -high);
}

/** BSF and BSR: nothing is written when there is no one, and only ZF is defined. */
function bitScan(forward: boolean): Handler {
  return (m, i) => {
    const bits = i.first.size * 8;
    const low = m.read(i, i.second);
    const high = m.high;
    if (low === 0 && high === 0) {
      m.setFlags(ZF, ZF);
      return;
    }
    const index = forward ? trailingZeros(low, high, bits) : bits - 1 - leadingZeros(low, high, bits);
    m.write(i, i.first, index, 0);
    m.setFlags(ZF, 0);
  };
}

/** LZCNT and TZCNT. */
function zeroCount(count: typeof leadingZeros): Handler {
  return (m, i) => {
    const bits = i.first.size * 8;
    const low = m.read(i, i.second);
    const zeros = count(low, m.high, bits);
    m.write(i, i.first, zeros, 0);
    m.setFlags(CF | ZF, (zeros === bits ? CF : 0) | (zeros === 0 ? ZF : 0));
  };
}

function onesIn(word: number): number {
  let pairs = word - ((word >>> 1) & 0x5555_5555);
  pairs = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((pairs + (pairs >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

function populationCount(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.second);
  const ones = onesIn(low) + onesIn(m.high);
  m.write(i, i.first, ones, 0);
  m.setFlags(CF | PF | AF | ZF | SF | OF, ones === 0 ? ZF : 0);
}

function swap(word: number): number {
  return ((word >>> 24) | ((word >>> 8) & 0xff00) | ((word << 8) & 0xff_0000) | (word << 24)) >>> 0;
}

function byteSwap(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.first);
  const high = m.high;
  // Of 16 bits the result is undefined; processors give 0.
  if (i.first.size === 2) m.write(i, i.first, 0, 0);
  else if (i.first.size === 4) m.write(i, i.first, swap(low), 0);
  else m.write(i, i.first, swap(high), swap(low));
}

/** MOVBE. */
function moveBigEndian(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.second);
  const high = m.high;
  const size = i.first.size;
  if (size === 2) m.write(i, i.first, swap(low) >>> 16, 0);
  else if (size === 4) m.write(i, i.first, swap(low), 0);
  else m.write(i, i.first, swap(high), swap(low));
}

/** Bit tests, scans, counts and byte order. */
export const bitHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Bt, bitTest('test')],
  [Mnemonic.Bts, bitTest('set')],
  [Mnemonic.Btr, bitTest('reset')],
  [Mnemonic.Btc, bitTest('complement')],
  [Mnemonic.Bsf, bitScan(true)],
  [Mnemonic.Bsr, bitScan(false)],
  [Mnemonic.Lzcnt, zeroCount(leadingZeros)],
  [Mnemonic.Tzcnt, zeroCount(trailingZeros)],
  [Mnemonic.Popcnt, populationCount],
  [Mnemonic.Bswap, byteSwap],
  [Mnemonic.Movbe, moveBigEndian],
]);
