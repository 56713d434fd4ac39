// Delivery of exceptions and interrupts through the IDT; long mode's is here (SDM vol. 3A, 6.14). An event is delivered as
// a whole or not at all: everything it touches is reached first, then written.
import {
  clearFault,
  fault,
  FAULT_EXCEPTION,
  FAULT_NON_CANONICAL,
  faultAddress,
  faultError,
  faultHasError,
  faultVector,
  raise,
  raiseProtection,
  shutDown,
  VECTOR_DB,
  VECTOR_DE,
  VECTOR_DF,
  VECTOR_GP,
  VECTOR_NP,
  VECTOR_PF,
  VECTOR_SS,
  VECTOR_TS,
} from './fault';
import {
  EXIT_CAUSE_DATA,
  EXIT_CAUSE_EVENT_DELIVERY,
  OP_LENGTH,
  SHUTDOWN_TRIPLE_FAULT,
  VCPU_CR2,
  VCPU_CS_SELECTOR,
  VCPU_DR6,
  VCPU_IDT_BASE,
  VCPU_IDT_LIMIT,
  VCPU_RFLAGS,
  VCPU_SS_SELECTOR,
  VCPU_TR_BASE,
  VCPU_TR_LIMIT,
  VCPU_TR_SELECTOR,
} from './generated/layout';
import { deliverProtected } from './legacy-interrupt';
import { loadImplicit, prepareStack, setImplicitCause, storeStack } from './memory';
import { isCanonical, isLongMode } from './mode';
import {
  ATTRIBUTE_BIG,
  ATTRIBUTE_LONG,
  ATTRIBUTE_PRESENT,
  ATTRIBUTE_S,
  commitAccessed,
  CS,
  descriptorAttributes,
  dplOf,
  prepareAccessed,
  readDescriptor,
  setFromDescriptor,
  setNullStackSegment,
} from './segment';
import { cpl, cpu, IF, NT, RF, rip, setRip, setRipSet, setStackPointer, stackPointer, TF, VM } from './state';
import { refreshTlb } from './tlb';

/** An exception, or an interrupt from outside: the EXT bit of a fault's error code is set, and the gate's DPL is not looked at. */
export const EVENT_HARDWARE: u32 = 0;
/** INT n and INT3: the gate's DPL must allow it. */
export const EVENT_SOFTWARE: u32 = 1;

/** An event was delivered since {@link forgetDelivered}: by an instruction like INT n, no single-step trap follows. */
export let delivered: bool = false;

export function forgetDelivered(): void {
  delivered = false;
}

/** The bits of DR6 that read as one (SDM vol. 3B, 17.2.3). */
const DR6_FIXED: u64 = 0xffff_0ff0;

/** A system structure lies at a non-canonical address. */
function nonCanonical(vector: i32, error: u32): void {
  if (fault == FAULT_NON_CANONICAL) raise(vector, 1, error);
}

/** Delivers one event; `fault` is set when it could not be delivered, and then nothing has changed. */
export function deliver(vector: i32, source: u32, hasError: bool, error: u32, returnRip: u64, faulting: bool): void {
  setImplicitCause(EXIT_CAUSE_EVENT_DELIVERY);
  if (isLongMode()) deliverLong(vector, source, hasError, error, returnRip, faulting);
  else deliverProtected(vector, source == EVENT_SOFTWARE, hasError, error, returnRip, faulting);
  setImplicitCause(EXIT_CAUSE_DATA);
  if (fault == 0) delivered = true;
}

function deliverLong(vector: i32, source: u32, hasError: bool, error: u32, returnRip: u64, faulting: bool): void {
  const external: u32 = source == EVENT_HARDWARE ? 1 : 0;
  const gateCode = (u32(vector) << 3) | 2 | external;
  if (u32(vector) * 16 + 15 > load<u32>(cpu + VCPU_IDT_LIMIT)) return raiseProtection(gateCode);
  const gateAddress = load<u64>(cpu + VCPU_IDT_BASE) + u64(vector) * 16;
  const low = loadImplicit(gateAddress, 8);
  if (fault) return nonCanonical(VECTOR_GP, gateCode);
  const high = loadImplicit(gateAddress + 8, 8);
  if (fault) return nonCanonical(VECTOR_GP, gateCode);
  const type = u32(low >> 40) & 0x1f;
  if (type != 14 && type != 15) return raiseProtection(gateCode);
  if (source == EVENT_SOFTWARE && (u32(low >> 45) & 3) < cpl()) return raiseProtection(gateCode);
  if (!(low & (1 << 47))) return raise(VECTOR_NP, 1, gateCode);
  const target = (low & 0xffff) | ((low >> 32) & 0xffff_0000) | (high << 32);
  const selector = u32(low >> 16) & 0xffff;
  const selectorCode = (selector & 0xfffc) | external;

  if ((selector & 0xfffc) == 0) return raiseProtection(external);
  if (!readDescriptor(selector, false)) {
    if (fault == FAULT_EXCEPTION && faultVector == VECTOR_GP) raiseProtection(selectorCode);
    return;
  }
  const attributes = descriptorAttributes;
  if (!(attributes & ATTRIBUTE_S) || !(attributes & 8) || dplOf(attributes) > cpl()) return raiseProtection(selectorCode);
  if (!(attributes & ATTRIBUTE_LONG) || attributes & ATTRIBUTE_BIG) return raiseProtection(selectorCode);
  if (!(attributes & ATTRIBUTE_PRESENT)) return raise(VECTOR_NP, 1, selectorCode);
  const conforming = (attributes & 4) != 0;
  const privilege = conforming ? cpl() : dplOf(attributes);

  let stack = stackPointer();
  const ist = u32(low >> 32) & 7;
  if (ist != 0 || privilege < cpl()) {
    const offset: u32 = ist != 0 ? 0x1c + ist * 8 : 4 + privilege * 8;
    if (offset + 7 > load<u32>(cpu + VCPU_TR_LIMIT)) {
      return raise(VECTOR_TS, 1, (load<u32>(cpu + VCPU_TR_SELECTOR) & 0xfffc) | external);
    }
    stack = loadImplicit(load<u64>(cpu + VCPU_TR_BASE) + offset, 8);
    if (fault) return nonCanonical(VECTOR_TS, (load<u32>(cpu + VCPU_TR_SELECTOR) & 0xfffc) | external);
  }
  if (!isCanonical(target)) return raiseProtection(external);
  stack &= ~0xf;
  const size: u64 = hasError ? 48 : 40;
  prepareStack(stack - size, <usize>size, privilege == 3);
  if (fault) return nonCanonical(VECTOR_SS, external);
  if (!prepareAccessed()) return;

  const rflags = load<u64>(cpu + VCPU_RFLAGS);
  let at: usize = 0;
  if (hasError) {
    storeStack(at, error);
    at += 8;
  }
  storeStack(at, returnRip);
  storeStack(at + 8, load<u32>(cpu + VCPU_CS_SELECTOR));
  storeStack(at + 16, faulting ? rflags | RF : rflags);
  storeStack(at + 24, stackPointer());
  storeStack(at + 32, load<u32>(cpu + VCPU_SS_SELECTOR));
  commitAccessed();
  setFromDescriptor(CS, (selector & 0xfffc) | privilege);
  if (privilege != cpl()) setNullStackSegment(privilege, privilege);
  setStackPointer(stack - size);
  setRip(target);
  let clear: u64 = TF | NT | RF | VM;
  if (type == 14) clear |= IF;
  store<u64>(cpu + VCPU_RFLAGS, rflags & ~clear);
  refreshTlb();
}

/** Exceptions that make a double fault when they meet (SDM vol. 3A, table 6-4). */
function isContributory(vector: i32): bool {
  return vector == VECTOR_DE || (vector >= VECTOR_TS && vector <= VECTOR_GP);
}

/**
 * Delivers the exception that `fault` describes, or what becomes of it. `fault` is FAULT_EXIT afterwards when a
 * second-level violation stopped the delivery: then nothing has changed, and the instruction will raise it again.
 * @returns the vector really delivered, -1 when none was
 */
export function deliverException(returnRip: u64, faulting: bool): i32 {
  let vector = faultVector;
  let hasError = faultHasError != 0;
  let error = faultError;
  let address = faultAddress;
  let pageFault = vector == VECTOR_PF;
  while (true) {
    clearFault();
    deliver(vector, EVENT_HARDWARE, hasError, error, returnRip, faulting);
    if (fault == 0) {
      if (pageFault) store<u64>(cpu + VCPU_CR2, address);
      return vector;
    }
    if (fault != FAULT_EXCEPTION) return -1;
    const second = faultVector;
    if (second == VECTOR_PF) {
      pageFault = true;
      address = faultAddress;
    }
    const serious = isContributory(second) || second == VECTOR_PF;
    if (vector == VECTOR_DF && serious) {
      clearFault();
      shutDown(SHUTDOWN_TRIPLE_FAULT, 0);
      return -1;
    }
    if ((vector == VECTOR_PF && serious) || (isContributory(vector) && isContributory(second))) {
      vector = VECTOR_DF;
      hasError = true;
      error = 0;
    } else {
      vector = second;
      hasError = faultHasError != 0;
      error = faultError;
    }
    faulting = true;
  }
}

/** DR6 after a debug exception (SDM vol. 3B, 17.2.3). */
export function recordDebug(bits: u64): void {
  store<u64>(cpu + VCPU_DR6, load<u64>(cpu + VCPU_DR6) | DR6_FIXED | bits);
}

/** INT n, INT3 and INT1: the event is part of the instruction. */
export function softwareInterrupt(op: usize, vector: i32): void {
  const source = vector == VECTOR_DB ? EVENT_HARDWARE : EVENT_SOFTWARE;
  deliver(vector, source, false, 0, rip() + load<u8>(op, OP_LENGTH), false);
  if (fault == 0) setRipSet(true);
}
