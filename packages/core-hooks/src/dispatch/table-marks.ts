import { u32Index, type VcpuRecord } from '@introd/abi';
import type { WriteCapability } from '@introd/glue';
import { type Translator, Walk } from '../translation/translator.js';
import { ACCESSED, DIRTY } from './page-table-entry.js';

const CR3 = u32Index('cr3');

/** How often the tables are walked again because an entry changed while its bits were set. */
const MAX_ATTEMPTS = 8;

/** What {@link markTables} did. */
export const Marks = {
  /** The bits are set, or it is not for the tables to have them. */
  SET: 0,
  /** They are, and one of the entries is the watched one. */
  WATCHED: 1,
  /** The tables change all the time. */
  FAILED: 2,
} as const;
/** One of the {@link Marks} numbers. */
export type Marks = (typeof Marks)[keyof typeof Marks];

/**
 * Sets the accessed and dirty bits that the processor would set on the way to a store (SDM vol. 3A, 4.8), each in one compare-exchange.
 * @param low low half of the linear address
 * @param high high half of it
 * @param gpa where the store goes
 * @param watched an entry that the caller has read already
 */
export function markTables(
  port: WriteCapability,
  translator: Translator,
  vcpu: VcpuRecord,
  low: number,
  high: number,
  gpa: number,
  watched: number,
): Marks {
  const registers = vcpu.u32;
  let marks: Marks = Marks.SET;
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const status = translator.walk(registers[CR3]!, registers[CR3 + 1]!, low, high);
    if (status !== Walk.OK || translator.gpa !== gpa) {
      // The processor used a translation that it remembers; the tables do not lead here any more.
      return Marks.SET;
    }
    let done = true;
    const leaf = translator.depth - 1;
    const { entrySize } = translator;
    for (let level = translator.firstFlagLevel; level <= leaf && done; level++) {
      const entryLow = translator.entryLow(level);
      const marked = (entryLow | (level === leaf ? ACCESSED | DIRTY : ACCESSED)) >>> 0;
      if (marked !== entryLow) {
        const entryHigh = translator.entryHigh(level);
        const at = translator.entryGpa(level);
        if (at - (at % 8) === watched) {
          marks = Marks.WATCHED;
        }
        // In a self-map one entry serves several levels: what was set for the first makes the next one fail, and walk again.
        done = port.compareExchange(at, entrySize, entryLow, entryHigh, marked, entryHigh);
      }
    }
    if (done) {
      return marks;
    }
  }
  return Marks.FAILED;
}
