// The code segment that a far transfer, an interrupt or a return leads to: read and checked first, loaded when nothing can
// fail any more (SDM vol. 3A, 5.8).
import { fault, raise, raiseProtection, VECTOR_NP } from './fault';
import { isCanonical, isLongMode } from './mode';
import {
  ATTRIBUTE_BIG,
  ATTRIBUTE_LONG,
  ATTRIBUTE_PRESENT,
  CS,
  descriptorAddress,
  descriptorAttributes,
  descriptorBase,
  descriptorLimit,
  reachAccessed,
  setAccessed,
  setSegment,
} from './segment';

let base: u64 = 0;
let limit: u32 = 0;
/** Attributes of the segment, in the record's form. */
export let farAttributes: u32 = 0;
let address: u64 = 0;
let accessedByte: usize = 0;

/** Keeps the descriptor that has just been read. */
export function keepCode(): void {
  base = descriptorBase;
  limit = descriptorLimit;
  farAttributes = descriptorAttributes;
  address = descriptorAddress;
}

/** Whether it is a code segment. */
export function isFarCode(): bool {
  return (farAttributes & 0x18) == 0x18;
}

export function isFarConforming(): bool {
  return (farAttributes & 4) != 0;
}

/** Whether it is one of 64-bit mode. */
export function isFarLong(): bool {
  return (farAttributes & ATTRIBUTE_LONG) != 0 && isLongMode();
}

/** Present, and not both 64-bit and 32-bit; #NP or #GP otherwise. */
export function checkFarCode(error: u32): bool {
  if (!(farAttributes & ATTRIBUTE_PRESENT)) raise(VECTOR_NP, 1, error);
  else if (isFarLong() && farAttributes & ATTRIBUTE_BIG) raiseProtection(error);
  return fault == 0;
}

/** Whether an offset is one that the segment has; #GP otherwise. */
export function checkFarOffset(offset: u64, error: u32): bool {
  if (isFarLong() ? isCanonical(offset) : offset <= u64(limit)) return true;
  raiseProtection(error);
  return false;
}

/** Makes sure that the descriptor's accessed bit can be set. */
export function prepareFarCode(): bool {
  accessedByte = reachAccessed(address, farAttributes);
  return fault == 0;
}

/** Loads CS; cannot fail. */
export function commitFarCode(selector: u32): void {
  setAccessed(accessedByte);
  setSegment(CS, selector, base, limit, farAttributes | 1);
}
