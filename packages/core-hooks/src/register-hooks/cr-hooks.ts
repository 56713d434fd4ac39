import { u32Index, type Verdict } from '@introd/abi';
import type { EngineCounters } from '../counters.js';
import type { ExitSwitches } from './exit-switches.js';
import { type RegisterHook, RegisterWriteEvent, RegisterWriteHooks } from './register-write.js';

const EXIT_REGISTER = u32Index('exitRegister');

/** Number of a control register whose writes can be hooked. */
export type ControlRegister = 0 | 3 | 4 | 8;

/** A write to a control register that has not happened yet. There is one object for all; nothing of it may be kept. */
export class CrWriteEvent extends RegisterWriteEvent {
  /** Number of the register. */
  get cr(): ControlRegister {
    return this.vcpu.u32[EXIT_REGISTER] as ControlRegister;
  }
}

/** Hooks on control register writes. The exit of a register is on exactly while it has a hook. */
export class CrHooks extends RegisterWriteHooks<CrWriteEvent> {
  /** @internal */
  constructor(switches: ExitSwitches, counters: EngineCounters, onThrow: (cause: unknown) => Verdict) {
    super(switches, counters, onThrow, new CrWriteEvent(), (register) => ({
      kind: 'cr-write',
      register: register as ControlRegister,
    }));
  }

  /**
   * Calls `callback` before each write of a control register from now on.
   * @throws CoreHooksError ERR_CORE_HOOKS_CALLBACK; what the backend throws when it cannot raise the exit; nothing is set then
   */
  set(cr: ControlRegister, callback: (event: CrWriteEvent) => void): RegisterHook {
    return this.setHook(cr, callback);
  }
}
