import { type Gpa, type Gva, gpa, gva, PAGE_SIZE } from '@introd/abi';
import type { MemoryRegion } from '../../port.js';

/** First region of the guest's RAM; everything but the data pages lies here, mapped to the same virtual addresses. */
export const LOW_RAM: MemoryRegion = { start: gpa(0), size: 0x10_0000 };
/** Second region, above 4 GiB: the data pages. Between the two there is no RAM. */
export const HIGH_RAM: MemoryRegion = { start: gpa(2 ** 32), size: 0x1_0000 };
/** An address without RAM. */
export const HOLE: Gpa = gpa(0x20_0000);

/** Page tables: the identity map of low RAM, and the window onto the data pages in the upper half. */
export const PML4 = gpa(0x1000);
export const LOW_PDPT = gpa(0x2000);
export const LOW_PD = gpa(0x3000);
export const LOW_PT = gpa(0x4000);
export const WINDOW_PDPT = gpa(0x5000);
export const WINDOW_PD = gpa(0x6000);
/** Table with the entries of the window alone, so that a case can protect it without touching code or stack. */
export const WINDOW_PT = gpa(0x7000);
/** A second root with the same contents, for CR3 writes. */
export const OTHER_PML4 = gpa(0xd000);

export const GDT = gpa(0x8000);
export const IDT = gpa(0x9000);
/** Exception handlers: each writes vector, error code, CR2 and RIP to the mailbox and ends the program. */
export const HANDLERS = gpa(0xa000);
/** The program of VCPU 0. */
export const CODE = gpa(0xb000);
/** A function in a page of its own. */
export const FAR_CODE = gpa(0xc000);
/** The program of VCPU 1. */
export const SECOND_CODE = gpa(0x1_2000);
/** Stack pages; the stack pointers start at their ends. */
export const STACK = gpa(0xf000);
export const SECOND_STACK = gpa(0x1_0000);
/** Operands of LIDT, LGDT and their like. */
export const TABLE_OPERANDS = gpa(0x1_1000);

const MAILBOX = 0xe000;
/** Where programs and handlers leave what the case checks. */
export const Mailbox = {
  /** u32, 1 when the program of VCPU 0 has ended */
  DONE: gpa(MAILBOX),
  /** u32, 1 when the program of VCPU 1 has ended */
  SECOND_DONE: gpa(MAILBOX + 8),
  /** u64, vector of the exception that was taken; all ones before */
  VECTOR: gpa(MAILBOX + 0x10),
  /** u64 */
  ERROR_CODE: gpa(MAILBOX + 0x18),
  /** u64 */
  CR2: gpa(MAILBOX + 0x20),
  /** u64, RIP in the exception frame */
  RIP: gpa(MAILBOX + 0x28),
  /** u64 results of the program */
  RESULT: gpa(MAILBOX + 0x40),
  SECOND_RESULT: gpa(MAILBOX + 0x48),
} as const;

/** Two data pages that follow each other, and one whose accessed and dirty bits are clear. */
export const DATA = HIGH_RAM.start;
export const NEXT_DATA = gpa(HIGH_RAM.start + PAGE_SIZE);
export const FRESH_DATA = gpa(HIGH_RAM.start + 2 * PAGE_SIZE);

/** First virtual address of the window; the data pages are seen here in their order. */
const WINDOW: Gva = gva(0xffff_8000_0000_0000n);

/** Virtual address of a place in the data pages. */
export function windowOf(address: Gpa): Gva {
  return gva(WINDOW + BigInt(address - HIGH_RAM.start));
}
