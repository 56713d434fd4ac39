// XCHG, XADD and the compare-and-exchange instructions.
import { aluOfSize } from './alu';
import { fault, raise } from './fault';
import { ALU_ADD, ALU_CMP, FLAG_MEMORY_DESTINATION, OP_FLAGS, OP_SIZE, OP_SRC, VCPU_RAX } from './generated/layout';
import { hi128, lo128, load128, probeWrite, store128 } from './memory';
import {
  cutToSize,
  effectiveAddress,
  loadForUpdateOfSize,
  readForUpdate,
  storeUpdatedOfSize,
  writeUpdated,
} from './operand';
import { general, RAX, RBX, RCX, RDX, registerOfSize, setGeneral, setRegisterOfSize, setStatus, ZF } from './state';

export function execExchange(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readForUpdate(op);
  if (fault) return;
  const source = load<u16>(op, OP_SRC);
  writeUpdated(op, registerOfSize(source, size));
  setRegisterOfSize(source, size, value);
}

export function execExchangeAdd(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const value = readForUpdate(op);
  if (fault) return;
  const source = load<u16>(op, OP_SRC);
  const sum = aluOfSize(ALU_ADD, size, value, registerOfSize(source, size));
  setRegisterOfSize(source, size, value);
  writeUpdated(op, sum);
}

export function execCompareExchange(op: usize): void {
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

export function execCompareExchange8(op: usize): void {
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

export function execCompareExchange16(op: usize): void {
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
