import { Mnemonic } from '../decoder.js';
import { MISALIGNED, UNSUPPORTED_OPERAND } from './abort.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, type Operand, OperandKind } from './instruction.js';

/** Source, destination and result of the instruction at hand. One of each for all. */
const source = new Uint8Array(16);
const destination = new Uint8Array(16);

/** Reads an operand of up to 16 bytes; what is above its size becomes 0. */
function readBytes(m: Emulation, i: EmulatedInstruction, operand: Operand, target: Uint8Array, size: number): void {
  target.fill(0);
  switch (operand.kind) {
    case OperandKind.XMM:
      target.set(m.xmm.subarray(16 * operand.register, 16 * operand.register + size));
      return;
    case OperandKind.MMX:
      target.set(m.mmx.subarray(8 * operand.register, 8 * operand.register + Math.min(size, 8)));
      return;
    case OperandKind.MEMORY:
      m.linearAddress(i);
      m.memory.loadBytes(m.addressLow, m.addressHigh, target.subarray(0, operand.size), i);
      return;
    default: {
      const low = m.read(i, operand);
      const view = new DataView(target.buffer);
      view.setUint32(0, low, true);
      view.setUint32(4, m.high, true);
    }
  }
}

/** Writes an operand; an XMM register gets all 16 bytes. */
function writeBytes(m: Emulation, i: EmulatedInstruction, operand: Operand, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  switch (operand.kind) {
    case OperandKind.XMM:
      m.memory.noteValue(view.getUint32(0, true), view.getUint32(4, true));
      m.xmm.set(bytes, 16 * operand.register);
      return;
    case OperandKind.MMX:
      m.memory.noteValue(view.getUint32(0, true), view.getUint32(4, true));
      m.mmx.set(bytes.subarray(0, 8), 8 * operand.register);
      return;
    case OperandKind.MEMORY:
      m.linearAddress(i);
      m.memory.storeBytes(m.addressLow, m.addressHigh, bytes.slice(0, operand.size));
      return;
    case OperandKind.GENERAL:
      m.write(i, operand, view.getUint32(0, true), view.getUint32(4, true));
      return;
    default:
      throw UNSUPPORTED_OPERAND;
  }
}

/** 16 bytes of memory must be aligned, except for the moves that say otherwise (SDM vol. 1, 10.4.1.1). */
function requireAligned(m: Emulation, i: EmulatedInstruction): void {
  if (i.size !== 16 || m.like === 'bddisasm') return;
  m.linearAddress(i);
  if ((m.addressLow & 15) !== 0) throw MISALIGNED;
}

/** Size of an operand, of a register the part that counts. */
function sizeOf(operand: Operand): number {
  return Math.min(operand.size, 16);
}

/** All of the source; what the destination has above it becomes 0. */
function moveUnaligned(m: Emulation, i: EmulatedInstruction): void {
  readBytes(m, i, i.second, source, sizeOf(i.second));
  writeBytes(m, i, i.first, source);
}

function move(m: Emulation, i: EmulatedInstruction): void {
  requireAligned(m, i);
  moveUnaligned(m, i);
}

/** MOVQ: 8 bytes, above them 0. */
function moveQuadword(m: Emulation, i: EmulatedInstruction): void {
  readBytes(m, i, i.second, source, 8);
  writeBytes(m, i, i.first, source);
}

/** MOVD of an XMM or MMX register: 4 bytes, above them 0. */
function moveDoubleword(m: Emulation, i: EmulatedInstruction): void {
  readBytes(m, i, i.second, source, 4);
  writeBytes(m, i, i.first, source);
}

/** MOVSS and MOVSD: between registers only the low bytes change, from memory the rest becomes 0. */
function moveScalar(size: 4 | 8): Handler {
  return (m, i) => {
    readBytes(m, i, i.second, source, size);
    if (i.first.kind === OperandKind.XMM && i.second.kind === OperandKind.XMM) {
      m.xmm.set(source.subarray(0, size), 16 * i.first.register);
    } else writeBytes(m, i, i.first, source);
  };
}

/** MOVSD of SSE2. */
export const moveDouble = moveScalar(8);

/** MOVLPS, MOVHPS and the like: one half, the other stays. */
function moveHalf(high: boolean): Handler {
  return (m, i) => {
    const at = high ? 8 : 0;
    if (i.first.kind === OperandKind.XMM) {
      if (i.second.kind === OperandKind.XMM) {
        // MOVLHPS and MOVHLPS: the other half of the source.
        readBytes(m, i, i.second, source, 16);
        m.xmm.set(source.subarray(8 - at, 16 - at), 16 * i.first.register + at);
        return;
      }
      readBytes(m, i, i.second, source, 8);
      m.xmm.set(source.subarray(0, 8), 16 * i.first.register + at);
      return;
    }
    readBytes(m, i, i.second, source, 16);
    writeBytes(m, i, i.first, source.slice(at, at + 8));
  };
}

/** An operation on all bytes of both operands. */
function bytewise(operation: (a: number, b: number) => number): Handler {
  return (m, i) => {
    requireAligned(m, i);
    const size = sizeOf(i.first);
    readBytes(m, i, i.second, source, size);
    readBytes(m, i, i.first, destination, size);
    for (let at = 0; at < size; at++) destination[at] = operation(destination[at]!, source[at]!);
    writeBytes(m, i, i.first, destination);
  };
}

/** PUNPCKLxx and PUNPCKHxx: elements of both operands in turn. */
function unpack(element: number, high: boolean): Handler {
  return (m, i) => {
    requireAligned(m, i);
    const size = sizeOf(i.first);
    readBytes(m, i, i.second, source, i.second.kind === OperandKind.MEMORY ? i.second.size : size);
    readBytes(m, i, i.first, destination, size);
    const before = destination.slice();
    let from = high ? size / 2 : 0;
    for (let at = 0; at < size; at += 2 * element) {
      destination.set(before.subarray(from, from + element), at);
      destination.set(source.subarray(from, from + element), at + element);
      from += element;
    }
    writeBytes(m, i, i.first, destination);
  };
}

/** PMOVMSKB: the top bit of each byte. */
function moveMask(m: Emulation, i: EmulatedInstruction): void {
  const size = sizeOf(i.second);
  readBytes(m, i, i.second, source, size);
  let mask = 0;
  for (let at = 0; at < size; at++) mask |= (source[at]! >>> 7) << at;
  m.write(i, i.first, mask, 0);
}

function clearMmx(m: Emulation): void {
  m.mmx.fill(0);
}

const and = bytewise((a, b) => a & b);
const andNot = bytewise((a, b) => ~a & b);
const or = bytewise((a, b) => a | b);
const xor = bytewise((a, b) => a ^ b);

/** Moves, logic and a few more of MMX, SSE and SSE2: what decoders of shellcodes use. */
export const vectorHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Movaps, move],
  [Mnemonic.Movapd, move],
  [Mnemonic.Movups, moveUnaligned],
  [Mnemonic.Movupd, moveUnaligned],
  [Mnemonic.Movdqa, move],
  [Mnemonic.Movdqu, moveUnaligned],
  [Mnemonic.Lddqu, moveUnaligned],
  [Mnemonic.Movntdq, move],
  [Mnemonic.Movntps, move],
  [Mnemonic.Movntpd, move],
  [Mnemonic.Movntq, moveQuadword],
  [Mnemonic.Movq, moveQuadword],
  [Mnemonic.Movd, moveDoubleword],
  [Mnemonic.Movss, moveScalar(4)],
  [Mnemonic.Movlps, moveHalf(false)],
  [Mnemonic.Movlpd, moveHalf(false)],
  [Mnemonic.Movhlps, moveHalf(false)],
  [Mnemonic.Movhps, moveHalf(true)],
  [Mnemonic.Movhpd, moveHalf(true)],
  [Mnemonic.Movlhps, moveHalf(true)],
  [Mnemonic.Pand, and],
  [Mnemonic.Andps, and],
  [Mnemonic.Andpd, and],
  [Mnemonic.Pandn, andNot],
  [Mnemonic.Andnps, andNot],
  [Mnemonic.Andnpd, andNot],
  [Mnemonic.Por, or],
  [Mnemonic.Orps, or],
  [Mnemonic.Orpd, or],
  [Mnemonic.Pxor, xor],
  [Mnemonic.Xorps, xor],
  [Mnemonic.Xorpd, xor],
  [Mnemonic.Paddb, bytewise((a, b) => a + b)],
  [Mnemonic.Psubb, bytewise((a, b) => a - b)],
  [Mnemonic.Pcmpeqb, bytewise((a, b) => (a === b ? 0xff : 0))],
  [Mnemonic.Punpcklbw, unpack(1, false)],
  [Mnemonic.Punpcklwd, unpack(2, false)],
  [Mnemonic.Punpckldq, unpack(4, false)],
  [Mnemonic.Punpcklqdq, unpack(8, false)],
  [Mnemonic.Punpckhbw, unpack(1, true)],
  [Mnemonic.Punpckhwd, unpack(2, true)],
  [Mnemonic.Punpckhdq, unpack(4, true)],
  [Mnemonic.Punpckhqdq, unpack(8, true)],
  [Mnemonic.Pmovmskb, moveMask],
  [Mnemonic.Emms, clearMmx],
]);
