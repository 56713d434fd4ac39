// String instructions (SDM vol. 2: MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS). Each iteration commits its registers when
// its accesses have succeeded, so a fault in the middle leaves the instruction restartable.

import { alu } from './alu';
import { repIterationExits } from './exits';
import { attention, fault, raiseProtection } from './fault';
import {
  ALU_CMP,
  BLOCK_ALLOW_COUNT,
  BLOCK_SINGLE_STEP,
  FLAG_REPEAT,
  FLAG_REPEAT_NOT_EQUAL,
  FLAG_SEGMENTED,
  I_CMPS,
  I_INS,
  I_LODS,
  I_MOVS,
  I_OUTS,
  I_SCAS,
  OP_FLAGS,
  OP_SIZE,
  VCPU_RAX,
} from './generated/layout';
import { isCoveredBySupplies, probeWrite } from './memory';
import { cutToAddressSize, cutToSize, linearAddress, loadOfSize, storeOfSize } from './operand';
import { ES } from './segment';
import { OUTSIDE, segmentAddress } from './segmented-address';
import {
  cpu,
  DF,
  flags,
  general,
  RAX,
  RCX,
  RDI,
  RDX,
  RSI,
  setGeneral,
  setRegisterOfSize,
  setRipSet,
  ZF,
} from './state';
import { portAllowed, portIn, portOut } from './system';

/** Iterations of one step: after so many the instruction is retired with RIP unmoved, so that interrupts get in. */
const ITERATIONS_PER_STEP = 4096;

function compare(size: u32, a: u64, b: u64): void {
  if (size == 1) alu<u8>(ALU_CMP, a, b);
  else if (size == 2) alu<u16>(ALU_CMP, a, b);
  else if (size == 4) alu<u32>(ALU_CMP, a, b);
  else alu<u64>(ALU_CMP, a, b);
}

function sourceAddress(op: usize, addressMask: u64): u64 {
  return linearAddress(op, general(RSI) & addressMask);
}

/** In 16- and 32-bit code through ES, which no prefix overrides. */
function targetAddress(op: usize, code: u32, addressMask: u64): u64 {
  const offset = general(RDI) & addressMask;
  if (!(load<u16>(op, OP_FLAGS) & FLAG_SEGMENTED)) return offset;
  return segmentAddress(ES, offset, load<u8>(op, OP_SIZE), code != I_CMPS && code != I_SCAS);
}

/** Writes RSI, RDI or RCX as wide as the instruction's addresses are. */
function setCounter(number: usize, value: u64, addressMask: u64): void {
  if (addressMask == 0xffff) setRegisterOfSize(VCPU_RAX + (number << 3), 2, value);
  else setGeneral(number, value & addressMask);
}

/** One iteration without the counter. */
function iterate(op: usize, code: u32, addressMask: u64): void {
  const size: u32 = load<u8>(op, OP_SIZE);
  const step: u64 = flags() & DF ? 0 - u64(size) : u64(size);
  const source = readsSource(code) ? sourceAddress(op, addressMask) : 0;
  const target = usesTarget(code) ? targetAddress(op, code, addressMask) : 0;
  // Not what an override of the source's segment to SS would make of it.
  if (target == OUTSIDE) return raiseProtection(0);
  switch (code) {
    case I_MOVS: {
      const value = loadOfSize(source, size);
      if (fault) return;
      storeOfSize(target, size, value);
      break;
    }
    case I_LODS: {
      const value = loadOfSize(source, size);
      if (fault) return;
      setRegisterOfSize(VCPU_RAX, size, value);
      break;
    }
    case I_CMPS: {
      // Where both fault, the one through RDI is reported; processors do so mostly.
      const second = loadOfSize(target, size);
      if (fault) return;
      const first = loadOfSize(source, size);
      if (fault) return;
      compare(size, first, second);
      break;
    }
    case I_SCAS: {
      const value = loadOfSize(target, size);
      if (fault) return;
      compare(size, cutToSize(general(RAX), size), value);
      break;
    }
    case I_INS:
      // The port is read only when its byte can be stored: reading has effects.
      probeWrite(target, i32(size));
      if (fault) return;
      storeOfSize(target, size, portIn(i32(general(RDX) & 0xffff), i32(size)));
      break;
    case I_OUTS: {
      const value = loadOfSize(source, size);
      if (fault) return;
      portOut(i32(general(RDX) & 0xffff), i32(size), value);
      break;
    }
    default:
      storeOfSize(target, size, cutToSize(general(RAX), size));
  }
  if (fault) return;
  if (readsSource(code)) setCounter(RSI, general(RSI) + step, addressMask);
  if (usesTarget(code)) setCounter(RDI, general(RDI) + step, addressMask);
}

/** Pages of both ends of the element at which a granted instruction went on. */
let sourceFirst: u64 = 0;
let sourceLast: u64 = 0;
let targetFirst: u64 = 0;
let targetLast: u64 = 0;

function readsSource(code: u32): bool {
  return code == I_MOVS || code == I_LODS || code == I_CMPS || code == I_OUTS;
}

function usesTarget(code: u32): bool {
  return code != I_LODS && code != I_OUTS;
}

function rememberPages(op: usize, code: u32, addressMask: u64): void {
  const last = u64(load<u8>(op, OP_SIZE)) - 1;
  if (readsSource(code)) {
    const source = sourceAddress(op, addressMask);
    sourceFirst = source >> 12;
    sourceLast = (source + last) >> 12;
  }
  if (usesTarget(code)) {
    const target = targetAddress(op, code, addressMask);
    targetFirst = target >> 12;
    targetLast = (target + last) >> 12;
  }
}

/** The next element lies on the remembered pages, and what it reads of pages with supplied data is all supplied. */
function isSamePages(op: usize, code: u32, addressMask: u64): bool {
  const size: u32 = load<u8>(op, OP_SIZE);
  const last = u64(size) - 1;
  if (readsSource(code)) {
    const source = sourceAddress(op, addressMask);
    const first = source >> 12;
    const end = (source + last) >> 12;
    if ((first != sourceFirst && first != sourceLast) || (end != sourceFirst && end != sourceLast)) return false;
    if (!isCoveredBySupplies(source, size)) return false;
  }
  if (usesTarget(code)) {
    const target = targetAddress(op, code, addressMask);
    const first = target >> 12;
    const end = (target + last) >> 12;
    if ((first != targetFirst && first != targetLast) || (end != targetFirst && end != targetLast)) return false;
    if ((code == I_CMPS || code == I_SCAS) && !isCoveredBySupplies(target, size)) return false;
  }
  return true;
}

/** Executes a string instruction, with its prefix. */
export function execString(op: usize, code: u32): void {
  if (code == I_INS || code == I_OUTS) {
    if (!portAllowed(i32(general(RDX) & 0xffff), i32(load<u8>(op, OP_SIZE)))) return;
  }
  const opFlags = load<u16>(op, OP_FLAGS);
  const addressMask = cutToAddressSize(op, 0xffff_ffff_ffff_ffff);
  if (!(opFlags & (FLAG_REPEAT | FLAG_REPEAT_NOT_EQUAL))) {
    iterate(op, code, addressMask);
    return;
  }
  const compares = code == I_CMPS || code == I_SCAS;
  let count = general(RCX) & addressMask;
  // A single step is one element (SDM vol. 3C, 26.5.2: the monitor trap flag).
  const granted = load<u32>(cpu + BLOCK_ALLOW_COUNT) != 0;
  const single = (granted && repIterationExits()) || load<u32>(cpu + BLOCK_SINGLE_STEP) != 0;
  if (granted) rememberPages(op, code, addressMask);
  for (let done = 0; count != 0; done++) {
    // What a reply allowed ends with its pages: elsewhere somebody may want to see the element.
    const ended = done != 0 && (single || (granted && !isSamePages(op, code, addressMask)));
    if (done == ITERATIONS_PER_STEP || attention || ended) {
      setRipSet(true);
      return;
    }
    iterate(op, code, addressMask);
    if (fault) return;
    count--;
    setCounter(RCX, count, addressMask);
    if (compares && ((flags() & ZF) != 0) != ((opFlags & FLAG_REPEAT) != 0)) return;
  }
}
