// Shifts with their operands; the arithmetic is in shift.ts. See exec.ts for the rules.
import { fault } from './fault';
import { FLAG_IMMEDIATE_SOURCE, OP_FLAGS, OP_IMM, OP_KIND, OP_SIZE, OP_SRC, VCPU_RCX } from './generated/layout';
import { readForUpdate, writeUpdated } from './operand';
import { doubleShift, shiftOfKind } from './shift';
import { cpu, registerOfSize } from './state';

/** Count of a shift: the immediate or CL. */
// @ts-ignore: decorator
@inline
function shiftCount(op: usize): u32 {
  return load<u16>(op, OP_FLAGS) & FLAG_IMMEDIATE_SOURCE ? load<u32>(op, OP_IMM) : u32(load<u8>(cpu, VCPU_RCX));
}

/** SHL, SHR, SAR and the rotations. */
export function execShift(op: usize): void {
  const value = readForUpdate(op);
  if (fault) return;
  const kind = load<u8>(op, OP_KIND);
  const count = shiftCount(op);
  let result: u64;
  switch (load<u8>(op, OP_SIZE)) {
    case 1:
      result = shiftOfKind<u8>(kind, value, count);
      break;
    case 2:
      result = shiftOfKind<u16>(kind, value, count);
      break;
    case 4:
      result = shiftOfKind<u32>(kind, value, count);
      break;
    default:
      result = shiftOfKind<u64>(kind, value, count);
  }
  writeUpdated(op, result);
}

/** SHLD and SHRD. */
export function execDoubleShift(op: usize, left: bool): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readForUpdate(op);
  if (fault) return;
  const filling = registerOfSize(load<u16>(op, OP_SRC), size);
  const count = shiftCount(op);
  let result: u64;
  if (size == 2) result = doubleShift<u16>(left, value, filling, count);
  else if (size == 4) result = doubleShift<u32>(left, value, filling, count);
  else result = doubleShift<u64>(left, value, filling, count);
  writeUpdated(op, result);
}
