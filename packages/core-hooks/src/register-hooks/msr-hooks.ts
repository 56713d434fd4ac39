import { u32Index, type Verdict } from '@introd/abi';
import type { EngineCounters } from '../counters.js';
import type { ExitSwitches } from './exit-switches.js';
import { type RegisterHook, RegisterWriteEvent, RegisterWriteHooks } from './register-write.js';

const EXIT_REGISTER = u32Index('exitRegister');

/** A write to a model-specific register that has not happened yet. There is one object for all; nothing of it may be kept. */
export class MsrWriteEvent extends RegisterWriteEvent {
  /** Number of the register, as in ECX of WRMSR. */
  get msr(): number {
    return this.vcpu.u32[EXIT_REGISTER]!;
  }
}

/** Hooks on MSR writes. The exit of a register is on exactly while it has a hook. */
export class MsrHooks extends RegisterWriteHooks<MsrWriteEvent> {
  /** @internal */
  constructor(switches: ExitSwitches, counters: EngineCounters, onThrow: (cause: unknown) => Verdict) {
    super(switches, counters, onThrow, new MsrWriteEvent(), (register) => ({ kind: 'msr-write', register }));
  }

  /**
   * Calls `callback` before each write of an MSR from now on.
   * @throws CoreHooksError ERR_CORE_HOOKS_CALLBACK; what the backend throws when it cannot raise the exit; nothing is set then
   */
  set(msr: number, callback: (event: MsrWriteEvent) => void): RegisterHook {
    return this.setHook(msr >>> 0, callback);
  }
}
