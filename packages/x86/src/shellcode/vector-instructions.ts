import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, NO_REGISTER, OperandKind } from './instruction.js';
import {
  other,
  out,
  readSources,
  readVector,
  requireAligned,
  source,
  VECTOR_SIZE,
  writePart,
  writeVector,
} from './vector-operands.js';

const RDI = 7;

/** All of the source; what the destination has above it becomes 0. */
function moveUnaligned(m: Emulation, i: EmulatedInstruction): void {
  readVector(m, i, i.second, source);
  writeVector(m, i, i.first, source);
}

function move(m: Emulation, i: EmulatedInstruction): void {
  requireAligned(m, i);
  moveUnaligned(m, i);
}

/** MOVD and MOVQ: the low bytes, above them 0. */
function moveLow(size: 4 | 8): Handler {
  return (m, i) => {
    readVector(m, i, i.second, source, size);
    writeVector(m, i, i.first, source);
  };
}

/** MOVSS and MOVSD: between registers only the low bytes change, from memory the rest becomes 0. */
function moveScalar(size: 4 | 8): Handler {
  return (m, i) => {
    readVector(m, i, i.second, source, size);
    if (i.first.kind === OperandKind.VECTOR && i.second.kind === OperandKind.VECTOR) {
      writePart(m, i.first, 0, source.subarray(0, size));
    } else writeVector(m, i, i.first, source);
  };
}

/** MOVSD of SSE2. */
export const moveDouble = moveScalar(8);

/** MOVLPS, MOVHPS and the like: one half, the other stays. */
function moveHalf(high: boolean): Handler {
  return (m, i) => {
    const at = high ? 8 : 0;
    readVector(m, i, i.second, source);
    if (i.first.kind === OperandKind.MEMORY) writeVector(m, i, i.first, source.slice(at, at + 8));
    // MOVLHPS and MOVHLPS take the other half of the source.
    else if (i.second.kind === OperandKind.VECTOR) writePart(m, i.first, at, source.subarray(8 - at, 16 - at));
    else writePart(m, i.first, at, source.subarray(0, 8));
  };
}

/** An operation on all bytes of both sources. */
function bytewise(operation: (a: number, b: number) => number): Handler {
  return (m, i) => {
    const size = readSources(m, i);
    for (let at = 0; at < size; at++) out[at] = operation(other[at]!, source[at]!);
    writeVector(m, i, i.first, out);
  };
}

/** PUNPCKLxx and PUNPCKHxx: elements of both sources in turn, in each 16 bytes by themselves. */
function unpack(element: number, high: boolean): Handler {
  return (m, i) => {
    const size = readSources(m, i);
    const lane = Math.min(size, 16);
    for (let begin = 0; begin < size; begin += lane) {
      let from = begin + (high ? lane / 2 : 0);
      for (let at = begin; at < begin + lane; at += 2 * element) {
        out.set(other.subarray(from, from + element), at);
        out.set(source.subarray(from, from + element), at + element);
        from += element;
      }
    }
    writeVector(m, i, i.first, out);
  };
}

/** VPBROADCASTx: the low element everywhere. */
function broadcast(element: number): Handler {
  return (m, i) => {
    readVector(m, i, i.second, source, element);
    for (let at = 0; at < i.first.size; at += element) out.set(source.subarray(0, element), at);
    writeVector(m, i, i.first, out);
  };
}

/** PMOVMSKB: the top bit of each byte. */
function moveMask(m: Emulation, i: EmulatedInstruction): void {
  readVector(m, i, i.second, source);
  let mask = 0;
  for (let at = 0; at < i.second.size; at++) mask |= (source[at]! >>> 7) << at;
  m.write(i, i.first, mask >>> 0, 0);
}

/** MASKMOVDQU and MASKMOVQ: to DS:RDI, the bytes whose byte in the mask has its top bit set; a store for each that stand together. */
function moveMasked(m: Emulation, i: EmulatedInstruction): void {
  readVector(m, i, i.second, out);
  readVector(m, i, i.third, source);
  const { size } = i.second;
  let begin = 0;
  while (begin < size) {
    let end = begin;
    while (end < size && source[end]! >= 0x80) end++;
    if (end > begin) {
      m.addressLow = m.general[2 * RDI]!;
      m.addressHigh = m.general[2 * RDI + 1]!;
      m.moveAddress(0, i.addressSize);
      if (i.segment !== NO_REGISTER) m.addSegment(i.segment);
      m.moveAddress(begin, m.wide ? 8 : 4);
      m.memory.storeBytes(m.addressLow, m.addressHigh, out.slice(begin, end));
    }
    begin = end + 1;
  }
}

/** VZEROUPPER and VZEROALL, of as many registers as the code can name. */
function zeroVectors(from: number): Handler {
  return (m) => {
    const registers = m.wide ? 16 : 8;
    for (let register = 0; register < registers; register++) {
      m.vectors.fill(0, VECTOR_SIZE * register + from, VECTOR_SIZE * (register + 1));
    }
  };
}

function clearMmx(m: Emulation): void {
  m.mmx.fill(0);
}

const and = bytewise((a, b) => a & b);
const andNot = bytewise((a, b) => ~a & b);
const or = bytewise((a, b) => a | b);
const xor = bytewise((a, b) => a ^ b);

/** Moves, logic and unpacking of MMX, SSE, SSE2 and AVX. */
export const vectorHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Movaps, move],
  [Mnemonic.Movapd, move],
  [Mnemonic.Movdqa, move],
  [Mnemonic.Movntdq, move],
  [Mnemonic.Movntdqa, move],
  [Mnemonic.Movntps, move],
  [Mnemonic.Movntpd, move],
  [Mnemonic.Vmovaps, move],
  [Mnemonic.Vmovapd, move],
  [Mnemonic.Vmovdqa, move],
  [Mnemonic.Movups, moveUnaligned],
  [Mnemonic.Movupd, moveUnaligned],
  [Mnemonic.Movdqu, moveUnaligned],
  [Mnemonic.Lddqu, moveUnaligned],
  [Mnemonic.Vmovups, moveUnaligned],
  [Mnemonic.Vmovupd, moveUnaligned],
  [Mnemonic.Vmovdqu, moveUnaligned],
  [Mnemonic.Vlddqu, moveUnaligned],
  [Mnemonic.Movd, moveLow(4)],
  [Mnemonic.Vmovd, moveLow(4)],
  [Mnemonic.Movq, moveLow(8)],
  [Mnemonic.Vmovq, moveLow(8)],
  [Mnemonic.Movntq, moveLow(8)],
  [Mnemonic.Movss, moveScalar(4)],
  [Mnemonic.Movlps, moveHalf(false)],
  [Mnemonic.Movlpd, moveHalf(false)],
  [Mnemonic.Movhlps, moveHalf(false)],
  [Mnemonic.Movhps, moveHalf(true)],
  [Mnemonic.Movhpd, moveHalf(true)],
  [Mnemonic.Movlhps, moveHalf(true)],
  [Mnemonic.Pand, and],
  [Mnemonic.Vpand, and],
  [Mnemonic.Andps, and],
  [Mnemonic.Andpd, and],
  [Mnemonic.Pandn, andNot],
  [Mnemonic.Vpandn, andNot],
  [Mnemonic.Andnps, andNot],
  [Mnemonic.Andnpd, andNot],
  [Mnemonic.Por, or],
  [Mnemonic.Vpor, or],
  [Mnemonic.Orps, or],
  [Mnemonic.Orpd, or],
  [Mnemonic.Pxor, xor],
  [Mnemonic.Vpxor, xor],
  [Mnemonic.Xorps, xor],
  [Mnemonic.Xorpd, xor],
  [Mnemonic.Vxorps, xor],
  [Mnemonic.Vxorpd, xor],
  [Mnemonic.Punpcklbw, unpack(1, false)],
  [Mnemonic.Punpcklwd, unpack(2, false)],
  [Mnemonic.Punpckldq, unpack(4, false)],
  [Mnemonic.Punpcklqdq, unpack(8, false)],
  [Mnemonic.Unpcklps, unpack(4, false)],
  [Mnemonic.Unpcklpd, unpack(8, false)],
  [Mnemonic.Punpckhbw, unpack(1, true)],
  [Mnemonic.Punpckhwd, unpack(2, true)],
  [Mnemonic.Punpckhdq, unpack(4, true)],
  [Mnemonic.Punpckhqdq, unpack(8, true)],
  [Mnemonic.Unpckhps, unpack(4, true)],
  [Mnemonic.Unpckhpd, unpack(8, true)],
  [Mnemonic.Vpbroadcastb, broadcast(1)],
  [Mnemonic.Vpbroadcastw, broadcast(2)],
  [Mnemonic.Vpbroadcastd, broadcast(4)],
  [Mnemonic.Vpbroadcastq, broadcast(8)],
  [Mnemonic.Pmovmskb, moveMask],
  [Mnemonic.Vpmovmskb, moveMask],
  [Mnemonic.Maskmovdqu, moveMasked],
  [Mnemonic.Vmaskmovdqu, moveMasked],
  [Mnemonic.Maskmovq, moveMasked],
  [Mnemonic.Vzeroupper, zeroVectors(16)],
  [Mnemonic.Vzeroall, zeroVectors(0)],
  [Mnemonic.Emms, clearMmx],
]);
