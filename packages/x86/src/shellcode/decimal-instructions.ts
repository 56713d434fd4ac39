import { Flag, logic, result } from '../arithmetic.js';
import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import type { Handler } from './instruction.js';

const RAX = 0;
const { CF, PF, AF, ZF, SF } = Flag;

/** Sets AL, and the flags of it; those that an instruction leaves undefined are kept. */
function setAl(m: Emulation, al: number): void {
  m.setGeneral(RAX, 1, al, 0);
  logic(al, 0, 1);
  m.setFlags(PF | ZF | SF, result.flags);
}

/** DAA and DAS: makes two decimal digits of a sum or a difference of such (SDM vol. 2A, DAA). */
function adjustPacked(sign: 1 | -1): Handler {
  return (m) => {
    const before = m.general[2 * RAX]! & 0xff;
    const carryBefore = (m.rflags & CF) !== 0;
    const low = (before & 0xf) > 9 || (m.rflags & AF) !== 0;
    const high = before > 0x99 || carryBefore;
    const first = before + (low ? 6 * sign : 0);
    const carried = low && (carryBefore || first > 0xff || first < 0);
    setAl(m, first + (high ? 0x60 * sign : 0));
    // Only DAA takes a carry of the lower digit back.
    m.setFlags(AF | CF, (low ? AF : 0) | (high || (sign < 0 && carried) ? CF : 0));
  };
}

/** AAA and AAS: one decimal digit, the carry into AH. */
function adjustUnpacked(sign: 1 | -1): Handler {
  return (m) => {
    const ax = m.general[2 * RAX]! & 0xffff;
    const adjust = (ax & 0xf) > 9 || (m.rflags & AF) !== 0;
    m.setGeneral(RAX, 2, (ax + (adjust ? 0x106 * sign : 0)) & 0xff0f, 0);
    m.setFlags(AF | CF, adjust ? AF | CF : 0);
  };
}

/** AAM: quotient and remainder of AL. A base of 0 faults. */
const splitDigits: Handler = (m, i) => {
  const base = i.immediateLow & 0xff;
  if (base === 0) {
    m.status = 'halted';
    return;
  }
  const al = m.general[2 * RAX]! & 0xff;
  m.setGeneral(RAX, 2, Math.floor(al / base) << 8, 0);
  setAl(m, al % base);
};

/** AAD: the inverse of AAM. */
const joinDigits: Handler = (m, i) => {
  const ax = m.general[2 * RAX]! & 0xffff;
  m.setGeneral(RAX, 2, 0, 0);
  setAl(m, ((ax & 0xff) + (ax >>> 8) * (i.immediateLow & 0xff)) & 0xff);
};

/** ARPL: the level of a selector becomes at least that of another. */
const adjustLevel: Handler = (m, i) => {
  const level = m.read(i, i.second) & 3;
  const selector = m.read(i, i.first);
  const raise = (selector & 3) < level;
  if (raise) m.writeBack(i.first, (selector & ~3) | level, 0);
  m.setFlags(ZF, raise ? ZF : 0);
};

/** BOUND: an index outside the two limits in memory faults. */
const checkBounds: Handler = (m, i) => {
  const size = i.first.size;
  const signed = (value: number): number => (size === 2 ? (value << 16) >> 16 : value | 0);
  const index = signed(m.read(i, i.first));
  m.linearAddress(i);
  const lower = signed(m.load(i, size));
  m.moveAddress(size, 4);
  const upper = signed(m.load(i, size));
  if (index < lower || index > upper) m.status = 'halted';
};

/** What 32-bit code has and 64-bit code has no longer. */
export const decimalHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Daa, adjustPacked(1)],
  [Mnemonic.Das, adjustPacked(-1)],
  [Mnemonic.Aaa, adjustUnpacked(1)],
  [Mnemonic.Aas, adjustUnpacked(-1)],
  [Mnemonic.Aam, splitDigits],
  [Mnemonic.Aad, joinDigits],
  [Mnemonic.Arpl, adjustLevel],
  [Mnemonic.Bound, checkBounds],
]);
