import { u32Index, type VcpuRecord } from '@introd/abi';
import { requireCallback } from '../callback.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { type ExitHook, ExitListeners } from './exit-listeners.js';
import type { ExitSwitches } from './exit-switches.js';

const EXIT_VECTOR = u32Index('exitVector');
const EXIT_ERROR_CODE = u32Index('exitErrorCode');

/**
 * The report of an event that was delivered where one had been injected: that one, or another that came first, in which case the
 * injected one is lost. There is one object for all; nothing of it may be kept.
 */
export class InjectedEvent {
  vcpu!: VcpuRecord;
  vcpuIndex = 0;

  /** What was delivered, 0..255. */
  get vector(): number {
    return this.vcpu.u32[EXIT_VECTOR]!;
  }

  /** Its error code; meaningful for vectors that have one. */
  get errorCode(): number {
    return this.vcpu.u32[EXIT_ERROR_CODE]!;
  }

  /** CR2 that it was delivered with. Allocates. */
  get cr2(): bigint {
    return this.vcpu.get('exitNewValue');
  }
}

/** Who is told about delivered events, in the order in which they were set. The report is on exactly while there is anybody. */
export class InjectionHooks {
  readonly #listeners: ExitListeners<InjectedEvent>;
  readonly #event = new InjectedEvent();
  readonly #calls: HookCalls;

  /** @internal */
  constructor(switches: ExitSwitches, calls: HookCalls, onThrow: (cause: unknown) => void) {
    this.#calls = calls;
    this.#listeners = new ExitListeners(switches, { kind: 'event-injected' }, onThrow);
  }

  /**
   * Calls `callback` at each report from now on.
   * @throws CoreHooksError ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws when it cannot report; nothing is set then
   */
  set(callback: (event: InjectedEvent) => void, { name = 'injected event' }: NamedHookOptions = {}): ExitHook {
    this.#calls.requireOpen();
    requireCallback(callback);
    return this.#listeners.add(this.#calls.of(() => name, callback));
  }

  /** @internal */
  dispatch(vcpu: VcpuRecord, vcpuIndex: number): void {
    this.#event.vcpu = vcpu;
    this.#event.vcpuIndex = vcpuIndex;
    this.#listeners.listeners.call(this.#event);
  }

  /** @internal Switches the report off when the last was removed. @throws what the backend throws */
  commitRemovals(): void {
    this.#listeners.commit();
  }

  /** @internal Removes every one; the exit goes off at the commit. */
  clear(): void {
    this.#listeners.listeners.clear();
  }
}
