import { DescriptorTable, type VcpuRecord, Verdict } from '@introd/abi';
import { requireCallback, requireVerdict } from '../callback.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { optionsError } from '../option-checks.js';
import { type ExitHook, ExitListeners } from './exit-listeners.js';
import type { ExitSwitches } from './exit-switches.js';

/** A LIDT or LGDT that has not happened yet. There is one object for all; nothing of it may be kept. */
export class DescriptorTableEvent {
  vcpu!: VcpuRecord;
  vcpuIndex = 0;
  /** `DescriptorTable` bits: the table and the access. */
  flags = 0;
  /** Linear address of the table now. */
  oldBase = 0n;
  /** Its last byte, counted from its base. */
  oldLimit = 0;
  /** Linear address of the table that is about to be loaded. */
  newBase = 0n;
  newLimit = 0;
  /** To be set by the callback: what shall happen. The strongest verdict of all hooks wins. */
  verdict: Verdict = Verdict.ALLOWED;
  /** To be set by the callback: the hook is not needed any more. */
  removeHook = false;
}

/** The loads that hooks are asked about. */
const LIDT = DescriptorTable.IDTR | DescriptorTable.WRITE;
const LGDT = DescriptorTable.GDTR | DescriptorTable.WRITE;

/** A function to be called when a descriptor table is loaded. */
export type DescriptorTableHook = ExitHook;

/**
 * Hooks on the descriptor table registers. The exit of all eight instructions is on exactly while there is a hook; then no operand of
 * these instructions passes the page hooks either, and the callbacks are asked about LIDT and LGDT (behaviour 1.2.8).
 */
export class DescriptorTableHooks {
  readonly #listeners: ExitListeners<DescriptorTableEvent>;
  readonly #onThrow: (cause: unknown) => Verdict;
  readonly #calls: HookCalls;
  /** @internal The event that {@link dispatch} shows to the callbacks. */
  readonly event = new DescriptorTableEvent();
  #verdict: Verdict = Verdict.ALLOWED;

  /** @internal */
  constructor(switches: ExitSwitches, calls: HookCalls, onThrow: (cause: unknown) => Verdict) {
    this.#calls = calls;
    this.#onThrow = onThrow;
    this.#listeners = new ExitListeners(switches, { kind: 'descriptor-table' }, (cause) =>
      this.#judge(this.#onThrow(cause)),
    );
  }

  /**
   * Calls `callback` before each load of a table from now on.
   * @param flags `DescriptorTable` bits: `IDTR | WRITE` for LIDT, `GDTR | WRITE` for LGDT. Of the other instructions only the operand's memory
   *   is asked about, by page hooks.
   * @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws when it cannot
   *   raise the exit; nothing is set then
   */
  set(
    flags: number,
    callback: (event: DescriptorTableEvent) => void,
    { name }: NamedHookOptions = {},
  ): DescriptorTableHook {
    this.#calls.requireOpen();
    if (flags !== LIDT && flags !== LGDT) {
      throw optionsError(
        `nobody is ever asked about descriptor table flags ${String(flags)}`,
        'Pass IDTR | WRITE or GDTR | WRITE; hook the operand of the other instructions as memory.',
      );
    }
    requireCallback(callback);
    const call = this.#calls.of(() => name ?? (flags === LIDT ? 'IDTR' : 'GDTR'), callback);
    const hook = this.#listeners.add((event) => {
      if (event.flags !== flags) {
        return;
      }
      event.verdict = Verdict.ALLOWED;
      event.removeHook = false;
      try {
        call(event);
        requireVerdict(event.verdict);
        this.#judge(event.verdict);
      } finally {
        if (event.removeHook) {
          hook.remove();
        }
      }
    });
    return hook;
  }

  #judge(verdict: Verdict): void {
    if (verdict > this.#verdict) {
      this.#verdict = verdict;
    }
  }

  /** @internal The verdict about the load that {@link event} describes. */
  dispatch(): Verdict {
    this.#verdict = Verdict.ALLOWED;
    this.#listeners.listeners.call(this.event);
    return this.#verdict;
  }

  /** @internal Switches the exit off when the last hook was removed. @throws what the backend throws */
  commitRemovals(): void {
    this.#listeners.commit();
  }

  /** @internal Removes every hook; the exit goes off at the commit. */
  clear(): void {
    this.#listeners.listeners.clear();
  }
}
