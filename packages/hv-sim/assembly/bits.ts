// Bit counting, bit fields, byte order and CRC (SDM vol. 2: LZCNT, TZCNT, BEXTR, PDEP, PEXT, BSWAP, CRC32).
import { CF, OF, SF, setStatus, ZF } from './state';

/** Leading zero bits of a value of `size` bytes. */
export function leadingZeros(value: u64, size: u32): u64 {
  return clz(value) - ((8 - u64(size)) << 3);
}

/** Trailing zero bits of a value of `size` bytes. */
export function trailingZeros(value: u64, size: u32): u64 {
  return value == 0 ? u64(size) << 3 : ctz(value);
}

/** ZF, SF and CF after a BMI1 operation; OF is cleared, AF and PF are undefined and left. */
export function bitFlags(result: u64, size: u32, carry: bool): void {
  const sign = u32(result >> ((u64(size) << 3) - 1)) & 1;
  setStatus(CF | ZF | SF | OF, (carry ? CF : 0) | (result == 0 ? ZF : 0) | (sign << 7));
}

/** BEXTR: `control` holds the start in bits 0..7 and the length in bits 8..15. */
export function bitExtract(value: u64, control: u64): u64 {
  const start = control & 0xff;
  const length = (control >> 8) & 0xff;
  const shifted = start < 64 ? value >> start : 0;
  return length < 64 ? shifted & ((u64(1) << length) - 1) : shifted;
}

/** PDEP: the low bits of `value` go to the set bits of `mask`. */
export function depositBits(value: u64, mask: u64): u64 {
  let result: u64 = 0;
  while (mask != 0) {
    const lowest = mask & (0 - mask);
    if (value & 1) result |= lowest;
    value >>= 1;
    mask ^= lowest;
  }
  return result;
}

/** PEXT: the bits of `value` at the set bits of `mask` are packed. */
export function extractBits(value: u64, mask: u64): u64 {
  let result: u64 = 0;
  let bit: u64 = 1;
  while (mask != 0) {
    const lowest = mask & (0 - mask);
    if (value & lowest) result |= bit;
    bit <<= 1;
    mask ^= lowest;
  }
  return result;
}

/** Reverses the bytes of a value of 2, 4 or 8 bytes. */
export function byteSwap(value: u64, size: u32): u64 {
  return bswap<u64>(value) >> ((8 - u64(size)) << 3);
}

/** CRC-32C (polynomial 0x11EDC6F41, reflected 0x82F63B78) of `size` more bytes. */
export function crc32c(crc: u32, value: u64, size: u32): u32 {
  for (let byte: u32 = 0; byte < size; byte++) {
    crc ^= <u32>(value >> (u64(byte) << 3)) & 0xff;
    for (let bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f6_3b78 & (0 - (crc & 1)));
  }
  return crc;
}
