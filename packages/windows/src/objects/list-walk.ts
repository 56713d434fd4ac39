import type { Gva } from '@introd/abi';
import { isKernelPointer, readU64, type VirtualMemory } from '../virtual-memory.js';

/** What can be wrong with a list of the guest. */
type ListProblem = 'cyclic' | 'too-long' | 'broken-link' | 'unreadable';

/** Result of a walk: the addresses of the LIST_ENTRYs, or why the list cannot be trusted. */
export type ListWalk =
  | { readonly status: 'ok'; readonly entries: readonly Gva[] }
  | { readonly status: ListProblem; readonly at: Gva; readonly count: number };

/**
 * Walks a doubly linked list (LIST_ENTRY) from its head by Flink until it is back at the head.
 * @param head address of the list head
 * @param limit most entries that are followed (windows.md 6.2: 65535 for processes)
 */
export function walkList(memory: VirtualMemory, head: Gva, limit: number): ListWalk {
  const entries: Gva[] = [];
  // Brent's cycle detection: the anchor stays while twice as many steps are made as before, then moves up.
  let anchor = head;
  let steps = 0;
  let span = 1;
  let at = head;
  for (;;) {
    const next = readU64(memory, at);
    if (next === undefined) return { status: 'unreadable', at, count: entries.length };
    if (next === head) return { status: 'ok', entries };
    if (!isKernelPointer(next) || next % 8n !== 0n) return { status: 'broken-link', at, count: entries.length };
    if (next === anchor) return { status: 'cyclic', at: next as Gva, count: entries.length };
    if (entries.length >= limit) return { status: 'too-long', at: next as Gva, count: entries.length };
    at = next as Gva;
    entries.push(at);
    steps += 1;
    if (steps === span) {
      anchor = at;
      steps = 0;
      span *= 2;
    }
  }
}

/** A list problem as a person reads it. */
export function listProblemText(what: string, problem: Exclude<ListWalk, { status: 'ok' }>): string {
  const where = `after ${problem.count} entries, at 0x${problem.at.toString(16)}`;
  switch (problem.status) {
    case 'cyclic':
      return `the ${what} is cyclic: it never comes back to its head (${where})`;
    case 'too-long':
      return `the ${what} does not end (${where})`;
    case 'broken-link':
      return `the ${what} leads out of kernel memory (${where})`;
    case 'unreadable':
      return `the ${what} leads to memory that is not there (${where})`;
  }
}
