// Descriptors and segment registers (SDM vol. 3A, chapters 3 and 5).
import { fault, FAULT_NON_CANONICAL, raise, raiseProtection, VECTOR_NP, VECTOR_SS } from './fault';
import {
  CODE_LONG,
  VCPU_CS_BASE,
  VCPU_ES_ATTRIBUTES,
  VCPU_ES_BASE,
  VCPU_ES_LIMIT,
  VCPU_ES_SELECTOR,
  VCPU_GDT_BASE,
  VCPU_GDT_LIMIT,
  VCPU_LDTR_ATTRIBUTES,
  VCPU_LDTR_BASE,
  VCPU_LDTR_LIMIT,
} from './generated/layout';
import { loadImplicit, reachImplicit } from './memory';
import { codeMode, isLongMode } from './mode';
import { cpl, cpu } from './state';

/** Numbers of the segment registers, as encoded; LDTR and TR follow. */
export const ES: usize = 0;
export const CS: usize = 1;
export const SS: usize = 2;
export const DS: usize = 3;
export const FS: usize = 4;
export const GS: usize = 5;
export const LDTR: usize = 6;
export const TR: usize = 7;

/** Distance between two segment registers of the record. */
export const SEGMENT_STRIDE: usize = VCPU_CS_BASE - VCPU_ES_BASE;

/** Attribute bits of the record (SDM vol. 3C, table 25-2). */
export const ATTRIBUTE_S: u32 = 0x10;
export const ATTRIBUTE_PRESENT: u32 = 0x80;
export const ATTRIBUTE_LONG: u32 = 0x2000;
export const ATTRIBUTE_BIG: u32 = 0x4000;
export const ATTRIBUTE_UNUSABLE: u32 = 0x1_0000;

/** The descriptor read last, as the record holds it. */
export let descriptorBase: u64 = 0;
export let descriptorLimit: u32 = 0;
export let descriptorAttributes: u32 = 0;
/** Linear address of that descriptor. */
export let descriptorAddress: u64 = 0;
/** Where its accessed bit is to be set, 0 when it is. */
let accessedByte: usize = 0;

// @ts-ignore: decorator
@inline
export function dplOf(attributes: u32): u32 {
  return (attributes >> 5) & 3;
}

/**
 * Reads the descriptor that a selector names; #GP(selector) when there is none.
 * @param system one of an LDT or a TSS: long mode has 16 bytes for it, and only the GDT may hold it
 */
export function readDescriptor(selector: u32, system: bool): bool {
  const code = selector & 0xfffc;
  let base = load<u64>(cpu + VCPU_GDT_BASE);
  let limit = load<u32>(cpu + VCPU_GDT_LIMIT);
  if (selector & 4) {
    if (load<u32>(cpu + VCPU_LDTR_ATTRIBUTES) & ATTRIBUTE_UNUSABLE || system) {
      raiseProtection(code);
      return false;
    }
    base = load<u64>(cpu + VCPU_LDTR_BASE);
    limit = load<u32>(cpu + VCPU_LDTR_LIMIT);
  }
  const offset = selector & 0xfff8;
  const wide = system && isLongMode();
  if (offset + (wide ? 15 : 7) > limit) {
    raiseProtection(code);
    return false;
  }
  descriptorAddress = base + offset;
  const low = loadImplicit(descriptorAddress, 8);
  const high = wide && fault == 0 ? loadImplicit(descriptorAddress + 8, 8) : 0;
  if (fault) {
    if (fault == FAULT_NON_CANONICAL) raiseProtection(code);
    return false;
  }
  const upper = u32(low >> 32);
  descriptorBase = ((low >> 16) & 0xff_ffff) | ((low >> 32) & 0xff00_0000) | (high << 32);
  descriptorLimit = (upper & 0xf_0000) | (<u32>low & 0xffff);
  if (upper & 0x80_0000) descriptorLimit = (descriptorLimit << 12) | 0xfff;
  descriptorAttributes = (upper >> 8) & 0xf0ff;
  return true;
}

/** Where the accessed bit of a descriptor is to be set, 0 when it is set or, with `fault` set, when it cannot be. */
export function reachAccessed(address: u64, attributes: u32): usize {
  return attributes & 1 ? 0 : reachImplicit(address + 5);
}

/** Sets the accessed bit that {@link reachAccessed} has found. */
export function setAccessed(byte: usize): void {
  if (byte) store<u8>(byte, load<u8>(byte) | 1);
}

/** Makes sure that the accessed bit of the descriptor just read can be set. */
export function prepareAccessed(): bool {
  accessedByte = reachAccessed(descriptorAddress, descriptorAttributes);
  return fault == 0;
}

/** Sets the accessed bit that {@link prepareAccessed} has prepared. */
export function commitAccessed(): void {
  setAccessed(accessedByte);
  descriptorAttributes |= 1;
}

export function setSegment(number: usize, selector: u32, base: u64, limit: u32, attributes: u32): void {
  const at = cpu + number * SEGMENT_STRIDE;
  store<u32>(at + VCPU_ES_SELECTOR, selector);
  store<u64>(at + VCPU_ES_BASE, base);
  store<u32>(at + VCPU_ES_LIMIT, limit);
  store<u32>(at + VCPU_ES_ATTRIBUTES, attributes);
}

export function segmentSelector(number: usize): u32 {
  return load<u32>(cpu + number * SEGMENT_STRIDE + VCPU_ES_SELECTOR);
}

export function segmentAttributes(number: usize): u32 {
  return load<u32>(cpu + number * SEGMENT_STRIDE + VCPU_ES_ATTRIBUTES);
}

/** Loads the descriptor just read into a segment register. */
export function setFromDescriptor(number: usize, selector: u32): void {
  setSegment(number, selector, descriptorBase, descriptorLimit, descriptorAttributes);
}

/** SS without a segment, at a privilege level: what event delivery and IRET to ring 0 may leave. */
export function setNullStackSegment(selector: u32, privilege: u32): void {
  setSegment(SS, selector, 0, 0, ATTRIBUTE_UNUSABLE | (privilege << 5));
}

/** Flat code, 64-bit or 32-bit, and flat data, as SYSCALL, SYSENTER and their returns load them without looking at the GDT. */
export function setFlatSegments(codeSelector: u32, stackSelector: u32, privilege: u32, long: bool): void {
  setSegment(CS, codeSelector, 0, 0xffff_ffff, (long ? 0xa09b : 0xc09b) | (privilege << 5));
  setSegment(SS, stackSelector, 0, 0xffff_ffff, 0xc093 | (privilege << 5));
}

/** MOV, POP and LFS/LGS/LSS to ES, SS, DS, FS, GS (SDM vol. 2, MOV). */
export function loadSegment(number: usize, selector: u32): bool {
  const privilege = cpl();
  const requested = selector & 3;
  const code = selector & 0xfffc;
  if (code == 0) {
    if (number == SS) {
      if (privilege == 3 || requested != privilege || codeMode != CODE_LONG) {
        raiseProtection(0);
        return false;
      }
      setNullStackSegment(selector, privilege);
    } else {
      setSegment(number, selector, 0, 0, ATTRIBUTE_UNUSABLE);
    }
    return true;
  }
  if (!readDescriptor(selector, false)) return false;
  const attributes = descriptorAttributes;
  const dpl = dplOf(attributes);
  let valid = (attributes & ATTRIBUTE_S) != 0;
  if (number == SS) {
    // Writable data, and all privilege levels equal.
    valid = valid && (attributes & 0xa) == 2 && requested == privilege && dpl == privilege;
  } else {
    // Data or readable code; conforming code from any level.
    valid = valid && (attributes & 0xa) != 8;
    if ((attributes & 0xc) != 0xc) valid = valid && requested <= dpl && privilege <= dpl;
  }
  if (!valid) {
    raiseProtection(code);
    return false;
  }
  if (!(attributes & ATTRIBUTE_PRESENT)) {
    raise(number == SS ? VECTOR_SS : VECTOR_NP, 1, code);
    return false;
  }
  if (!prepareAccessed()) return false;
  commitAccessed();
  setFromDescriptor(number, selector);
  return true;
}

/** After a return to an outer level: data segments that it may not use become null (SDM vol. 2, IRET). */
export function dropInnerSegments(privilege: u32): void {
  for (let number: usize = 0; number <= GS; number++) {
    if (number == CS || number == SS) continue;
    const attributes = segmentAttributes(number);
    if (attributes & ATTRIBUTE_UNUSABLE || segmentSelector(number) == 0) continue;
    if (dplOf(attributes) < privilege && (attributes & 0xc) != 0xc) setSegment(number, 0, 0, 0, ATTRIBUTE_UNUSABLE);
  }
}

