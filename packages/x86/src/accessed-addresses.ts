import { Access, u32Index, type VcpuRecord } from '@introd/abi';
import { type AccessList, MAX_ACCESSES } from './access-list.js';
import type { DecodedInstruction } from './decoded-instruction.js';
import { type MemoryOperand, NO_REGISTER, STACK_ADDRESS } from './memory-operand.js';
import { elementAddresses, type OperandContext } from './vector-addresses.js';

const RAX = u32Index('rax');
const RCX = u32Index('rcx');
const SS_ATTRIBUTES = u32Index('ssAttributes');
/** D/B bit of a segment's access rights. */
const SEGMENT_32 = 1 << 14;

/**
 * Lists every address that an instruction touches when it executes with these registers, in the order of
 * {@link DecodedInstruction.memory}: of a repeated string instruction the element that comes next, of gathers and scatters the
 * elements that their mask selects. Linear addresses, with segment bases, cut as the mode does it.
 * @param out receives the list
 * @param context where vector registers and the size of the XSAVE area come from; without it such operands have size 0 or are missing
 */
export function accessedAddresses(
  instruction: DecodedInstruction,
  vcpu: VcpuRecord,
  out: AccessList,
  context?: OperandContext,
): void {
  const operands = instruction.memory;
  const registers = vcpu.u32;
  out.incomplete = false;
  if (instruction.repeated && isExhausted(operands[0]!, registers)) {
    out.count = 0;
    return;
  }
  const listed = Math.min(operands.length, MAX_ACCESSES);
  let count = 0;
  for (let index = 0; index < listed; index++) {
    const operand = operands[index]!;
    addressOf(operand, registers, out, count);
    if (operand.elements === undefined) {
      if (operand.size === 0) {
        out.size[count] = context?.xsave?.areaSize() ?? 0;
      }
      count++;
    } else {
      count = elementAddresses(operand, registers, out, count, context);
    }
  }
  out.count = count;
}

/** Whether the counter of a repeated string instruction, which has the size of its addresses, is zero: it touches nothing then. */
function isExhausted(operand: MemoryOperand, registers: Uint32Array): boolean {
  const low = registers[RCX]!;
  switch (operand.addressSize) {
    case 64:
      return low === 0 && registers[RCX + 1] === 0;
    case 16:
      return (low & 0xffff) === 0;
    default:
      return low === 0;
  }
}

// Every sum is brought back to 32 bits at once: a value that is neither would be boxed, 16 bytes for each exit.
function addressOf(operand: MemoryOperand, registers: Uint32Array, out: AccessList, index: number): void {
  let low = operand.displacementLow >>> 0;
  let high = operand.displacementHigh | 0;
  if (operand.base !== NO_REGISTER) {
    const at = RAX + operand.base * 2;
    // Aligned before the displacement is added, as the processor does it: else a borrow into the high half is lost.
    const sum = low + (operand.aligned ? (registers[at]! & ~15) >>> 0 : registers[at]!);
    high = (high + (registers[at + 1]! | 0) + (sum > 0xffff_ffff ? 1 : 0)) | 0;
    low = sum >>> 0;
  }
  if (operand.index !== NO_REGISTER) {
    const at = RAX + operand.index * 2;
    const shift = operand.scaleShift;
    const indexLow = operand.indexByte ? registers[at]! & 0xff : registers[at]!;
    const indexHigh = operand.indexByte ? 0 : registers[at + 1]! | 0;
    const sum = low + ((indexLow << shift) >>> 0);
    const scaledHigh = shift === 0 ? indexHigh : (indexHigh << shift) | (indexLow >>> (32 - shift));
    high = (high + scaledHigh + (sum > 0xffff_ffff ? 1 : 0)) | 0;
    low = sum >>> 0;
  }
  if (operand.bitRegister !== NO_REGISTER) {
    // The register is a signed number of bits; whole operands of it move the address (SDM vol. 2A, 3.1.1.9).
    const at = RAX + operand.bitRegister * 2;
    const bitsLow = registers[at]!;
    let offsetLow: number;
    let offsetHigh: number;
    if (operand.size === 8) {
      const bitsHigh = registers[at + 1]! | 0;
      offsetLow = ((bitsLow >>> 3) | (bitsHigh << 29)) & ~7;
      offsetHigh = bitsHigh >> 3;
    } else {
      offsetLow = operand.size === 4 ? (bitsLow >> 3) & ~3 : ((bitsLow << 16) >> 19) & ~1;
      offsetHigh = offsetLow >> 31;
    }
    const sum = low + (offsetLow >>> 0);
    high = (high + offsetHigh + (sum > 0xffff_ffff ? 1 : 0)) | 0;
    low = sum >>> 0;
  }
  const { addressSize } = operand;
  if (addressSize !== 64) {
    high = 0;
    if (addressSize === 16 || (addressSize === STACK_ADDRESS && (registers[SS_ATTRIBUTES]! & SEGMENT_32) === 0)) {
      low &= 0xffff;
    }
  }
  const segmentBase = operand.segmentBase;
  if (segmentBase >= 0) {
    const sum = low + registers[segmentBase]!;
    high = (high + (registers[segmentBase + 1]! | 0) + (sum > 0xffff_ffff ? 1 : 0)) | 0;
    low = sum >>> 0;
  }
  if (operand.linear32) {
    high = 0;
  }
  out.low[index] = low;
  out.high[index] = high;
  out.size[index] = operand.size;
  out.access[index] = operand.access & (Access.READ | Access.WRITE);
}
