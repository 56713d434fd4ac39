// Near branches of 16- and 32-bit code: the operand size says how wide the target is, CS where it must lie.
import { conditionHolds } from './alu';
import { fault, raiseProtection } from './fault';
import {
  CODE_LONG,
  I_CALL_NEAR,
  I_CALL_NEAR_INDIRECT,
  I_JCC_NEAR,
  I_JMP_NEAR,
  I_JMP_NEAR_INDIRECT,
  OP_IMM,
  OP_KIND,
  OP_LENGTH,
  OP_SIZE,
} from './generated/layout';
import { codeMode } from './mode';
import { readSource } from './operand';
import { codeLimit } from './segmented-address';
import { moveStack, pushOfSize, topOfSize } from './sized-stack';
import { rip, setRip, setRipSet, stackPointer } from './state';

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
