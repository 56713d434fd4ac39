import { add, Flag, logic, result } from '../arithmetic.js';
import { Mnemonic } from '../decoder.js';
import type { Emulation } from './emulation.js';
import type { EmulatedInstruction, Handler } from './instruction.js';
import { bitOf } from './shift-instructions.js';

const { CF, ZF, SF, OF } = Flag;
/** Polynomial of CRC-32C, bits reversed (SDM vol. 2A, CRC32). */
const CASTAGNOLI = 0x82f6_3b78;

/** Writes a result of logic and its flags; PF and AF are undefined and kept. */
function finish(m: Emulation, i: EmulatedInstruction, low: number, high: number, carry: boolean): void {
  logic(low, high, i.first.size);
  m.write(i, i.first, result.low, result.high);
  m.setFlags(CF | ZF | SF | OF, (result.flags & (ZF | SF)) | (carry ? CF : 0));
}

/** ANDN: the complement of the second operand and the third. */
function andNot(m: Emulation, i: EmulatedInstruction): void {
  const maskLow = m.read(i, i.second);
  const maskHigh = m.high;
  const low = m.read(i, i.third);
  finish(m, i, ~maskLow & low, ~maskHigh & m.high, false);
}

/** BLSI, BLSR, BLSMSK: about the lowest bit that is set, which x - 1 turns over with all below it. */
function lowestBit(kind: 'isolate' | 'reset' | 'mask'): Handler {
  return (m, i) => {
    const low = m.read(i, i.second);
    const high = m.high;
    const lessLow = low - 1;
    const lessHigh = low === 0 ? high - 1 : high;
    const zero = low === 0 && high === 0;
    if (kind === 'isolate') finish(m, i, low & ~lessLow, high & ~lessHigh, !zero);
    else if (kind === 'reset') finish(m, i, low & lessLow, high & lessHigh, zero);
    else finish(m, i, low ^ lessLow, high ^ lessHigh, zero);
  };
}

/** The lowest `count` bits of a half that begins at bit `from` of the value. */
function maskOf(count: number, from: number): number {
  const bits = count - from;
  return bits <= 0 ? 0 : bits >= 32 ? 0xffff_ffff : (1 << bits) - 1;
}

/** BZHI: bits from an index on are cleared. */
function zeroHigh(m: Emulation, i: EmulatedInstruction): void {
  const index = m.read(i, i.third) & 0xff;
  const low = m.read(i, i.second);
  const high = m.high;
  const bits = i.first.size * 8;
  finish(m, i, low & maskOf(index, 0), high & maskOf(index, 32), index >= bits);
}

/** BEXTR: a field, by start and length. */
function extractField(m: Emulation, i: EmulatedInstruction): void {
  const control = m.read(i, i.third);
  const low = m.read(i, i.second);
  const high = m.high;
  const start = control & 0xff;
  const length = (control >>> 8) & 0xff;
  let outLow = 0;
  let outHigh = 0;
  for (let bit = 0; bit < Math.min(length, 64); bit++) {
    const set = bitOf(low, high, start + bit);
    if (bit < 32) outLow |= set << bit;
    else outHigh |= set << (bit - 32);
  }
  finish(m, i, outLow, outHigh, false);
}

/** PEXT and PDEP: the bits that a mask selects, side by side or spread out; no flags. */
function scatterBits(spread: boolean): Handler {
  return (m, i) => {
    const maskLow = m.read(i, i.third);
    const maskHigh = m.high;
    const low = m.read(i, i.second);
    const high = m.high;
    let outLow = 0;
    let outHigh = 0;
    let next = 0;
    for (let bit = 0; bit < i.first.size * 8; bit++) {
      if (bitOf(maskLow, maskHigh, bit) === 0) continue;
      const set = bitOf(low, high, spread ? next : bit);
      const to = spread ? bit : next;
      if (to < 32) outLow |= set << to;
      else outHigh |= set << (to - 32);
      next++;
    }
    m.write(i, i.first, outLow >>> 0, outHigh >>> 0);
  };
}

/** ADCX and ADOX: addition with one flag as carry in and out. */
function addWithFlag(flag: number): Handler {
  return (m, i) => {
    const bLow = m.read(i, i.second);
    const bHigh = m.high;
    const aLow = m.read(i, i.first);
    add(aLow, m.high, bLow, bHigh, (m.rflags & flag) === 0 ? 0 : 1, i.first.size);
    m.write(i, i.first, result.low, result.high);
    m.setFlags(flag, (result.flags & CF) === 0 ? 0 : flag);
  };
}

/** CRC32, the byte with the lowest address first. */
function checksum(m: Emulation, i: EmulatedInstruction): void {
  const low = m.read(i, i.second);
  const high = m.high;
  let crc = m.general[2 * i.first.register]!;
  for (let byte = 0; byte < i.second.size; byte++) {
    crc ^= ((byte < 4 ? low : high) >>> ((byte & 3) * 8)) & 0xff;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 0 ? 0 : CASTAGNOLI);
  }
  m.write(i, i.first, crc >>> 0, 0);
}

/** BMI1, BMI2, ADX, and CRC32: what compilers make of bit fields and long numbers. */
export const bitFieldHandlers = new Map<Mnemonic, Handler>([
  [Mnemonic.Andn, andNot],
  [Mnemonic.Blsi, lowestBit('isolate')],
  [Mnemonic.Blsr, lowestBit('reset')],
  [Mnemonic.Blsmsk, lowestBit('mask')],
  [Mnemonic.Bzhi, zeroHigh],
  [Mnemonic.Bextr, extractField],
  [Mnemonic.Pext, scatterBits(false)],
  [Mnemonic.Pdep, scatterBits(true)],
  [Mnemonic.Adcx, addWithFlag(CF)],
  [Mnemonic.Adox, addWithFlag(OF)],
  [Mnemonic.Crc32, checksum],
]);
