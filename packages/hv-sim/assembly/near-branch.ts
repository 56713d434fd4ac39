// Near branches of 16- and 32-bit code, whose operand size says how wide the target is and CS where it must lie; LOOP and
// JRCXZ of code of any kind.
import { conditionHolds } from './alu';
import { fault, raiseProtection } from './fault';
import {
  CODE_LONG,
  FLAG_ADDRESS_16,
  I_CALL_NEAR,
  I_CALL_NEAR_INDIRECT,
  I_JCC_NEAR,
  I_JMP_NEAR,
  I_JMP_NEAR_INDIRECT,
  I_JRCXZ,
  I_LOOP,
  I_LOOPE,
  OP_FLAGS,
  OP_IMM,
  OP_KIND,
  OP_LENGTH,
  OP_SIZE,
  VCPU_RCX,
} from './generated/layout';
import { codeMode } from './mode';
import { cutToAddressSize, readSource } from './operand';
import { codeLimit } from './segmented-address';
import { moveStack, pushOfSize, topOfSize } from './sized-stack';
import { flags, general, RCX, rip, setGeneral, setRegister, setRip, setRipSet, stackPointer, ZF } from './state';

/** Offset of the next instruction. */
function next(op: usize): u64 {
  return rip() + u64(load<u8>(op, OP_LENGTH));
}

/** Where a direct branch leads. */
function direct(op: usize): u64 {
  return (next(op) + load<u64>(op, OP_IMM)) & (load<u8>(op, OP_SIZE) == 2 ? 0xffff : 0xffff_ffff);
}

/** Whether a target lies in CS; #GP(0) if not. */
function reaches(target: u64): bool {
  if (target <= codeLimit()) return true;
  raiseProtection(0);
  return false;
}

function go(target: u64): void {
  setRip(target);
  setRipSet(true);
}

/** Jumps by the record's distance, in code of any kind. */
export function jumpDirect(op: usize): void {
  if (codeMode == CODE_LONG) return go(next(op) + load<u64>(op, OP_IMM));
  const target = direct(op);
  if (reaches(target)) go(target);
}

/** LOOP, LOOPE, LOOPNE, JRCXZ; the address size chooses RCX, ECX or CX. */
export function execLoop(op: usize, code: u32): void {
  let count = cutToAddressSize(op, general(RCX));
  if (code == I_JRCXZ) {
    if (count == 0) jumpDirect(op);
    return;
  }
  count = cutToAddressSize(op, count - 1);
  const zero = (flags() & ZF) != 0;
  if (count != 0 && (code == I_LOOP || (code == I_LOOPE) == zero)) jumpDirect(op);
  if (fault) return;
  if (load<u16>(op, OP_FLAGS) & FLAG_ADDRESS_16) setRegister<u16>(VCPU_RCX, count);
  else setGeneral(RCX, count);
}

function call(op: usize, target: u64): void {
  if (!reaches(target)) return;
  const size = u32(load<u8>(op, OP_SIZE));
  pushOfSize(size, next(op));
  if (fault == 0) go(target);
}

export function execNearBranch(op: usize, code: u32): void {
  switch (code) {
    case I_JMP_NEAR:
      return jumpDirect(op);
    case I_JCC_NEAR:
      if (conditionHolds(load<u8>(op, OP_KIND))) jumpDirect(op);
      return;
    case I_JMP_NEAR_INDIRECT: {
      const target = readSource(op);
      if (fault == 0 && reaches(target)) go(target);
      return;
    }
    case I_CALL_NEAR:
      return call(op, direct(op));
    case I_CALL_NEAR_INDIRECT: {
      const target = readSource(op);
      if (fault == 0) call(op, target);
      return;
    }
  }
  // RET
  const size = u32(load<u8>(op, OP_SIZE));
  const target = topOfSize(size);
  if (fault || !reaches(target)) return;
  moveStack(stackPointer() + size + load<u64>(op, OP_IMM));
  go(target);
}
