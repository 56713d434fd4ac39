// The stack in every mode: SS decides how wide the stack pointer is, the instruction how much it moves (SDM vol. 1, 6.2.3).
// The common 64-bit cases are in stack.ts.
import { fault } from './fault';
import { CODE_LONG, VCPU_RSP, VCPU_SS_ATTRIBUTES } from './generated/layout';
import { probeRead, probeWrite } from './memory';
import { codeMode } from './mode';
import { loadOfSize, storeOfSize } from './operand';
import { ATTRIBUTE_BIG, SS } from './segment';
import { segmentAddress } from './segmented-address';
import { stackFault } from './stack';
import { cpu, stackPointer } from './state';

/** Bits of RSP that the stack's addresses have. */
export function stackMask(): u64 {
  if (codeMode == CODE_LONG) return 0xffff_ffff_ffff_ffff;
  return load<u32>(cpu + VCPU_SS_ATTRIBUTES) & ATTRIBUTE_BIG ? 0xffff_ffff : 0xffff;
}

/** Writes the stack pointer as wide as the stack's addresses are. */
export function moveStack(offset: u64): void {
  const mask = stackMask();
  if (mask == 0xffff) store<u16>(cpu + VCPU_RSP, <u16>offset);
  else store<u64>(cpu + VCPU_RSP, offset & mask);
}

/** Linear address of an access through SS at an offset. */
export function stackAddress(offset: u64, size: u32, writes: bool): u64 {
  if (codeMode == CODE_LONG) return offset;
  return segmentAddress(SS, offset & stackMask(), size, writes);
}

/** Reads what lies at an offset through SS; #SS(0) outside of it. */
export function loadStack(offset: u64, size: u32): u64 {
  const value = loadOfSize(stackAddress(offset, size, false), size);
  if (fault) stackFault();
  return value;
}

/** Writes at an offset through SS; #SS(0) outside of it. */
export function storeStackAt(offset: u64, size: u32, value: u64): void {
  storeOfSize(stackAddress(offset, size, true), size, value);
  if (fault) stackFault();
}

/** Makes sure that reading at an offset through SS cannot fail. */
export function probeStackRead(offset: u64, size: u32): void {
  probeRead(stackAddress(offset, size, false), i32(size));
  if (fault) stackFault();
}

/** Makes sure that writing at an offset through SS cannot fail. */
export function probeStackWrite(offset: u64, size: u32): void {
  probeWrite(stackAddress(offset, size, true), i32(size));
  if (fault) stackFault();
}

/** PUSH; the stack pointer moves only when the write has succeeded. */
export function pushOfSize(size: u32, value: u64): void {
  const top = stackPointer() - size;
  storeStackAt(top, size, value);
  if (fault == 0) moveStack(top);
}

/** What lies on top of the stack; does not move the stack pointer. */
export function topOfSize(size: u32): u64 {
  return loadStack(stackPointer(), size);
}
