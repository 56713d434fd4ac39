/**
 * Addresses of a guest. Physical ones are `number` (at most 2^52, exact in a double); virtual ones are `bigint`, because
 * kernel addresses lie above 2^53. All are branded, so that one cannot be passed for another.
 */

declare const brand: unique symbol;

/** Guest physical address in bytes, 0 .. 2^52 - 1. */
export type Gpa = number & { readonly [brand]: 'Gpa' };
/** Guest frame number: a {@link Gpa} divided by 4096, 0 .. 2^40 - 1. */
export type Gfn = number & { readonly [brand]: 'Gfn' };
/** Guest virtual address, unsigned 64 bits. */
export type Gva = bigint & { readonly [brand]: 'Gva' };
/** Value of CR3 as a guest loads it: page-table root, PCID and flag bits included. */
export type Cr3 = bigint & { readonly [brand]: 'Cr3' };

/** Size of a page in bytes. */
export const PAGE_SIZE = 4096;
/** First physical address that no x86-64 processor has (SDM vol. 3A, 4.1.4: MAXPHYADDR is at most 52). */
export const GPA_LIMIT = 2 ** 52;
/** Mask of a 64-bit value. */
export const U64_MASK = 0xffff_ffff_ffff_ffffn;
/** Bits 12..51: the physical address in CR3 and in every page-table entry (SDM vol. 3A, table 4-12 and following). */
export const ENTRY_FRAME_MASK = 0x000f_ffff_ffff_f000n;

/**
 * Makes a {@link Gpa} of a number.
 * @throws RangeError when the value is not an integer in 0 .. 2^52 - 1.
 */
export function gpa(value: number): Gpa {
  if (!Number.isInteger(value) || value < 0 || value >= GPA_LIMIT) {
    throw new RangeError(`not a guest physical address: ${value}`);
  }
  return value as Gpa;
}

/**
 * Makes a {@link Gfn} of a number.
 * @throws RangeError when the value is not an integer in 0 .. 2^40 - 1.
 */
export function gfn(value: number): Gfn {
  if (!Number.isInteger(value) || value < 0 || value >= GPA_LIMIT / PAGE_SIZE) {
    throw new RangeError(`not a guest frame number: ${value}`);
  }
  return value as Gfn;
}

/** Makes a {@link Gva} of a bigint, reduced to 64 bits. */
export function gva(value: bigint): Gva {
  return BigInt.asUintN(64, value) as Gva;
}

/** Makes a {@link Cr3} of a bigint, reduced to 64 bits. */
export function cr3(value: bigint): Cr3 {
  return BigInt.asUintN(64, value) as Cr3;
}

/** Frame that holds a physical address. */
export function gfnOf(address: Gpa): Gfn {
  return Math.floor(address / PAGE_SIZE) as Gfn;
}

/** First address of a frame. */
export function gpaOf(frame: Gfn): Gpa {
  return (frame * PAGE_SIZE) as Gpa;
}

/** Physical address of the page-table root that a CR3 value names (bits 12..51; PCID and bit 63 do not count). */
export function rootOf(value: Cr3): Gpa {
  return Number(value & ENTRY_FRAME_MASK) as Gpa;
}

/** Whether a virtual address is canonical for 48-bit paging: bits 47..63 all equal (SDM vol. 1, 3.3.7.1). */
export function isCanonical(address: Gva): boolean {
  return BigInt.asUintN(64, BigInt.asIntN(48, address)) === address;
}
