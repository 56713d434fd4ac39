// Far control transfers: JMP and CALL to segments and through call gates, and RETF (SDM vol. 3A, 5.8). Task switches are
// not offered.
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
import { fault, raise, raiseProtection, setAttention, unsupported, VECTOR_NP } from './fault';
import {
  CODE_LONG,
  OP_IMM,
  OP_LENGTH,
  OP_SIZE,
  OP_SOURCE_SIZE,
  VCPU_CS_SELECTOR,
  VCPU_GDT_LIMIT,
  VCPU_LDTR_LIMIT,
  VCPU_SS_SELECTOR,
} from './generated/layout';
import {
  commitStackPointer,
  commitStackSegment,
  innerStackPointer,
  newStackMask,
  prepareInnerStack,
  prepareStackSegment,
  readInnerStack,
  readOuterStack,
} from './inner-stack';
import { load16, loadImplicit, storeStack } from './memory';
import { codeMode, isLongMode, laterPart } from './mode';
import { effectiveAddress, loadOfSize } from './operand';
import {
  ATTRIBUTE_LONG,
  ATTRIBUTE_PRESENT,
  ATTRIBUTE_S,
  descriptorAddress,
  descriptorAttributes,
  dplOf,
  dropInnerSegments,
  readDescriptor,
} from './segment';
import { loadStack, moveStack, probeStackWrite, storeStackAt } from './sized-stack';
import { cpl, cpu, rip, setRip, setRipSet, setStackPointer, stackPointer } from './state';
import { refreshTlb } from './tlb';

/** System descriptor types that a far transfer may name. */
const TYPE_TSS_16: u32 = 1;
const TYPE_CALL_GATE_16: u32 = 4;
const TYPE_TASK_GATE: u32 = 5;
const TYPE_TSS_32: u32 = 9;
const TYPE_CALL_GATE: u32 = 12;

/** Return address of the instruction. */
function next(op: usize): u64 {
  return rip() + load<u8>(op, OP_LENGTH);
}

/** Control is at an offset of the code segment that has just been loaded. */
function arrive(offset: u64): void {
  setRip(offset);
  setRipSet(true);
  refreshTlb();
  setAttention();
}

/** JMP or CALL, once the code segment is read and checked: at the same privilege, values of `size` bytes on the stack. */
function transfer(op: usize, call: bool, selector: u32, offset: u64, size: u32): void {
  const top = stackPointer();
  if (call) {
    probeStackWrite(top - size, size);
    if (fault) return;
    probeStackWrite(top - 2 * size, size);
    if (fault) return;
  }
  if (!prepareFarCode()) return;
  if (call) {
    storeStackAt(top - size, size, load<u32>(cpu + VCPU_CS_SELECTOR));
    storeStackAt(top - 2 * size, size, next(op));
    moveStack(top - 2 * size);
  }
  commitFarCode((selector & 0xfffc) | cpl());
  arrive(offset);
}

/** CALL through a gate to an inner privilege level: to a stack of its own, to which parameters are copied. */
function callInner(op: usize, selector: u32, offset: u64, size: u32, parameters: u32): void {
  const privilege = dplOf(farAttributes);
  if (!readInnerStack(privilege, 0)) return;
  const bytes = (4 + parameters) * size;
  const top = (innerStackPointer - bytes) & newStackMask();
  const from = stackPointer();
  // The parameters are looked at before the new stack is, and lie between the return address and the old stack's.
  for (let i: u32 = 0; i < parameters; i++) {
    loadStack(from + i * size, size);
    if (fault) return;
  }
  if (!checkFarOffset(offset, 0)) return;
  if (!prepareInnerStack(top, bytes, privilege, 0)) return;
  if (!prepareStackSegment() || !prepareFarCode()) return;
  // Reading a parameter again cannot fail, but it could translate: the new stack is prepared last.
  for (let i: u32 = 0; i < parameters; i++) storeStack((2 + i) * size, loadStack(from + i * size, size), size);
  storeStack(0, next(op), size);
  storeStack(size, load<u32>(cpu + VCPU_CS_SELECTOR), size);
  storeStack((2 + parameters) * size, from, size);
  storeStack((3 + parameters) * size, load<u32>(cpu + VCPU_SS_SELECTOR), size);
  commitStackSegment(privilege);
  commitStackPointer(top);
  commitFarCode((selector & 0xfffc) | privilege);
  arrive(offset);
}

/** The descriptor just read is a call gate. */
function throughGate(op: usize, call: bool, gateSelector: u32): void {
  const error = gateSelector & 0xfffc;
  const long = isLongMode();
  const size: u32 = long ? 8 : descriptorAttributes & 8 ? 4 : 2;
  const gateAddress = descriptorAddress;
  const low = loadImplicit(gateAddress, 8);
  if (fault) return;
  let offset = (low & 0xffff) | ((low >> 32) & 0xffff_0000);
  if (size == 2) offset &= 0xffff;
  if (long) {
    const limit = load<u32>(cpu + (gateSelector & 4 ? VCPU_LDTR_LIMIT : VCPU_GDT_LIMIT));
    if ((gateSelector & 0xfff8) + 15 > limit) return raiseProtection(error);
    const high = loadImplicit(gateAddress + 8, 8);
    if (fault) return;
    // The upper half has the type 0, so that it is no descriptor.
    if ((high >> 40) & 0x1f) return raiseProtection(error);
    offset |= high << 32;
  }
  const selector = u32(low >> 16) & 0xffff;
  const codeError = selector & 0xfffc;
  if (codeError == 0) return raiseProtection(0);
  if (!readDescriptor(selector, false)) return;
  keepCode();
  const privilege = cpl();
  const dpl = dplOf(farAttributes);
  if (!isFarCode() || dpl > privilege) return raiseProtection(codeError);
  if (long && !(farAttributes & ATTRIBUTE_LONG)) return raiseProtection(codeError);
  if (!call && !isFarConforming() && dpl != privilege) return raiseProtection(codeError);
  if (!checkFarCode(codeError)) return;
  if (call && !isFarConforming() && dpl < privilege) {
    return callInner(op, selector, offset, size, long ? 0 : u32(low >> 32) & 0x1f);
  }
  if (checkFarOffset(offset, 0)) transfer(op, call, selector, offset, size);
}

/** A far transfer to a system descriptor: a gate, or a task. */
function toSystem(op: usize, call: bool, selector: u32): void {
  const error = selector & 0xfffc;
  const type = descriptorAttributes & 0xf;
  const gate = type == TYPE_CALL_GATE || (type == TYPE_CALL_GATE_16 && !isLongMode());
  const task = !isLongMode() && (type == TYPE_TSS_16 || type == TYPE_TSS_32 || type == TYPE_TASK_GATE);
  const dpl = dplOf(descriptorAttributes);
  if ((!gate && !task) || dpl < cpl() || dpl < (selector & 3)) return raiseProtection(error);
  if (!(descriptorAttributes & ATTRIBUTE_PRESENT)) return raise(VECTOR_NP, 1, error);
  if (task) return unsupported();
  throughGate(op, call, selector);
}

function goFar(op: usize, call: bool, selector: u32, offset: u64, size: u32): void {
  const error = selector & 0xfffc;
  if (error == 0) return raiseProtection(0);
  if (!readDescriptor(selector, false)) return;
  if (!(descriptorAttributes & ATTRIBUTE_S)) return toSystem(op, call, selector);
  keepCode();
  const privilege = cpl();
  const dpl = dplOf(farAttributes);
  let valid = isFarCode();
  if (isFarConforming()) valid = valid && dpl <= privilege;
  else valid = valid && (selector & 3) <= privilege && dpl == privilege;
  if (!valid) return raiseProtection(error);
  if (!checkFarCode(error)) return;
  if (checkFarOffset(offset, 0)) transfer(op, call, selector, offset, size);
}

/** JMP and CALL through a far pointer in memory. */
export function farTransfer(op: usize, call: bool): void {
  const size = u32(load<u8>(op, OP_SIZE));
  const pointer = effectiveAddress(op);
  const target = loadOfSize(pointer, size);
  if (fault) return;
  const selector = u32(load16(laterPart(pointer + size)));
  if (fault) return;
  goFar(op, call, selector, target, size);
}

/** JMP and CALL with the far pointer in the instruction. */
export function farTransferDirect(op: usize, call: bool): void {
  goFar(op, call, load<u16>(op, OP_SOURCE_SIZE), load<u64>(op, OP_IMM), load<u8>(op, OP_SIZE));
}

/** RETF, to the same or an outer privilege level. */
export function farReturn(op: usize): void {
  const size = u32(load<u8>(op, OP_SIZE));
  const extra = load<u64>(op, OP_IMM);
  const from = stackPointer();
  const target = loadStack(from, size);
  if (fault) return;
  const selector = u32(loadStack(from + size, size)) & 0xffff;
  if (fault) return;
  const error = selector & 0xfffc;
  const privilege = selector & 3;
  const old = cpl();
  const outer = privilege > old;
  if (error == 0) return raiseProtection(0);
  if (privilege < old) return raiseProtection(error);
  if (!readDescriptor(selector, false)) return;
  keepCode();
  const dpl = dplOf(farAttributes);
  if (!isFarCode() || (isFarConforming() ? dpl > privilege : dpl != privilege)) return raiseProtection(error);
  if (!checkFarCode(error)) return;
  let stack = from + 2 * size + extra;
  if (outer) {
    const outerStack = loadStack(stack, size);
    if (fault) return;
    const stackSelector = u32(loadStack(stack + size, size)) & 0xffff;
    if (fault) return;
    stack = outerStack + extra;
    if (!readOuterStack(stackSelector, privilege, isFarLong())) return;
  }
  if (!checkFarOffset(target, 0)) return;
  // All checks are done: now the accessed bits, both reached before either is set.
  if (!prepareFarCode()) return;
  if (outer && !prepareStackSegment()) return;
  if (outer) {
    commitStackSegment(privilege);
    if (codeMode == CODE_LONG) setStackPointer(stack);
    else commitStackPointer(stack);
  } else {
    moveStack(stack);
  }
  commitFarCode(selector);
  if (outer) dropInnerSegments(privilege);
  arrive(target);
}
