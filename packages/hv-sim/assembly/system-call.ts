// The fast ways between user code and kernel: SYSCALL and SYSRET, SYSENTER and SYSEXIT, SWAPGS (SDM vol. 2).
import { raiseProtection, raiseUndefined, setAttention } from './fault';
import {
  CODE_LONG,
  OP_LENGTH,
  OP_SIZE,
  VCPU_EFER,
  VCPU_GS_BASE,
  VCPU_KERNEL_GS_BASE,
  VCPU_LSTAR,
  VCPU_RFLAGS,
  VCPU_SFMASK,
  VCPU_STAR,
  VCPU_SYSENTER_CS,
  VCPU_SYSENTER_EIP,
  VCPU_SYSENTER_ESP,
} from './generated/layout';
import { codeMode, isCanonical, isLongMode } from './mode';
import { setFlatSegments } from './segment';
import { cpl, cpu, general, IF, RCX, RDX, RF, rip, setGeneral, setRip, setRipSet, setStackPointer, VM } from './state';
import { refreshTlb } from './tlb';

const EFER_SCE: u64 = 1;
const R11: usize = 11;
/** RFLAGS bits that SYSRET takes from R11 (SDM vol. 2, SYSRET). */
const SYSRET_FLAGS: u64 = 0x3c_7fd7;

function arrive(target: u64): void {
  setRip(target);
  setRipSet(true);
  refreshTlb();
  setAttention();
}

/** Whether the instruction exists here: Intel's processors have it in 64-bit mode only. */
function hasSystemCall(): bool {
  return codeMode == CODE_LONG && (load<u64>(cpu + VCPU_EFER) & EFER_SCE) != 0;
}

export function systemCall(op: usize): void {
  if (!hasSystemCall()) return raiseUndefined();
  const rflags = load<u64>(cpu + VCPU_RFLAGS);
  setGeneral(RCX, rip() + load<u8>(op, OP_LENGTH));
  setGeneral(R11, rflags & ~u64(RF));
  const selector = u32(load<u64>(cpu + VCPU_STAR) >> 32) & 0xfffc;
  setFlatSegments(selector, selector + 8, 0, true);
  store<u64>(cpu + VCPU_RFLAGS, (rflags & ~load<u64>(cpu + VCPU_SFMASK) & ~u64(RF)) | 2);
  arrive(load<u64>(cpu + VCPU_LSTAR));
}

/** SYSRET: with a 64-bit operand to 64-bit mode, otherwise to compatibility mode. */
export function systemReturn(op: usize): void {
  if (!hasSystemCall()) return raiseUndefined();
  if (cpl() != 0) return raiseProtection(0);
  const long = load<u8>(op, OP_SIZE) == 8;
  const target = long ? general(RCX) : general(RCX) & 0xffff_ffff;
  if (!isCanonical(target)) return raiseProtection(0);
  const base = u32(load<u64>(cpu + VCPU_STAR) >> 48);
  setFlatSegments((base + (long ? 16 : 0)) | 3, (base + 8) | 3, 3, long);
  store<u64>(cpu + VCPU_RFLAGS, (general(R11) & SYSRET_FLAGS & ~u64(RF | VM)) | 2);
  arrive(target);
}

export function systemEnter(): void {
  const selector = load<u32>(cpu + VCPU_SYSENTER_CS) & 0xfffc;
  if (selector == 0) return raiseProtection(0);
  const long = isLongMode();
  const mask: u64 = long ? 0xffff_ffff_ffff_ffff : 0xffff_ffff;
  store<u64>(cpu + VCPU_RFLAGS, load<u64>(cpu + VCPU_RFLAGS) & ~u64(VM | IF | RF));
  setStackPointer(load<u64>(cpu + VCPU_SYSENTER_ESP) & mask);
  setFlatSegments(selector, selector + 8, 0, long);
  arrive(load<u64>(cpu + VCPU_SYSENTER_EIP) & mask);
}

/** SYSEXIT: with a 64-bit operand to 64-bit mode, otherwise to 32-bit code. */
export function systemExit(op: usize): void {
  const selector = load<u32>(cpu + VCPU_SYSENTER_CS) & 0xfffc;
  if (selector == 0 || cpl() != 0) return raiseProtection(0);
  const long = load<u8>(op, OP_SIZE) == 8;
  const mask: u64 = long ? 0xffff_ffff_ffff_ffff : 0xffff_ffff;
  const target = general(RDX) & mask;
  const stack = general(RCX) & mask;
  if (!isCanonical(target) || !isCanonical(stack)) return raiseProtection(0);
  setFlatSegments((selector + (long ? 32 : 16)) | 3, (selector + (long ? 40 : 24)) | 3, 3, long);
  setStackPointer(stack);
  arrive(target);
}

export function swapGs(): void {
  if (codeMode != CODE_LONG) return raiseUndefined();
  if (cpl() != 0) return raiseProtection(0);
  const base = load<u64>(cpu + VCPU_GS_BASE);
  store<u64>(cpu + VCPU_GS_BASE, load<u64>(cpu + VCPU_KERNEL_GS_BASE));
  store<u64>(cpu + VCPU_KERNEL_GS_BASE, base);
}
