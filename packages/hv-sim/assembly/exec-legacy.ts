// Instructions that 64-bit mode has dropped (SDM vol. 2).
import { fault, raise, VECTOR_DE } from './fault';
import {
  I_AAA,
  I_AAD,
  I_AAM,
  I_AAS,
  I_ARPL,
  I_BOUND,
  I_DAA,
  I_DAS,
  I_POPA,
  I_PUSHA,
  I_RET_NEAR,
  I_SALC,
  OP_DST,
  OP_IMM,
  OP_SIZE,
  OP_SRC,
  VCPU_RAX,
} from './generated/layout';
import { laterPart } from './mode';
import { execNearBranch } from './near-branch';
import { effectiveAddress, loadOfSize, readForUpdate, signExtend, storeOfSize, writeUpdated } from './operand';
import { loadStack, moveStack, probeStackWrite, stackAddress } from './sized-stack';
import {
  AF,
  CF,
  cpu,
  flags,
  general,
  OF,
  PF,
  registerOfSize,
  RSP,
  setRegisterOfSize,
  setStatus,
  SF,
  stackPointer,
  STATUS,
  ZF,
} from './state';

const VECTOR_BR: i32 = 5;

/** SF, ZF and PF of a byte. */
function byteFlags(value: u32): u32 {
  return (value & 0x80 ? SF : 0) | (value == 0 ? ZF : 0) | (popcnt(value) & 1 ? 0 : PF);
}

/** PUSHA: eight registers, the stack pointer as it was. */
function pushAll(size: u32): void {
  const top = stackPointer();
  for (let i: u64 = 1; i <= 8; i++) {
    probeStackWrite(top - i * size, size);
    if (fault) return;
  }
  for (let i: u64 = 0; i < 8; i++) {
    storeOfSize(stackAddress(top - (i + 1) * size, size, true), size, general(usize(i)));
    if (fault) return;
  }
  moveStack(top - 8 * u64(size));
}

/** POPA: the stack pointer in memory is skipped. */
function popAll(size: u32): void {
  const top = stackPointer();
  // Everything is read before the first register changes.
  for (let i: u64 = 0; i < 8; i++) {
    loadStack(top + i * size, size);
    if (fault) return;
  }
  for (let i: u64 = 0; i < 8; i++) {
    const number = usize(7 - i);
    if (number == RSP) continue;
    const value = loadStack(top + i * size, size);
    setRegisterOfSize(VCPU_RAX + (number << 3), size, value);
  }
  moveStack(top + 8 * u64(size));
}

/** BOUND: #BR unless the signed index lies between the two bounds in memory. */
function checkBounds(op: usize, size: u32): void {
  const address = effectiveAddress(op);
  const low = loadOfSize(address, size);
  if (fault) return;
  const high = loadOfSize(laterPart(address + size), size);
  if (fault) return;
  const index = i64(signExtend(registerOfSize(load<u16>(op, OP_DST), size), size));
  if (index < i64(signExtend(low, size)) || index > i64(signExtend(high, size))) raise(VECTOR_BR, 0, 0);
}

/** AAA and AAS. */
function adjustAscii(subtract: bool): void {
  const ax = u32(general(0)) & 0xffff;
  if ((ax & 0xf) > 9 || flags() & AF) {
    const result = subtract ? (ax - 0x106) & 0xffff : (ax + 0x106) & 0xffff;
    store<u16>(cpu + VCPU_RAX, <u16>(result & 0xff0f));
    setStatus(STATUS, AF | CF | byteFlags(result & 0xf));
  } else {
    store<u16>(cpu + VCPU_RAX, <u16>(ax & 0xff0f));
    setStatus(STATUS, byteFlags(ax & 0xf));
  }
}

/** DAA and DAS. */
function adjustDecimal(subtract: bool): void {
  const old = u32(general(0)) & 0xff;
  const carry = (flags() & CF) != 0;
  let value = old;
  let status: u32 = 0;
  if ((old & 0xf) > 9 || flags() & AF) {
    value = subtract ? value - 6 : value + 6;
    status |= AF;
    if (carry || (subtract ? old < 6 : old > 0xf9)) status |= CF;
  }
  if (old > 0x99 || carry) {
    value = subtract ? value - 0x60 : value + 0x60;
    status |= CF;
  } else if (!subtract) {
    // DAA: without the second correction there is no carry (SDM vol. 2, DAA).
    status &= ~CF;
  }
  value &= 0xff;
  store<u8>(cpu + VCPU_RAX, <u8>value);
  setStatus(STATUS & ~OF, status | byteFlags(value));
}

/** Executes an operation of 16- and 32-bit code only. */
export function execLegacy(op: usize, code: u32): void {
  if (code <= I_RET_NEAR) return execNearBranch(op, code);
  const size = u32(load<u8>(op, OP_SIZE));
  switch (code) {
    case I_PUSHA:
      return pushAll(size);
    case I_POPA:
      return popAll(size);
    case I_BOUND:
      return checkBounds(op, size);
    case I_AAA:
      return adjustAscii(false);
    case I_AAS:
      return adjustAscii(true);
    case I_DAA:
      return adjustDecimal(false);
    case I_DAS:
      return adjustDecimal(true);
    case I_AAM: {
      const base = load<u32>(op, OP_IMM) & 0xff;
      if (base == 0) return raise(VECTOR_DE, 0, 0);
      const al = u32(general(0)) & 0xff;
      store<u16>(cpu + VCPU_RAX, <u16>(((al / base) << 8) | al % base));
      return setStatus(STATUS, byteFlags(al % base));
    }
    case I_AAD: {
      const ax = u32(general(0)) & 0xffff;
      const value = ((ax & 0xff) + (ax >> 8) * (load<u32>(op, OP_IMM) & 0xff)) & 0xff;
      store<u16>(cpu + VCPU_RAX, <u16>value);
      return setStatus(STATUS, byteFlags(value));
    }
    case I_ARPL: {
      const selector = readForUpdate(op);
      if (fault) return;
      const wanted = registerOfSize(load<u16>(op, OP_SRC), 2) & 3;
      const raised = (selector & 3) < wanted;
      writeUpdated(op, raised ? (selector & ~3) | wanted : selector);
      return setStatus(ZF, raised ? ZF : 0);
    }
    case I_SALC:
      store<u8>(cpu + VCPU_RAX, flags() & CF ? 0xff : 0);
  }
}
