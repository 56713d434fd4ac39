import { PAGE_SIZE } from '@introd/abi';
import type { PageCache } from '../translation/page-cache.js';

/** A page-table entry as it is in memory. */
export interface EntryValue {
  low: number;
  /** 0 for entries of 4 bytes. */
  high: number;
}

/** A read of both halves is repeated when the upper one changed in between; a guest that never lets it rest loses. */
const MAX_TORN_READS = 4;

/** The one result of {@link readEntry}. */
const result: EntryValue = { low: 0, high: 0 };

/**
 * Reads a page-table entry.
 * @returns undefined when it is not RAM; else an object that the next call changes
 */
export function readEntry(pages: PageCache, gpa: number, entrySize: 4 | 8): EntryValue | undefined {
  const page = pages.get(Math.floor(gpa / PAGE_SIZE));
  if (page === undefined) {
    return undefined;
  }
  const { words } = page;
  const position = (gpa % PAGE_SIZE) >>> 2;
  result.low = words[position]!;
  result.high = 0;
  if (entrySize === 8) {
    result.high = words[position + 1]!;
    for (let attempt = 0; attempt < MAX_TORN_READS; attempt++) {
      result.low = words[position]!;
      const again = words[position + 1]!;
      if (again === result.high) {
        break;
      }
      result.high = again;
    }
  }
  return result;
}
