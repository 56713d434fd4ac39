import { Flag } from '../arithmetic.js';
import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, OperandKind } from './instruction.js';

const RAX = 0;
const RDX = 2;
const { CF, OF } = Flag;
const WORD = 0x1_0000_0000;

/** Product of two 64-bit values: four words, the lowest first. One for all. */
const product = new Uint32Array(4);

/** Unsigned product of two words. */
function wordProduct(a: number, b: number, at: number): void {
  // 16 bits at a time, so that every sum is exact.
  const low = (a & 0xffff) * b;
  const high = (a >>> 16) * b;
  const sum = low + (high & 0xffff) * 0x1_0000;
  addWord(at, sum >>> 0);
  addWord(at + 1, Math.floor(sum / WORD) + Math.floor(high / 0x1_0000));
}

function addWord(at: number, word: number): void {
  let carry = word;
  for (let i = at; carry !== 0 && i < 4; i++) {
    const sum = product[i]! + carry;
    product[i] = sum;
    carry = sum >= WORD ? 1 : 0;
  }
}

function subtractPair(low: number, high: number): void {
  const difference = product[2]! - low;
  product[2] = difference;
  product[3] = product[3]! - high - (difference < 0 ? 1 : 0);
}

/** The whole product of two values of 64 bits, in {@link product}. */
function multiply(aLow: number, aHigh: number, bLow: number, bHigh: number, signed: boolean): void {
  product.fill(0);
  wordProduct(aLow, bLow, 0);
  wordProduct(aLow, bHigh, 1);
  wordProduct(aHigh, bLow, 1);
  wordProduct(aHigh, bHigh, 2);
  if (!signed) return;
  if (aHigh >>> 31 !== 0) subtractPair(bLow, bHigh);
  if (bHigh >>> 31 !== 0) subtractPair(aLow, aHigh);
}

/** A value of `size` bytes with its sign in both halves. */
function extend(low: number, size: number): number {
  return size === 4 ? low | 0 : size === 2 ? (low << 16) >> 16 : (low << 24) >> 24;
}

/** Part of {@link product}, by its position in bytes. */
function part(at: number, size: number): number {
  const word = product[at >>> 2]! >>> ((at & 3) * 8);
  return size === 4 ? word : word & (size === 2 ? 0xffff : 0xff);
}

function setMultiplyFlags(m: Emulation, size: number, signed: boolean): void {
  // They tell whether the upper half is more than the extension of the lower one.
  let lost = false;
  if (size === 8) {
    const fill = signed && product[1]! >>> 31 !== 0 ? 0xffff_ffff : 0;
    lost = product[2] !== fill || product[3] !== fill;
  } else {
    const low = part(0, size);
    const fill = signed && extend(low, size) < 0 ? -1 >>> 0 : 0;
    const mask = size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
    lost = part(size, size) !== (fill & mask) >>> 0;
  }
  m.setFlags(CF | OF, lost ? CF | OF : 0);
}

/** MUL and one-operand IMUL. */
function multiplyAccumulator(signed: boolean): Handler {
  return (m, i) => {
    const size = i.first.size;
    let bLow = m.read(i, i.first);
    let bHigh = m.high;
    let aLow = m.general[2 * RAX]!;
    let aHigh = m.general[2 * RAX + 1]!;
    if (size < 8) {
      const mask = i.first.mask;
      aLow = signed ? extend(aLow, size) >>> 0 : (aLow & mask) >>> 0;
      bLow = signed ? extend(bLow, size) >>> 0 : bLow;
      aHigh = signed ? ((aLow | 0) >> 31) >>> 0 : 0;
      bHigh = signed ? ((bLow | 0) >> 31) >>> 0 : 0;
    }
    multiply(aLow, aHigh, bLow, bHigh, signed);
    if (size === 1) m.setGeneral(RAX, 2, part(0, 2), 0);
    else if (size === 8) {
      m.setGeneral(RDX, 8, product[2]!, product[3]!);
      m.setGeneral(RAX, 8, product[0]!, product[1]!);
    } else {
      m.setGeneral(RDX, size, part(size, size), 0);
      m.setGeneral(RAX, size, part(0, size), 0);
    }
    setMultiplyFlags(m, size, signed);
  };
}

/** IMUL, all three shapes. */
const accumulatorSigned = multiplyAccumulator(true);
function multiplySigned(m: Emulation, i: EmulatedInstruction): void {
  if (i.second.kind === OperandKind.NONE) {
    accumulatorSigned(m, i);
    return;
  }
  const size = i.first.size;
  const three = i.third.kind !== OperandKind.NONE;
  let bLow = m.read(i, i.second);
  let bHigh = m.high;
  let aLow = m.read(i, three ? i.third : i.first);
  let aHigh = m.high;
  if (size < 8) {
    aLow = extend(aLow, size) >>> 0;
    bLow = extend(bLow, size) >>> 0;
    aHigh = ((aLow | 0) >> 31) >>> 0;
    bHigh = ((bLow | 0) >> 31) >>> 0;
  }
  multiply(aLow, aHigh, bLow, bHigh, true);
  m.write(i, i.first, product[0]!, product[1]!);
  setMultiplyFlags(m, size, true);
}

function wide(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}

/**
 * DIV and IDIV. They are rare and 128 bits wide, so this uses integers of the language. A division that faults ends the
 * emulation; the flags are undefined and kept.
 */
function divide(signed: boolean): Handler {
  return (m, i) => {
    const size = i.first.size;
    const bits = size * 8;
    const divisorBits = wide(m.read(i, i.first), m.high);
    if (size === 8 && m.like === 'bddisasm') return;
    const rax = wide(m.general[2 * RAX]!, m.general[2 * RAX + 1]!);
    const rdx = wide(m.general[2 * RDX]!, m.general[2 * RDX + 1]!);
    const dividendBits =
      size === 1 ? BigInt.asUintN(16, rax) : (BigInt.asUintN(bits, rdx) << BigInt(bits)) | BigInt.asUintN(bits, rax);
    const divisor = signed ? BigInt.asIntN(bits, divisorBits) : divisorBits;
    const dividend = signed ? BigInt.asIntN(2 * bits, dividendBits) : dividendBits;
    const quotient = divisor === 0n ? undefined : dividend / divisor;
    const fits =
      quotient !== undefined && (signed ? BigInt.asIntN(bits, quotient) : BigInt.asUintN(bits, quotient)) === quotient;
    if (!fits) {
      m.status = 'halted';
      return;
    }
    const quotientBits = BigInt.asUintN(bits, quotient);
    const remainderBits = BigInt.asUintN(bits, dividend % divisor);
    if (size === 1) {
      m.setGeneral(RAX, 2, Number((remainderBits << 8n) | quotientBits), 0);
      return;
    }
    m.setGeneral(RAX, size, Number(quotientBits & 0xffff_ffffn), Number(quotientBits >> 32n));
    m.setGeneral(RDX, size, Number(remainderBits & 0xffff_ffffn), Number(remainderBits >> 32n));
  };
}

/** MULX: the product into two registers, no flags. */
function multiplyExtended(m: Emulation, i: EmulatedInstruction): void {
  const size = i.first.size;
  const low = m.read(i, i.third);
  const high = m.high;
  multiply(m.general[2 * RDX]!, size === 8 ? m.general[2 * RDX + 1]! : 0, low, high, false);
  const at = size === 8 ? 2 : 1;
  m.write(i, i.second, product[0]!, product[1]!);
  m.write(i, i.first, product[at]!, product[at + 1]!);
}

/** Multiplication and division. */
export const multiplyHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Mul, multiplyAccumulator(false)],
  [Mnemonic.Imul, multiplySigned],
  [Mnemonic.Div, divide(false)],
  [Mnemonic.Idiv, divide(true)],
  [Mnemonic.Mulx, multiplyExtended],
]);
