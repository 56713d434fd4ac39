import { type Gpa, type VcpuRecord, Verdict } from '@introd/abi';
import { PageTableWrite } from '../dispatch/page-table-write.js';
import type { EntryHook } from './entry-hooks.js';

/**
 * A write to a watched page-table entry, as its hooks see it. There is one object for all writes of the guest: a callback that wants to
 * keep something copies it.
 */
export class EntryWriteEvent {
  /** The hook whose callback runs. */
  hook!: EntryHook;
  /** Registers of the VCPU that writes; undefined when the engine does. */
  vcpu: VcpuRecord | undefined;
  /** @internal */
  write = new PageTableWrite();
  /** To be set by `callback`: what shall happen. The strongest verdict of all hooks wins; the engine's own writes are not asked about. */
  verdict: Verdict = Verdict.ALLOWED;
  /** To be set by a callback: the hook is not needed any more. */
  removeHook = false;

  /** Where the entry lies. */
  get gpa(): Gpa {
    return this.hook.gpa;
  }

  /** Low half of the entry before the write. */
  get oldLow(): number {
    return this.write.oldLow;
  }

  /** High half of it; 0 for entries of 4 bytes. */
  get oldHigh(): number {
    return this.write.oldHigh;
  }

  /** Low half of the entry as the write leaves it. */
  get newLow(): number {
    return this.write.newLow;
  }

  /** High half of it; 0 for entries of 4 bytes. */
  get newHigh(): number {
    return this.write.newHigh;
  }

  /** The entry before the write. Allocates. */
  get old(): bigint {
    return this.write.old;
  }

  /** The entry as the write leaves it. Allocates. */
  get new(): bigint {
    return this.write.new;
  }

  /** For `callback`: makes the write commit another entry, see {@link PageTableWrite.replace}. */
  replace(value: bigint): void {
    this.write.replace(value);
  }
}
