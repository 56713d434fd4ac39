import { type Cr3, PAGE_SIZE, rootOf } from '@introd/abi';
import type { GuestMemory } from '@introd/core-hooks';
import { isPresent, pointsTo } from '../protections/self-map/entry.js';

/** First index of the kernel's half of a PML4. */
const FIRST_INDEX = 256;
/** Entries of a PML4. */
const ENTRIES = 512;

/**
 * Finds the entry of a PML4 that refers to the PML4 itself (behaviour 1.3): through it the kernel sees its page tables.
 * @returns its index, 256..511; `undefined` when there is none
 */
export function findSelfMapIndex(memory: GuestMemory, cr3: Cr3): number | undefined {
  const root = rootOf(cr3);
  const page = new Uint8Array(PAGE_SIZE);
  if (!memory.readPhysical(root, page)) return undefined;
  const entries = new DataView(page.buffer);
  for (let index = FIRST_INDEX; index < ENTRIES; index += 1) {
    const entry = entries.getBigUint64(index * 8, true);
    // Bit 11 is free for software; the original marks a second self-reference of its own with it.
    if (isPresent(entry) && pointsTo(entry, root) && (entry & 0x800n) === 0n) return index;
  }
  return undefined;
}
