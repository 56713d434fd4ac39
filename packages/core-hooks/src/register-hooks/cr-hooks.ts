import { type VcpuRecord, Verdict, type Verdict as VerdictType } from '@introd/abi';
import type { ExitsCapability } from '@introd/glue';
import type { EngineCounters } from '../counters.js';
import { Listeners } from './listeners.js';

/** Number of a control register whose writes can be hooked. */
export type ControlRegister = 0 | 3 | 4 | 8;

/** A write to a control register that has not happened yet. There is one object for all; nothing of it may be kept. */
export class CrWriteEvent {
  vcpu!: VcpuRecord;
  vcpuIndex = 0;
  cr: ControlRegister = 0;
  /** To be set by the callback: what shall happen. The strongest verdict of all hooks wins. */
  verdict: VerdictType = Verdict.ALLOWED;

  /** Value before the write. */
  get oldValue(): bigint {
    return this.vcpu.get('exitOldValue');
  }

  /** Value that the guest writes. */
  get newValue(): bigint {
    return this.vcpu.get('exitNewValue');
  }
}

/** A function to be called at each write of a control register. */
export interface CrHook {
  /** Ends it. May be called from inside the callback. A second call does nothing. */
  remove(): void;
}

/** Hooks on control register writes. The exit of a register is on exactly while it has a hook. */
export class CrHooks {
  readonly #port: ExitsCapability;
  readonly #event = new CrWriteEvent();
  readonly #listeners = new Map<ControlRegister, Listeners<CrWriteEvent>>();
  readonly #counters: EngineCounters;
  readonly #onThrow: (cause: unknown) => VerdictType;
  #verdict: VerdictType = Verdict.ALLOWED;
  /** Whether a hook was removed since the last commit. */
  #removed = false;

  /** @internal */
  constructor(port: ExitsCapability, counters: EngineCounters, onThrow: (cause: unknown) => VerdictType) {
    this.#port = port;
    this.#counters = counters;
    this.#onThrow = onThrow;
  }

  /**
   * Calls `callback` before each write of a control register from now on.
   * @throws what the backend throws when it cannot raise the exit; nothing is set then
   */
  set(cr: ControlRegister, callback: (event: CrWriteEvent) => void): CrHook {
    let listeners = this.#listeners.get(cr);
    if (listeners === undefined) {
      this.#port.setExit({ kind: 'cr-write', register: cr }, true);
      listeners = new Listeners<CrWriteEvent>(this.#counters, (cause) => {
        this.#event.verdict = this.#onThrow(cause);
      });
      this.#listeners.set(cr, listeners);
    }
    const listener = listeners.add((event) => {
      event.verdict = Verdict.ALLOWED;
      try {
        callback(event);
      } catch (cause) {
        event.verdict = this.#onThrow(cause);
      }
      if (event.verdict > this.#verdict) {
        this.#verdict = event.verdict;
      }
    });
    return {
      remove: () => {
        this.#removed = true;
        listener.remove();
      },
    };
  }

  /** @internal */
  dispatch(vcpu: VcpuRecord, vcpuIndex: number, cr: number): VerdictType {
    const listeners = this.#listeners.get(cr as ControlRegister);
    this.#verdict = Verdict.ALLOWED;
    if (listeners !== undefined) {
      const event = this.#event;
      event.vcpu = vcpu;
      event.vcpuIndex = vcpuIndex;
      event.cr = cr as ControlRegister;
      listeners.call(event);
    }
    return this.#verdict;
  }

  /** @internal Switches off the exits of registers whose last hook was removed. @throws what the backend throws */
  commitRemovals(): void {
    if (!this.#removed) {
      return;
    }
    for (const [cr, listeners] of this.#listeners) {
      if (listeners.size === 0) {
        this.#port.setExit({ kind: 'cr-write', register: cr }, false);
        this.#listeners.delete(cr);
      }
    }
    this.#removed = false;
  }

  /** @internal Removes every hook. @throws what the backend throws */
  close(): void {
    for (const listeners of this.#listeners.values()) {
      listeners.clear();
    }
    this.#removed = true;
    this.commitRemovals();
  }
}
