// Stacks of other privilege levels: of an inner one from the TSS, of an outer one from the stack of a return.
import {
  clearFault,
  fault,
  FAULT_EXCEPTION,
  FAULT_NON_CANONICAL,
  faultVector,
  raise,
  raiseProtection,
  VECTOR_GP,
  VECTOR_SS,
  VECTOR_TS,
} from './fault';
import { VCPU_RSP, VCPU_TR_ATTRIBUTES, VCPU_TR_BASE, VCPU_TR_LIMIT, VCPU_TR_SELECTOR } from './generated/layout';
import { loadImplicit, prepareStack } from './memory';
import { isLongMode } from './mode';
import {
  ATTRIBUTE_BIG,
  ATTRIBUTE_PRESENT,
  descriptorAddress,
  descriptorAttributes,
  descriptorBase,
  descriptorLimit,
  dplOf,
  reachAccessed,
  readDescriptor,
  setAccessed,
  setNullStackSegment,
  setSegment,
  SS,
} from './segment';
import { isWithin } from './segmented-address';
import { cpu } from './state';

let selector: u32 = 0;
let base: u64 = 0;
let limit: u32 = 0;
let attributes: u32 = 0;
let address: u64 = 0;
let accessedByte: usize = 0;
let isNull: bool = false;

/** Stack pointer of the stack that {@link readInnerStack} has found. */
export let innerStackPointer: u64 = 0;

/** A 32-bit TSS, as opposed to a 16-bit one. */
function isWideTask(): bool {
  return (load<u32>(cpu + VCPU_TR_ATTRIBUTES) & 8) != 0;
}

function keep(from: u32): void {
  selector = from;
  base = descriptorBase;
  limit = descriptorLimit;
  attributes = descriptorAttributes;
  address = descriptorAddress;
  isNull = false;
}

/** Whether the descriptor just read is a stack for a privilege level. */
function isStackOf(privilege: u32): bool {
  return (descriptorAttributes & 0x1a) == 0x12 && dplOf(descriptorAttributes) == privilege;
}

/**
 * Finds the stack of an inner privilege level in the TSS (SDM vol. 3A, 5.8.5). Long mode loads SS with a null selector;
 * otherwise the TSS names the segment. @param external the EXT bit of error codes
 */
export function readInnerStack(privilege: u32, external: u32): bool {
  const taskError = (load<u32>(cpu + VCPU_TR_SELECTOR) & 0xfffc) | external;
  const task = load<u64>(cpu + VCPU_TR_BASE);
  const taskLimit = load<u32>(cpu + VCPU_TR_LIMIT);
  const long = isLongMode();
  const size: u32 = long ? 8 : isWideTask() ? 4 : 2;
  const offset: u32 = size == 2 ? 2 + privilege * 4 : 4 + privilege * 8;
  if (offset + (long ? 7 : size + 1) > taskLimit) {
    raise(VECTOR_TS, 1, taskError);
    return false;
  }
  innerStackPointer = loadImplicit(task + offset, size);
  if (fault == FAULT_NON_CANONICAL) raise(VECTOR_TS, 1, taskError);
  if (fault) return false;
  if (long) {
    isNull = true;
    selector = privilege;
    return true;
  }
  const from = u32(loadImplicit(task + offset + size, 2));
  if (fault) return false;
  const error = (from & 0xfffc) | external;
  if ((from & 0xfffc) == 0 || (from & 3) != privilege) {
    raise(VECTOR_TS, 1, error);
    return false;
  }
  if (!readDescriptor(from, false)) {
    if (fault == FAULT_EXCEPTION && faultVector == VECTOR_GP) raise(VECTOR_TS, 1, error);
    return false;
  }
  if (!isStackOf(privilege)) {
    raise(VECTOR_TS, 1, error);
    return false;
  }
  if (!(descriptorAttributes & ATTRIBUTE_PRESENT)) {
    raise(VECTOR_SS, 1, error);
    return false;
  }
  keep(from);
  return true;
}

/**
 * Checks the stack segment that a return to an outer level, or IRET in 64-bit mode, loads.
 * @param mayBeNull the return leads to 64-bit code
 */
export function readOuterStack(from: u32, privilege: u32, mayBeNull: bool): bool {
  const error = from & 0xfffc;
  if (error == 0) {
    if (!mayBeNull || privilege == 3 || (from & 3) != privilege) {
      raiseProtection(0);
      return false;
    }
    isNull = true;
    selector = from;
    return true;
  }
  if (!readDescriptor(from, false)) return false;
  if ((from & 3) != privilege || !isStackOf(privilege)) {
    raiseProtection(error);
    return false;
  }
  if (!(descriptorAttributes & ATTRIBUTE_PRESENT)) {
    raise(VECTOR_SS, 1, error);
    return false;
  }
  keep(from);
  return true;
}

/** Bits of the stack pointer that the new stack uses. */
export function newStackMask(): u64 {
  return isNull ? 0xffff_ffff_ffff_ffff : attributes & ATTRIBUTE_BIG ? 0xffff_ffff : 0xffff;
}

/**
 * Prepares `size` bytes from `offset` on of the new inner stack, to be written by `storeStack`; #SS names the segment.
 * @returns whether writing cannot fail
 */
export function prepareInnerStack(offset: u64, size: u32, privilege: u32, external: u32): bool {
  const error = (selector & 0xfffc) | external;
  if (!isNull && !isWithin(attributes, limit, offset, size)) {
    raise(VECTOR_SS, 1, error);
    return false;
  }
  prepareStack(isNull ? offset : (base + offset) & 0xffff_ffff, size, privilege == 3);
  if (fault == FAULT_NON_CANONICAL) {
    clearFault();
    raise(VECTOR_SS, 1, error);
  }
  return fault == 0;
}

/** Makes sure that the accessed bit of the new stack segment can be set. */
export function prepareStackSegment(): bool {
  accessedByte = isNull ? 0 : reachAccessed(address, attributes);
  return fault == 0;
}

/** Loads SS; cannot fail. */
export function commitStackSegment(privilege: u32): void {
  if (isNull) return setNullStackSegment(selector, privilege);
  setAccessed(accessedByte);
  setSegment(SS, selector, base, limit, attributes | 1);
}

/** Writes RSP as wide as the stack just loaded is. */
export function commitStackPointer(offset: u64): void {
  const mask = newStackMask();
  if (mask == 0xffff) store<u16>(cpu + VCPU_RSP, <u16>offset);
  else store<u64>(cpu + VCPU_RSP, offset & mask);
}
