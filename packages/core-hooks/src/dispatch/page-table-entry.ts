import type { Gpa } from '@introd/abi';
import type { PageTableWrite } from './page-table-write.js';

/** Bits that the processor sets by itself (SDM vol. 3A, 4.8). */
export const ACCESSED = 0x20;
export const DIRTY = 0x40;

/** Bits of an entry that decide what it maps and for whom: P, RW, US, PS and the address (core-hooks.md 7, test 3). */
const MONITORED_LOW = 0xffff_f087;
const MONITORED_HIGH = 0x000f_ffff;
const PRESENT = 1;

/** Whether an entry maps the same after a write as before: nobody needs to be asked (behaviour 1.2.5). */
export function mapsTheSame(write: PageTableWrite): boolean {
  return !changesMapping(write.oldLow, write.oldHigh, write.newLow, write.newHigh);
}

/** Whether two values of an entry, one of them present, differ in a bit that decides what it maps and for whom. */
export function changesMapping(oldLow: number, oldHigh: number, newLow: number, newHigh: number): boolean {
  if (((oldLow | newLow) & PRESENT) === 0) {
    return false;
  }
  return ((oldLow ^ newLow) & MONITORED_LOW) !== 0 || ((oldHigh ^ newHigh) & MONITORED_HIGH) !== 0;
}

/** Puts the entry at `gpa`, a multiple of 8, as it is now into `write`. What the write makes of it is to be told next. */
export function loadEntry(write: PageTableWrite, gpa: number, low: number, high: number): void {
  write.gpa = gpa as Gpa;
  write.oldLow = low;
  write.oldHigh = high;
  write.replaced = false;
}

/** Low half of what the old entry holds from byte `offset` on; the bytes behind the entry's end are 0. */
export function oldLowAt(write: PageTableWrite, offset: number): number {
  const { oldLow, oldHigh } = write;
  if (offset >= 4) {
    return oldHigh >>> ((offset - 4) * 8);
  }
  return offset > 0 ? ((oldLow >>> (offset * 8)) | (oldHigh << (32 - offset * 8))) >>> 0 : oldLow;
}

/** Makes the new entry of the old one and an operand of `size` bytes, 1, 2, 4 or 8, stored at byte `offset`. */
export function storeOperand(write: PageTableWrite, offset: number, size: number, low: number, high: number): void {
  if (size === 8) {
    write.newLow = low;
    write.newHigh = high;
    return;
  }
  const mask = size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
  const shift = (offset & 3) * 8;
  const lowPart = offset < 4 ? mask << shift : 0;
  const highPart = offset >= 4 ? mask << shift : shift === 0 ? 0 : mask >>> (32 - shift);
  const lowValue = offset < 4 ? low << shift : 0;
  const highValue = offset >= 4 ? low << shift : shift === 0 ? 0 : low >>> (32 - shift);
  write.newLow = ((write.oldLow & ~lowPart) | lowValue) >>> 0;
  write.newHigh = ((write.oldHigh & ~highPart) | highValue) >>> 0;
}

/** Changes byte `at` of the new entry. */
export function storeByte(write: PageTableWrite, at: number, value: number): void {
  const shift = (at & 3) * 8;
  const keep = ~(0xff << shift);
  if (at < 4) {
    write.newLow = ((write.newLow & keep) | (value << shift)) >>> 0;
  } else {
    write.newHigh = ((write.newHigh & keep) | (value << shift)) >>> 0;
  }
}
