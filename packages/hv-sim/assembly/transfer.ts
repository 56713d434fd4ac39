// System calls and far control transfers in 64-bit mode. Call gates and compatibility mode are not offered.
import { fault, raise, raiseProtection, raiseUndefined, setAttention, unsupported, VECTOR_NP, VECTOR_SS } from './fault';
import {
  OP_IMM,
  OP_LENGTH,
  OP_SIZE,
  VCPU_CS_SELECTOR,
  VCPU_EFER,
  VCPU_GS_BASE,
  VCPU_KERNEL_GS_BASE,
  VCPU_LSTAR,
  VCPU_RFLAGS,
  VCPU_SFMASK,
  VCPU_STAR,
} from './generated/layout';
import { load16, load32, load64, probeWrite, store16, store32, store64 } from './memory';
import { effectiveAddress } from './operand';
import {
  ATTRIBUTE_BIG,
  ATTRIBUTE_LONG,
  ATTRIBUTE_PRESENT,
  ATTRIBUTE_S,
  commitAccessed,
  CS,
  descriptorAddress,
  descriptorAttributes,
  descriptorBase,
  descriptorLimit,
  dplOf,
  dropInnerSegments,
  prepareAccessed,
  reachAccessed,
  readDescriptor,
  setAccessed,
  setFlatSegments,
  setFromDescriptor,
  setNullStackSegment,
  setSegment,
  SS,
} from './segment';
import {
  cpl,
  cpu,
  general,
  RCX,
  RF,
  rip,
  setGeneral,
  setRip,
  setRipSet,
  setStackPointer,
  stackPointer,
  VM,
} from './state';
import { refreshTlb } from './tlb';
import { isCanonical } from './translate';

const EFER_SCE: u64 = 1;
const R11: usize = 11;
/** RFLAGS bits that SYSRET takes from R11 (SDM vol. 2, SYSRET). */
const SYSRET_FLAGS: u64 = 0x3c_7fd7;

export function systemCall(op: usize): void {
  if (!(load<u64>(cpu + VCPU_EFER) & EFER_SCE)) return raiseUndefined();
  const rflags = load<u64>(cpu + VCPU_RFLAGS);
  setGeneral(RCX, rip() + load<u8>(op, OP_LENGTH));
  setGeneral(R11, rflags & ~u64(RF));
  const selector = u32(load<u64>(cpu + VCPU_STAR) >> 32) & 0xfffc;
  setFlatSegments(selector, selector + 8, 0);
  store<u64>(cpu + VCPU_RFLAGS, (rflags & ~load<u64>(cpu + VCPU_SFMASK) & ~u64(RF)) | 2);
  setRip(load<u64>(cpu + VCPU_LSTAR));
  setRipSet(true);
  refreshTlb();
  setAttention();
}

export function systemReturn(op: usize): void {
  if (!(load<u64>(cpu + VCPU_EFER) & EFER_SCE)) return raiseUndefined();
  if (cpl() != 0) return raiseProtection(0);
  if (load<u8>(op, OP_SIZE) != 8) return unsupported();
  const target = general(RCX);
  if (!isCanonical(target)) return raiseProtection(0);
  const base = u32(load<u64>(cpu + VCPU_STAR) >> 48);
  setFlatSegments((base + 16) | 3, (base + 8) | 3, 3);
  store<u64>(cpu + VCPU_RFLAGS, (general(R11) & SYSRET_FLAGS & ~u64(RF | VM)) | 2);
  setRip(target);
  setRipSet(true);
  refreshTlb();
  setAttention();
}

export function swapGs(): void {
  if (cpl() != 0) return raiseProtection(0);
  const base = load<u64>(cpu + VCPU_GS_BASE);
  store<u64>(cpu + VCPU_GS_BASE, load<u64>(cpu + VCPU_KERNEL_GS_BASE));
  store<u64>(cpu + VCPU_KERNEL_GS_BASE, base);
}

/** Reads and checks the code segment of a far JMP or CALL: same privilege, 64-bit. */
function readTarget(selector: u32): bool {
  const error = selector & 0xfffc;
  if (error == 0) {
    raiseProtection(0);
    return false;
  }
  if (!readDescriptor(selector, false)) return false;
  const attributes = descriptorAttributes;
  if (!(attributes & ATTRIBUTE_S)) {
    // Gates and task switches.
    unsupported();
    return false;
  }
  const privilege = cpl();
  const dpl = dplOf(attributes);
  const conforming = (attributes & 4) != 0;
  let valid = (attributes & 8) != 0;
  if (conforming) valid = valid && dpl <= privilege;
  else valid = valid && (selector & 3) <= privilege && dpl == privilege;
  if (!valid) {
    raiseProtection(error);
    return false;
  }
  return checkLong(attributes, error);
}

function checkLong(attributes: u32, error: u32): bool {
  if (!(attributes & ATTRIBUTE_PRESENT)) {
    raise(VECTOR_NP, 1, error);
  } else if (!(attributes & ATTRIBUTE_LONG)) {
    unsupported();
  } else if (attributes & ATTRIBUTE_BIG) {
    raiseProtection(error);
  } else {
    return true;
  }
  return false;
}

function loadSized(address: u64, size: u32): u64 {
  return size == 8 ? load64(address) : size == 4 ? load32(address) : load16(address);
}

function storeSized(address: u64, size: u32, value: u64): void {
  if (size == 8) store64(address, value);
  else if (size == 4) store32(address, value);
  else store16(address, value);
}

/** JMP and CALL through a far pointer in memory. */
export function farTransfer(op: usize, call: bool): void {
  const size = u32(load<u8>(op, OP_SIZE));
  const pointer = effectiveAddress(op);
  const target = loadSized(pointer, size);
  if (fault) return;
  const selector = u32(load16(pointer + size));
  if (fault) return;
  if (!readTarget(selector)) return;
  if (!isCanonical(target)) return raiseProtection(0);
  const stack = stackPointer() - 2 * size;
  if (call) {
    probeWrite(stack, 2 * size);
    if (fault) return;
  }
  if (!prepareAccessed()) return;
  if (call) {
    storeSized(stack, size, rip() + load<u8>(op, OP_LENGTH));
    storeSized(stack + size, size, load<u32>(cpu + VCPU_CS_SELECTOR));
    setStackPointer(stack);
  }
  commitAccessed();
  setFromDescriptor(CS, (selector & 0xfffc) | cpl());
  setRip(target);
  setRipSet(true);
}

/** RETF, to the same or an outer privilege level. */
export function farReturn(op: usize): void {
  const size = u32(load<u8>(op, OP_SIZE));
  const extra = load<u64>(op, OP_IMM);
  const from = stackPointer();
  const target = loadSized(from, size);
  if (fault) return;
  const selector = u32(loadSized(from + size, size)) & 0xffff;
  if (fault) return;
  const error = selector & 0xfffc;
  const privilege = selector & 3;
  const old = cpl();
  if (error == 0) return raiseProtection(0);
  if (privilege < old) return raiseProtection(error);
  if (!readDescriptor(selector, false)) return;
  const codeAddress = descriptorAddress;
  const codeBase = descriptorBase;
  const codeLimit = descriptorLimit;
  const codeAttributes = descriptorAttributes;
  const dpl = dplOf(codeAttributes);
  const valid = (codeAttributes & ATTRIBUTE_S) != 0 && (codeAttributes & 8) != 0;
  if (!valid || (codeAttributes & 4 ? dpl > privilege : dpl != privilege)) return raiseProtection(error);
  if (!checkLong(codeAttributes, error)) return;
  let stack = from + 2 * size + extra;
  let stackSelector: u32 = 0;
  let stackNull = true;
  if (privilege > old) {
    const outer = loadSized(stack, size);
    if (fault) return;
    stackSelector = u32(loadSized(stack + size, size)) & 0xffff;
    if (fault) return;
    stack = outer + extra;
    stackNull = (stackSelector & 0xfffc) == 0;
    if (stackNull) {
      if (privilege == 3 || (stackSelector & 3) != privilege) return raiseProtection(0);
    } else {
      if (!readDescriptor(stackSelector, false)) return;
      const attributes = descriptorAttributes;
      const writable = (attributes & ATTRIBUTE_S) != 0 && (attributes & 0xa) == 2;
      if (!writable || (stackSelector & 3) != privilege || dplOf(attributes) != privilege) {
        return raiseProtection(stackSelector & 0xfffc);
      }
      if (!(attributes & ATTRIBUTE_PRESENT)) return raise(VECTOR_SS, 1, stackSelector & 0xfffc);
    }
  }
  if (!isCanonical(target)) return raiseProtection(0);
  // All checks are done: now the accessed bits, both reached before either is set.
  const codeByte = reachAccessed(codeAddress, codeAttributes);
  if (fault) return;
  if (!stackNull && !prepareAccessed()) return;
  setAccessed(codeByte);
  setSegment(CS, selector, codeBase, codeLimit, codeAttributes | 1);
  if (privilege > old) {
    if (stackNull) {
      setNullStackSegment(stackSelector, privilege);
    } else {
      commitAccessed();
      setFromDescriptor(SS, stackSelector);
    }
    dropInnerSegments(privilege);
  }
  setRip(target);
  setStackPointer(stack);
  setRipSet(true);
  refreshTlb();
  setAttention();
}
