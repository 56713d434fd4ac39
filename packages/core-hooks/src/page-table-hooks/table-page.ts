import { PAGE_SIZE } from '@introd/abi';
import type { PageHook } from '../page-hooks/page-hooks.js';
import type { EntryHook } from './entry-hooks.js';

/** Roots of which not the whole page holds watched entries. */
export type EntryRoot = 'pae' | 'user-half';

/** Bytes of a PAE root: four entries. */
const PAE_ROOT_SIZE = 32;
const NOBODY: readonly EntryHook[] = [];

/** Part of a page that a table's page hook covers. */
export interface Coverage {
  /** Number of the table in its page: several roots of 32 bytes lie in one, and one may be a table of both entry sizes. */
  readonly key: number;
  readonly start: number;
  readonly length: number;
}

/** What is to be covered for a watched entry. */
export function coverageOf(gpa: number, entrySize: 4 | 8, root: EntryRoot | undefined): Coverage {
  if (root === 'pae') {
    const start = gpa - (gpa % PAE_ROOT_SIZE);
    return { key: 16 + (start % PAGE_SIZE) / PAE_ROOT_SIZE, start, length: PAE_ROOT_SIZE };
  }
  return { key: entrySize, start: gpa - (gpa % PAGE_SIZE), length: root === 'user-half' ? PAGE_SIZE / 2 : PAGE_SIZE };
}

/** A table some of whose entries are watched. */
export class TablePage {
  /** The write hook on the table. */
  guard!: PageHook;
  /** Bytes that {@link guard} covers. */
  length = 0;
  /** Hooks by the entry's offset in its page, each list in calling order. Lists are replaced, never changed. */
  readonly #entries = new Map<number, readonly EntryHook[]>();

  /** @param key which of the tables in its frame it is */
  constructor(
    readonly frame: number,
    readonly key: number,
  ) {}

  /** The hooks of an entry. */
  hooksAt(gpa: number): readonly EntryHook[] {
    return this.#entries.get(gpa % PAGE_SIZE) ?? NOBODY;
  }

  /** Whether an entry is watched that has bytes in a range of the page. */
  watches(first: number, end: number, entrySize: 4 | 8): boolean {
    for (let offset = first & -entrySize; offset < end; offset += entrySize) {
      if (this.#entries.has(offset)) {
        return true;
      }
    }
    return false;
  }

  /** The hooks of each entry that a physical range touches. */
  *hooksBetween(start: number, end: number): Iterable<readonly EntryHook[]> {
    const page = this.frame * PAGE_SIZE;
    for (const [offset, hooks] of this.#entries) {
      if (page + offset < end && page + offset + hooks[0]!.entrySize > start) {
        yield hooks;
      }
    }
  }

  add(hook: EntryHook): void {
    const offset = hook.gpa % PAGE_SIZE;
    this.#entries.set(offset, [...this.hooksAt(hook.gpa), hook]);
  }

  delete(hook: EntryHook): void {
    const offset = hook.gpa % PAGE_SIZE;
    const left = this.hooksAt(hook.gpa).filter((other) => other !== hook);
    if (left.length === 0) {
      this.#entries.delete(offset);
    } else {
      this.#entries.set(offset, left);
    }
  }

  get isEmpty(): boolean {
    return this.#entries.size === 0;
  }

  get liveHooks(): number {
    let count = 0;
    for (const hooks of this.#entries.values()) {
      count += hooks.filter((hook) => !hook.removed).length;
    }
    return count;
  }
}
