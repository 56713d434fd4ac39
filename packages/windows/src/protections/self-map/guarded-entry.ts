import type { Cr3, Gpa } from '@introd/abi';
import type { PageHook } from '@introd/core-hooks';
import type { WindowsProcess } from '../../objects/process.js';
import { closed, entryAddress } from './entry.js';

/** One self-map entry: that of a process's kernel page tables, or of its user ones. */
export class GuardedEntry {
  readonly address: Gpa;
  /** Value when it was last looked at. */
  lastValue: bigint;
  /**
   * Why the entry may be open to user mode without being told again: a rule allows it, or it was told already and is
   * not to be closed. `undefined` when it was closed at the last look.
   */
  knownOpen: 'allowed-by-rule' | 'told' | undefined;
  /** The write hook on it; only the System process has one. */
  hook: PageHook | undefined;

  /** @param value the entry as it was found; a process that is born with an open one has it told, so U/S does not count as known */
  constructor(
    readonly process: WindowsProcess,
    readonly table: 'kernel' | 'user',
    readonly cr3: Cr3,
    index: number,
    value: bigint,
  ) {
    this.address = entryAddress(cr3, index);
    this.lastValue = closed(value);
  }
}
