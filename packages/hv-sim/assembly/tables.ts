// Descriptor-table registers and the instructions that look into the tables.
import {
  clearFault,
  fault,
  FAULT_EXCEPTION,
  faultVector,
  raise,
  raiseProtection,
  raiseUndefined,
  setAttention,
  VECTOR_GP,
  VECTOR_NP,
} from './fault';
import {
  BLOCK_SHADOW,
  EXIT_KIND_DESCRIPTOR_TABLE,
  I_LAR,
  I_LIDT,
  I_LTR,
  I_SIDT,
  I_SLDT,
  I_VERW,
  OP_CODE,
  OP_DST,
  OP_KIND,
  OP_SIZE,
  TABLE_GDTR,
  TABLE_IDTR,
  TABLE_LDTR,
  TABLE_READ,
  TABLE_TR,
  TABLE_WRITE,
  VCPU_GDT_BASE,
  VCPU_GDT_LIMIT,
  VCPU_IDT_BASE,
  VCPU_IDT_LIMIT,
} from './generated/layout';
import { descriptorTableExits, isPassed, registerExit } from './exits';
import { load16, load32, load64, probeWrite, reachImplicit, store16, store32, store64 } from './memory';
import { effectiveAddress, readSource, readSourceOfSize, writeDestination } from './operand';
import {
  ATTRIBUTE_PRESENT,
  ATTRIBUTE_S,
  ATTRIBUTE_UNUSABLE,
  descriptorAddress,
  descriptorAttributes,
  descriptorBase,
  descriptorLimit,
  dplOf,
  LDTR,
  loadSegment,
  readDescriptor,
  segmentSelector,
  setFromDescriptor,
  setSegment,
  SS,
  TR,
} from './segment';
import { cpl, cpu, setRegisterOfSize, setStackPointer, setStatus, stackPointer, ZF } from './state';
import { isCanonicalForRegisters, isLongMode, laterPart } from './mode';
import { stackMask, topOfSize } from './sized-stack';

/** Raises the exit of a table instruction; false when there is none to raise. */
function exits(op: usize, register: u32): bool {
  if (!descriptorTableExits() || isPassed(EXIT_KIND_DESCRIPTOR_TABLE, register)) return false;
  registerExit(op, EXIT_KIND_DESCRIPTOR_TABLE, register, 0, 0);
  return true;
}

/** LGDT and LIDT. */
export function loadTable(op: usize): void {
  if (cpl() != 0) return raiseProtection(0);
  const interrupts = load<u16>(op, OP_CODE) == I_LIDT;
  if (exits(op, (interrupts ? TABLE_IDTR : TABLE_GDTR) | TABLE_WRITE)) return;
  const address = effectiveAddress(op);
  const limit = u32(load16(address));
  if (fault) return;
  // Outside of 64-bit mode a base has 32 bits, with 16-bit operands 24.
  const size = load<u8>(op, OP_SIZE);
  let base = size == 8 ? load64(address + 2) : load32(laterPart(address + 2));
  if (fault) return;
  if (size == 2) base &= 0xff_ffff;
  if (!isCanonicalForRegisters(base)) return raiseProtection(0);
  store<u64>(cpu + (interrupts ? VCPU_IDT_BASE : VCPU_GDT_BASE), base);
  store<u32>(cpu + (interrupts ? VCPU_IDT_LIMIT : VCPU_GDT_LIMIT), limit);
}

/** SGDT and SIDT. */
export function storeTable(op: usize): void {
  const interrupts = load<u16>(op, OP_CODE) == I_SIDT;
  if (exits(op, (interrupts ? TABLE_IDTR : TABLE_GDTR) | TABLE_READ)) return;
  const address = effectiveAddress(op);
  const long = load<u8>(op, OP_SIZE) == 8;
  probeWrite(address, long ? 10 : 6);
  if (fault) return;
  store16(address, load<u32>(cpu + (interrupts ? VCPU_IDT_LIMIT : VCPU_GDT_LIMIT)));
  const base = load<u64>(cpu + (interrupts ? VCPU_IDT_BASE : VCPU_GDT_BASE));
  if (long) store64(address + 2, base);
  else store32(laterPart(address + 2), base);
}

/** LLDT and LTR. */
export function loadSystemSegment(op: usize): void {
  const task = load<u16>(op, OP_CODE) == I_LTR;
  if (cpl() != 0) return raiseProtection(0);
  if (exits(op, (task ? TABLE_TR : TABLE_LDTR) | TABLE_WRITE)) return;
  const selector = u32(readSource(op)) & 0xffff;
  if (fault) return;
  const error = selector & 0xfffc;
  if (error == 0) {
    if (task) return raiseProtection(0);
    setSegment(LDTR, selector, 0, 0, ATTRIBUTE_UNUSABLE);
    return;
  }
  if (selector & 4) return raiseProtection(error);
  if (!readDescriptor(selector, true)) return;
  // An available TSS is type 9, outside of long mode also 1 (of 16 bits); an LDT is type 2 (SDM vol. 3A, table 3-2).
  const attributes = descriptorAttributes;
  const type = attributes & 0x1f;
  if (task ? type != 9 && (type != 1 || isLongMode()) : type != 2) return raiseProtection(error);
  if (!(attributes & ATTRIBUTE_PRESENT)) return raise(VECTOR_NP, 1, error);
  if (!task) return setFromDescriptor(LDTR, selector);
  const byte = reachImplicit(descriptorAddress + 5);
  if (fault) return;
  store<u8>(byte, load<u8>(byte) | 2);
  setSegment(TR, selector, descriptorBase, descriptorLimit, attributes | 2);
}

/** SLDT and STR. */
export function storeSystemSegment(op: usize): void {
  const local = load<u16>(op, OP_CODE) == I_SLDT;
  if (exits(op, (local ? TABLE_LDTR : TABLE_TR) | TABLE_READ)) return;
  writeDestination(op, segmentSelector(local ? LDTR : TR));
}

/** MOV to a segment register. */
export function moveToSegment(op: usize): void {
  const selector = u32(readSourceOfSize(op, 2)) & 0xffff;
  if (fault) return;
  const number = usize(load<u8>(op, OP_KIND));
  if (number == 1 || number > 5) return raiseUndefined();
  if (loadSegment(number, selector) && number == SS) shadowNext();
}

/** No interrupt comes between a load of SS and the next instruction. */
function shadowNext(): void {
  store<u32>(cpu + BLOCK_SHADOW, 1);
  setAttention();
}

export function popSegment(op: usize): void {
  const size = u32(load<u8>(op, OP_SIZE));
  const stack = stackPointer();
  const selector = u32(topOfSize(size)) & 0xffff;
  if (fault) return;
  const number = usize(load<u8>(op, OP_KIND));
  // A load of SS changes how wide the stack pointer is; the pop is of the old stack.
  const mask = stackMask();
  if (!loadSegment(number, selector)) return;
  setStackPointer((stack & ~mask) | ((stack + size) & mask));
  if (number == SS) shadowNext();
}

/** LSS, LFS, LGS. */
export function loadFarPointer(op: usize): void {
  const size = u32(load<u8>(op, OP_SIZE));
  const address = effectiveAddress(op);
  const offset = size == 8 ? load64(address) : size == 4 ? load32(address) : load16(address);
  if (fault) return;
  const selector = u32(load16(laterPart(address + size)));
  if (fault) return;
  if (loadSegment(load<u8>(op, OP_KIND), selector)) setRegisterOfSize(load<u16>(op, OP_DST), size, offset);
}

/** Whether a selector names a descriptor that this privilege may look at; leaves no fault but exits and page faults. */
function visible(selector: u32): bool {
  if ((selector & 0xfffc) == 0 || !readDescriptor(selector, false)) return false;
  const attributes = descriptorAttributes;
  if (attributes & ATTRIBUTE_S && (attributes & 0xc) == 0xc) return true;
  const dpl = dplOf(attributes);
  return cpl() <= dpl && (selector & 3) <= dpl;
}

/** A missing descriptor is an answer here, not a fault. */
function forgiven(): bool {
  if (fault == FAULT_EXCEPTION && faultVector == VECTOR_GP) clearFault();
  return fault == 0;
}

/** LAR and LSL: rights or limit of a descriptor, ZF tells whether there was one. */
export function inspectSegment(op: usize): void {
  const selector = u32(readSourceOfSize(op, 2)) & 0xffff;
  if (fault) return;
  const found = visible(selector);
  if (!forgiven()) return;
  const rights = load<u16>(op, OP_CODE) == I_LAR;
  const attributes = descriptorAttributes;
  let valid = found;
  if (found && !(attributes & ATTRIBUTE_S)) {
    const type = attributes & 0xf;
    // System types that exist in long mode: LDT, TSS, and for LAR call gates (SDM vol. 2, LAR and LSL); outside of it their
    // 16-bit kinds too, and for LAR task gates.
    valid = type == 2 || type == 9 || type == 11 || (rights && type == 12);
    if (!isLongMode()) valid = valid || type == 1 || type == 3 || (rights && (type == 4 || type == 5));
  }
  setStatus(ZF, valid ? ZF : 0);
  if (!valid) return;
  const value = rights ? ((attributes & 0xff) << 8) | ((attributes & 0xf000) << 8) : descriptorLimit;
  setRegisterOfSize(load<u16>(op, OP_DST), load<u8>(op, OP_SIZE), value);
}

/** VERR and VERW. */
export function verifySegment(op: usize): void {
  const selector = u32(readSourceOfSize(op, 2)) & 0xffff;
  if (fault) return;
  let valid = visible(selector);
  if (!forgiven()) return;
  const attributes = descriptorAttributes;
  if (!(attributes & ATTRIBUTE_S)) valid = false;
  if (load<u16>(op, OP_CODE) == I_VERW) valid = valid && (attributes & 0xa) == 2;
  else valid = valid && (attributes & 0xa) != 8;
  setStatus(ZF, valid ? ZF : 0);
}
