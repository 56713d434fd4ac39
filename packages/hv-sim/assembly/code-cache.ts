// Decoded instructions, by the frame that holds their bytes: a frame with code has a table that gives for each offset
// the record of the instruction that begins there. A write to such a frame forgets all of its instructions.
import {
  clearFault,
  fault,
  FAULT_NON_CANONICAL,
  raiseProtection,
  raiseUndefined,
  setAttention,
  setFault,
} from './fault';
import {
  CODE_FLAT_32,
  CODE_LONG,
  EXIT_CAUSE_FETCH,
  FLAG_UNLINKED,
  LIMIT_CODE_MODES as CODE_MODES,
  LIMIT_OPS,
  LIMIT_OP_TABLES,
  MAP_BOUNCE,
  MAP_OPS,
  MAP_OP_TABLES,
  OP_FLAGS,
  OP_LENGTH,
  OP_PAGE_OFFSET,
  OP_RECORD_SIZE,
} from './generated/layout';
import { codeMode, isCanonical, linearMask } from './mode';
import { ACCESS_EXECUTE, bypassed, FRAME_CODE, FRAME_TAIL, frameFlags, frameOps, frames } from './physical';
import { codeAddress, codeLimit } from './segmented-address';
import { rip, setRip } from './state';
import { fillTlb, flushTables, tlbEntry, tlbExecute } from './tlb';
import { translate, translatedFrame } from './translate';

/** Decodes into records; see the translator. Returns how many, 0 when the first instruction needs more bytes. */
// @ts-ignore: decorator
@external('machine', 'translate')
declare function decodeInstructions(
  code: usize,
  available: i32,
  pageOffset: i32,
  out: usize,
  max: i32,
  crossing: bool,
  mode: u32,
): i32;

/** Records decoded at a time. */
const BATCH: usize = 32;
const TABLE_SIZE: usize = 0x4000;
const OPS_END: usize = MAP_OPS + LIMIT_OPS * OP_RECORD_SIZE;
const TABLES_END: usize = MAP_OP_TABLES + LIMIT_OP_TABLES * TABLE_SIZE;
const TABLE_WRITE: usize = 1;
const TABLE_EXECUTE: usize = 2;

/** Changes whenever a decoded instruction becomes invalid. */
export let cacheGeneration: u32 = 0;
/** Changes whenever the second page of an instruction that crosses pages may have changed. */
let tailGeneration: u32 = 0;
let nextOp: usize = MAP_OPS;
let nextTable: usize = MAP_OP_TABLES;
/** The last instruction that {@link fetch} found by a walk, and its RIP: also when nothing about it may be cached. */
let lastOp: usize = 0;
let lastRip: u64 = 0;

/** Where the table of a frame's instructions for a kind of code is noted. */
// @ts-ignore: decorator
@inline
function slotOf(frame: i32, mode: u32): usize {
  return frameOps + ((usize(mode) * frames + usize(frame)) << 2);
}

/** Forgets the instructions of a frame whose bytes change. */
export function invalidateFrame(frame: i32): void {
  const flags = load<u8>(frameFlags + frame);
  if (flags & FRAME_TAIL) tailGeneration++;
  for (let mode: u32 = 0; mode < CODE_MODES; mode++) {
    const table = load<u32>(slotOf(frame, mode));
    if (table != 0) memory.fill(table, 0, TABLE_SIZE);
  }
  store<u8>(frameFlags + frame, flags & ~(FRAME_CODE | FRAME_TAIL));
  cacheGeneration++;
  setAttention();
}

/** Forgets all instructions. */
export function flushCode(): void {
  memory.fill(frameOps, 0, (usize(frames) * CODE_MODES) << 2);
  for (let i: u32 = 0; i < frames; i++) {
    store<u8>(frameFlags + i, load<u8>(frameFlags + i) & ~(FRAME_CODE | FRAME_TAIL));
  }
  nextOp = MAP_OPS;
  nextTable = MAP_OP_TABLES;
  lastOp = 0;
  cacheGeneration++;
  tailGeneration++;
  flushTables(TABLE_EXECUTE);
}

/** Table of a frame for the current kind of code; makes an empty one. */
function tableOf(frame: i32): usize {
  const known = load<u32>(slotOf(frame, codeMode));
  if (known != 0) return known;
  if (nextTable == TABLES_END) flushCode();
  const table = nextTable;
  nextTable += TABLE_SIZE;
  memory.fill(table, 0, TABLE_SIZE);
  store<u32>(slotOf(frame, codeMode), <u32>table);
  return table;
}

/** From now on, writes to the frame are looked at. */
function mark(frame: i32, flags: u32): void {
  const known = load<u8>(frameFlags + frame);
  if (!(known & FRAME_CODE)) flushTables(TABLE_WRITE);
  store<u8>(frameFlags + frame, known | flags);
}

/**
 * Linear address of the instruction at EIP, which wraps at 4 GiB; #GP(0) behind the limit of CS. 0 with `fault` set.
 */
function segmentedAddress(): u64 {
  const offset = rip() & 0xffff_ffff;
  setRip(offset);
  available = codeLimit() + 1 - offset;
  if (offset > codeLimit()) raiseProtection(0);
  return codeAddress(offset);
}

/** Bytes from EIP to the end of CS, where CS is limited. */
let available: u64 = 0;

/** An instruction that reaches behind the limit of CS is none. */
function checked(op: usize): usize {
  if (op == 0 || codeMode <= CODE_FLAT_32 || u64(load<u8>(op, OP_LENGTH)) <= available) return op;
  raiseProtection(0);
  return 0;
}

/** Record of the instruction at RIP; 0 with `fault` set. */
export function fetch(): usize {
  let address = rip();
  if (codeMode != CODE_LONG) {
    address = segmentedAddress();
    if (fault) return 0;
  }
  const entry = tlbEntry(tlbExecute, address);
  if (load<u64>(entry) == (address & ~0xfff)) {
    const op = load<u32>(load<u32>(entry, 12) + ((usize(address) & 0xfff) << 2));
    if (op != 0 && !(load<u16>(op, OP_FLAGS) & FLAG_UNLINKED)) return checked(op);
  }
  const op = checked(fetchSlow(address));
  if (op != 0) {
    lastOp = op;
    lastRip = address;
  }
  return op;
}

function fetchSlow(address: u64): usize {
  if (!isCanonical(address)) {
    raiseProtection(0);
    return 0;
  }
  const host = translate(address, ACCESS_EXECUTE, 0, EXIT_CAUSE_FETCH);
  if (fault) return 0;
  const frame = translatedFrame;
  if (frame < 0) {
    // Bytes of ones are no instruction.
    raiseUndefined();
    return 0;
  }
  const mayCache = !bypassed;
  const offset = usize(address) & 0xfff;
  if (nextOp + (BATCH + 2) * OP_RECORD_SIZE > OPS_END) flushCode();
  const table = tableOf(frame);
  if (mayCache) fillTlb(tlbExecute, address, host, table);
  const known = load<u32>(table + (offset << 2));
  if (known != 0) {
    if (!(load<u16>(known, OP_FLAGS) & FLAG_UNLINKED)) return known;
    const second = translate(pageAfter(address), ACCESS_EXECUTE, 0, EXIT_CAUSE_FETCH);
    if (fault) return secondFault();
    // Of an instruction that crosses pages, the record after it tells where its second part lay.
    if (load<u32>(known + OP_RECORD_SIZE) == <u32>second && load<u32>(known + OP_RECORD_SIZE, 4) == tailGeneration) {
      return known;
    }
    store<u32>(table + (offset << 2), 0);
  }
  let bytes = 4096 - i32(offset);
  // In limited code nothing is linked: each instruction is checked against the limit.
  const limited = codeMode > CODE_FLAT_32;
  if (limited && u64(bytes) > available) bytes = i32(available);
  const count = decodeInstructions(host, bytes, i32(offset), nextOp, limited ? 1 : i32(BATCH), false, codeMode);
  if (count == 0) {
    if (!limited || u64(bytes) != available) return fetchCrossing(address, host, frame, table);
    raiseProtection(0);
    return 0;
  }
  mark(frame, FRAME_CODE);
  const first = nextOp;
  for (let i = 0; i < count; i++) {
    const slot = table + (usize(load<u16>(nextOp, OP_PAGE_OFFSET)) << 2);
    if (load<u32>(slot) == 0) store<u32>(slot, <u32>nextOp);
    nextOp += OP_RECORD_SIZE;
  }
  return first;
}

/** Address of the page that follows; linear addresses of 32-bit code wrap. */
function pageAfter(address: u64): u64 {
  return ((address & ~0xfff) + 4096) & linearMask;
}

/** A fetch that fails in the second page of an instruction. */
function secondFault(): usize {
  if (fault == FAULT_NON_CANONICAL) {
    clearFault();
    raiseProtection(0);
  }
  return 0;
}

/** Decodes an instruction that crosses into the next page. */
function fetchCrossing(address: u64, host: usize, frame: i32, table: usize): usize {
  const nextPage = pageAfter(address);
  if (!isCanonical(nextPage)) setFault(FAULT_NON_CANONICAL);
  if (fault) return secondFault();
  const second = translate(nextPage, ACCESS_EXECUTE, 0, EXIT_CAUSE_FETCH);
  if (fault) return 0;
  const secondFrame = translatedFrame;
  const inFirst = usize(4096) - (usize(address) & 0xfff);
  memory.copy(MAP_BOUNCE, host, inFirst);
  memory.copy(MAP_BOUNCE + inFirst, second, 15);
  const op = nextOp;
  let bytes: i32 = 15;
  if (codeMode > CODE_FLAT_32 && available < 15) bytes = i32(available);
  if (decodeInstructions(MAP_BOUNCE, bytes, i32(address & 0xfff), op, 1, true, codeMode) == 0) {
    if (bytes < 15) raiseProtection(0);
    else raiseUndefined();
    return 0;
  }
  nextOp += 2 * OP_RECORD_SIZE;
  mark(frame, FRAME_CODE);
  if (secondFrame >= 0) mark(secondFrame, FRAME_CODE | FRAME_TAIL);
  store<u32>(op + OP_RECORD_SIZE, <u32>second);
  store<u32>(op + OP_RECORD_SIZE, tailGeneration, 4);
  store<u32>(table + ((usize(address) & 0xfff) << 2), <u32>op);
  return op;
}

/** Length of the instruction at RIP if it is known without a walk, else 0. */
export function knownLength(): u32 {
  const address = codeMode == CODE_LONG ? rip() : codeAddress(rip() & 0xffff_ffff);
  const entry = tlbEntry(tlbExecute, address);
  if (load<u64>(entry) == (address & ~0xfff)) {
    const op = load<u32>(load<u32>(entry, 12) + ((usize(address) & 0xfff) << 2));
    if (op != 0) return load<u8>(op, OP_LENGTH);
  }
  return lastOp != 0 && lastRip == address ? load<u8>(lastOp, OP_LENGTH) : 0;
}
