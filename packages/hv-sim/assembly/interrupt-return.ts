// IRET in every mode (SDM vol. 2, IRET).
import {
  checkFarCode,
  checkFarOffset,
  commitFarCode,
  farAttributes,
  isFarCode,
  isFarConforming,
  isFarLong,
  keepCode,
  prepareFarCode,
} from './far-code';
import { fault, raiseProtection, unsupported } from './fault';
import { CODE_LONG, OP_SIZE, VCPU_RFLAGS } from './generated/layout';
import { commitStackPointer, commitStackSegment, prepareStackSegment, readOuterStack } from './inner-stack';
import { codeMode, isLongMode } from './mode';
import { dplOf, dropInnerSegments, readDescriptor } from './segment';
import { loadStack, moveStack } from './sized-stack';
import { cpl, cpu, IF, IOPL, NT, RF, setRip, setRipSet, setStackPointer, stackPointer, VM } from './state';
import { refreshTlb } from './tlb';

/** RFLAGS bits that IRET takes from the stack at any privilege; IF and IOPL have rules of their own. */
const IRET_FLAGS: u64 = 0x25_4dd5;
const RFLAGS_VIF_VIP: u64 = 0x18_0000;

export function interruptReturn(op: usize): void {
  const size = u32(load<u8>(op, OP_SIZE));
  const rflags = load<u64>(cpu + VCPU_RFLAGS);
  // Outside of long mode NT asks for a task switch.
  if (rflags & NT) return isLongMode() ? raiseProtection(0) : unsupported();
  const from = stackPointer();
  const target = loadStack(from, size);
  if (fault) return;
  const selector = u32(loadStack(from + size, size)) & 0xffff;
  if (fault) return;
  const newFlags = loadStack(from + 2 * size, size);
  if (fault) return;
  const long = codeMode == CODE_LONG;
  const privilege = selector & 3;
  const old = cpl();
  if (newFlags & VM && old == 0 && !isLongMode()) return unsupported();
  if ((selector & 0xfffc) == 0) return raiseProtection(0);
  const error = selector & 0xfffc;
  if (privilege < old) return raiseProtection(error);
  let newStack: u64 = 0;
  let stackSelector: u32 = 0;
  // 64-bit code always has a stack to return to.
  const changesStack = long || privilege > old;
  if (changesStack) {
    newStack = loadStack(from + 3 * size, size);
    if (fault) return;
    stackSelector = u32(loadStack(from + 4 * size, size)) & 0xffff;
    if (fault) return;
  }
  if (!readDescriptor(selector, false)) return;
  keepCode();
  if (!isFarCode()) return raiseProtection(error);
  const codePrivilege = dplOf(farAttributes);
  if (isFarConforming() ? codePrivilege > privilege : codePrivilege != privilege) return raiseProtection(error);
  if (!checkFarCode(error)) return;
  if (changesStack && !readOuterStack(stackSelector, privilege, isFarLong())) return;
  if (!checkFarOffset(target, 0)) return;
  // All checks are done: now the accessed bits, both reached before either is set.
  if (!prepareFarCode()) return;
  if (changesStack && !prepareStackSegment()) return;

  if (changesStack) {
    commitStackSegment(privilege);
    if (long) setStackPointer(newStack);
    else commitStackPointer(newStack);
  } else {
    moveStack(from + 3 * size);
  }
  commitFarCode(selector);
  if (privilege > old) dropInnerSegments(privilege);
  setRip(target);
  let mask: u64 = IRET_FLAGS;
  if (old == 0) mask |= IOPL | RFLAGS_VIF_VIP;
  if (old <= ((u32(rflags) & IOPL) >> 12)) mask |= IF;
  if (size == 2) mask &= 0xffff;
  store<u64>(cpu + VCPU_RFLAGS, (rflags & ~mask & ~u64(RF)) | (newFlags & mask) | 2);
  setRipSet(true);
  refreshTlb();
}
