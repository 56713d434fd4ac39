// Control and debug registers and XCR0 (SDM vol. 3A, 2.5; vol. 3B, 17.2).
import { fault, raiseProtection, raiseUndefined, setAttention } from './fault';
import {
  CODE_LONG,
  COMPONENT_AVX,
  COMPONENT_SSE,
  COMPONENT_X87,
  EXIT_KIND_CR_WRITE,
  EXIT_KIND_XCR_WRITE,
  OP_DST,
  OP_KIND,
  OP_SIZE,
  OP_SRC,
  VCPU_CR0,
  VCPU_CR2,
  VCPU_CR3,
  VCPU_CR4,
  VCPU_CR8,
  VCPU_DR0,
  VCPU_DR6,
  VCPU_DR7,
  VCPU_EFER,
  VCPU_XCR0,
} from './generated/layout';
import { crExits, isPassed, passedValue, registerExit, xcrExits } from './exits';
import {
  codeMode,
  CR0_PE,
  CR0_PG,
  CR4_LA57,
  CR4_PAE,
  EFER_LMA,
  EFER_LME,
  isLongMode,
  PAGING_32_BIT,
  PAGING_PAE,
  pagingMode,
} from './mode';
import { readSource } from './operand';
import { loadPdptes } from './pdpte';
import { ATTRIBUTE_LONG, CS, segmentAttributes, TR } from './segment';
import { cpl, cpu, general, RAX, RCX, RDX, registerOfSize, setGeneral, setRegisterOfSize } from './state';
import { componentsInUse } from './state-area';
import { flushTlb, refreshTlb } from './tlb';

const CR0_ET: u64 = 0x10;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
/** Bits of CR0 and CR4 whose change reloads the PDPTE registers (SDM vol. 3A, 4.4.1). */
const CR0_RELOADS: u64 = 0xe000_0000;
const CR4_RELOADS: u64 = 0x10_00b0;
/** PE MP EM TS ET NE WP AM NW CD PG. */
const CR0_KNOWN: u64 = 0xe005_003f;
const CR4_OSXSAVE: u64 = 1 << 18;
/** VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT LA57 FSGSBASE OSXSAVE SMEP SMAP. */
const CR4_KNOWN: u64 = 0x35_17ff;
/** Components that XCR0 may have. */
export const XCR0_OFFERED: u64 = COMPONENT_X87 | COMPONENT_SSE | COMPONENT_AVX;
const DR6_FIXED: u64 = 0xffff_0ff0;
const DR7_FIXED: u64 = 0x400;
const DR7_GENERAL_DETECT: u64 = 1 << 13;

function fieldOf(number: u32): usize {
  switch (number) {
    case 0:
      return VCPU_CR0;
    case 2:
      return VCPU_CR2;
    case 3:
      return VCPU_CR3;
    case 4:
      return VCPU_CR4;
    case 8:
      return VCPU_CR8;
  }
  return 0;
}

/** Writes CR0; switches long mode on and off with paging (SDM vol. 3A, 9.8.5). */
function setControl0(op: usize, requested: u64): void {
  if (requested >> 32) return raiseProtection(0);
  const value = (requested & CR0_KNOWN) | CR0_ET;
  const changed = value ^ load<u64>(cpu + VCPU_CR0);
  if (value & CR0_PG && !(value & CR0_PE)) return raiseProtection(0);
  if (value & CR0_NW && !(value & CR0_CD)) return raiseProtection(0);
  let efer = load<u64>(cpu + VCPU_EFER);
  const cr4 = load<u64>(cpu + VCPU_CR4);
  if (changed & CR0_PG) {
    if (!(value & CR0_PG)) {
      // 64-bit code cannot leave paging.
      if (codeMode == CODE_LONG) return raiseProtection(0);
      efer &= ~EFER_LMA;
    } else if (efer & EFER_LME) {
      const longCode = (segmentAttributes(CS) & ATTRIBUTE_LONG) != 0;
      // The busy TSS must not be one of 16 bits.
      if (!(cr4 & CR4_PAE) || longCode || (segmentAttributes(TR) & 0x1f) == 3) return raiseProtection(0);
      efer |= EFER_LMA;
    }
  }
  if (value & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LMA) && changed & CR0_RELOADS) {
    if (!loadPdptes(op, load<u64>(cpu + VCPU_CR3))) return;
  }
  store<u64>(cpu + VCPU_CR0, value);
  store<u64>(cpu + VCPU_EFER, efer);
  flushTlb();
  refreshTlb();
  setAttention();
}

function setControl(op: usize, number: u32, value: u64): void {
  switch (number) {
    case 0:
      return setControl0(op, value);
    case 3:
      if (value >> 52) return raiseProtection(0);
      if (pagingMode == PAGING_PAE && !loadPdptes(op, value)) return;
      break;
    case 4: {
      if (value & ~CR4_KNOWN) return raiseProtection(0);
      const changed = value ^ load<u64>(cpu + VCPU_CR4);
      // Long mode needs PAE, and does not change its number of levels (SDM vol. 3A, 4.1.2).
      if (isLongMode() && (!(value & CR4_PAE) || changed & CR4_LA57)) return raiseProtection(0);
      const paged = pagingMode == PAGING_32_BIT || pagingMode == PAGING_PAE;
      if (paged && value & CR4_PAE && changed & CR4_RELOADS && !loadPdptes(op, load<u64>(cpu + VCPU_CR3))) return;
      break;
    }
    case 8:
      if (value > 15) return raiseProtection(0);
      break;
  }
  store<u64>(cpu + fieldOf(number), value);
  if (number == 2) return;
  if (number != 8) {
    flushTlb();
    refreshTlb();
  }
  setAttention();
}

/** Writes a control register, through the exit that may be on for it. */
function writeControl(op: usize, number: u32, value: u64): void {
  if (crExits & (1 << number)) {
    if (!isPassed(EXIT_KIND_CR_WRITE, number)) {
      return registerExit(op, EXIT_KIND_CR_WRITE, number, load<u64>(cpu + fieldOf(number)), value);
    }
    value = passedValue();
  }
  setControl(op, number, value);
}

export function moveToControl(op: usize): void {
  const number = u32(load<u8>(op, OP_KIND));
  if (fieldOf(number) == 0) return raiseUndefined();
  if (cpl() != 0) return raiseProtection(0);
  writeControl(op, number, registerOfSize(load<u16>(op, OP_SRC), load<u8>(op, OP_SIZE)));
}

export function moveFromControl(op: usize): void {
  const number = u32(load<u8>(op, OP_KIND));
  const field = fieldOf(number);
  if (field == 0) return raiseUndefined();
  if (cpl() != 0) return raiseProtection(0);
  setRegisterOfSize(load<u16>(op, OP_DST), load<u8>(op, OP_SIZE), load<u64>(cpu + field));
}

/** LMSW: the low four bits of CR0; PE cannot be cleared. The privilege is checked before the operand is read. */
export function loadMachineStatus(op: usize): void {
  if (cpl() != 0) return raiseProtection(0);
  const value = readSource(op);
  if (fault) return;
  const old = load<u64>(cpu + VCPU_CR0);
  writeControl(op, 0, (old & ~0xe) | (value & 0xf));
}

export function clearTaskSwitched(op: usize): void {
  if (cpl() != 0) return raiseProtection(0);
  writeControl(op, 0, load<u64>(cpu + VCPU_CR0) & ~8);
}

/** Offset of a debug register; 4 and 5 are 6 and 7 (SDM vol. 3B, 17.2.2; CR4.DE is not offered). */
function debugField(number: u32): usize {
  if (number < 4) return VCPU_DR0 + (usize(number) << 3);
  return number & 1 ? VCPU_DR7 : VCPU_DR6;
}

export function moveToDebug(op: usize): void {
  if (cpl() != 0) return raiseProtection(0);
  const number = u32(load<u8>(op, OP_KIND));
  let value = registerOfSize(load<u16>(op, OP_SRC), load<u8>(op, OP_SIZE));
  if (number >= 4) {
    if (value >> 32) return raiseProtection(0);
    value = number & 1 ? (value & ~(0xd800 | DR7_GENERAL_DETECT)) | DR7_FIXED : (value & ~0x1000) | DR6_FIXED;
  }
  if (number > 7) return raiseUndefined();
  store<u64>(cpu + debugField(number), value);
}

export function moveFromDebug(op: usize): void {
  if (cpl() != 0) return raiseProtection(0);
  const number = u32(load<u8>(op, OP_KIND));
  if (number > 7) return raiseUndefined();
  setRegisterOfSize(load<u16>(op, OP_DST), load<u8>(op, OP_SIZE), load<u64>(cpu + debugField(number)));
}

/** XGETBV and XSETBV exist while CR4.OSXSAVE is set. */
export function getExtended(): void {
  if (!(load<u64>(cpu + VCPU_CR4) & CR4_OSXSAVE)) return raiseUndefined();
  const number = <u32>general(RCX);
  if (number > 1) return raiseProtection(0);
  // Register 1 tells which components are in use (SDM vol. 1, 13.6).
  const value = load<u64>(cpu + VCPU_XCR0) & (number == 1 ? componentsInUse() : -1);
  setGeneral(RAX, value & 0xffff_ffff);
  setGeneral(RDX, value >> 32);
}

export function setExtended(op: usize): void {
  if (!(load<u64>(cpu + VCPU_CR4) & CR4_OSXSAVE)) return raiseUndefined();
  if (cpl() != 0) return raiseProtection(0);
  const number = <u32>general(RCX);
  let value = (general(RDX) << 32) | (general(RAX) & 0xffff_ffff);
  if (xcrExits()) {
    if (!isPassed(EXIT_KIND_XCR_WRITE, number)) {
      return registerExit(op, EXIT_KIND_XCR_WRITE, number, load<u64>(cpu + VCPU_XCR0), value);
    }
    value = passedValue();
  }
  // x87 is never off, and AVX needs SSE (SDM vol. 1, 13.3).
  const avx = (value & COMPONENT_AVX) != 0 && !(value & COMPONENT_SSE);
  if (number != 0 || value & ~XCR0_OFFERED || !(value & COMPONENT_X87) || avx) return raiseProtection(0);
  store<u64>(cpu + VCPU_XCR0, value);
}
