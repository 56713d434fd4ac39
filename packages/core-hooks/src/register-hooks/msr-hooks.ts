import { hex64, u32Index, type Verdict } from '@introd/abi';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { optionsError } from '../option-checks.js';
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
  constructor(switches: ExitSwitches, calls: HookCalls, onThrow: (cause: unknown) => Verdict) {
    super(switches, calls, onThrow, new MsrWriteEvent(), (register) => ({ kind: 'msr-write', register }));
  }

  /**
   * Calls `callback` before each write of an MSR from now on.
   * @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws when it cannot raise the exit; nothing is set then
   */
  set(msr: number, callback: (event: MsrWriteEvent) => void, { name }: NamedHookOptions = {}): RegisterHook {
    if (!Number.isInteger(msr) || msr < 0 || msr > 0xffff_ffff) {
      throw optionsError(`there is no MSR ${String(msr)}`, 'Pass its number as in ECX of WRMSR, 0 to 0xffffffff.');
    }
    return this.setHook(msr, callback, () => name ?? `MSR ${hex64(msr)}`);
  }
}
