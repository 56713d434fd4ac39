import { Access } from '@introd/abi';
import { type AccessList, MAX_ACCESSES } from './access-list.js';
import type { MemoryOperand, VectorIndex } from './memory-operand.js';

/** State of a VCPU that is not in its record. */
export interface OperandContext {
  /** Its extended state; undefined when that is not to be had. */
  readonly xsave?: {
    /**
     * Fills `target` (16, 32 or 64 bytes) with the lower bytes of a vector register.
     * @returns false when they are not to be had
     */
    readVector(register: number, target: Uint8Array): boolean;
    /** Bytes of the XSAVE area with the current XCR0. */
    areaSize(): number;
    /**
     * Fills `target` (8 bytes) with an opmask register.
     * @returns false when it is not to be had; then all elements count as selected
     */
    readOpmask?(register: number, target: Uint8Array): boolean;
  };
}

const SIZES = [16, 32, 64] as const;
const indexBytes = SIZES.map((size) => new Uint8Array(size));
const maskBytes = SIZES.map((size) => new Uint8Array(size));
const opmaskBytes = new Uint8Array(8);

function bufferOf(buffers: readonly Uint8Array[], size: number): Uint8Array {
  return buffers[size === 64 ? 2 : size === 32 ? 1 : 0]!;
}

function dword(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

/**
 * Lists the selected elements of a gather or scatter.
 * @param at index of the entry that holds the address without an index; elements are listed from there on
 * @returns index of the first free entry
 */
export function elementAddresses(
  operand: MemoryOperand,
  registers: Uint32Array,
  out: AccessList,
  at: number,
  context: OperandContext | undefined,
): number {
  const elements = operand.elements!;
  const xsave = context?.xsave;
  const indices = bufferOf(indexBytes, elements.registerSize);
  if (xsave === undefined || !xsave.readVector(elements.register, indices)) {
    out.incomplete = true;
    return at;
  }
  const masked = readMask(elements, operand.size, xsave);
  // With addresses of 32 bits the sum is cut before the base of the segment is added; otherwise the order does not matter.
  const segmentBase = operand.addressSize === 64 || operand.linear32 ? -1 : operand.segmentBase;
  const cut = operand.addressSize !== 64;
  const segmentLow = segmentBase < 0 ? 0 : registers[segmentBase]!;
  const segmentHigh = segmentBase < 0 ? 0 : registers[segmentBase + 1]!;
  const baseLow = (out.low[at]! - segmentLow) >>> 0;
  const baseHigh = out.high[at]!;
  const shift = operand.scaleShift;
  let next = at;
  for (let element = 0; element < elements.count && next < MAX_ACCESSES; element++) {
    if (masked && !isSelected(elements, operand.size, element)) {
      continue;
    }
    const offset = element * elements.indexSize;
    const indexLow = dword(indices, offset);
    const indexHigh = elements.indexSize === 8 ? dword(indices, offset + 4) : (indexLow | 0) >> 31;
    let low = baseLow + ((indexLow << shift) >>> 0);
    let high =
      baseHigh +
      (shift === 0 ? indexHigh : (indexHigh << shift) | (indexLow >>> (32 - shift))) +
      (low > 0xffff_ffff ? 1 : 0);
    low >>>= 0;
    if (cut) {
      low += segmentLow;
      high = segmentHigh + (low > 0xffff_ffff ? 1 : 0);
      low >>>= 0;
    }
    out.low[next] = low;
    out.high[next] = operand.linear32 ? 0 : high >>> 0;
    out.size[next] = operand.size;
    out.access[next] = operand.access & (Access.READ | Access.WRITE);
    next++;
  }
  return next;
}

/**
 * Reads the mask of a gather or scatter.
 * @returns false when it is not to be had
 */
function readMask(elements: VectorIndex, elementSize: number, xsave: NonNullable<OperandContext['xsave']>): boolean {
  if (elements.maskKind === 'opmask') {
    return xsave.readOpmask?.(elements.maskRegister, opmaskBytes) ?? false;
  }
  const size = elements.count * elementSize;
  return xsave.readVector(elements.maskRegister, bufferOf(maskBytes, size));
}

/** AVX-512 takes one bit for each element, AVX2 the sign of the element in the mask (SDM vol. 2C, VGATHERDPS). */
function isSelected(elements: VectorIndex, elementSize: number, element: number): boolean {
  if (elements.maskKind === 'opmask') {
    return (opmaskBytes[element >> 3]! & (1 << (element & 7))) !== 0;
  }
  const mask = bufferOf(maskBytes, elements.count * elementSize);
  return (mask[(element + 1) * elementSize - 1]! & 0x80) !== 0;
}
