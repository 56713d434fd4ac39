import { add, Flag, logic, result, STATUS_FLAGS, subtract } from '../arithmetic.js';
import { Mnemonic } from '../decoder.js';
import { MISALIGNED } from './abort.js';
import type { Emulation } from './emulation.js';
import { type EmulatedInstruction, type Handler, OperandKind } from './instruction.js';

const { CF } = Flag;
const ALL_BUT_CARRY = STATUS_FLAGS & ~CF;

type Operation = (m: Emulation, aLow: number, aHigh: number, bLow: number, bHigh: number, size: number) => void;

/** An instruction that computes with two operands; without `keep` only the flags are of use (CMP, TEST). */
function binary(operation: Operation, keep: boolean): Handler {
  return (m, i) => {
    // The register or immediate first: so the address of the other one is that of the operand when it is written back.
    const bLow = m.read(i, i.second);
    const bHigh = m.high;
    const aLow = m.read(i, i.first);
    operation(m, aLow, m.high, bLow, bHigh, i.first.size);
    if (keep) m.writeBack(i.first, result.low, result.high);
    m.takeFlags();
  };
}

const addOf: Operation = (_m, aLow, aHigh, bLow, bHigh, size) => add(aLow, aHigh, bLow, bHigh, 0, size);
const addCarryOf: Operation = (m, aLow, aHigh, bLow, bHigh, size) => add(aLow, aHigh, bLow, bHigh, m.rflags & CF, size);
const subtractOf: Operation = (_m, aLow, aHigh, bLow, bHigh, size) => subtract(aLow, aHigh, bLow, bHigh, 0, size);
const subtractBorrowOf: Operation = (m, aLow, aHigh, bLow, bHigh, size) =>
  subtract(aLow, aHigh, bLow, bHigh, m.rflags & CF, size);

/** Logic leaves AF undefined; like the C emulator, this one keeps it. */
function logicOf(low: (a: number, b: number) => number): Operation {
  return (m, aLow, aHigh, bLow, bHigh, size) => {
    logic(low(aLow, bLow), low(aHigh, bHigh), size);
    result.flags |= m.rflags & Flag.AF;
  };
}

/** INC and DEC: CF stays. */
function step(operation: typeof add): Handler {
  return (m, i) => {
    const low = m.read(i, i.first);
    operation(low, m.high, 1, 0, 0, i.first.size);
    m.writeBack(i.first, result.low, result.high);
    m.setFlags(ALL_BUT_CARRY, result.flags);
  };
}

function negate(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.first);
  subtract(0, 0, low, m.high, 0, i.first.size);
  m.writeBack(i.first, result.low, result.high);
  m.takeFlags();
}

function not(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.first);
  m.writeBack(i.first, (~low & i.first.mask) >>> 0, ~m.high >>> 0);
}

function exchangeAdd(m: Emulation, i: EmulatedInstruction): void {
  const addendLow = m.read(i, i.second);
  const addendHigh = m.high;
  const low = m.read(i, i.first);
  const high = m.high;
  add(low, high, addendLow, addendHigh, 0, i.first.size);
  const sumLow = result.low;
  const sumHigh = result.high;
  // The sum last: with one register as both operands it is what stays.
  if (i.first.kind === OperandKind.MEMORY) {
    m.store(sumLow, sumHigh, i.first.size);
    m.writeBack(i.second, low, high);
  } else {
    m.writeBack(i.second, low, high);
    m.writeBack(i.first, sumLow, sumHigh);
  }
  m.takeFlags();
}

function compareExchange(m: Emulation, i: EmulatedInstruction): void {
  const size = i.first.size;
  const sourceLow = m.read(i, i.second);
  const sourceHigh = m.high;
  const low = m.read(i, i.first);
  const high = m.high;
  subtract(m.general[0]!, m.general[1]!, low, high, 0, size);
  const equal = result.low === 0 && result.high === 0;
  if (equal) m.writeBack(i.first, sourceLow, sourceHigh);
  else m.setGeneral(0, size, low, high);
  m.takeFlags();
}

/** CMPXCHG8B and CMPXCHG16B: RDX:RAX against memory, which becomes RCX:RBX. */
function compareExchangeWide(m: Emulation, i: EmulatedInstruction): void {
  const half = i.size / 2;
  const bytes = new Uint8Array(i.size);
  const view = new DataView(bytes.buffer);
  m.linearAddress(i);
  const { addressLow, addressHigh } = m;
  if (i.size === 16 && (addressLow & 15) !== 0) throw MISALIGNED;
  m.memory.loadBytes(addressLow, addressHigh, bytes, i);
  let equal = true;
  const register = (part: number, word: number): number => m.general[2 * part + word]!;
  for (let at = 0; at < i.size; at += 4) {
    equal &&= view.getUint32(at, true) === register(at < half ? 0 : 2, (at % half) / 4);
  }
  if (equal) {
    for (let at = 0; at < i.size; at += 4) view.setUint32(at, register(at < half ? 3 : 1, (at % half) / 4), true);
    m.memory.storeBytes(addressLow, addressHigh, bytes);
  } else {
    m.setGeneral(0, half, view.getUint32(0, true), half === 8 ? view.getUint32(4, true) : 0);
    m.setGeneral(2, half, view.getUint32(half, true), half === 8 ? view.getUint32(12, true) : 0);
  }
  m.setFlags(Flag.ZF, equal ? Flag.ZF : 0);
}

/** Addition, subtraction, logic, and the exchanges that compute. */
export const arithmeticHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Add, binary(addOf, true)],
  [Mnemonic.Adc, binary(addCarryOf, true)],
  [Mnemonic.Sub, binary(subtractOf, true)],
  [Mnemonic.Sbb, binary(subtractBorrowOf, true)],
  [Mnemonic.Cmp, binary(subtractOf, false)],
  [
    Mnemonic.And,
    binary(
      logicOf((a, b) => a & b),
      true,
    ),
  ],
  [
    Mnemonic.Or,
    binary(
      logicOf((a, b) => a | b),
      true,
    ),
  ],
  [
    Mnemonic.Xor,
    binary(
      logicOf((a, b) => a ^ b),
      true,
    ),
  ],
  [
    Mnemonic.Test,
    binary(
      logicOf((a, b) => a & b),
      false,
    ),
  ],
  [Mnemonic.Inc, step(add)],
  [Mnemonic.Dec, step(subtract)],
  [Mnemonic.Neg, negate],
  [Mnemonic.Not, not],
  [Mnemonic.Xadd, exchangeAdd],
  [Mnemonic.Cmpxchg, compareExchange],
  [Mnemonic.Cmpxchg8b, compareExchangeWide],
  [Mnemonic.Cmpxchg16b, compareExchangeWide],
]);
