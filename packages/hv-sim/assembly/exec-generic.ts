// The less frequent operations. Operands are read by the record's flags and size; see exec.ts for the rules.

import { aluOfKind, conditionHolds, unaryOfKind } from './alu';
import {
  bitExtract,
  bitFlags,
  byteSwap,
  crc32c,
  depositBits,
  extractBits,
  leadingZeros,
  trailingZeros,
} from './bits';
import { fault, raise, setAttention, unsupported } from './fault';
import {
  ALU_ADD,
  ALU_CMP,
  FLAG_ADDRESS_32,
  FLAG_IMMEDIATE_SOURCE,
  FLAG_MEMORY_DESTINATION,
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
  I_IDIV,
  I_IMUL_1,
  I_IMUL_2,
  I_IMUL_3,
  I_INS,
  I_INVALID,
  I_JRCXZ,
  I_LAHF,
  I_LEA_16,
  I_LEAVE_16,
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
  OP_FLAGS,
  OP_IMM,
  OP_KIND,
  OP_LENGTH,
  OP_SEGMENT,
  OP_SIZE,
  OP_SOURCE_SIZE,
  OP_SRC,
  OP_THIRD,
  VCPU_RAX,
  VCPU_RBP,
  VCPU_RCX,
  VCPU_RDX,
} from './generated/layout';
import { hi128, lo128, load8, load128, probeRead, probeWrite, store128 } from './memory';
import {
  divideError,
  divideWide,
  divideWideSigned,
  multiply,
  multiplyFlags,
  multiplyHigh,
  multiplyHighSigned,
  quotient,
  remainder,
} from './multiply';
import {
  cutToSize,
  effectiveAddress,
  effectiveOffset,
  loadForUpdateOfSize,
  loadOfSize,
  readForUpdate,
  readSource,
  readSourceOfSize,
  storeOfSize,
  storeUpdatedOfSize,
  writeDestination,
  writeUpdated,
} from './operand';
import { doubleShift, shiftOfKind } from './shift';
import { execSse } from './sse';
import { push16, push64, stackFault, top16, top64 } from './stack';
import {
  AC,
  AF,
  CF,
  cpl,
  cpu,
  DF,
  flags,
  general,
  ID,
  IF,
  IOPL,
  NT,
  OF,
  PF,
  RAX,
  RBP,
  RBX,
  RCX,
  RDX,
  RF,
  register,
  registerOfSize,
  rip,
  SF,
  STATUS,
  setFlags,
  setGeneral,
  setRegister,
  setRegisterOfSize,
  setRip,
  setRipSet,
  setStackPointer,
  setStatus,
  stackPointer,
  TF,
  VM,
  ZF,
} from './state';
import { execString } from './string';

/** Sign-extends a value of 1, 2, 4 or 8 bytes. */
// @ts-ignore: decorator
@inline
function signExtend(value: u64, size: u32): u64 {
  const shift = (8 - u64(size)) << 3;
  return u64(<i64>(value << shift) >> shift);
}

function aluOfSize(kind: u32, size: u32, a: u64, b: u64): u64 {
  switch (size) {
    case 1:
      return aluOfKind<u8>(kind, a, b);
    case 2:
      return aluOfKind<u16>(kind, a, b);
    case 4:
      return aluOfKind<u32>(kind, a, b);
    default:
      return aluOfKind<u64>(kind, a, b);
  }
}

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

/** Count of a shift: the immediate or CL. */
// @ts-ignore: decorator
@inline
function shiftCount(op: usize): u32 {
  return load<u16>(op, OP_FLAGS) & FLAG_IMMEDIATE_SOURCE ? load<u32>(op, OP_IMM) : u32(load<u8>(cpu, VCPU_RCX));
}

function execShift(op: usize): void {
  const value = readForUpdate(op);
  if (fault) return;
  const kind = load<u8>(op, OP_KIND);
  const count = shiftCount(op);
  let result: u64;
  switch (load<u8>(op, OP_SIZE)) {
    case 1:
      result = shiftOfKind<u8>(kind, value, count);
      break;
    case 2:
      result = shiftOfKind<u16>(kind, value, count);
      break;
    case 4:
      result = shiftOfKind<u32>(kind, value, count);
      break;
    default:
      result = shiftOfKind<u64>(kind, value, count);
  }
  writeUpdated(op, result);
}

function execDoubleShift(op: usize, left: bool): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readForUpdate(op);
  if (fault) return;
  const filling = registerOfSize(load<u16>(op, OP_SRC), size);
  const count = shiftCount(op);
  let result: u64;
  if (size == 2) result = doubleShift<u16>(left, value, filling, count);
  else if (size == 4) result = doubleShift<u32>(left, value, filling, count);
  else result = doubleShift<u64>(left, value, filling, count);
  writeUpdated(op, result);
}

function execExchange(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readForUpdate(op);
  if (fault) return;
  const source = load<u16>(op, OP_SRC);
  writeUpdated(op, registerOfSize(source, size));
  setRegisterOfSize(source, size, value);
}

function execExchangeAdd(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readForUpdate(op);
  if (fault) return;
  const source = load<u16>(op, OP_SRC);
  const sum = aluOfSize(ALU_ADD, size, value, registerOfSize(source, size));
  setRegisterOfSize(source, size, value);
  writeUpdated(op, sum);
}

function execCompareExchange(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readForUpdate(op);
  if (fault) return;
  const replacement = registerOfSize(load<u16>(op, OP_SRC), size);
  const accumulator = cutToSize(general(RAX), size);
  aluOfSize(ALU_CMP, size, accumulator, value);
  if (accumulator == value) {
    writeUpdated(op, replacement);
  } else {
    // Memory is written too, with what it held (SDM vol. 2, CMPXCHG); a register keeps even its upper half.
    if (load<u16>(op, OP_FLAGS) & FLAG_MEMORY_DESTINATION) writeUpdated(op, value);
    setRegisterOfSize(VCPU_RAX, size, value);
  }
}

function execCompareExchange8(op: usize): void {
  const address = effectiveAddress(op);
  const value = loadForUpdateOfSize(address, 8);
  if (fault) return;
  const expected = (general(RDX) << 32) | (general(RAX) & 0xffff_ffff);
  if (value == expected) {
    storeUpdatedOfSize(address, 8, (general(RCX) << 32) | (general(RBX) & 0xffff_ffff));
    setStatus(ZF, ZF);
  } else {
    storeUpdatedOfSize(address, 8, value);
    setGeneral(RAX, value & 0xffff_ffff);
    setGeneral(RDX, value >> 32);
    setStatus(ZF, 0);
  }
}

function execCompareExchange16(op: usize): void {
  const address = effectiveAddress(op);
  if (address & 15) {
    raise(13, 1, 0);
    return;
  }
  probeWrite(address, 16);
  if (fault) return;
  load128(address);
  if (fault) return;
  const low = lo128;
  const high = hi128;
  const equal = low == general(RAX) && high == general(RDX);
  if (equal) store128(address, general(RBX), general(RCX));
  else store128(address, low, high);
  if (fault) return;
  if (equal) {
    setStatus(ZF, ZF);
  } else {
    setGeneral(RAX, low);
    setGeneral(RDX, high);
    setStatus(ZF, 0);
  }
}

/** Writes the double-width result of MUL and IMUL: AX, or DX:AX, EDX:EAX, RDX:RAX. */
function writeWide(size: u32, low: u64, high: u64): void {
  if (size == 1) {
    setRegisterOfSize(VCPU_RAX, 2, (high << 8) | low);
    return;
  }
  setRegisterOfSize(VCPU_RAX, size, low);
  setRegisterOfSize(VCPU_RDX, size, high);
}

function execMultiply(op: usize, signed: bool): void {
  const size = load<u8>(op, OP_SIZE);
  const factor = readSource(op);
  if (fault) return;
  const a = cutToSize(general(RAX), size);
  if (size == 8) {
    const low = a * factor;
    const high = signed ? multiplyHighSigned(a, factor) : multiplyHigh(a, factor);
    writeWide(8, low, high);
    multiplyFlags<u64>(low, high != (signed ? u64(<i64>low >> 63) : 0));
    return;
  }
  const product = signed ? signExtend(a, size) * signExtend(factor, size) : a * factor;
  const low = cutToSize(product, size);
  writeWide(size, low, cutToSize(product >> (u64(size) << 3), size));
  const significant = signed ? product != signExtend(low, size) : product != low;
  if (size == 1) multiplyFlags<u8>(low, significant);
  else if (size == 2) multiplyFlags<u16>(low, significant);
  else multiplyFlags<u32>(low, significant);
}

/** IMUL with two or three operands. */
function execMultiplyLow(op: usize, factor: u64): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readSource(op);
  if (fault) return;
  const destination = load<u16>(op, OP_DST);
  if (size == 2) setRegister<u16>(destination, multiply<u16>(value, cutToSize(factor, 2)));
  else if (size == 4) setRegister<u32>(destination, multiply<u32>(value, cutToSize(factor, 4)));
  else setRegister<u64>(destination, multiply<u64>(value, factor));
}

/** DIV and IDIV. All flags are undefined; processors leave them. */
function execDivide(op: usize, signed: bool): void {
  const size = load<u8>(op, OP_SIZE);
  const divisor = readSource(op);
  if (fault) return;
  if (size == 8) {
    const fits = signed
      ? divideWideSigned(general(RDX), general(RAX), divisor)
      : divideWide(general(RDX), general(RAX), divisor);
    if (!fits) {
      divideError();
      return;
    }
    setGeneral(RAX, quotient);
    setGeneral(RDX, remainder);
    return;
  }
  if (divisor == 0) {
    divideError();
    return;
  }
  const bits = u64(size) << 3;
  const dividend =
    size == 1
      ? cutToSize(general(RAX), 2)
      : (cutToSize(general(RDX), size) << bits) | cutToSize(general(RAX), size);
  let q: u64;
  let r: u64;
  if (signed) {
    const wide = <i64>signExtend(dividend, size << 1);
    const by = <i64>signExtend(divisor, size);
    // The one pair that i64 division itself refuses; its quotient does not fit either.
    if (by == -1 && wide == i64.MIN_VALUE) {
      divideError();
      return;
    }
    const result = wide / by;
    if (result != <i64>signExtend(cutToSize(<u64>result, size), size)) {
      divideError();
      return;
    }
    q = cutToSize(<u64>result, size);
    r = cutToSize(<u64>(wide % by), size);
  } else {
    q = dividend / divisor;
    if (q != cutToSize(q, size)) {
      divideError();
      return;
    }
    r = dividend % divisor;
  }
  if (size == 1) {
    setRegisterOfSize(VCPU_RAX, 2, (r << 8) | q);
  } else {
    setRegisterOfSize(VCPU_RAX, size, q);
    setRegisterOfSize(VCPU_RDX, size, r);
  }
}

/** BT, BTS, BTR, BTC. With a register source a memory operand is a bit string that reaches in both directions. */
function execBitTest(op: usize, code: u32): void {
  const size = load<u8>(op, OP_SIZE);
  const opFlags = load<u16>(op, OP_FLAGS);
  const bits = u64(size) << 3;
  const immediate = (opFlags & FLAG_IMMEDIATE_SOURCE) != 0;
  const number = immediate ? load<u64>(op, OP_IMM) : registerOfSize(load<u16>(op, OP_SRC), size);
  const bit = number & (bits - 1);
  let address: u64 = 0;
  let value: u64;
  if (opFlags & FLAG_MEMORY_DESTINATION) {
    let offset = effectiveOffset(op);
    if (!immediate) {
      const units = <i64>signExtend(number, size) >> (size == 2 ? 4 : size == 4 ? 5 : 6);
      offset += u64(units * i64(size));
      if (opFlags & FLAG_ADDRESS_32) offset &= 0xffff_ffff;
    }
    address = offset + load<u64>(cpu + load<u16>(op, OP_SEGMENT));
    value = code == I_BT ? loadOfSize(address, size) : loadForUpdateOfSize(address, size);
    if (fault) return;
  } else {
    value = registerOfSize(load<u16>(op, OP_DST), size);
  }
  setStatus(CF, u32(value >> bit) & 1);
  if (code == I_BT) return;
  const mask = u64(1) << bit;
  if (code == I_BTS) value |= mask;
  else if (code == I_BTR) value &= ~mask;
  else value ^= mask;
  if (opFlags & FLAG_MEMORY_DESTINATION) storeUpdatedOfSize(address, size, value);
  else setRegisterOfSize(load<u16>(op, OP_DST), size, value);
}

/** BSF, BSR, POPCNT, LZCNT, TZCNT. */
function execBitCount(op: usize, code: u32): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readSource(op);
  if (fault) return;
  const destination = load<u16>(op, OP_DST);
  if (code == I_BSF || code == I_BSR) {
    // Without a set bit the destination keeps its value.
    if (value == 0) {
      setStatus(ZF, ZF);
      return;
    }
    setStatus(ZF, 0);
    setRegisterOfSize(destination, size, code == I_BSF ? ctz(value) : 63 - clz(value));
    return;
  }
  if (code == I_POPCNT) {
    setStatus(STATUS, value == 0 ? ZF : 0);
    setRegisterOfSize(destination, size, popcnt(value));
    return;
  }
  const count = code == I_LZCNT ? leadingZeros(value, size) : trailingZeros(value, size);
  setStatus(CF | ZF, (value == 0 ? CF : 0) | (count == 0 ? ZF : 0));
  setRegisterOfSize(destination, size, count);
}

/** The BMI1 and BMI2 operations. */
function execBitManipulation(op: usize, code: u32): void {
  const size = load<u8>(op, OP_SIZE);
  const source = readSource(op);
  if (fault) return;
  const bits = u64(size) << 3;
  const destination = load<u16>(op, OP_DST);
  const third = registerOfSize(load<u16>(op, OP_THIRD), size);
  let result: u64;
  switch (code) {
    case I_ANDN:
      result = cutToSize(~third & source, size);
      bitFlags(result, size, false);
      break;
    case I_BEXTR:
      result = bitExtract(source, third);
      setStatus(STATUS & ~SF & ~AF & ~PF, result == 0 ? ZF : 0);
      break;
    case I_BLSI:
      result = cutToSize((0 - source) & source, size);
      bitFlags(result, size, source != 0);
      break;
    case I_BLSR:
      result = cutToSize((source - 1) & source, size);
      bitFlags(result, size, source == 0);
      break;
    case I_BLSMSK:
      result = cutToSize((source - 1) ^ source, size);
      bitFlags(result, size, source == 0);
      break;
    case I_BZHI: {
      const keep = third & 0xff;
      result = keep < bits ? source & ((u64(1) << keep) - 1) : source;
      bitFlags(result, size, keep >= bits);
      break;
    }
    case I_MULX: {
      const a = cutToSize(general(RDX), size);
      const low = cutToSize(a * source, size);
      const high = size == 8 ? multiplyHigh(a, source) : (a * source) >> 32;
      // When both destinations are one register it holds the high half.
      setRegisterOfSize(load<u16>(op, OP_THIRD), size, low);
      setRegisterOfSize(destination, size, high);
      return;
    }
    case I_PDEP:
      result = depositBits(third, source);
      break;
    case I_PEXT:
      result = extractBits(third, source);
      break;
    case I_RORX: {
      const count = load<u64>(op, OP_IMM) & (bits - 1);
      result = count == 0 ? source : cutToSize((source >> count) | (source << (bits - count)), size);
      break;
    }
    case I_SARX:
      result = cutToSize(u64(<i64>signExtend(source, size) >> i64(third & (bits - 1))), size);
      break;
    case I_SHLX:
      result = cutToSize(source << (third & (bits - 1)), size);
      break;
    default:
      result = source >> (third & (bits - 1));
  }
  setRegisterOfSize(destination, size, result);
}

/** ADCX and ADOX: addition with a carry in one flag only. */
function execAddWithFlag(op: usize, flag: u32): void {
  const size = load<u8>(op, OP_SIZE);
  const b = readSource(op);
  if (fault) return;
  const destination = load<u16>(op, OP_DST);
  const a = registerOfSize(destination, size);
  const sum = cutToSize(a + b + u64((flags() & flag) != 0), size);
  const carry = ((a & b) | ((a | b) & ~sum)) >> ((u64(size) << 3) - 1);
  setStatus(flag, carry & 1 ? flag : 0);
  setRegisterOfSize(destination, size, sum);
}

/** Jumps by the record's distance from the end of the instruction. */
function jump(op: usize): void {
  setRip(rip() + u64(load<u8>(op, OP_LENGTH)) + load<u64>(op, OP_IMM));
  setRipSet(true);
}

/** LOOP, LOOPE, LOOPNE, JRCXZ; the address size chooses RCX or ECX. */
function execLoop(op: usize, code: u32): void {
  const narrow = (load<u16>(op, OP_FLAGS) & FLAG_ADDRESS_32) != 0;
  let count = narrow ? general(RCX) & 0xffff_ffff : general(RCX);
  if (code == I_JRCXZ) {
    if (count == 0) jump(op);
    return;
  }
  count = narrow ? (count - 1) & 0xffff_ffff : count - 1;
  setGeneral(RCX, count);
  const zero = (flags() & ZF) != 0;
  if (count != 0 && (code == I_LOOP || (code == I_LOOPE) == zero)) jump(op);
}

/** POP to memory: its address is computed with RSP already moved (SDM vol. 2, POP). */
function popMemory(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const value = size == 2 ? top16() : top64();
  if (fault) return;
  const before = stackPointer();
  setStackPointer(before + u64(size));
  storeOfSize(effectiveAddress(op), size, value);
  if (fault) setStackPointer(before);
}

function execPushFlags(op: usize): void {
  // VM and RF read as 0 in the image (SDM vol. 2, PUSHF).
  const image = flags() & ~(VM | RF);
  if (load<u8>(op, OP_SIZE) == 2) push16(image & 0xffff);
  else push64(image);
}

function execPopFlags(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const image = <u32>(size == 2 ? top16() : top64());
  if (fault) return;
  const before = flags();
  let writable = STATUS | TF | DF | NT;
  if (size == 8) writable |= AC | ID;
  if (cpl() == 0) writable |= IOPL;
  if (cpl() <= ((before >> 12) & 3)) writable |= IF;
  const after = ((before & ~writable) | (image & writable)) & ~RF;
  setStackPointer(stackPointer() + u64(size));
  setFlags(after);
  if ((before ^ after) & (IF | TF | AC)) setAttention();
}

/** ENTER: every access is checked, in the order in which it is made, before the first write. */
function execEnter(op: usize): void {
  const size: u64 = load<u8>(op, OP_SIZE);
  const level: u64 = load<u16>(op, OP_SOURCE_SIZE) & 31;
  const frame = stackPointer() - size;
  const frames = general(RBP);
  const top = frame - level * size - load<u64>(op, OP_IMM);
  probeWrite(frame, i32(size));
  for (let i: u64 = 1; i <= level && !fault; i++) {
    if (i < level) probeRead(frames - i * size, i32(size));
    if (!fault) probeWrite(frame - i * size, i32(size));
  }
  // The new top of the stack must be writable too (SDM vol. 2, ENTER).
  if (!fault) probeWrite(top, i32(size));
  if (fault) {
    stackFault();
    return;
  }
  storeOfSize(frame, u32(size), frames);
  for (let i: u64 = 1; i < level && !fault; i++) {
    storeOfSize(frame - i * size, u32(size), loadOfSize(frames - i * size, u32(size)));
  }
  if (level > 0 && !fault) storeOfSize(frame - level * size, u32(size), frame);
  if (fault) return;
  if (size == 8) setGeneral(RBP, frame);
  else setRegister<u16>(VCPU_RBP, frame);
  setStackPointer(top);
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
      let offset = general(RBX) + (general(RAX) & 0xff);
      if (load<u16>(op, OP_FLAGS) & FLAG_ADDRESS_32) offset &= 0xffff_ffff;
      const value = load8(offset + load<u64>(cpu + load<u16>(op, OP_SEGMENT)));
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
      if (size == 2) push16(value);
      else push64(value);
      break;
    }
    case I_PUSH_SEGMENT: {
      const value = registerOfSize(load<u16>(op, OP_SRC), 2);
      if (size == 2) push16(value);
      else push64(value);
      break;
    }
    case I_POP: {
      const value = top16();
      if (fault) return;
      setStackPointer(stackPointer() + 2);
      setRegister<u16>(load<u16>(op, OP_DST), value);
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
    case I_LEAVE_16: {
      const frame = general(RBP);
      const value = loadOfSize(frame, 2);
      if (fault) {
        stackFault();
        return;
      }
      setStackPointer(frame + 2);
      setRegister<u16>(VCPU_RBP, value);
      break;
    }
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
      if (code >= I_MOVX_RR) execSse(op, code);
      else unsupported();
  }
}
