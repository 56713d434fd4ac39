// Model-specific registers: those that a 64-bit system needs, and zeros for the memory type range registers.
import { readApic, writeApic } from './apic';
import { now, TSC_PER_MICROSECOND } from './clock';
import { fault, raiseProtection, setAttention } from './fault';
import {
  BLOCK_TSC_OFFSET,
  EXIT_KIND_MSR_WRITE,
  VCPU_APIC_BASE,
  VCPU_CR0,
  VCPU_CSTAR,
  VCPU_EFER,
  VCPU_FS_BASE,
  VCPU_GS_BASE,
  VCPU_KERNEL_GS_BASE,
  VCPU_LSTAR,
  VCPU_PAT,
  VCPU_SFMASK,
  VCPU_STAR,
  VCPU_SYSENTER_CS,
  VCPU_SYSENTER_EIP,
  VCPU_SYSENTER_ESP,
  VCPU_TSC_AUX,
} from './generated/layout';
import { isPassed, msrExits, passedValue, registerExit } from './exits';
import { cpl, cpu, general, RAX, RCX, RDX, setGeneral } from './state';
import { flushTlb } from './tlb';
import { CR0_PG, EFER_LMA, EFER_LME, isCanonicalForRegisters } from './mode';

/** SCE, LME, LMA, NXE. */
const EFER_KNOWN: u64 = 0xd01;
/** IA32_MISC_ENABLE with fast strings. */
const MISC_ENABLE: u64 = 1;
/** Supervisor state components: there are none. */
const IA32_XSS: u32 = 0xda0;

/** Time-stamp counter. */
export function timeStamp(): u64 {
  return now() * TSC_PER_MICROSECOND + load<u64>(cpu + BLOCK_TSC_OFFSET);
}

/** Offset in the record of the field that holds an MSR, 0 when none does. */
function fieldOf(msr: u32): usize {
  switch (msr) {
    case 0x174:
      return VCPU_SYSENTER_CS;
    case 0x175:
      return VCPU_SYSENTER_ESP;
    case 0x176:
      return VCPU_SYSENTER_EIP;
    case 0x277:
      return VCPU_PAT;
    case 0xc000_0080:
      return VCPU_EFER;
    case 0xc000_0081:
      return VCPU_STAR;
    case 0xc000_0082:
      return VCPU_LSTAR;
    case 0xc000_0083:
      return VCPU_CSTAR;
    case 0xc000_0084:
      return VCPU_SFMASK;
    case 0xc000_0100:
      return VCPU_FS_BASE;
    case 0xc000_0101:
      return VCPU_GS_BASE;
    case 0xc000_0102:
      return VCPU_KERNEL_GS_BASE;
    case 0xc000_0103:
      return VCPU_TSC_AUX;
  }
  return 0;
}

/** IA32_MTRRCAP, the MTRRs and their default type: the machine has none. */
function isMemoryType(msr: u32): bool {
  return msr == 0xfe || (msr >= 0x200 && msr <= 0x21f) || msr == 0x250 || msr == 0x258 || msr == 0x259 ||
    (msr >= 0x268 && msr <= 0x26f) || msr == 0x2ff;
}

/** Value of an MSR; #GP when there is none. */
export function readMsr(msr: u32): u64 {
  const field = fieldOf(msr);
  if (field) return load<u64>(cpu + field);
  if (msr >= 0x800 && msr <= 0x8ff) return readApic(msr);
  if (isMemoryType(msr)) return 0;
  if (msr == IA32_XSS) return 0;
  if (msr == 0x10) return timeStamp();
  if (msr == 0x1b) return load<u64>(cpu + VCPU_APIC_BASE);
  if (msr == 0x1a0) return MISC_ENABLE;
  raiseProtection(0);
  return 0;
}

/** Each byte of IA32_PAT names a memory type (SDM vol. 3A, table 11-10). */
function isPat(value: u64): bool {
  for (let i: u64 = 0; i < 64; i += 8) {
    const type = (value >> i) & 0xff;
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}

function writeMsr(msr: u32, value: u64): void {
  const field = fieldOf(msr);
  if (field) {
    if (msr == 0xc000_0080) {
      const old = load<u64>(cpu + VCPU_EFER);
      // LME cannot change while paging is on; LMA is not written (SDM vol. 3A, 2.2.1).
      if (value & ~EFER_KNOWN) return raiseProtection(0);
      if ((value ^ old) & EFER_LME && load<u64>(cpu + VCPU_CR0) & CR0_PG) return raiseProtection(0);
      value = (value & ~EFER_LMA) | (old & EFER_LMA);
      store<u64>(cpu + VCPU_EFER, value);
      flushTlb();
      setAttention();
      return;
    }
    if (msr == 0x277 && !isPat(value)) return raiseProtection(0);
    if (msr == 0xc000_0103 && value >> 32) return raiseProtection(0);
    const address = msr == 0x175 || msr == 0x176 || msr == 0xc000_0082 || msr == 0xc000_0083 ||
      (msr >= 0xc000_0100 && msr <= 0xc000_0102);
    if (address && !isCanonicalForRegisters(value)) return raiseProtection(0);
    if (msr == 0xc000_0084) value &= 0xffff_ffff;
    store<u64>(cpu + field, value);
    return;
  }
  if (msr >= 0x800 && msr <= 0x8ff) return writeApic(msr, value);
  if (msr == 0x10) {
    store<u64>(cpu + BLOCK_TSC_OFFSET, value - now() * TSC_PER_MICROSECOND);
    return;
  }
  // The APIC stays where it is, in x2APIC mode.
  if (msr == 0x1b && value == load<u64>(cpu + VCPU_APIC_BASE)) return;
  if (msr == 0x1a0 || msr == 0x8b || (msr == IA32_XSS && value == 0)) return;
  raiseProtection(0);
}

export function readMsrInstruction(): void {
  if (cpl() != 0) return raiseProtection(0);
  const value = readMsr(<u32>general(RCX));
  if (fault) return;
  setGeneral(RAX, value & 0xffff_ffff);
  setGeneral(RDX, value >> 32);
}

export function writeMsrInstruction(op: usize): void {
  if (cpl() != 0) return raiseProtection(0);
  const msr = <u32>general(RCX);
  let value = (general(RDX) << 32) | (general(RAX) & 0xffff_ffff);
  if (msrExits(msr)) {
    if (isPassed(EXIT_KIND_MSR_WRITE, msr)) {
      value = passedValue();
    } else {
      const field = fieldOf(msr);
      return registerExit(op, EXIT_KIND_MSR_WRITE, msr, field ? load<u64>(cpu + field) : 0, value);
    }
  }
  writeMsr(msr, value);
}
