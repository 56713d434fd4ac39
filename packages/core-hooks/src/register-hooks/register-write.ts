import { u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import type { SwitchedExit } from '@introd/glue';
import { requireCallback, requireVerdict } from '../callback.js';
import type { HookCalls } from '../hook-calls.js';
import { type ExitHook, ExitListeners } from './exit-listeners.js';
import type { ExitSwitches } from './exit-switches.js';

const EXIT_REGISTER = u32Index('exitRegister');

/** A write to a register that has not happened yet. There is one object for all; nothing of it may be kept. */
export class RegisterWriteEvent {
  vcpu!: VcpuRecord;
  vcpuIndex = 0;
  /** To be set by the callback: what shall happen. The strongest verdict of all hooks wins. */
  verdict: Verdict = Verdict.ALLOWED;
  /** To be set by the callback: the hook is not needed any more. */
  removeHook = false;

  /** Value before the write. Allocates. */
  get oldValue(): bigint {
    return this.vcpu.get('exitOldValue');
  }

  /** Value that will be written; an earlier callback's replacement shows here. Allocates. */
  get newValue(): bigint {
    return this.vcpu.get('replyValue');
  }

  /** Makes the write commit another value. The backend commits it as it is: it must be one that the register can hold. */
  replace(value: bigint): void {
    this.vcpu.set('replyValue', value);
  }
}

/** A function to be called at each write of a register. */
export type RegisterHook = ExitHook;

/**
 * Hooks on writes of one kind of register, by number. The exit of a register is on exactly while it has a hook; hooks of one
 * register are called in the order in which they were set.
 */
export class RegisterWriteHooks<E extends RegisterWriteEvent> {
  readonly #switches: ExitSwitches;
  readonly #calls: HookCalls;
  readonly #onThrow: (cause: unknown) => Verdict;
  readonly #event: E;
  readonly #exitOf: (register: number) => SwitchedExit;
  /** By number, signed. */
  readonly #registers = new Map<number, ExitListeners<E>>();
  #verdict: Verdict = Verdict.ALLOWED;

  /** @internal */
  constructor(
    switches: ExitSwitches,
    calls: HookCalls,
    onThrow: (cause: unknown) => Verdict,
    event: E,
    exitOf: (register: number) => SwitchedExit,
  ) {
    this.#switches = switches;
    this.#calls = calls;
    this.#onThrow = onThrow;
    this.#event = event;
    this.#exitOf = exitOf;
  }

  /**
   * Calls `callback` before each write of a register from now on.
   * @param name of its account
   * @throws CoreHooksError ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws; nothing is set then
   */
  protected setHook(register: number, callback: (event: E) => void, name: () => string): RegisterHook {
    this.#calls.requireOpen();
    requireCallback(callback);
    const call = this.#calls.of(name, callback);
    const key = register | 0;
    let listeners = this.#registers.get(key);
    if (listeners === undefined) {
      listeners = new ExitListeners<E>(this.#switches, this.#exitOf(register), (cause) =>
        this.#judge(this.#onThrow(cause)),
      );
    }
    const hook = listeners.add((event) => {
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
    this.#registers.set(key, listeners);
    return hook;
  }

  #judge(verdict: Verdict): void {
    if (verdict > this.#verdict) {
      this.#verdict = verdict;
    }
  }

  /** @internal The verdict about the write that a VCPU stands at. */
  dispatch(vcpu: VcpuRecord, vcpuIndex: number): Verdict {
    // Numbers of MSRs reach beyond 31 bits.
    return this.judgeWrite(vcpu.u32[EXIT_REGISTER]! | 0, vcpu, vcpuIndex);
  }

  /** @internal Calls the hooks of a register, given by its number, signed. */
  protected judgeWrite(register: number, vcpu: VcpuRecord, vcpuIndex: number): Verdict {
    const listeners = this.#registers.get(register);
    this.#verdict = Verdict.ALLOWED;
    if (listeners !== undefined) {
      const event = this.#event;
      event.vcpu = vcpu;
      event.vcpuIndex = vcpuIndex;
      listeners.listeners.call(event);
    }
    return this.#verdict;
  }

  /** @internal Switches off the exits of registers whose last hook was removed. @throws what the backend throws */
  commitRemovals(): void {
    for (const [register, listeners] of this.#registers) {
      if (listeners.listeners.size === 0) {
        listeners.commit();
        this.#registers.delete(register);
      }
    }
  }

  /** @internal Removes every hook; the exits go off at the commit. */
  clear(): void {
    for (const { listeners } of this.#registers.values()) {
      listeners.clear();
    }
  }
}
