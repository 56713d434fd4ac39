// The stack and the near branches of 64-bit mode, where the stack's addresses are 64 bits wide.

import { clearFault, FAULT_NON_CANONICAL, fault, raise } from './fault';
import { OP_DST, OP_LENGTH } from './generated/layout';
import { load64, store64 } from './memory';
import { isCanonical } from './mode';
import { effectiveAddress } from './operand';
import { general, RBP, setGeneral, setRegister, setStackPointer, stackPointer } from './state';

/** A stack access outside of SS or to a non-canonical address is #SS(0), whatever the instruction's memory operand goes through. */
// @ts-ignore: decorator
@inline
export function stackFault(): void {
  if (fault == FAULT_NON_CANONICAL) {
    clearFault();
    raise(12, 1, 0);
  }
}

/** PUSH of 8 bytes; RSP moves only when the write has succeeded. */
export function push64(value: u64): void {
  const top = stackPointer() - 8;
  store64(top, value);
  if (fault) {
    stackFault();
    return;
  }
  setStackPointer(top);
}

/** The 8 bytes at RSP; does not move RSP. */
export function top64(): u64 {
  const value = load64(stackPointer());
  if (fault) stackFault();
  return value;
}

/** PUSH of a 64-bit memory operand. */
export function pushMemory(op: usize): void {
  const value = load64(effectiveAddress(op));
  if (fault) return;
  push64(value);
}

/** POP of a 64-bit register; POP RSP keeps what was read. */
export function popRegister(op: usize): void {
  const value = top64();
  if (fault) return;
  setStackPointer(stackPointer() + 8);
  setRegister<u64>(load<u16>(op, OP_DST), value);
}

/** LEAVE with 64-bit operands. */
export function leave(): void {
  const frame = general(RBP);
  const value = load64(frame);
  if (fault) {
    stackFault();
    return;
  }
  setStackPointer(frame + 8);
  setGeneral(RBP, value);
}

/**
 * Checks the target of an indirect near jump; #GP(0) when it is not canonical.
 * @returns what the loop must add the instruction's length to
 */
export function jumpTarget(op: usize, target: u64, rip: u64): u64 {
  if (fault) return rip;
  if (!isCanonical(target)) {
    raise(13, 1, 0);
    return rip;
  }
  return target - u64(load<u8>(op, OP_LENGTH));
}

/** Indirect near CALL; returns as {@link jumpTarget}. */
export function call(op: usize, target: u64, rip: u64): u64 {
  const next = jumpTarget(op, target, rip);
  if (fault) return rip;
  push64(rip + u64(load<u8>(op, OP_LENGTH)));
  return fault ? rip : next;
}

/** Near RET, popping `extra` bytes more; returns as {@link jumpTarget}. */
export function ret(op: usize, extra: u64, rip: u64): u64 {
  const target = top64();
  const next = jumpTarget(op, target, rip);
  if (fault) return rip;
  setStackPointer(stackPointer() + 8 + extra);
  return next;
}
