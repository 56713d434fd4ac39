// What kind of code the current VCPU executes and how it translates addresses (SDM vol. 3A, 2.2 and 4.1.1). Computed from
// the VCPU record by `refreshTlb`, whenever an instruction or somebody outside may have changed it.
import {
  CODE_FLAT_32,
  CODE_LIMITED_16,
  CODE_LIMITED_32,
  CODE_LONG,
  VCPU_CR0,
  VCPU_CR4,
  VCPU_CS_ATTRIBUTES,
  VCPU_CS_BASE,
  VCPU_CS_LIMIT,
  VCPU_EFER,
} from './generated/layout';
import { cpu, rip, setRip } from './state';

export const CR0_PE: u64 = 1;
export const CR0_PG: u64 = 1 << 31;
export const CR4_PSE: u64 = 1 << 4;
export const CR4_PAE: u64 = 1 << 5;
export const CR4_LA57: u64 = 1 << 12;
export const EFER_LME: u64 = 0x100;
export const EFER_LMA: u64 = 0x400;
/** CS.L and CS.D/B in the record's form. */
const CODE_ATTRIBUTE_LONG: u32 = 0x2000;
const CODE_ATTRIBUTE_BIG: u32 = 0x4000;

/** Linear addresses are physical. */
export const PAGING_NONE: u32 = 0;
export const PAGING_32_BIT: u32 = 1;
export const PAGING_PAE: u32 = 2;
export const PAGING_4_LEVEL: u32 = 3;
export const PAGING_5_LEVEL: u32 = 4;

/** Kind of the current VCPU's code, one of the CODE_ numbers. */
export let codeMode: u32 = CODE_LONG;
/** Kind of the current VCPU's paging, one of the PAGING_ numbers. */
export let pagingMode: u32 = 0;
/** How far a linear address is shifted to have its highest bit that counts at bit 63: 16, with 5-level paging 7. */
export let canonicalShift: u64 = 16;
/** Bits that a linear address has in the current code: data of 16- and 32-bit code wraps at 4 GiB. */
export let linearMask: u64 = 0xffff_ffff_ffff_ffff;

/**
 * Linear address of a later part of an operand: in 16- and 32-bit code it wraps at 4 GiB. An address that is canonical in
 * no mode stays so.
 */
export function laterPart(address: u64): u64 {
  return address & (linearMask | (u64(1) << 63));
}

/** EFER.LMA: long mode, be it 64-bit or compatibility mode. */
export function isLongMode(): bool {
  return (load<u64>(cpu + VCPU_EFER) & EFER_LMA) != 0;
}

/** The kind of code that the record's CS and EFER describe. */
export function currentCodeMode(): u32 {
  const attributes = load<u32>(cpu + VCPU_CS_ATTRIBUTES);
  if (attributes & CODE_ATTRIBUTE_LONG && isLongMode()) return CODE_LONG;
  if (!(attributes & CODE_ATTRIBUTE_BIG)) return CODE_LIMITED_16;
  const flat = load<u32>(cpu + VCPU_CS_LIMIT) == 0xffff_ffff && !(load<u32>(cpu + VCPU_CS_BASE) & 0xfff);
  return flat ? CODE_FLAT_32 : CODE_LIMITED_32;
}

/** The kind of paging that the record's control registers describe (SDM vol. 3A, table 4-1). */
export function currentPagingMode(): u32 {
  if (!(load<u64>(cpu + VCPU_CR0) & CR0_PG)) return PAGING_NONE;
  const cr4 = load<u64>(cpu + VCPU_CR4);
  if (!(cr4 & CR4_PAE)) return PAGING_32_BIT;
  if (!isLongMode()) return PAGING_PAE;
  return cr4 & CR4_LA57 ? PAGING_5_LEVEL : PAGING_4_LEVEL;
}

export function setModes(code: u32, paging: u32): void {
  codeMode = code;
  pagingMode = paging;
  canonicalShift = paging == PAGING_5_LEVEL ? 7 : 16;
  linearMask = code == CODE_LONG ? 0xffff_ffff_ffff_ffff : 0xffff_ffff;
}

/** EIP wraps at 4 GiB: to be called where somebody may look at it, or an event may push it. */
export function wrapRip(): void {
  if (codeMode != CODE_LONG) setRip(rip() & 0xffff_ffff);
}

/** A linear address that the paging mode can translate: the bits above its highest one equal it. */
// @ts-ignore: decorator
@inline
export function isCanonical(address: u64): bool {
  return u64(i64(address << canonicalShift) >> canonicalShift) == address;
}

/**
 * A linear address that registers take: the bases of segments and tables and the address MSRs. On a processor that has
 * 5-level paging these have 57 bits, whether or not it is on (Linux, arch/x86/kvm/mmu.h: `max_host_virt_addr_bits`).
 */
export function isCanonicalForRegisters(address: u64): bool {
  return u64(i64(address << 7) >> 7) == address;
}
