import { Mnemonic } from '../decoder.js';
import { MISALIGNED } from './abort.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, OperandKind } from './instruction.js';

/** Size of the environment in 32-bit format, alone and with the registers, and where the instruction pointer is in it (SDM vol. 1, figure 8-9). */
const ENVIRONMENT_SIZE = 28;
const SAVED_ENVIRONMENT_SIZE = 108;
const ENVIRONMENT_RIP = 12;
/** Head of an FXSAVE or XSAVE area as far as it is made, and where the instruction pointer is in it (SDM vol. 2A, FXSAVE). */
const SAVED_SIZE = 32;
const SAVED_RIP = 8;
/** State components (SDM vol. 1, 13.1), and the alignment of an area of theirs. */
const X87_STATE = 1;
const XSAVE_ALIGNMENT = 64;
/** What FNINIT sets the control word to. */
const CONTROL_WORD = 0x37f;

const RAX = 0;

/**
 * An x87 instruction computes nothing here: what matters is that the processor remembers where the last one was, as
 * code that looks for its own address knows. One with an operand elsewhere ends the emulation.
 */
export const x87Instruction: Handler = (m, i) => {
  m.codeAddress(m.start);
  m.fpuRipLow = m.addressLow;
  m.fpuRipHigh = m.addressHigh;
  if (i.first.kind !== OperandKind.MEMORY && i.second.kind !== OperandKind.MEMORY) return;
  m.linearAddress(i);
  const { code, stack } = m.memory;
  const inside =
    code.offsetOf(m.addressLow, m.addressHigh, i.size) >= 0 || stack.offsetOf(m.addressLow, m.addressHigh, i.size) >= 0;
  if (!inside) m.status = 'halted';
};

/** FNSTENV, in its 32-bit format; the 16-bit one has 14 bytes and no address that is of use. */
function storeEnvironment(m: Emulation, i: EmulatedInstruction): void {
  if (i.size !== ENVIRONMENT_SIZE) return;
  const bytes = new Uint8Array(ENVIRONMENT_SIZE);
  new DataView(bytes.buffer).setUint32(ENVIRONMENT_RIP, m.fpuRipLow, true);
  store(m, i, bytes, ENVIRONMENT_RIP, 4);
}

/** FNSAVE, in its 32-bit format; it begins the x87 unit anew. */
function saveEnvironment(m: Emulation, i: EmulatedInstruction): void {
  if (i.size === SAVED_ENVIRONMENT_SIZE) {
    const bytes = new Uint8Array(SAVED_ENVIRONMENT_SIZE);
    new DataView(bytes.buffer).setUint32(ENVIRONMENT_RIP, m.fpuRipLow, true);
    store(m, i, bytes, ENVIRONMENT_RIP, 4);
  }
  m.fpuRipLow = 0;
  m.fpuRipHigh = 0;
}

/** XSAVE and its kin: the same head, when EAX asks for the state of the x87 unit. */
function saveExtendedState(m: Emulation, i: EmulatedInstruction): void {
  m.linearAddress(i);
  if (m.like === 'processor' && (m.addressLow & (XSAVE_ALIGNMENT - 1)) !== 0) throw MISALIGNED;
  if ((m.general[2 * RAX]! & X87_STATE) !== 0) saveState(m, i);
}

/** FXSAVE: its head, which says where the last x87 instruction was. */
function saveState(m: Emulation, i: EmulatedInstruction): void {
  const bytes = new Uint8Array(SAVED_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(SAVED_RIP, m.fpuRipLow, true);
  view.setUint32(SAVED_RIP + 4, m.fpuRipHigh, true);
  store(m, i, bytes, SAVED_RIP, m.wide ? 8 : 4);
}

function store(m: Emulation, i: EmulatedInstruction, bytes: Uint8Array, ripAt: number, ripSize: number): void {
  m.linearAddress(i);
  const { addressLow, addressHigh } = m;
  m.memory.storeBytes(addressLow, addressHigh, bytes);
  m.moveAddress(ripAt, m.wide ? 8 : 4);
  m.memory.markRip(m.addressLow, m.addressHigh, ripSize);
}

/** Nothing is computed: there is neither an exception nor a value on the register stack. */
function storeStatusWord(m: Emulation, i: EmulatedInstruction): void {
  m.write(i, i.first, 0, 0);
}

function storeControlWord(m: Emulation, i: EmulatedInstruction): void {
  m.write(i, i.first, CONTROL_WORD, 0);
}

function nothing(): void {}

const SAVES = [
  Mnemonic.Xsave,
  Mnemonic.Xsave64,
  Mnemonic.Xsavec,
  Mnemonic.Xsavec64,
  Mnemonic.Xsaveopt,
  Mnemonic.Xsaveopt64,
  Mnemonic.Xsaves,
  Mnemonic.Xsaves64,
];

/** What is known of the x87 instructions. */
export const x87Handlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Fnstenv, storeEnvironment],
  [Mnemonic.Fnsave, saveEnvironment],
  [Mnemonic.Fnstsw, storeStatusWord],
  [Mnemonic.Fnstcw, storeControlWord],
  [Mnemonic.Fxsave, saveState],
  [Mnemonic.Fxsave64, saveState],
  ...SAVES.map((mnemonic): [Mnemonic, Handler] => [mnemonic, saveExtendedState]),
  [Mnemonic.Wait, nothing],
]);
