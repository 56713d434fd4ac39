import { Flag } from '../arithmetic.js';
import { conditionHolds } from '../condition.js';
import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, OperandKind } from './instruction.js';
import { ShellcodeFlag } from './shellcode-flags.js';

const RCX = 1;
/** Code segment of 64-bit user code in a Windows process of 32 bits. */
const LONG_MODE_SELECTOR = 0x33;

function jumpConditional(m: Emulation, i: EmulatedInstruction): void {
  if (conditionHolds(i.condition, m.rflags)) m.branch(i);
}

/** Whether the counter of a loop or a repeated instruction is 0: CX, ECX or RCX, by address size. */
export function counterIsZero(m: Emulation, size: number): boolean {
  const low = m.general[2 * RCX]!;
  return size === 2 ? (low & 0xffff) === 0 : low === 0 && (size === 4 || m.general[2 * RCX + 1] === 0);
}

/** Decrements the counter of a loop or a repeated instruction; RFLAGS stay. */
export function decrementCounter(m: Emulation, size: number): void {
  const low = m.general[2 * RCX]!;
  const high = m.general[2 * RCX + 1]!;
  m.setGeneral(RCX, size, (low - 1) >>> 0, (low === 0 ? high - 1 : high) >>> 0);
}

function jumpCounterZero(m: Emulation, i: EmulatedInstruction): void {
  if (counterIsZero(m, i.addressSize)) m.branch(i);
}

function loop(zero: 'any' | 'set' | 'clear'): Handler {
  return (m, i) => {
    decrementCounter(m, i.addressSize);
    if (counterIsZero(m, i.addressSize)) return;
    if (zero === 'any' || ((m.rflags & Flag.ZF) !== 0) === (zero === 'set')) m.branch(i);
  };
}

function jump(m: Emulation, i: EmulatedInstruction): void {
  if (i.far) farTransfer(m, i);
  else if (i.targetSize !== 0) m.branch(i);
  else {
    const low = m.read(i, i.first);
    m.jump(low, m.high);
  }
}

function call(m: Emulation, i: EmulatedInstruction): void {
  if (i.far) {
    farTransfer(m, i);
    return;
  }
  let targetLow = 0;
  let targetHigh = 0;
  if (i.targetSize === 0) {
    targetLow = m.read(i, i.first);
    targetHigh = m.high;
  }
  m.codeAddress(m.next);
  const ripLow = m.addressLow;
  const ripHigh = m.addressHigh;
  const size = i.targetSize === 0 ? i.first.size : i.targetSize;
  m.push(ripLow, ripHigh, size);
  m.memory.markRip(m.addressLow, m.addressHigh, size);
  if (i.targetSize === 0) m.jump(targetLow, targetHigh);
  else m.branch(i);
}

function returnNear(m: Emulation, i: EmulatedInstruction): void {
  const low = m.top(i, i.size);
  const high = m.high;
  m.moveStack(i.size + (i.first.kind === OperandKind.IMMEDIATE ? i.immediateLow & 0xffff : 0));
  m.jump(low, high);
}

/** Far transfers are not followed; one from 32-bit code to the 64-bit segment is what is looked for. */
function farTransfer(m: Emulation, i: EmulatedInstruction): void {
  let selector = i.secondImmediate;
  if (i.first.kind === OperandKind.MEMORY) {
    const bytes = new Uint8Array(i.first.size);
    m.linearAddress(i);
    m.memory.loadBytes(m.addressLow, m.addressHigh, bytes, i);
    selector = bytes[bytes.length - 2]! | (bytes[bytes.length - 1]! << 8);
  }
  endFarTransfer(m, selector);
}

/** RETF and IRET: the selector lies above the instruction pointer. */
function returnFar(words: 'pointer' | 'frame'): Handler {
  return (m, i) => {
    const { size } = i;
    // In 64-bit mode an interrupt frame has RSP and SS in any case (SDM vol. 3A, 6.14.3).
    const bytes = new Uint8Array(size * (words === 'pointer' ? 2 : m.wide ? 5 : 3));
    m.stackAddress(0);
    m.memory.loadBytes(m.addressLow, m.addressHigh, bytes, i);
    endFarTransfer(m, bytes[size]! | (bytes[size + 1]! << 8));
  };
}

function endFarTransfer(m: Emulation, selector: number): void {
  if (!m.wide && selector === LONG_MODE_SELECTOR) m.memory.raise(ShellcodeFlag.HEAVENS_GATE);
  m.status = 'halted';
}

const conditionalJumps = [
  Mnemonic.Ja,
  Mnemonic.Jae,
  Mnemonic.Jb,
  Mnemonic.Jbe,
  Mnemonic.Je,
  Mnemonic.Jg,
  Mnemonic.Jge,
  Mnemonic.Jl,
  Mnemonic.Jle,
  Mnemonic.Jne,
  Mnemonic.Jno,
  Mnemonic.Jnp,
  Mnemonic.Jns,
  Mnemonic.Jo,
  Mnemonic.Jp,
  Mnemonic.Js,
];

/** What changes RIP. */
export const controlFlowHandlers = new Map<Mnemonic, Handler>([
  ...conditionalJumps.map((mnemonic): [Mnemonic, Handler] => [mnemonic, jumpConditional]),
  [Mnemonic.Jcxz, jumpCounterZero],
  [Mnemonic.Jecxz, jumpCounterZero],
  [Mnemonic.Jrcxz, jumpCounterZero],
  [Mnemonic.Loop, loop('any')],
  [Mnemonic.Loope, loop('set')],
  [Mnemonic.Loopne, loop('clear')],
  [Mnemonic.Jmp, jump],
  [Mnemonic.Call, call],
  [Mnemonic.Ret, returnNear],
  [Mnemonic.Retf, returnFar('pointer')],
  [Mnemonic.Iret, returnFar('frame')],
  [Mnemonic.Iretd, returnFar('frame')],
  [Mnemonic.Iretq, returnFar('frame')],
]);
