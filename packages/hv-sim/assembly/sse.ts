// The moves of SSE, SSE2 and SSE3 and of MXCSR; what computes is in vector.ts and vector-elements.ts. An XMM operand is a
// byte offset in the VCPU block, as a general one is.

import { fault, raise } from './fault';
import {
  BLOCK_XSAVE_MXCSR,
  FLAG_MEMORY_SOURCE,
  I_LDMXCSR,
  I_MASKMOVDQU,
  I_MOVDDUP_RM,
  I_MOVDDUP_RR,
  I_MOVHLPS,
  I_MOVLHPS,
  I_MOVQ_XX,
  I_MOVX_FROM_GENERAL,
  I_MOVX_LOAD_HIGH,
  I_MOVX_LOAD_LOW,
  I_MOVX_LOAD_ZERO,
  I_MOVX_LOW_RR_32,
  I_MOVX_LOW_RR_64,
  I_MOVX_MR,
  I_MOVX_MR_ALIGNED,
  I_MOVX_RM,
  I_MOVX_RM_ALIGNED,
  I_MOVX_RR,
  I_MOVX_STORE_HIGH,
  I_MOVX_STORE_LOW,
  I_MOVX_TO_GENERAL,
  I_PEXTRW,
  I_PINSRW,
  I_VECTOR,
  I_VECTOR_ARRANGE,
  I_VECTOR_MASK,
  I_VECTOR_SHIFT,
  OP_DST,
  OP_FLAGS,
  OP_SIZE,
  OP_SRC,
  VCPU_CR0,
  VCPU_CR4,
} from './generated/layout';
import { hi128, lo128, load32, load64, load128, store32, store64, store128 } from './memory';
import { effectiveAddress, loadOfSize, storeOfSize } from './operand';
import { cpu, registerOfSize, setRegisterOfSize } from './state';
import { MXCSR_MASK, setControlAndStatus } from './state-area';
import { execVector, execVectorShift } from './vector';
import { execArrange, execExtractWord, execInsertWord, execMask, execMaskMove } from './vector-elements';

const CR0_EM: u32 = 4;
const CR0_TS: u32 = 8;
const CR4_OSFXSR: u32 = 0x200;

/** Address of a 16-byte operand that must be aligned; #GP(0) when it is not. */
function alignedAddress(op: usize): u64 {
  const address = effectiveAddress(op);
  if (address & 15) raise(13, 1, 0);
  return address;
}

/** Second operand of a vector operation: a register, or memory that must be aligned. */
export function readVector(op: usize): v128 {
  if (!(load<u16>(op, OP_FLAGS) & FLAG_MEMORY_SOURCE)) return v128.load(cpu + load<u16>(op, OP_SRC));
  const address = alignedAddress(op);
  if (fault == 0) load128(address);
  return i64x2.replace_lane(i64x2.splat(lo128), 1, hi128);
}

/** Executes one of the operations from `I_MOVX_RR` on. */
export function execSse(op: usize, code: u32): void {
  // SDM vol. 3A, table 13-1.
  if (load<u32>(cpu, VCPU_CR0) & CR0_EM || !(load<u32>(cpu, VCPU_CR4) & CR4_OSFXSR)) {
    raise(6, 0, 0);
    return;
  }
  if (load<u32>(cpu, VCPU_CR0) & CR0_TS) {
    raise(7, 0, 0);
    return;
  }
  const destination = cpu + load<u16>(op, OP_DST);
  const source = cpu + load<u16>(op, OP_SRC);
  const size: u32 = load<u8>(op, OP_SIZE);
  switch (code) {
    case I_MOVX_RR: {
      const high = load<u64>(source, 8);
      store<u64>(destination, load<u64>(source));
      store<u64>(destination, high, 8);
      break;
    }
    case I_MOVX_RM_ALIGNED:
    case I_MOVX_RM: {
      const address = code == I_MOVX_RM ? effectiveAddress(op) : alignedAddress(op);
      if (fault) return;
      load128(address);
      if (fault) return;
      store<u64>(destination, lo128);
      store<u64>(destination, hi128, 8);
      break;
    }
    case I_MOVX_MR_ALIGNED:
    case I_MOVX_MR: {
      const address = code == I_MOVX_MR ? effectiveAddress(op) : alignedAddress(op);
      if (fault) return;
      store128(address, load<u64>(source), load<u64>(source, 8));
      break;
    }
    case I_MOVX_LOW_RR_64:
      store<u64>(destination, load<u64>(source));
      break;
    case I_MOVX_LOW_RR_32:
      store<u32>(destination, load<u32>(source));
      break;
    case I_MOVQ_XX:
      store<u64>(destination, load<u64>(source));
      store<u64>(destination, 0, 8);
      break;
    case I_MOVX_LOAD_ZERO: {
      const value = loadOfSize(effectiveAddress(op), size);
      if (fault) return;
      store<u64>(destination, value);
      store<u64>(destination, 0, 8);
      break;
    }
    case I_MOVX_STORE_LOW:
      storeOfSize(effectiveAddress(op), size, load<u64>(source));
      break;
    case I_MOVX_LOAD_LOW: {
      const value = load64(effectiveAddress(op));
      if (fault) return;
      store<u64>(destination, value);
      break;
    }
    case I_MOVX_LOAD_HIGH: {
      const value = load64(effectiveAddress(op));
      if (fault) return;
      store<u64>(destination, value, 8);
      break;
    }
    case I_MOVX_STORE_HIGH:
      store64(effectiveAddress(op), load<u64>(source, 8));
      break;
    case I_MOVHLPS:
      store<u64>(destination, load<u64>(source, 8));
      break;
    case I_MOVLHPS:
      store<u64>(destination, load<u64>(source), 8);
      break;
    case I_MOVX_FROM_GENERAL:
      store<u64>(destination, registerOfSize(load<u16>(op, OP_SRC), size));
      store<u64>(destination, 0, 8);
      break;
    case I_MOVX_TO_GENERAL:
      setRegisterOfSize(load<u16>(op, OP_DST), size, load<u64>(source));
      break;
    case I_MOVDDUP_RR: {
      const low = load<u64>(source);
      store<u64>(destination, low);
      store<u64>(destination, low, 8);
      break;
    }
    case I_MOVDDUP_RM: {
      const value = load64(effectiveAddress(op));
      if (fault) return;
      store<u64>(destination, value);
      store<u64>(destination, value, 8);
      break;
    }
    case I_VECTOR:
      execVector(op);
      break;
    case I_VECTOR_SHIFT:
      execVectorShift(op);
      break;
    case I_VECTOR_ARRANGE:
      execArrange(op);
      break;
    case I_VECTOR_MASK:
      execMask(op);
      break;
    case I_PINSRW:
      execInsertWord(op);
      break;
    case I_PEXTRW:
      execExtractWord(op);
      break;
    case I_MASKMOVDQU:
      execMaskMove(op);
      break;
    case I_LDMXCSR: {
      const value = <u32>load32(effectiveAddress(op));
      if (fault) return;
      if (value & ~MXCSR_MASK) {
        raise(13, 1, 0);
        return;
      }
      setControlAndStatus(value);
      break;
    }
    default:
      store32(effectiveAddress(op), u64(load<u32>(cpu, BLOCK_XSAVE_MXCSR)));
  }
}
