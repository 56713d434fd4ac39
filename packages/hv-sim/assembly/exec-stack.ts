// The less frequent stack instructions: POP to memory, flags, ENTER, LEAVE of other sizes than 64 bits.
import { fault, setAttention } from './fault';
import { OP_IMM, OP_SIZE, OP_SOURCE_SIZE, VCPU_RBP } from './generated/layout';
import { effectiveAddress, storeOfSize } from './operand';
import {
  loadStack,
  moveStack,
  probeStackRead,
  probeStackWrite,
  pushOfSize,
  storeStackAt,
  topOfSize,
} from './sized-stack';
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
  setRegisterOfSize,
  setStackPointer,
  stackPointer,
  TF,
  VM,
} from './state';

/** POP to memory: its address is computed with RSP already moved (SDM vol. 2, POP). */
export function popMemory(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const value = topOfSize(size);
  if (fault) return;
  const before = stackPointer();
  moveStack(before + u64(size));
  storeOfSize(effectiveAddress(op), size, value);
  if (fault) setStackPointer(before);
}

export function execPushFlags(op: usize): void {
  // VM and RF read as 0 in the image (SDM vol. 2, PUSHF).
  const image = flags() & ~(VM | RF);
  pushOfSize(load<u8>(op, OP_SIZE), image);
}

export function execPopFlags(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const image = <u32>topOfSize(size);
  if (fault) return;
  const before = flags();
  let writable = STATUS | TF | DF | NT;
  if (size != 2) writable |= AC | ID;
  if (cpl() == 0) writable |= IOPL;
  if (cpl() <= ((before >> 12) & 3)) writable |= IF;
  const after = ((before & ~writable) | (image & writable)) & ~RF;
  moveStack(stackPointer() + u64(size));
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
  probeStackWrite(frame, u32(size));
  for (let i: u64 = 1; i <= level && !fault; i++) {
    if (i < level) probeStackRead(frames - i * size, u32(size));
    if (!fault) probeStackWrite(frame - i * size, u32(size));
  }
  // The new top of the stack must be writable too (SDM vol. 2, ENTER).
  if (!fault) probeStackWrite(top, u32(size));
  if (fault) return;
  storeStackAt(frame, u32(size), frames);
  for (let i: u64 = 1; i < level && !fault; i++) {
    storeStackAt(frame - i * size, u32(size), loadStack(frames - i * size, u32(size)));
  }
  if (level > 0 && !fault) storeStackAt(frame - level * size, u32(size), frame);
  if (fault) return;
  setRegisterOfSize(VCPU_RBP, u32(size), frame);
  moveStack(top);
}

/** LEAVE of any size: the stack pointer comes from the frame pointer, as wide as the stack's addresses are. */
export function execLeave(op: usize): void {
  const size = load<u8>(op, OP_SIZE);
  const frame = general(RBP);
  const value = loadStack(frame, size);
  if (fault) return;
  moveStack(frame + size);
  setRegisterOfSize(VCPU_RBP, size, value);
}
