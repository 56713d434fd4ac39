import { type Gpa, type Gva, type VcpuRecord, Verdict } from '@introd/abi';
import type { Leaf } from './leaf.js';
import type { TranslationHook } from './translation-hook.js';

/**
 * A change of what a virtual address leads to. It is told whenever an entry on the way changes P, R/W, U/S, PS or its address and the
 * address is mapped before or after; so old and new are the same when the rights of an upper entry changed, or a table moved with its content.
 */
export class TranslationEvent {
  readonly hook: TranslationHook;
  /** Registers of the VCPU whose write changes it; undefined when the engine writes, or noticed the change afterwards. */
  readonly vcpu: VcpuRecord | undefined;
  /** The last-level or large-page entry before; 0 while an upper entry was absent. Accessed, dirty and other bits that do not matter may be old. */
  readonly oldEntry: bigint;
  /** The same after. */
  readonly newEntry: bigint;
  /** Size in bytes of the page that the old entry maps, or of an absent last-level entry; 0 while an upper entry was absent. */
  readonly oldPageSize: number;
  /** The same after. */
  readonly newPageSize: number;
  /** Where the 4 KiB around the hook's address were; undefined when they were not mapped. */
  readonly oldGpa: Gpa | undefined;
  /** Where they are now. */
  readonly newGpa: Gpa | undefined;
  /** To be set by `callback`: NOT_ALLOWED keeps the write from happening. The strongest verdict wins. In `committed` it has no effect. */
  verdict: Verdict = Verdict.ALLOWED;
  /** To be set by a callback: the hook, and whatever it is a part of, is not needed any more. */
  removeHook = false;

  /** @internal */
  constructor(hook: TranslationHook, vcpu: VcpuRecord | undefined, before: Leaf, after: Leaf) {
    this.hook = hook;
    this.vcpu = vcpu;
    this.oldEntry = before.entry;
    this.oldPageSize = before.pageSize;
    this.oldGpa = before.gpa;
    this.newEntry = after.entry;
    this.newPageSize = after.pageSize;
    this.newGpa = after.gpa;
  }

  /** The hook's address. */
  get va(): Gva {
    return this.hook.va;
  }
}
