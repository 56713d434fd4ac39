// Guest-linear memory as instructions see it. A hit in the TLB is one comparison: the page of the last byte must be the
// page in the slot of the first, so that an access across pages misses too.
import { invalidateFrame, knownLength } from './code-cache';
import { fault, FAULT_EXIT, FAULT_NON_CANONICAL, setFault } from './fault';
import {
  BLOCK_SUPPLIES,
  BLOCK_SUPPLY_COUNT,
  EXIT_CAUSE_DATA,
  EXIT_CAUSE_EVENT_DELIVERY,
  VCPU_EXIT_CAUSE,
  VCPU_EXIT_INSTRUCTION_LENGTH,
} from './generated/layout';
import { isCanonical, laterPart } from './mode';
import { ACCESS_READ, ACCESS_WRITE, bypassed, FRAME_CODE, frameFlags } from './physical';
import { cpu } from './state';
import { fillTlb, tlbEntry, tlbRead, tlbWrite } from './tlb';
import { translate, translatedFrame, translateFor, translateImplicit } from './translate';

export { cacheGeneration, fetch } from './code-cache';

/** Halves of the last 128-bit load. */
export let lo128: u64 = 0;
export let hi128: u64 = 0;

/** Where the bytes of the last write translation lie: in the first page, and behind it in the second (0 when none is). */
let writeFirst: usize = 0;
let writeSecond: usize = 0;
let writeInFirst: usize = 0;

// @ts-ignore: decorator
@inline
function hit<T>(table: usize, address: u64): usize {
  const entry = tlbEntry(table, address);
  if (load<u64>(entry) != ((address + sizeof<T>() - 1) & ~0xfff)) return 0;
  return load<u32>(entry, 8) + (usize(address) & 0xfff);
}

/** Both ends of a range are canonical; sets `fault` otherwise. */
function check(address: u64, size: usize): bool {
  if (isCanonical(address) && isCanonical(address + size - 1)) return true;
  setFault(FAULT_NON_CANONICAL);
  return false;
}

/** Translates a range inside one page and remembers it in the TLB where that is allowed. */
function reach(address: u64, access: u32, size: usize): usize {
  const host = translate(address, access, <u32>size, EXIT_CAUSE_DATA);
  if (fault) {
    if (fault == FAULT_EXIT && load<u32>(cpu + VCPU_EXIT_CAUSE) != EXIT_CAUSE_EVENT_DELIVERY) {
      store<u32>(cpu + VCPU_EXIT_INSTRUCTION_LENGTH, knownLength());
    }
    return 0;
  }
  if (bypassed) {
    if (access & ACCESS_WRITE && translatedFrame >= 0) writable(translatedFrame);
    return host;
  }
  if (access & ACCESS_WRITE) {
    writable(translatedFrame);
    fillTlb(tlbWrite, address, host, 0);
  } else {
    fillTlb(tlbRead, address, host, 0);
  }
  return host;
}

/** A frame is about to be written: what was decoded from it is forgotten. */
function writable(frame: i32): void {
  if (load<u8>(frameFlags + frame) & FRAME_CODE) invalidateFrame(frame);
}

function gather(host: usize, size: usize): u64 {
  let value: u64 = 0;
  for (let i: usize = 0; i < size; i++) value |= u64(load<u8>(host + i)) << (i << 3);
  return value;
}

function scatter(host: usize, size: usize, value: u64): void {
  for (let i: usize = 0; i < size; i++) store<u8>(host + i, <u8>(value >> (i << 3)));
}

/** Replaces the bytes for which a reply has supplied data. */
function supplied(address: u64, size: usize, value: u64): u64 {
  const count = load<u32>(cpu + BLOCK_SUPPLY_COUNT);
  for (let i: u32 = 0; i < count; i++) {
    const supply = cpu + BLOCK_SUPPLIES + usize(i) * 80;
    for (let k: usize = 0; k < size; k++) {
      const index = address + k - load<u64>(supply);
      if (index >= load<u64>(supply, 8)) continue;
      const bit = u64(k) << 3;
      value = (value & ~(u64(0xff) << bit)) | (u64(load<u8>(supply + 16 + usize(index))) << bit);
    }
  }
  return value;
}

/** Whether a read takes each byte of a page for which a reply has supplied data from that data. */
export function isCoveredBySupplies(address: u64, size: u32): bool {
  const count = load<u32>(cpu + BLOCK_SUPPLY_COUNT);
  for (let k: u64 = 0; k < size; k++) {
    let asked = false;
    let covered = false;
    for (let i: u32 = 0; i < count; i++) {
      const supply = cpu + BLOCK_SUPPLIES + usize(i) * 80;
      const start = load<u64>(supply);
      if (start >> 12 != (address + k) >> 12) continue;
      asked = true;
      if (address + k - start < load<u64>(supply, 8)) covered = true;
    }
    if (asked && !covered) return false;
  }
  return true;
}

function loadSlow(address: u64, size: usize): u64 {
  if (!check(address, size)) return 0;
  const inFirst = usize(4096) - (usize(address) & 0xfff);
  let value: u64;
  if (size <= inFirst) {
    const host = reach(address, ACCESS_READ, size);
    if (fault) return 0;
    value = gather(host, size);
  } else {
    const first = reach(address, ACCESS_READ, inFirst);
    if (fault) return 0;
    const second = reach(laterPart(address + inFirst), ACCESS_READ, size - inFirst);
    if (fault) return 0;
    value = gather(first, inFirst) | (gather(second, size - inFirst) << (inFirst << 3));
  }
  return load<u32>(cpu + BLOCK_SUPPLY_COUNT) ? supplied(address, size, value) : value;
}

/** Prepares a write: after it, writing cannot fail. */
function prepare(address: u64, size: usize, access: u32): bool {
  if (!check(address, size)) return false;
  const inFirst = usize(4096) - (usize(address) & 0xfff);
  writeInFirst = size;
  writeSecond = 0;
  if (size <= inFirst) {
    writeFirst = reach(address, access, size);
    return fault == 0;
  }
  writeInFirst = inFirst;
  const first = reach(address, access, inFirst);
  if (fault) return false;
  writeSecond = reach(laterPart(address + inFirst), access, size - inFirst);
  writeFirst = first;
  return fault == 0;
}

/** Writes where {@link prepare} has been. */
function commit(size: usize, value: u64): void {
  scatter(writeFirst, writeInFirst, value);
  if (writeSecond) scatter(writeSecond, size - writeInFirst, value >> (writeInFirst << 3));
}

function storeSlow(address: u64, size: usize, value: u64): void {
  if (prepare(address, size, ACCESS_WRITE)) commit(size, value);
}

function loadRmwSlow(address: u64, size: usize): u64 {
  if (!prepare(address, size, ACCESS_READ | ACCESS_WRITE)) return 0;
  let value = gather(writeFirst, writeInFirst);
  if (writeSecond) value |= gather(writeSecond, size - writeInFirst) << (writeInFirst << 3);
  return load<u32>(cpu + BLOCK_SUPPLY_COUNT) ? supplied(address, size, value) : value;
}

// @ts-ignore: decorator
@inline
function loadAny<T>(address: u64): u64 {
  const host = hit<T>(tlbRead, address);
  return host ? u64(load<T>(host)) : loadSlow(address, sizeof<T>());
}

// @ts-ignore: decorator
@inline
function storeAny<T>(address: u64, value: u64): void {
  const host = hit<T>(tlbWrite, address);
  if (host) store<T>(host, <T>value);
  else storeSlow(address, sizeof<T>(), value);
}

// @ts-ignore: decorator
@inline
function loadRmwAny<T>(address: u64): u64 {
  const host = hit<T>(tlbWrite, address);
  if (!host) return loadRmwSlow(address, sizeof<T>());
  writeFirst = host;
  writeSecond = 0;
  writeInFirst = sizeof<T>();
  return u64(load<T>(host));
}

// @ts-ignore: decorator
@inline
function storeRmwAny<T>(value: u64): void {
  if (writeSecond) commit(sizeof<T>(), value);
  else store<T>(writeFirst, <T>value);
}

export function load8(address: u64): u64 {
  return loadAny<u8>(address);
}

export function load16(address: u64): u64 {
  return loadAny<u16>(address);
}

export function load32(address: u64): u64 {
  return loadAny<u32>(address);
}

export function load64(address: u64): u64 {
  return loadAny<u64>(address);
}

export function store8(address: u64, value: u64): void {
  storeAny<u8>(address, value);
}

export function store16(address: u64, value: u64): void {
  storeAny<u16>(address, value);
}

export function store32(address: u64, value: u64): void {
  storeAny<u32>(address, value);
}

export function store64(address: u64, value: u64): void {
  storeAny<u64>(address, value);
}

export function loadRmw8(address: u64): u64 {
  return loadRmwAny<u8>(address);
}

export function loadRmw16(address: u64): u64 {
  return loadRmwAny<u16>(address);
}

export function loadRmw32(address: u64): u64 {
  return loadRmwAny<u32>(address);
}

export function loadRmw64(address: u64): u64 {
  return loadRmwAny<u64>(address);
}

/** Writes what {@link loadRmw8} and its siblings have just read; cannot fail. */
export function storeRmw8(_address: u64, value: u64): void {
  storeRmwAny<u8>(value);
}

export function storeRmw16(_address: u64, value: u64): void {
  storeRmwAny<u16>(value);
}

export function storeRmw32(_address: u64, value: u64): void {
  storeRmwAny<u32>(value);
}

export function storeRmw64(_address: u64, value: u64): void {
  storeRmwAny<u64>(value);
}

/** Reads 16 bytes into {@link lo128} and {@link hi128}. */
export function load128(address: u64): void {
  const low = load64(address);
  if (fault) return;
  const high = load64(laterPart(address + 8));
  if (fault) return;
  lo128 = low;
  hi128 = high;
}

/** Writes 16 bytes. */
export function store128(address: u64, low: u64, high: u64): void {
  probeWrite(address, 16);
  if (fault) return;
  store64(address, low);
  store64(laterPart(address + 8), high);
}

/** Translates a range of at most one page for reading, so that reading it cannot fail. */
export function probeRead(address: u64, size: i32): void {
  if (!check(address, size)) return;
  const inFirst = usize(4096) - (usize(address) & 0xfff);
  if (usize(size) <= inFirst) {
    reach(address, ACCESS_READ, size);
  } else {
    reach(address, ACCESS_READ, inFirst);
    if (fault == 0) reach(laterPart(address + inFirst), ACCESS_READ, size - inFirst);
  }
}

/** Translates a range of at most one page for writing, so that writing it cannot fail. */
export function probeWrite(address: u64, size: i32): void {
  prepare(address, size, ACCESS_WRITE);
}

/** Writes bytes of linear memory at an offset of the range that {@link probeWrite} has prepared; cannot fail. */
export function storeProbed(offset: usize, from: usize, size: usize): void {
  const before = offset < writeInFirst ? writeInFirst - offset : 0;
  const inFirst = size < before ? size : before;
  memory.copy(writeFirst + offset, from, inFirst);
  if (inFirst < size) memory.copy(writeSecond + (offset + inFirst - writeInFirst), from + inFirst, size - inFirst);
}

/** Reads a range of at most one page, a multiple of 8 bytes, into linear memory. */
export function loadRange(address: u64, to: usize, size: usize): void {
  probeRead(address, <i32>size);
  for (let at: usize = 0; at < size && fault == 0; at += 8) store<u64>(to + at, load64(laterPart(address + at)));
}

/** Why the processor itself reads or writes a system structure: for an instruction, or to deliver an event. */
export let implicitCause: u32 = EXIT_CAUSE_DATA;

export function setImplicitCause(cause: u32): void {
  implicitCause = cause;
}

/** Reads up to 8 bytes of a descriptor table or a TSS. */
export function loadImplicit(address: u64, size: usize): u64 {
  if (!check(address, size)) return 0;
  const inFirst = usize(4096) - (usize(address) & 0xfff);
  const partly = size < inFirst ? size : inFirst;
  const first = translateImplicit(address, ACCESS_READ, <u32>partly, implicitCause);
  if (fault) return 0;
  let value = gather(first, partly);
  if (partly < size) {
    const second = translateImplicit(address + partly, ACCESS_READ, <u32>(size - partly), implicitCause);
    if (fault) return 0;
    value |= gather(second, size - partly) << (partly << 3);
  }
  return value;
}

/** Address in linear memory of a byte of a descriptor table that is to be written. */
export function reachImplicit(address: u64): usize {
  if (!check(address, 1)) return 0;
  const host = translateImplicit(address, ACCESS_WRITE, 1, implicitCause);
  if (fault == 0 && translatedFrame >= 0) writable(translatedFrame);
  return host;
}

/** Prepares the stack for an event that is delivered at a privilege. */
export function prepareStack(address: u64, size: usize, user: bool): void {
  if (!check(address, size)) return;
  const inFirst = usize(4096) - (usize(address) & 0xfff);
  writeInFirst = size < inFirst ? size : inFirst;
  writeSecond = 0;
  const first = translateFor(address, ACCESS_WRITE, <u32>writeInFirst, EXIT_CAUSE_EVENT_DELIVERY, user);
  if (fault) return;
  if (translatedFrame >= 0) writable(translatedFrame);
  if (writeInFirst < size) {
    const rest = <u32>(size - writeInFirst);
    writeSecond = translateFor(address + writeInFirst, ACCESS_WRITE, rest, EXIT_CAUSE_EVENT_DELIVERY, user);
    if (fault) return;
    if (translatedFrame >= 0) writable(translatedFrame);
  }
  writeFirst = first;
}

/** Writes at an offset of the prepared stack. */
export function storeStack(offset: usize, value: u64, size: usize = 8): void {
  for (let i: usize = 0; i < size; i++) {
    const at = offset + i;
    const host = at < writeInFirst ? writeFirst + at : writeSecond + (at - writeInFirst);
    store<u8>(host, <u8>(value >> (u64(i) << 3)));
  }
}
