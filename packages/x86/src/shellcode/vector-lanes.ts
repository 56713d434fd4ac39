import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, OperandKind } from './instruction.js';
import { other, out, readSources, readVector, requireAligned, source, writeVector } from './vector-operands.js';

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer);
const sourceView = viewOf(source);
const otherView = viewOf(other);
const outView = viewOf(out);

type Element = 1 | 2 | 4;

function get(view: DataView, at: number, element: Element): number {
  return element === 1 ? view.getUint8(at) : element === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
}

function getSigned(view: DataView, at: number, element: Element): number {
  return element === 1 ? view.getInt8(at) : element === 2 ? view.getInt16(at, true) : view.getInt32(at, true);
}

function put(at: number, element: Element, value: number): void {
  if (element === 1) outView.setUint8(at, value);
  else if (element === 2) outView.setUint16(at, value, true);
  else outView.setUint32(at, value, true);
}

/** An operation on elements of 1, 2 or 4 bytes of both sources; the result is cut to their size. */
function lanes(element: Element, operation: (a: number, b: number) => number, read = get): Handler {
  return (m, i) => {
    const size = readSources(m, i);
    for (let at = 0; at < size; at += element) {
      put(at, element, operation(read(otherView, at, element), read(sourceView, at, element)));
    }
    writeVector(m, i, i.first, out);
  };
}

/** PADDQ and PSUBQ. */
function quadwords(operation: (a: bigint, b: bigint) => bigint): Handler {
  return (m, i) => {
    const size = readSources(m, i);
    for (let at = 0; at < size; at += 8) {
      outView.setBigUint64(at, operation(otherView.getBigUint64(at, true), sourceView.getBigUint64(at, true)), true);
    }
    writeVector(m, i, i.first, out);
  };
}

const plus = (a: number, b: number): number => a + b;
const minus = (a: number, b: number): number => a - b;
const equal = (a: number, b: number): number => (a === b ? -1 : 0);
const greater = (a: number, b: number): number => (a > b ? -1 : 0);
const average = (a: number, b: number): number => (a + b + 1) >> 1;

/** Saturates to an unsigned or a signed number of some bits. */
function within(low: number, high: number, operation: (a: number, b: number) => number): typeof plus {
  return (a, b) => Math.min(high, Math.max(low, operation(a, b)));
}

type Direction = 'left' | 'right' | 'right-signed';

/** Shifts of elements by one count: an immediate, or the low 8 bytes of the other source. */
function shiftLanes(element: 2 | 4 | 8, direction: Direction): Handler {
  return (m, i) => {
    const operand = i.second;
    if (operand.kind === OperandKind.MEMORY) requireAligned(m, i);
    readVector(m, i, operand, source, operand.kind === OperandKind.IMMEDIATE ? 1 : operand.size);
    const bits = element * 8;
    const wide = operand.kind === OperandKind.IMMEDIATE ? sourceView.getUint8(0) : sourceView.getUint32(0, true);
    const high = operand.kind === OperandKind.IMMEDIATE ? 0 : sourceView.getUint32(4, true);
    const beyond = high !== 0 || wide >= bits;
    const count = beyond ? (direction === 'right-signed' ? bits - 1 : bits) : wide;
    readVector(m, i, i.first, other);
    for (let at = 0; at < i.first.size; at += element) shiftOne(at, element, direction, count);
    writeVector(m, i, i.first, out);
  };
}

function shiftOne(at: number, element: 2 | 4 | 8, direction: Direction, count: number): void {
  if (element === 8) {
    const value = otherView.getBigUint64(at, true);
    outView.setBigUint64(at, direction === 'left' ? value << BigInt(count) : value >> BigInt(count), true);
    return;
  }
  const signed = direction === 'right-signed';
  const value = signed ? getSigned(otherView, at, element) : get(otherView, at, element);
  if (!signed && count >= 32) put(at, element, 0);
  else put(at, element, direction === 'left' ? value << count : signed ? value >> count : value >>> count);
}

/** PSLLDQ and PSRLDQ: all 16 bytes by a number of bytes. */
function shiftBytes(left: boolean): Handler {
  return (m, i) => {
    const count = Math.min(16, i.immediateLow & 0xff);
    readVector(m, i, i.first, other);
    for (let at = 0; at < 16; at++) {
      const from = left ? at - count : at + count;
      out[at] = from >= 0 && from < 16 ? other[from]! : 0;
    }
    writeVector(m, i, i.first, out);
  };
}

/** PSHUFD, PSHUFLW, PSHUFHW: elements in the order that the immediate gives; the rest is copied. */
function shuffle(element: 2 | 4, begin: number): Handler {
  return (m, i) => {
    requireAligned(m, i);
    readVector(m, i, i.second, source);
    out.set(source);
    for (let n = 0; n < 4; n++) {
      const from = begin + ((i.immediateLow >>> (2 * n)) & 3) * element;
      out.set(source.subarray(from, from + element), begin + n * element);
    }
    writeVector(m, i, i.first, out);
  };
}

/** PSHUFB: each byte of the mask names one of the other source, or 0. */
function shuffleBytes(m: Emulation, i: EmulatedInstruction): void {
  const size = readSources(m, i);
  for (let at = 0; at < size; at++) {
    const mask = source[at]!;
    out[at] = (mask & 0x80) !== 0 ? 0 : other[(at & ~15) | (mask & (Math.min(size, 16) - 1))]!;
  }
  writeVector(m, i, i.first, out);
}

/** Arithmetic, comparison, shifts and shuffles of elements: what turns blocks of an encoded payload back. */
export const laneHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Paddb, lanes(1, plus)],
  [Mnemonic.Paddw, lanes(2, plus)],
  [Mnemonic.Paddd, lanes(4, plus)],
  [Mnemonic.Paddq, quadwords((a, b) => a + b)],
  [Mnemonic.Psubb, lanes(1, minus)],
  [Mnemonic.Psubw, lanes(2, minus)],
  [Mnemonic.Psubd, lanes(4, minus)],
  [Mnemonic.Psubq, quadwords((a, b) => a - b)],
  [Mnemonic.Vpaddb, lanes(1, plus)],
  [Mnemonic.Vpaddw, lanes(2, plus)],
  [Mnemonic.Vpaddd, lanes(4, plus)],
  [Mnemonic.Vpsubb, lanes(1, minus)],
  [Mnemonic.Vpsubw, lanes(2, minus)],
  [Mnemonic.Vpsubd, lanes(4, minus)],
  [Mnemonic.Paddusb, lanes(1, within(0, 0xff, plus))],
  [Mnemonic.Paddusw, lanes(2, within(0, 0xffff, plus))],
  [Mnemonic.Psubusb, lanes(1, within(0, 0xff, minus))],
  [Mnemonic.Psubusw, lanes(2, within(0, 0xffff, minus))],
  [Mnemonic.Paddsb, lanes(1, within(-0x80, 0x7f, plus), getSigned)],
  [Mnemonic.Paddsw, lanes(2, within(-0x8000, 0x7fff, plus), getSigned)],
  [Mnemonic.Psubsb, lanes(1, within(-0x80, 0x7f, minus), getSigned)],
  [Mnemonic.Psubsw, lanes(2, within(-0x8000, 0x7fff, minus), getSigned)],
  [Mnemonic.Pcmpeqb, lanes(1, equal)],
  [Mnemonic.Pcmpeqw, lanes(2, equal)],
  [Mnemonic.Pcmpeqd, lanes(4, equal)],
  [Mnemonic.Pcmpgtb, lanes(1, greater, getSigned)],
  [Mnemonic.Pcmpgtw, lanes(2, greater, getSigned)],
  [Mnemonic.Pcmpgtd, lanes(4, greater, getSigned)],
  [Mnemonic.Pminub, lanes(1, Math.min)],
  [Mnemonic.Pmaxub, lanes(1, Math.max)],
  [Mnemonic.Pminsw, lanes(2, Math.min, getSigned)],
  [Mnemonic.Pmaxsw, lanes(2, Math.max, getSigned)],
  [Mnemonic.Pavgb, lanes(1, average)],
  [Mnemonic.Pavgw, lanes(2, average)],
  [Mnemonic.Pmullw, lanes(2, (a, b) => a * b)],
  [Mnemonic.Pmulhw, lanes(2, (a, b) => (a * b) >> 16, getSigned)],
  [Mnemonic.Pmulhuw, lanes(2, (a, b) => Math.floor((a * b) / 0x1_0000))],
  [Mnemonic.Psllw, shiftLanes(2, 'left')],
  [Mnemonic.Pslld, shiftLanes(4, 'left')],
  [Mnemonic.Psllq, shiftLanes(8, 'left')],
  [Mnemonic.Psrlw, shiftLanes(2, 'right')],
  [Mnemonic.Psrld, shiftLanes(4, 'right')],
  [Mnemonic.Psrlq, shiftLanes(8, 'right')],
  [Mnemonic.Psraw, shiftLanes(2, 'right-signed')],
  [Mnemonic.Psrad, shiftLanes(4, 'right-signed')],
  [Mnemonic.Pslldq, shiftBytes(true)],
  [Mnemonic.Psrldq, shiftBytes(false)],
  [Mnemonic.Pshufd, shuffle(4, 0)],
  [Mnemonic.Pshuflw, shuffle(2, 0)],
  [Mnemonic.Pshufhw, shuffle(2, 8)],
  [Mnemonic.Pshufb, shuffleBytes],
]);
