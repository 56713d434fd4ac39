import { MISALIGNED, UNSUPPORTED_OPERAND } from './abort.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Operand, OperandKind } from './instruction.js';

/** Bytes of a vector register that are kept: a YMM register. */
export const VECTOR_SIZE = 32;
/** The part that instructions without VEX know. */
const LEGACY_SIZE = 16;

/** First and second source of the instruction at hand, and its result. One of each for all. */
export const source = new Uint8Array(VECTOR_SIZE);
export const other = new Uint8Array(VECTOR_SIZE);
export const out = new Uint8Array(VECTOR_SIZE);

/** Reads the low `size` bytes of an operand; what is above them becomes 0. */
export function readVector(
  m: Emulation,
  i: EmulatedInstruction,
  operand: Operand,
  target: Uint8Array,
  size = operand.size,
): void {
  target.fill(0);
  switch (operand.kind) {
    case OperandKind.VECTOR: {
      const at = VECTOR_SIZE * operand.register;
      target.set(m.vectors.subarray(at, at + size));
      return;
    }
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

/** Writes an operand. A register gets all 16 bytes; what is above them stays, unless VEX says otherwise. */
export function writeVector(m: Emulation, i: EmulatedInstruction, operand: Operand, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  switch (operand.kind) {
    case OperandKind.VECTOR: {
      const at = VECTOR_SIZE * operand.register;
      m.memory.noteValue(view.getUint32(0, true), view.getUint32(4, true));
      if (i.vex) m.vectors.fill(0, at, at + VECTOR_SIZE);
      m.vectors.set(bytes.subarray(0, i.vex ? operand.size : LEGACY_SIZE), at);
      return;
    }
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

/** Changes some bytes of a register and leaves the rest. */
export function writePart(m: Emulation, operand: Operand, at: number, bytes: Uint8Array): void {
  m.vectors.set(bytes, VECTOR_SIZE * operand.register + at);
}

/** A memory operand of 16 bytes must be aligned (SDM vol. 1, 10.4.1.1); with VEX only that of an aligned move, by its size. */
export function requireAligned(m: Emulation, i: EmulatedInstruction): void {
  if (i.size < LEGACY_SIZE || m.like === 'bddisasm') return;
  m.linearAddress(i);
  if ((m.addressLow & (i.size - 1)) !== 0) throw MISALIGNED;
}

/**
 * Reads both sources of an operation into {@link other} (the one that is also the destination without VEX) and
 * {@link source}.
 * @returns the size of the result in bytes
 */
export function readSources(m: Emulation, i: EmulatedInstruction): number {
  if (!i.vex) requireAligned(m, i);
  const [left, right] = i.vex ? [i.second, i.third] : [i.first, i.second];
  readVector(m, i, right, source);
  readVector(m, i, left, other);
  return i.first.size;
}
