import { Flag, STATUS_FLAGS } from '../arithmetic.js';
import { conditionHolds } from '../condition.js';
import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import type { EmulatedInstruction, Handler } from './instruction.js';

const { CF, PF, AF, ZF, SF } = Flag;
const RAX = 0;
const RDX = 2;
const RSP = 4;
/** Flags that SAHF and LAHF move; bit 1 is always set, bits 3 and 5 never (SDM vol. 1, 3.4.3). */
const LOW_FLAGS = CF | PF | AF | ZF | SF;

function move(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.second);
  m.write(i, i.first, low, m.high);
}

function moveSigned(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.second);
  const size = i.second.size;
  const extended = size === 1 ? (low << 24) >> 24 : size === 2 ? (low << 16) >> 16 : low | 0;
  m.write(i, i.first, extended >>> 0, (extended >> 31) >>> 0);
}

/** A 32-bit register loses its upper half in any case (SDM vol. 2, CMOVcc). */
function moveConditional(m: Emulation, i: EmulatedInstruction): void {
  let low = m.read(i, i.second);
  if (!conditionHolds(i.condition, m.rflags)) low = m.read(i, i.first);
  m.write(i, i.first, low, m.high);
}

function setConditional(m: Emulation, i: EmulatedInstruction): void {
  m.write(i, i.first, conditionHolds(i.condition, m.rflags) ? 1 : 0, 0);
}

function loadAddress(m: Emulation, i: EmulatedInstruction): void {
  m.effectiveAddress(i);
  m.write(i, i.first, m.addressLow, m.addressHigh);
}

function exchange(m: Emulation, i: EmulatedInstruction): void {
  const secondLow = m.read(i, i.second);
  const secondHigh = m.high;
  const firstLow = m.read(i, i.first);
  const firstHigh = m.high;
  const stackLow = m.general[2 * RSP]!;
  const stackHigh = m.general[2 * RSP + 1]!;
  // What may fault first: memory is the first operand when there is one.
  m.writeBack(i.first, secondLow, secondHigh);
  m.writeBack(i.second, firstLow, firstHigh);
  const low = m.general[2 * RSP]!;
  const high = m.general[2 * RSP + 1]!;
  if (low !== stackLow || high !== stackHigh) m.memory.notePivot(low, high);
}

/** XLATB: AL from the table at RBX. */
function translateByte(m: Emulation, i: EmulatedInstruction): void {
  m.effectiveAddress(i);
  m.moveAddress(m.general[2 * RAX]! & 0xff, i.addressSize);
  if (i.segment >= 0) m.addSegment(i.segment);
  m.setGeneral(RAX, 1, m.load(i, 1), 0);
}

/** CBW, CWDE, CDQE: half of the accumulator into all of it. */
function extendAccumulator(size: 2 | 4 | 8): Handler {
  return (m) => {
    const low = m.general[2 * RAX]!;
    const extended = size === 2 ? (low << 24) >> 24 : size === 4 ? (low << 16) >> 16 : low | 0;
    m.setGeneral(RAX, size, extended >>> 0, (extended >> 31) >>> 0);
  };
}

/** CWD, CDQ, CQO: the sign of the accumulator into all of the data register. */
function extendIntoData(size: 2 | 4 | 8): Handler {
  return (m) => {
    const low = m.general[2 * RAX]!;
    const sign = size === 2 ? (low << 16) >> 31 : (size === 4 ? low : m.general[2 * RAX + 1]!) >> 31;
    m.setGeneral(RDX, size, sign >>> 0, sign >>> 0);
  };
}

/** A flag is set, cleared or turned over. */
function flag(bit: number, change: 'set' | 'clear' | 'complement'): Handler {
  return (m) => {
    const value = change === 'set' ? bit : change === 'clear' ? 0 : ~m.rflags & bit;
    m.setFlags(bit, value);
  };
}

function storeFlags(m: Emulation): void {
  const ah = (m.general[2 * RAX]! >>> 8) & 0xff;
  m.rflags = (m.rflags & ~LOW_FLAGS) | (ah & LOW_FLAGS);
}

function loadFlags(m: Emulation): void {
  m.general[2 * RAX] = (m.general[2 * RAX]! & ~0xff00) | ((m.rflags & 0xff) << 8);
}

/** SALC: AL is filled with the carry flag. */
function carryIntoAl(m: Emulation): void {
  m.setGeneral(RAX, 1, (m.rflags & CF) !== 0 ? 0xff : 0, 0);
}

function nothing(): void {}

/** CLFLUSH and its kin change nothing, but the byte must be there. */
function touch(m: Emulation, i: EmulatedInstruction): void {
  m.linearAddress(i);
  m.load(i, 1);
}

const conditionalMoves = [
  Mnemonic.Cmova,
  Mnemonic.Cmovae,
  Mnemonic.Cmovb,
  Mnemonic.Cmovbe,
  Mnemonic.Cmove,
  Mnemonic.Cmovg,
  Mnemonic.Cmovge,
  Mnemonic.Cmovl,
  Mnemonic.Cmovle,
  Mnemonic.Cmovne,
  Mnemonic.Cmovno,
  Mnemonic.Cmovnp,
  Mnemonic.Cmovns,
  Mnemonic.Cmovo,
  Mnemonic.Cmovp,
  Mnemonic.Cmovs,
];

const conditionalSets = [
  Mnemonic.Seta,
  Mnemonic.Setae,
  Mnemonic.Setb,
  Mnemonic.Setbe,
  Mnemonic.Sete,
  Mnemonic.Setg,
  Mnemonic.Setge,
  Mnemonic.Setl,
  Mnemonic.Setle,
  Mnemonic.Setne,
  Mnemonic.Setno,
  Mnemonic.Setnp,
  Mnemonic.Setns,
  Mnemonic.Seto,
  Mnemonic.Setp,
  Mnemonic.Sets,
];

/** What only tells the processor something, or orders what happens one after the other here anyway. */
const hints = [
  Mnemonic.Nop,
  Mnemonic.Reservednop,
  Mnemonic.Pause,
  // Without shadow stacks they change nothing (SDM vol. 2B, RDSSP).
  Mnemonic.Rdsspd,
  Mnemonic.Rdsspq,
  Mnemonic.Endbr32,
  Mnemonic.Endbr64,
  Mnemonic.Prefetch,
  Mnemonic.Prefetchnta,
  Mnemonic.Prefetcht0,
  Mnemonic.Prefetcht1,
  Mnemonic.Prefetcht2,
  Mnemonic.Prefetchw,
  Mnemonic.Prefetchwt1,
  Mnemonic.Cldemote,
  Mnemonic.Prefetchit0,
  Mnemonic.Prefetchit1,
  Mnemonic.Lfence,
  Mnemonic.Mfence,
  Mnemonic.Sfence,
  Mnemonic.Serialize,
  // Outside a transaction (SDM vol. 2D, XABORT).
  Mnemonic.Xabort,
];

/** Moves between registers and memory, and of single flags. */
export const moveHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Mov, move],
  [Mnemonic.Movzx, move],
  [Mnemonic.Movnti, move],
  [Mnemonic.Movdiri, move],
  [Mnemonic.Movsx, moveSigned],
  [Mnemonic.Movsxd, moveSigned],
  ...conditionalMoves.map((mnemonic): [Mnemonic, Handler] => [mnemonic, moveConditional]),
  ...conditionalSets.map((mnemonic): [Mnemonic, Handler] => [mnemonic, setConditional]),
  // Outside a transaction, and there are none (SDM vol. 2D, XTEST).
  [Mnemonic.Xtest, (m) => m.setFlags(STATUS_FLAGS, ZF)],
  [Mnemonic.Lea, loadAddress],
  [Mnemonic.Xchg, exchange],
  [Mnemonic.Xlatb, translateByte],
  [Mnemonic.Cbw, extendAccumulator(2)],
  [Mnemonic.Cwde, extendAccumulator(4)],
  [Mnemonic.Cdqe, extendAccumulator(8)],
  [Mnemonic.Cwd, extendIntoData(2)],
  [Mnemonic.Cdq, extendIntoData(4)],
  [Mnemonic.Cqo, extendIntoData(8)],
  [Mnemonic.Clc, flag(CF, 'clear')],
  [Mnemonic.Stc, flag(CF, 'set')],
  [Mnemonic.Cmc, flag(CF, 'complement')],
  [Mnemonic.Cld, flag(0x400, 'clear')],
  [Mnemonic.Std, flag(0x400, 'set')],
  [Mnemonic.Sahf, storeFlags],
  [Mnemonic.Lahf, loadFlags],
  [Mnemonic.Salc, carryIntoAl],
  [Mnemonic.Clflush, touch],
  [Mnemonic.Clflushopt, touch],
  [Mnemonic.Clwb, touch],
  ...hints.map((mnemonic): [Mnemonic, Handler] => [mnemonic, nothing]),
]);
