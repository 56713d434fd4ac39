/**
 * Names as rules compare them: by hash (behaviour 1.5.3). The hash of a kernel image is the CRC-32 (polynomial
 * 0xEDB88320, as zlib's) of its lower-case base name in UTF-16LE without terminator.
 */

/** Identifiers that stand in a rule in place of a hash; small enough that no name of the field has them as its hash. */
export const PredefinedName = {
  /** Whoever it is: `*`. */
  ANY: 0,
  /** The victim is the originator itself: `[own]`. */
  OWN: 1,
  /** The kernel image, whatever its file is called: `[kernel]`. */
  KERNEL: 2,
  /** The hardware abstraction layer: `[hal]`. */
  HAL: 3,
  /** Code that lies in no image: `-`. */
  NONE: 4,
} as const;

/** Hash of an image or victim that has no name. */
export const NO_NAME = 0xffff_ffff;

/** File names of the hardware abstraction layer (behaviour 1.5.3). */
const HAL_FILES = new Set(['hal.dll', 'halmacpi.dll', 'halacpi.dll']);

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb8_8320 : value >>> 1;
  return value >>> 0;
});

/** CRC-32 of a text in UTF-16LE, as zlib's `crc32`: 0..0xFFFFFFFF. `seed` is the CRC of what comes before it. */
export function crc32OfUtf16(text: string, seed = 0): number {
  let value = ~seed;
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    value = CRC_TABLE[(value ^ unit) & 0xff]! ^ (value >>> 8);
    value = CRC_TABLE[(value ^ (unit >>> 8)) & 0xff]! ^ (value >>> 8);
  }
  return ~value >>> 0;
}

/** Hash by which rules name a kernel image. The empty name is {@link NO_NAME}. */
export function hashImageName(baseName: string): number {
  return baseName === '' ? NO_NAME : crc32OfUtf16(baseName.toLowerCase());
}

/**
 * Hash under which an image asks: the predefined one of the kernel and of the HAL, else that of its name.
 * @param isKernel whether the image is the kernel, known by its base address, not by its name
 */
export function originatorHash(baseName: string, isKernel: boolean): number {
  if (isKernel) return PredefinedName.KERNEL;
  return HAL_FILES.has(baseName.toLowerCase()) ? PredefinedName.HAL : hashImageName(baseName);
}
