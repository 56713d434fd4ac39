import { Access, u32Index, type VcpuRecord } from '@introd/abi';
import type { DecodedInstruction } from './decoded-instruction.js';
import { type MemoryOperand, NO_REGISTER } from './memory-operand.js';

/** Most addresses of one instruction: ENTER with 31 levels reads and writes 62. */
export const MAX_ACCESSES = 64;

const RAX = u32Index('rax');
const RCX = u32Index('rcx');
const FS_BASE = u32Index('fsBase');
const GS_BASE = u32Index('gsBase');

/**
 * The addresses that an instruction touches: parallel arrays, so that one list serves every exit without allocating.
 */
export class AccessList {
  /** Number of entries that hold. */
  count = 0;
  /** Low halves of the linear addresses. */
  readonly low = new Uint32Array(MAX_ACCESSES);
  /** High halves. */
  readonly high = new Uint32Array(MAX_ACCESSES);
  /** Sizes in bytes; 0 when the size depends on the processor's state. */
  readonly size = new Uint32Array(MAX_ACCESSES);
  /** READ and WRITE bits of `Access`. */
  readonly access = new Uint8Array(MAX_ACCESSES);

  /** The linear address of an entry. Allocates. */
  address(index: number): bigint {
    return (BigInt(this.high[index]!) << 32n) | BigInt(this.low[index]!);
  }

  /** READ and WRITE bits of an entry. */
  accessOf(index: number): Access {
    return this.access[index]!;
  }
}

/**
 * Lists every address that an instruction touches when it executes with these registers, in the order of
 * {@link DecodedInstruction.memory}: of a repeated string instruction the element that comes next. 64-bit mode.
 * @param out receives the list
 */
export function accessedAddresses(instruction: DecodedInstruction, vcpu: VcpuRecord, out: AccessList): void {
  const operands = instruction.memory;
  if (instruction.repeated && isExhausted(operands[0]!, vcpu.u32)) {
    out.count = 0;
    return;
  }
  const count = Math.min(operands.length, MAX_ACCESSES);
  for (let index = 0; index < count; index++) {
    addressOf(operands[index]!, vcpu.u32, out, index);
  }
  out.count = count;
}

/** Whether the counter of a repeated string instruction is zero: it touches nothing then. */
function isExhausted(operand: MemoryOperand, registers: Uint32Array): boolean {
  return registers[RCX] === 0 && (operand.address32 || registers[RCX + 1] === 0);
}

// Every sum is brought back to 32 bits at once: a value that is neither would be boxed, 16 bytes for each exit.
function addressOf(operand: MemoryOperand, registers: Uint32Array, out: AccessList, index: number): void {
  let low = operand.displacementLow >>> 0;
  let high = operand.displacementHigh | 0;
  if (operand.base !== NO_REGISTER) {
    const at = RAX + operand.base * 2;
    const sum = low + registers[at]!;
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
  if (operand.address32) {
    high = 0;
  }
  if (operand.segment !== undefined) {
    const at = operand.segment === 'fs' ? FS_BASE : GS_BASE;
    const sum = low + registers[at]!;
    high = (high + (registers[at + 1]! | 0) + (sum > 0xffff_ffff ? 1 : 0)) | 0;
    low = sum >>> 0;
  }
  out.low[index] = low;
  out.high[index] = high;
  out.size[index] = operand.size;
  out.access[index] = operand.access & (Access.READ | Access.WRITE);
}
