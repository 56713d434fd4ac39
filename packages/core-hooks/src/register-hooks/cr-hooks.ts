import { u32Index, type Verdict } from '@introd/abi';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { optionsError } from '../option-checks.js';
import type { ExitSwitches } from './exit-switches.js';
import { type RegisterHook, RegisterWriteEvent, RegisterWriteHooks } from './register-write.js';

const EXIT_REGISTER = u32Index('exitRegister');

const CONTROL_REGISTERS = [0, 3, 4, 8] as const;
/** Number of a control register whose writes can be hooked. */
export type ControlRegister = (typeof CONTROL_REGISTERS)[number];

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
  constructor(switches: ExitSwitches, calls: HookCalls, onThrow: (cause: unknown) => Verdict) {
    super(switches, calls, onThrow, new CrWriteEvent(), (register) => ({
      kind: 'cr-write',
      register: register as ControlRegister,
    }));
  }

  /**
   * Calls `callback` before each write of a control register from now on.
   * @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws when it cannot raise the exit; nothing is set then
   */
  set(cr: ControlRegister, callback: (event: CrWriteEvent) => void, { name }: NamedHookOptions = {}): RegisterHook {
    if (!CONTROL_REGISTERS.includes(cr)) {
      throw optionsError(
        `a hook cannot be on control register ${String(cr)}`,
        `Writes of ${CONTROL_REGISTERS.map((number) => `CR${number}`).join(', ')} can be hooked.`,
      );
    }
    return this.setHook(cr, callback, () => name ?? `CR${cr}`);
  }
}
