import type { VcpuRecord } from '@introd/abi';
import { requireCallback } from '../callback.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { Listeners } from './listeners.js';

/** One second of guest time has passed. */
export interface TickEvent {
  /** Guest time in microseconds. */
  readonly time: number;
}

/** Reads the time only when it is asked for: a number of its size is an allocation. */
class Tick implements TickEvent {
  record!: VcpuRecord;

  get time(): number {
    return this.record.exitTime;
  }
}

/** A function to be called each second of guest time. */
export interface TickHook {
  /** Ends it. May be called from inside the callback. A second call does nothing. */
  remove(): void;
}

/** The functions called at each tick, in the order in which they were set. */
export class TickHooks {
  readonly #listeners: Listeners<TickEvent>;
  readonly #event = new Tick();
  readonly #calls: HookCalls;

  /** @internal */
  constructor(calls: HookCalls, onThrow: (cause: unknown) => void) {
    this.#calls = calls;
    this.#listeners = new Listeners(onThrow);
  }

  /** Calls `callback` at each tick from now on. @throws CoreHooksError ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED */
  set(callback: (event: TickEvent) => void, { name = 'tick' }: NamedHookOptions = {}): TickHook {
    this.#calls.requireOpen();
    requireCallback(callback);
    return this.#listeners.add(this.#calls.of(() => name, callback));
  }

  /** @internal */
  dispatch(record: VcpuRecord): void {
    if (this.#listeners.size > 0) {
      this.#event.record = record;
      this.#listeners.call(this.#event);
    }
  }

  /** @internal */
  close(): void {
    this.#listeners.clear();
  }
}
