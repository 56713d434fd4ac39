// Segmentation of 16- and 32-bit code (SDM vol. 3A, 3.2 and 5.3): limits, rights and bases.
import { VCPU_CS_BASE, VCPU_CS_LIMIT, VCPU_ES_ATTRIBUTES, VCPU_ES_BASE, VCPU_ES_LIMIT } from './generated/layout';
import { ATTRIBUTE_BIG, ATTRIBUTE_UNUSABLE, SEGMENT_STRIDE } from './segment';
import { cpu } from './state';

/**
 * What stands for a linear address that the segment does not have: canonical in no mode, so that the access fails as one
 * to a non-canonical address does, with #SS(0) or #GP(0).
 */
export const OUTSIDE: u64 = 0x8000_0000_0000_0000;

/** Whether `size` bytes at an offset lie in a segment with this limit. */
export function isWithin(attributes: u32, limit: u32, offset: u64, size: u32): bool {
  const last = offset + u64(size) - 1;
  // Expand-down data: the valid offsets are above the limit (SDM vol. 3A, 5.3).
  if ((attributes & 0x1c) == 0x14) return offset > u64(limit) && last <= (attributes & ATTRIBUTE_BIG ? 0xffff_ffff : 0xffff);
  // With a limit of 4 GiB less one an access may wrap.
  return last <= u64(limit) || limit == 0xffff_ffff;
}

/** Linear address of an access through a segment register, or {@link OUTSIDE}. A size of 0 is not checked. */
export function segmentAddress(number: usize, offset: u64, size: u32, writes: bool): u64 {
  const segment = cpu + number * SEGMENT_STRIDE;
  const attributes = load<u32>(segment + VCPU_ES_ATTRIBUTES);
  if (size != 0) {
    if (attributes & ATTRIBUTE_UNUSABLE) return OUTSIDE;
    // Writable data, or for reads anything but execute-only code.
    if (writes ? (attributes & 0xa) != 2 : (attributes & 0xa) == 8) return OUTSIDE;
    if (!isWithin(attributes, load<u32>(segment + VCPU_ES_LIMIT), offset, size)) return OUTSIDE;
  }
  return (load<u64>(segment + VCPU_ES_BASE) + offset) & 0xffff_ffff;
}

/** Linear address of code at an offset of CS; the offset must lie within {@link codeLimit}. */
export function codeAddress(offset: u64): u64 {
  return (load<u64>(cpu + VCPU_CS_BASE) + offset) & 0xffff_ffff;
}

/** Highest offset of the current 16- or 32-bit code segment. */
export function codeLimit(): u64 {
  return load<u32>(cpu + VCPU_CS_LIMIT);
}
