// String instructions (SDM vol. 2: MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS). Each iteration commits its registers when
// its accesses have succeeded, so a fault in the middle leaves the instruction restartable.

import { alu } from './alu';
import { attention, fault } from './fault';
import {
  ALU_CMP,
  BLOCK_ALLOW_COUNT,
  FLAG_ADDRESS_32,
  FLAG_REPEAT,
  FLAG_REPEAT_NOT_EQUAL,
  I_CMPS,
  I_INS,
  I_LODS,
  I_MOVS,
  I_OUTS,
  I_SCAS,
  OP_FLAGS,
  OP_SEGMENT,
  OP_SIZE,
  VCPU_RAX,
} from './generated/layout';
import { probeWrite } from './memory';
import { cutToSize, loadOfSize, storeOfSize } from './operand';
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

/** One iteration without the counter. */
function iterate(op: usize, code: u32, addressMask: u64): void {
  const size: u32 = load<u8>(op, OP_SIZE);
  const step: u64 = flags() & DF ? 0 - u64(size) : u64(size);
  const from = general(RSI) & addressMask;
  const to = general(RDI) & addressMask;
  const source = from + load<u64>(cpu + load<u16>(op, OP_SEGMENT));
  switch (code) {
    case I_MOVS: {
      const value = loadOfSize(source, size);
      if (fault) return;
      storeOfSize(to, size, value);
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
      const second = loadOfSize(to, size);
      if (fault) return;
      const first = loadOfSize(source, size);
      if (fault) return;
      compare(size, first, second);
      break;
    }
    case I_SCAS: {
      const value = loadOfSize(to, size);
      if (fault) return;
      compare(size, cutToSize(general(RAX), size), value);
      break;
    }
    case I_INS:
      // The port is read only when its byte can be stored: reading has effects.
      probeWrite(to, i32(size));
      if (fault) return;
      storeOfSize(to, size, portIn(i32(general(RDX) & 0xffff), i32(size)));
      break;
    case I_OUTS: {
      const value = loadOfSize(source, size);
      if (fault) return;
      portOut(i32(general(RDX) & 0xffff), i32(size), value);
      break;
    }
    default:
      storeOfSize(to, size, cutToSize(general(RAX), size));
  }
  if (fault) return;
  if (code == I_MOVS || code == I_LODS || code == I_CMPS || code == I_OUTS) {
    setGeneral(RSI, (from + step) & addressMask);
  }
  if (code != I_LODS && code != I_OUTS) setGeneral(RDI, (to + step) & addressMask);
}

/** Executes a string instruction, with its prefix. */
export function execString(op: usize, code: u32): void {
  if (code == I_INS || code == I_OUTS) {
    if (!portAllowed(i32(general(RDX) & 0xffff), i32(load<u8>(op, OP_SIZE)))) return;
  }
  const opFlags = load<u16>(op, OP_FLAGS);
  const addressMask: u64 = opFlags & FLAG_ADDRESS_32 ? 0xffff_ffff : 0xffff_ffff_ffff_ffff;
  if (!(opFlags & (FLAG_REPEAT | FLAG_REPEAT_NOT_EQUAL))) {
    iterate(op, code, addressMask);
    return;
  }
  const compares = code == I_CMPS || code == I_SCAS;
  let count = general(RCX) & addressMask;
  for (let done = 0; count != 0; done++) {
    // What a reply allowed once is one element: the next may lie where somebody wants to see it.
    const allowedOnce = done != 0 && load<u32>(cpu + BLOCK_ALLOW_COUNT) != 0;
    if (done == ITERATIONS_PER_STEP || attention || allowedOnce) {
      setRipSet(true);
      return;
    }
    iterate(op, code, addressMask);
    if (fault) return;
    count--;
    setGeneral(RCX, count);
    if (compares && ((flags() & ZF) != 0) != ((opFlags & FLAG_REPEAT) != 0)) return;
  }
}
