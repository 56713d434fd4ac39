import type { DecodeFailure } from '../decoder.js';
import type { EmulatedInstruction } from './instruction.js';
import { makeReady } from './ready-instruction.js';

/** Instructions that are kept; all are dropped when there are more. */
const MAX_KEPT = 4096;
/** Instructions with the same first four bytes that are kept: who looks one up compares with all of them. */
const MAX_ALIKE = 8;

const pools = {
  32: new Map<number, EmulatedInstruction[]>(),
  64: new Map<number, EmulatedInstruction[]>(),
};
let kept = 0;

function startsWith(view: DataView, offset: number, bytes: Uint8Array): boolean {
  if (offset + bytes.length > view.byteLength) return false;
  for (let i = 0; i < bytes.length; i++) {
    if (view.getUint8(offset + i) !== bytes[i]) return false;
  }
  return true;
}

/**
 * The instruction at an offset of some code. Decoding takes longer than executing a hundred of them, and the same ones
 * come again and again, so they are shared by all emulations.
 * @returns why there is none otherwise
 */
export function instructionAt(view: DataView, offset: number, bitness: 32 | 64): EmulatedInstruction | DecodeFailure {
  const left = view.byteLength - offset;
  const bytes = new Uint8Array(view.buffer, view.byteOffset + offset, Math.min(left, 15));
  if (left < 4) return makeReady(bytes, bitness);
  const key = view.getUint32(offset, true);
  const pool = pools[bitness];
  const alike = pool.get(key);
  if (alike !== undefined) {
    for (const instruction of alike) {
      if (startsWith(view, offset, instruction.bytes)) return instruction;
    }
  }
  const made = makeReady(bytes, bitness);
  if (typeof made === 'string') return made;
  if (kept >= MAX_KEPT) {
    pools[32].clear();
    pools[64].clear();
    kept = 0;
  }
  const list = pool.get(key);
  if (list === undefined) pool.set(key, [made]);
  else if (list.length < MAX_ALIKE) list.push(made);
  else list[kept % MAX_ALIKE] = made;
  kept++;
  return made;
}
