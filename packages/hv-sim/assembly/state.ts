// Registers of the current VCPU, where they lie: in its VCPU record, which is the CPU's register file.
import { VCPU_RAX, VCPU_RFLAGS, VCPU_RIP, VCPU_RSP, VCPU_SS_ATTRIBUTES } from './generated/layout';

/** Address of the current VCPU's block (its record, then its side area). */
export let cpu: usize = 0;

/** Makes another VCPU the current one. */
export function selectVcpu(block: usize): void {
  cpu = block;
}

/** Instructions that the running `execute` may still retire, the current one included; for clocks in system operations. */
export let remaining: i32 = 0;

/** Sets {@link remaining}. */
export function setRemaining(value: i32): void {
  remaining = value;
}

/** A system operation that has set RIP itself sets this; the executor then does not add the length. */
export let ripSet: bool = false;

/** Sets {@link ripSet}. */
export function setRipSet(value: bool = true): void {
  ripSet = value;
}

// RFLAGS bits (SDM vol. 1, 3.4.3)
export const CF: u32 = 1;
export const PF: u32 = 4;
export const AF: u32 = 0x10;
export const ZF: u32 = 0x40;
export const SF: u32 = 0x80;
export const TF: u32 = 0x100;
export const IF: u32 = 0x200;
export const DF: u32 = 0x400;
export const OF: u32 = 0x800;
export const IOPL: u32 = 0x3000;
export const NT: u32 = 0x4000;
export const RF: u32 = 0x1_0000;
export const VM: u32 = 0x2_0000;
export const AC: u32 = 0x4_0000;
export const ID: u32 = 0x20_0000;
/** The six status flags. */
export const STATUS: u32 = CF | PF | AF | ZF | SF | OF;

/** The low half of RFLAGS; the high half is reserved. */
// @ts-ignore: decorator
@inline
export function flags(): u32 {
  return load<u32>(cpu + VCPU_RFLAGS);
}

// @ts-ignore: decorator
@inline
export function setFlags(value: u32): void {
  store<u32>(cpu + VCPU_RFLAGS, value);
}

/** Replaces the status flags in `mask` by those of `value`. */
// @ts-ignore: decorator
@inline
export function setStatus(mask: u32, value: u32): void {
  store<u32>(cpu + VCPU_RFLAGS, (load<u32>(cpu + VCPU_RFLAGS) & ~mask) | value);
}

/** The register at a byte offset of the block, as wide as `T`. */
// @ts-ignore: decorator
@inline
export function register<T>(offset: usize): u64 {
  return u64(load<T>(cpu + offset));
}

/** Writes a register as wide as `T`; a 32-bit write clears the upper half (SDM vol. 1, 3.4.1.1). */
// @ts-ignore: decorator
@inline
export function setRegister<T>(offset: usize, value: u64): void {
  if (sizeof<T>() >= 4) store<u64>(cpu + offset, value);
  else store<T>(cpu + offset, <T>value);
}

/** Reads a register of 1, 2, 4 or 8 bytes. */
export function registerOfSize(offset: usize, size: u32): u64 {
  switch (size) {
    case 1:
      return u64(load<u8>(cpu + offset));
    case 2:
      return u64(load<u16>(cpu + offset));
    case 4:
      return u64(load<u32>(cpu + offset));
    default:
      return load<u64>(cpu + offset);
  }
}

/** Writes a register of 1, 2, 4 (upper half cleared) or 8 bytes. */
export function setRegisterOfSize(offset: usize, size: u32, value: u64): void {
  switch (size) {
    case 1:
      store<u8>(cpu + offset, <u8>value);
      break;
    case 2:
      store<u16>(cpu + offset, <u16>value);
      break;
    case 4:
      store<u64>(cpu + offset, value & 0xffff_ffff);
      break;
    default:
      store<u64>(cpu + offset, value);
  }
}

/** General register by the number of its encoding. */
// @ts-ignore: decorator
@inline
export function general(number: usize): u64 {
  return load<u64>(cpu + VCPU_RAX + (number << 3));
}

// @ts-ignore: decorator
@inline
export function setGeneral(number: usize, value: u64): void {
  store<u64>(cpu + VCPU_RAX + (number << 3), value);
}

export const RAX: usize = 0;
export const RCX: usize = 1;
export const RDX: usize = 2;
export const RBX: usize = 3;
export const RSP: usize = 4;
export const RBP: usize = 5;
export const RSI: usize = 6;
export const RDI: usize = 7;

// @ts-ignore: decorator
@inline
export function rip(): u64 {
  return load<u64>(cpu + VCPU_RIP);
}

// @ts-ignore: decorator
@inline
export function setRip(value: u64): void {
  store<u64>(cpu + VCPU_RIP, value);
}

// @ts-ignore: decorator
@inline
export function stackPointer(): u64 {
  return load<u64>(cpu + VCPU_RSP);
}

// @ts-ignore: decorator
@inline
export function setStackPointer(value: u64): void {
  store<u64>(cpu + VCPU_RSP, value);
}

/** Current privilege level: the DPL of SS (SDM vol. 3C, 25.4.1). */
// @ts-ignore: decorator
@inline
export function cpl(): u32 {
  return (load<u32>(cpu + VCPU_SS_ATTRIBUTES) >> 5) & 3;
}
