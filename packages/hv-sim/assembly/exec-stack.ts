// The less frequent stack instructions: POP to memory, flags, ENTER.
import { fault, setAttention } from './fault';
import { OP_IMM, OP_SIZE, OP_SOURCE_SIZE, VCPU_RBP } from './generated/layout';
import { probeRead, probeWrite } from './memory';
import { effectiveAddress, loadOfSize, storeOfSize } from './operand';
import { push16, push64, stackFault, top16, top64 } from './stack';
import {
  AC,
  cpl,
  DF,
  flags,
  general,
  ID,
  IF,
  IOPL,
  NT,
  RBP,
  RF,
  STATUS,
  setFlags,
  setGeneral,
  setRegister,
  setStackPointer,
  stackPointer,
  TF,
  VM,
} from './state';

/** POP to memory: its address is computed with RSP already moved (SDM vol. 2, POP). */
export function popMemory(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const value = size == 2 ? top16() : top64();
  if (fault) return;
  const before = stackPointer();
  setStackPointer(before + u64(size));
  storeOfSize(effectiveAddress(op), size, value);
  if (fault) setStackPointer(before);
}

export function execPushFlags(op: usize): void {
  // VM and RF read as 0 in the image (SDM vol. 2, PUSHF).
  const image = flags() & ~(VM | RF);
  if (load<u8>(op, OP_SIZE) == 2) push16(image & 0xffff);
  else push64(image);
}

export function execPopFlags(op: usize): void {
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
export function execEnter(op: usize): void {
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
