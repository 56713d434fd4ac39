import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, OperandKind } from './instruction.js';

const RSP = 4;
const RBP = 5;
/** RF and VM are not pushed (SDM vol. 2B, PUSHF). */
const PUSHED_FLAGS = 0xfc_ffff;
/** What POPF loads: all that exist, less IOPL, VIF and VIP, and less IF, which user code may not change. */
const USER_FLAGS = 0x24_4dd5;
const KERNEL_FLAGS = 0x24_7fd5;
/** What the C emulator's POPF loads: the low 22 bits, less the reserved ones. */
const EVERY_FLAG = 0x3f_7fd5;
const ALWAYS_ONE = 2;

function push(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.first);
  m.push(low, m.high, i.size);
}

function pop(m: Emulation, i: EmulatedInstruction): void {
  const low = m.top(i, i.size);
  const high = m.high;
  m.moveStack(i.size);
  try {
    // The stack pointer has moved already when it is the base of the address, or the operand (SDM vol. 2B, POP).
    m.write(i, i.first, low, high);
  } catch (error) {
    m.moveStack(-i.size);
    throw error;
  }
}

function pushFlags(m: Emulation, i: EmulatedInstruction): void {
  m.push(m.rflags & PUSHED_FLAGS, 0, i.size);
}

function popFlags(m: Emulation, i: EmulatedInstruction): void {
  const low = m.top(i, i.size);
  m.moveStack(i.size);
  const size = i.size === 2 ? 0xffff : 0xffff_ffff;
  const loads = (m.like === 'bddisasm' ? EVERY_FLAG : m.userMode ? USER_FLAGS : KERNEL_FLAGS) & size;
  m.rflags = (m.rflags & ~loads) | (low & loads) | ALWAYS_ONE;
}

/** PUSHA and PUSHAD, in one store: the registers from EDI up to EAX, ESP as it was before. */
function pushAll(m: Emulation, i: EmulatedInstruction): void {
  const size = i.size / 8;
  const bytes = new Uint8Array(i.size);
  const view = new DataView(bytes.buffer);
  for (let register = 0; register < 8; register++) {
    const value = m.general[2 * (7 - register)]!;
    if (size === 2) view.setUint16(2 * register, value, true);
    else view.setUint32(4 * register, value, true);
  }
  m.stackAddress(-i.size);
  m.memory.storeBytes(m.addressLow, m.addressHigh, bytes);
  m.moveStack(-i.size);
}

/** POPA and POPAD: all but the stack pointer. */
function popAll(m: Emulation, i: EmulatedInstruction): void {
  const size = i.size / 8;
  const bytes = new Uint8Array(i.size);
  const view = new DataView(bytes.buffer);
  m.stackAddress(0);
  m.memory.loadBytes(m.addressLow, m.addressHigh, bytes, i);
  m.moveStack(i.size);
  for (let register = 0; register < 8; register++) {
    if (7 - register === RSP) continue;
    const value = size === 2 ? view.getUint16(2 * register, true) : view.getUint32(4 * register, true);
    m.setGeneral(7 - register, size, value, 0);
  }
}

/** ENTER: frames of up to 31 nesting levels (SDM vol. 2A, ENTER). */
function enter(m: Emulation, i: EmulatedInstruction): void {
  const size = i.size;
  const level = i.secondImmediate & 31;
  const before = m.general.slice(2 * RSP, 2 * RBP + 2);
  try {
    m.push(m.general[2 * RBP]!, m.general[2 * RBP + 1]!, size);
    const frameLow = m.general[2 * RSP]!;
    const frameHigh = m.general[2 * RSP + 1]!;
    for (let at = 1; at < level; at++) {
      m.addressLow = m.general[2 * RBP]!;
      m.addressHigh = m.general[2 * RBP + 1]!;
      m.moveAddress(-at * size, m.wide ? 8 : 4);
      const low = m.load(i, size);
      m.push(low, m.high, size);
    }
    if (level > 0) m.push(frameLow, frameHigh, size);
    m.moveStack(-i.immediateLow);
    m.setGeneral(RBP, size, frameLow, frameHigh);
  } catch (error) {
    m.general.set(before, 2 * RSP);
    throw error;
  }
}

function leave(m: Emulation, i: EmulatedInstruction): void {
  m.addressLow = m.general[2 * RBP]!;
  m.addressHigh = m.wide ? m.general[2 * RBP + 1]! : 0;
  const low = m.load(i, i.size);
  const high = m.high;
  m.general[2 * RSP] = m.general[2 * RBP]!;
  m.general[2 * RSP + 1] = m.general[2 * RBP + 1]!;
  m.moveStack(i.size);
  m.setGeneral(RBP, i.size, low, high);
}

/** POP to a register, the common one, without the care for a fault. */
function popOperand(m: Emulation, i: EmulatedInstruction): void {
  if (i.first.kind !== OperandKind.GENERAL) {
    pop(m, i);
    return;
  }
  const low = m.top(i, i.size);
  const high = m.high;
  m.moveStack(i.size);
  m.setGeneral(i.first.register, i.size, low, high);
}

/** What moves data over the stack. */
export const stackHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Push, push],
  [Mnemonic.Pop, popOperand],
  [Mnemonic.Pushf, pushFlags],
  [Mnemonic.Pushfd, pushFlags],
  [Mnemonic.Pushfq, pushFlags],
  [Mnemonic.Popf, popFlags],
  [Mnemonic.Popfd, popFlags],
  [Mnemonic.Popfq, popFlags],
  [Mnemonic.Pusha, pushAll],
  [Mnemonic.Pushad, pushAll],
  [Mnemonic.Popa, popAll],
  [Mnemonic.Popad, popAll],
  [Mnemonic.Enter, enter],
  [Mnemonic.Leave, leave],
]);
