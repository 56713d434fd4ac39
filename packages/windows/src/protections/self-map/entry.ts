import { type Cr3, ENTRY_FRAME_MASK, type Gpa, type Gva, gva, rootOf } from '@introd/abi';

/** P: the entry is present (SDM vol. 3A, table 4-15). */
const PRESENT = 1n;
/** U/S: ring 3 may use what lies below the entry. */
const USER = 4n;

/** The bits that are both set in an entry which opens the page tables to ring 3, in its low half. */
export const OPEN_BITS = Number(PRESENT | USER);

/** Whether an entry is present. */
export function isPresent(entry: bigint): boolean {
  return (entry & PRESENT) !== 0n;
}

/** Whether a self-map entry opens the page tables to ring 3. Address, R/W and XD do not count (behaviour 1.3). */
export function isOpen(entry: bigint): boolean {
  return isPresent(entry) && (entry & USER) !== 0n;
}

/** The entry without U/S. */
export function closed(entry: bigint): bigint {
  return entry & ~USER;
}

/** Whether an entry refers to a physical page. */
export function pointsTo(entry: bigint, page: Gpa): boolean {
  return (entry & ENTRY_FRAME_MASK) === BigInt(page);
}

/** Physical address of the self-map entry in the PML4 that a CR3 names. */
export function entryAddress(cr3: Cr3, index: number): Gpa {
  return (rootOf(cr3) + index * 8) as Gpa;
}

/** Virtual address at which the self-map entry shows itself: every level of the walk goes through it. */
export function entryVirtualAddress(index: number): Gva {
  const i = BigInt(index);
  return gva(0xffff_0000_0000_0000n | (i << 39n) | (i << 30n) | (i << 21n) | (i << 12n) | (i << 3n));
}
