// The less frequent operations. Operands are read by the record's flags and size; see exec.ts for the rules.
import { conditionHolds, unaryOfKind } from './alu';
import { byteSwap, crc32c } from './bits';
import { execAddWithFlag, execBitCount, execBitManipulation, execBitTest } from './exec-bits';
import {
  execCompareExchange,
  execCompareExchange8,
  execCompareExchange16,
  execExchange,
  execExchangeAdd,
} from './exec-exchange';
import { execDivide, execMultiply, execMultiplyLow } from './exec-multiply';
import { execLegacy } from './exec-legacy';
import { execDoubleShift, execShift } from './exec-shift';
import { execEnter, execLeave, execPopFlags, execPushFlags, popMemory } from './exec-stack';
import { fault, raise, unsupported } from './fault';
import {
  I_ADCX,
  I_ADOX,
  I_ANDN,
  I_BEXTR,
  I_BLSI,
  I_BLSMSK,
  I_BLSR,
  I_BSF,
  I_BSR,
  I_BSWAP,
  I_BT,
  I_BTC,
  I_BTR,
  I_BTS,
  I_BZHI,
  I_CBW,
  I_CLC,
  I_CLD,
  I_CMC,
  I_CMOV,
  I_CMPS,
  I_CMPXCHG,
  I_CMPXCHG8B,
  I_CMPXCHG16B,
  I_CRC32,
  I_CWD,
  I_DIV,
  I_ENTER,
  I_FNINIT,
  I_IDIV,
  I_IMUL_1,
  I_IMUL_2,
  I_IMUL_3,
  I_INS,
  I_INVALID,
  I_JMP_NEAR,
  I_JRCXZ,
  I_LAHF,
  I_LEA_16,
  I_LEAVE_SIZED,
  I_LODS,
  I_LOOP,
  I_LOOPE,
  I_LOOPNE,
  I_LZCNT,
  I_MOV_FROM_SEGMENT,
  I_MOVBE,
  I_MOVS,
  I_MOVSX,
  I_MOVX_RR,
  I_MOVZX,
  I_MUL,
  I_MULX,
  I_OUTS,
  I_PDEP,
  I_PEXT,
  I_POP,
  I_POP_M,
  I_POPCNT,
  I_POPF,
  I_PROBE,
  I_PUSH,
  I_PUSH_SEGMENT,
  I_PUSHF,
  I_RORX,
  I_SAHF,
  I_SARX,
  I_SCAS,
  I_SHIFT,
  I_SHLD,
  I_SHLX,
  I_SHRD,
  I_SHRX,
  I_STC,
  I_STD,
  I_STOS,
  I_TZCNT,
  I_UNARY,
  I_XADD,
  I_XCHG,
  I_XLAT,
  OP_DST,
  OP_IMM,
  OP_KIND,
  OP_SIZE,
  OP_SOURCE_SIZE,
  OP_SRC,
  VCPU_RAX,
  VCPU_RDX,
} from './generated/layout';
import { load8, probeRead } from './memory';
import { execLoop } from './near-branch';
import {
  effectiveAddress,
  effectiveOffset,
  linearAddress,
  readForUpdate,
  readSource,
  readSourceOfSize,
  signExtend,
  writeDestination,
  writeUpdated,
} from './operand';
import { moveStack, pushOfSize, topOfSize } from './sized-stack';
import { execSse } from './sse';
import { execX87 } from './x87';
import {
  AF,
  CF,
  DF,
  flags,
  general,
  OF,
  PF,
  RAX,
  RBX,
  register,
  registerOfSize,
  SF,
  setFlags,
  setRegister,
  setRegisterOfSize,
  setStatus,
  stackPointer,
  ZF,
} from './state';
import { execString } from './string';

function execUnary(op: usize): void {
  const value = readForUpdate(op);
  if (fault) return;
  const kind = load<u8>(op, OP_KIND);
  let result: u64;
  switch (load<u8>(op, OP_SIZE)) {
    case 1:
      result = unaryOfKind<u8>(kind, value);
      break;
    case 2:
      result = unaryOfKind<u16>(kind, value);
      break;
    case 4:
      result = unaryOfKind<u32>(kind, value);
      break;
    default:
      result = unaryOfKind<u64>(kind, value);
  }
  writeUpdated(op, result);
}

/** Executes an operation of the second switch. */
export function execGeneric(op: usize, code: u32): void {
  const size: u32 = load<u8>(op, OP_SIZE);
  switch (code) {
    case I_MOVZX: {
      const value = readSourceOfSize(op, load<u16>(op, OP_SOURCE_SIZE));
      if (fault) return;
      setRegisterOfSize(load<u16>(op, OP_DST), size, value);
      break;
    }
    case I_MOVSX: {
      const sourceSize: u32 = load<u16>(op, OP_SOURCE_SIZE);
      const value = readSourceOfSize(op, sourceSize);
      if (fault) return;
      setRegisterOfSize(load<u16>(op, OP_DST), size, signExtend(value, sourceSize));
      break;
    }
    case I_LEA_16:
      setRegister<u16>(load<u16>(op, OP_DST), effectiveOffset(op));
      break;
    case I_UNARY:
      execUnary(op);
      break;
    case I_SHIFT:
      execShift(op);
      break;
    case I_SHLD:
      execDoubleShift(op, true);
      break;
    case I_SHRD:
      execDoubleShift(op, false);
      break;
    case I_CMOV: {
      const value = readSource(op);
      if (fault) return;
      if (conditionHolds(load<u8>(op, OP_KIND))) setRegisterOfSize(load<u16>(op, OP_DST), size, value);
      break;
    }
    case I_XCHG:
      execExchange(op);
      break;
    case I_XADD:
      execExchangeAdd(op);
      break;
    case I_CMPXCHG:
      execCompareExchange(op);
      break;
    case I_CMPXCHG8B:
      execCompareExchange8(op);
      break;
    case I_CMPXCHG16B:
      execCompareExchange16(op);
      break;
    case I_MUL:
      execMultiply(op, false);
      break;
    case I_IMUL_1:
      execMultiply(op, true);
      break;
    case I_IMUL_2:
      execMultiplyLow(op, registerOfSize(load<u16>(op, OP_DST), size));
      break;
    case I_IMUL_3:
      execMultiplyLow(op, load<u64>(op, OP_IMM));
      break;
    case I_DIV:
      execDivide(op, false);
      break;
    case I_IDIV:
      execDivide(op, true);
      break;
    case I_BT:
    case I_BTS:
    case I_BTR:
    case I_BTC:
      execBitTest(op, code);
      break;
    case I_BSF:
    case I_BSR:
    case I_POPCNT:
    case I_LZCNT:
    case I_TZCNT:
      execBitCount(op, code);
      break;
    case I_ANDN:
    case I_BEXTR:
    case I_BLSI:
    case I_BLSR:
    case I_BLSMSK:
    case I_BZHI:
    case I_MULX:
    case I_PDEP:
    case I_PEXT:
    case I_RORX:
    case I_SARX:
    case I_SHLX:
    case I_SHRX:
      execBitManipulation(op, code);
      break;
    case I_ADCX:
      execAddWithFlag(op, CF);
      break;
    case I_ADOX:
      execAddWithFlag(op, OF);
      break;
    case I_MOVBE: {
      const value = readSource(op);
      if (fault) return;
      writeDestination(op, byteSwap(value, size));
      break;
    }
    case I_BSWAP: {
      // With a 16-bit operand the result is undefined; processors give 0.
      const register = load<u16>(op, OP_DST);
      setRegisterOfSize(register, size, size == 2 ? 0 : byteSwap(registerOfSize(register, size), size));
      break;
    }
    case I_CRC32: {
      const sourceSize: u32 = load<u16>(op, OP_SOURCE_SIZE);
      const value = readSourceOfSize(op, sourceSize);
      if (fault) return;
      const destination = load<u16>(op, OP_DST);
      setRegister<u64>(destination, u64(crc32c(u32(register<u32>(destination)), value, sourceSize)));
      break;
    }
    case I_XLAT: {
      const value = load8(linearAddress(op, general(RBX) + (general(RAX) & 0xff)));
      if (fault) return;
      setRegisterOfSize(VCPU_RAX, 1, value);
      break;
    }
    case I_CBW:
      setRegisterOfSize(VCPU_RAX, size, signExtend(general(RAX), size >> 1));
      break;
    case I_CWD:
      setRegisterOfSize(VCPU_RDX, size, u64(<i64>signExtend(general(RAX), size) >> 63));
      break;
    case I_CLC:
      setStatus(CF, 0);
      break;
    case I_STC:
      setStatus(CF, CF);
      break;
    case I_CMC:
      setFlags(flags() ^ CF);
      break;
    case I_CLD:
      setStatus(DF, 0);
      break;
    case I_STD:
      setStatus(DF, DF);
      break;
    case I_LAHF:
      setRegisterOfSize(VCPU_RAX + 1, 1, (flags() & (SF | ZF | AF | PF | CF)) | 2);
      break;
    case I_SAHF:
      setStatus(SF | ZF | AF | PF | CF, <u32>registerOfSize(VCPU_RAX + 1, 1) & (SF | ZF | AF | PF | CF));
      break;
    case I_LOOPNE:
    case I_LOOPE:
    case I_LOOP:
    case I_JRCXZ:
      execLoop(op, code);
      break;
    case I_PUSH: {
      const value = readSource(op);
      if (fault) return;
      pushOfSize(size, value);
      break;
    }
    case I_PUSH_SEGMENT:
      pushOfSize(size, registerOfSize(load<u16>(op, OP_SRC), 2));
      break;
    case I_POP: {
      const value = topOfSize(size);
      if (fault) return;
      moveStack(stackPointer() + size);
      setRegisterOfSize(load<u16>(op, OP_DST), size, value);
      break;
    }
    case I_POP_M:
      popMemory(op);
      break;
    case I_PUSHF:
      execPushFlags(op);
      break;
    case I_POPF:
      execPopFlags(op);
      break;
    case I_ENTER:
      execEnter(op);
      break;
    case I_LEAVE_SIZED:
      execLeave(op);
      break;
    case I_MOV_FROM_SEGMENT:
      writeDestination(op, registerOfSize(load<u16>(op, OP_SRC), 2));
      break;
    case I_MOVS:
    case I_STOS:
    case I_LODS:
    case I_CMPS:
    case I_SCAS:
    case I_INS:
    case I_OUTS:
      execString(op, code);
      break;
    case I_PROBE:
      probeRead(effectiveAddress(op), 1);
      break;
    case I_INVALID:
      if (load<u8>(op, OP_KIND)) raise(13, 1, 0);
      else raise(6, 0, 0);
      break;
    default:
      if (code >= I_FNINIT) execX87(op, code);
      else if (code >= I_MOVX_RR) execSse(op, code);
      else if (code >= I_JMP_NEAR) execLegacy(op, code);
      else unsupported();
  }
}
