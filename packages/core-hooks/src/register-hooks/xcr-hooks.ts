import { u32Index, type VcpuRecord, type Verdict } from '@introd/abi';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import type { ExitSwitches } from './exit-switches.js';
import { type RegisterHook, RegisterWriteEvent, RegisterWriteHooks } from './register-write.js';

const EXIT_REGISTER = u32Index('exitRegister');
/** All extended control registers share one exit, and with it one list of hooks. */
const EVERY_XCR = 0;

/** An XSETBV that has not happened yet. There is one object for all; nothing of it may be kept. */
export class XcrWriteEvent extends RegisterWriteEvent {
  /** Number of the register, as in ECX of XSETBV; 0 is the only one there is so far (SDM vol. 3A, 2.6). */
  get xcr(): number {
    return this.vcpu.u32[EXIT_REGISTER]!;
  }
}

/** Hooks on writes of extended control registers. The exit is on exactly while there is a hook. */
export class XcrHooks extends RegisterWriteHooks<XcrWriteEvent> {
  /** @internal */
  constructor(switches: ExitSwitches, calls: HookCalls, onThrow: (cause: unknown) => Verdict) {
    super(switches, calls, onThrow, new XcrWriteEvent(), () => ({ kind: 'xcr-write' }));
  }

  /**
   * Calls `callback` before each XSETBV from now on.
   * @throws CoreHooksError ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws when it cannot raise the exit; nothing is set then
   */
  set(callback: (event: XcrWriteEvent) => void, { name = 'XCR' }: NamedHookOptions = {}): RegisterHook {
    return this.setHook(EVERY_XCR, callback, () => name);
  }

  /** @internal */
  override dispatch(vcpu: VcpuRecord, vcpuIndex: number): Verdict {
    return this.judgeWrite(EVERY_XCR, vcpu, vcpuIndex);
  }
}
