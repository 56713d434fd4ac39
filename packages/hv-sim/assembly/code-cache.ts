// Decoded instructions, by the frame that holds their bytes: a frame with code has a table that gives for each offset
// the record of the instruction that begins there. A write to such a frame forgets all of its instructions.
import { clearFault, fault, FAULT_NON_CANONICAL, raiseProtection, raiseUndefined, setAttention, setFault } from './fault';
import {
  EXIT_CAUSE_FETCH,
  FLAG_UNLINKED,
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

import { ACCESS_EXECUTE, bypassed, FRAME_CODE, FRAME_TAIL, frameFlags, frameOps, frames } from './physical';
import { rip } from './state';
import { fillTlb, flushTables, tlbEntry, tlbExecute } from './tlb';
import { isCanonical, translate, translatedFrame } from './translate';

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

/** Forgets the instructions of a frame whose bytes change. */
export function invalidateFrame(frame: i32): void {
  const flags = load<u8>(frameFlags + frame);
  if (flags & FRAME_TAIL) tailGeneration++;
  const table = load<u32>(frameOps + (frame << 2));
  if (table != 0) memory.fill(table, 0, TABLE_SIZE);
  store<u8>(frameFlags + frame, flags & ~(FRAME_CODE | FRAME_TAIL));
  cacheGeneration++;
  setAttention();
}

/** Forgets all instructions. */
export function flushCode(): void {
  memory.fill(frameOps, 0, usize(frames) << 2);
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

/** Table of a frame; makes an empty one. */
function tableOf(frame: i32): usize {
  const known = load<u32>(frameOps + (frame << 2));
  if (known != 0) return known;
  if (nextTable == TABLES_END) flushCode();
  const table = nextTable;
  nextTable += TABLE_SIZE;
  memory.fill(table, 0, TABLE_SIZE);
  store<u32>(frameOps + (frame << 2), <u32>table);
  return table;
}

/** From now on, writes to the frame are looked at. */
function mark(frame: i32, flags: u32): void {
  const known = load<u8>(frameFlags + frame);
  if (!(known & FRAME_CODE)) flushTables(TABLE_WRITE);
  store<u8>(frameFlags + frame, known | flags);
}

/** Record of the instruction at RIP; 0 with `fault` set. */
export function fetch(): usize {
  const address = rip();
  const entry = tlbEntry(tlbExecute, address);
  if (load<u64>(entry) == (address & ~0xfff)) {
    const op = load<u32>(load<u32>(entry, 12) + ((usize(address) & 0xfff) << 2));
    if (op != 0 && !(load<u16>(op, OP_FLAGS) & FLAG_UNLINKED)) return op;
  }
  const op = fetchSlow(address);
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
    const second = translate((address & ~0xfff) + 4096, ACCESS_EXECUTE, 0, EXIT_CAUSE_FETCH);
    if (fault) return secondFault();
    // Of an instruction that crosses pages, the record after it tells where its second part lay.
    if (load<u32>(known + OP_RECORD_SIZE) == <u32>second && load<u32>(known + OP_RECORD_SIZE, 4) == tailGeneration) {
      return known;
    }
    store<u32>(table + (offset << 2), 0);
  }
  const count = decodeInstructions(host, 4096 - i32(offset), i32(offset), nextOp, i32(BATCH), false);
  if (count == 0) return fetchCrossing(address, host, frame, table);
  mark(frame, FRAME_CODE);
  const first = nextOp;
  for (let i = 0; i < count; i++) {
    const slot = table + (usize(load<u16>(nextOp, OP_PAGE_OFFSET)) << 2);
    if (load<u32>(slot) == 0) store<u32>(slot, <u32>nextOp);
    nextOp += OP_RECORD_SIZE;
  }
  return first;
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
  const nextPage = (address & ~0xfff) + 4096;
  if (!isCanonical(nextPage)) setFault(FAULT_NON_CANONICAL);
  if (fault) return secondFault();
  const second = translate(nextPage, ACCESS_EXECUTE, 0, EXIT_CAUSE_FETCH);
  if (fault) return 0;
  const secondFrame = translatedFrame;
  const inFirst = usize(4096) - (usize(address) & 0xfff);
  memory.copy(MAP_BOUNCE, host, inFirst);
  memory.copy(MAP_BOUNCE + inFirst, second, 15);
  const op = nextOp;
  if (decodeInstructions(MAP_BOUNCE, 15, i32(address & 0xfff), op, 1, true) == 0) {
    raiseUndefined();
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
  const address = rip();
  const entry = tlbEntry(tlbExecute, address);
  if (load<u64>(entry) == (address & ~0xfff)) {
    const op = load<u32>(load<u32>(entry, 12) + ((usize(address) & 0xfff) << 2));
    if (op != 0) return load<u8>(op, OP_LENGTH);
  }
  return lastOp != 0 && lastRip == address ? load<u8>(lastOp, OP_LENGTH) : 0;
}
