import { subtract } from '../arithmetic.js';
import { Mnemonic } from '../decoder.js';
import { counterIsZero, decrementCounter } from './control-flow.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, NO_REGISTER, Repeat } from './instruction.js';

const RAX = 0;
const RSI = 6;
const RDI = 7;
const ES = 0;
const ZF = 0x40;
const DF = 0x400;

/** One element; where it is, {@link source} and {@link destination} tell. */
type Element = (m: Emulation, i: EmulatedInstruction) => void;

/** Address of the source element: DS:RSI, or another segment. */
function source(m: Emulation, i: EmulatedInstruction): void {
  pointer(m, i, RSI);
  if (i.segment !== NO_REGISTER) m.addSegment(i.segment);
}

/** Address of the destination element: ES:RDI. */
function destination(m: Emulation, i: EmulatedInstruction): void {
  pointer(m, i, RDI);
  if (!m.wide) m.addSegment(ES);
}

function pointer(m: Emulation, i: EmulatedInstruction, register: number): void {
  m.addressLow = m.general[2 * register]!;
  m.addressHigh = m.general[2 * register + 1]!;
  m.moveAddress(0, i.addressSize);
}

function advance(m: Emulation, i: EmulatedInstruction, register: number): void {
  m.addressLow = m.general[2 * register]!;
  m.addressHigh = m.general[2 * register + 1]!;
  m.moveAddress((m.rflags & DF) === 0 ? i.size : -i.size, i.addressSize);
  // Not by setGeneral: a pointer that moves on is no address that the code looks up.
  const kept = i.addressSize === 2 ? m.general[2 * register]! & ~0xffff : 0;
  m.general[2 * register] = kept | m.addressLow;
  m.general[2 * register + 1] = m.addressHigh;
}

const moveElement: Element = (m, i) => {
  source(m, i);
  const low = m.load(i, i.size);
  const high = m.high;
  destination(m, i);
  m.store(low, high, i.size);
  advance(m, i, RSI);
  advance(m, i, RDI);
};

const storeElement: Element = (m, i) => {
  destination(m, i);
  m.store(m.general[2 * RAX]!, m.general[2 * RAX + 1]!, i.size);
  advance(m, i, RDI);
};

const loadElement: Element = (m, i) => {
  source(m, i);
  const low = m.load(i, i.size);
  m.setGeneral(RAX, i.size, low, m.high);
  advance(m, i, RSI);
};

const compareElement: Element = (m, i) => {
  source(m, i);
  const low = m.load(i, i.size);
  const high = m.high;
  destination(m, i);
  const otherLow = m.load(i, i.size);
  subtract(low, high, otherLow, m.high, 0, i.size);
  m.takeFlags();
  advance(m, i, RSI);
  advance(m, i, RDI);
};

const scanElement: Element = (m, i) => {
  destination(m, i);
  const low = m.load(i, i.size);
  subtract(m.general[2 * RAX]!, m.general[2 * RAX + 1]!, low, m.high, 0, i.size);
  m.takeFlags();
  advance(m, i, RDI);
};

/**
 * A string instruction. Each element counts as a step, so that a repetition is as bounded as a loop; where the limit
 * interrupts it, the instruction is still the next one.
 */
function string(element: Element, compares: boolean): Handler {
  return (m, i) => {
    if (i.repeat === Repeat.NONE) {
      element(m, i);
      return;
    }
    while (!counterIsZero(m, i.addressSize)) {
      if (m.steps >= m.maxSteps) {
        m.next = m.start;
        return;
      }
      element(m, i);
      decrementCounter(m, i.addressSize);
      m.steps++;
      if (compares && ((m.rflags & ZF) !== 0) === (i.repeat === Repeat.WHILE_NOT_EQUAL)) return;
    }
  };
}

/** MOVS, STOS, LODS, CMPS and SCAS of all sizes. */
export const stringHandlers = new Map<Mnemonic, Handler>([
  ...each([Mnemonic.Movsb, Mnemonic.Movsw, Mnemonic.Movsd, Mnemonic.Movsq], string(moveElement, false)),
  ...each([Mnemonic.Stosb, Mnemonic.Stosw, Mnemonic.Stosd, Mnemonic.Stosq], string(storeElement, false)),
  ...each([Mnemonic.Lodsb, Mnemonic.Lodsw, Mnemonic.Lodsd, Mnemonic.Lodsq], string(loadElement, false)),
  ...each([Mnemonic.Cmpsb, Mnemonic.Cmpsw, Mnemonic.Cmpsd, Mnemonic.Cmpsq], string(compareElement, true)),
  ...each([Mnemonic.Scasb, Mnemonic.Scasw, Mnemonic.Scasd, Mnemonic.Scasq], string(scanElement, true)),
]);

function each(mnemonics: readonly Mnemonic[], handler: Handler): [Mnemonic, Handler][] {
  return mnemonics.map((mnemonic) => [mnemonic, handler]);
}
