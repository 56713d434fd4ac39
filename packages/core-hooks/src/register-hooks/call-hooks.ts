import { type Gva, hex64, u32Index, type VcpuRecord } from '@introd/abi';
import { requireCallback } from '../callback.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { requireLinearAddress } from '../option-checks.js';
import { Paging } from '../translation/paging-mode.js';
import { type ExitHook, ExitListeners } from './exit-listeners.js';
import type { ExitSwitches } from './exit-switches.js';

const RIP = u32Index('rip');

/** Where a claimed INT3 or VMCALL goes on: behind it, or where the handler put RIP. */
export type RipAdvance = 'skip' | 'stay';

/** An instruction that calls the engine. There is one object for all; nothing of it may be kept. */
class CallEvent {
  /** Registers of the VCPU; RIP is at the instruction. A handler that changes them stores them. */
  vcpu!: VcpuRecord;
  vcpuIndex = 0;
  /** @internal Undefined until somebody claims it. */
  claimed: RipAdvance | undefined;

  /** RIP of the instruction. Allocates. */
  get rip(): Gva {
    return this.vcpu.rip;
  }
}

/** An INT3 that the guest met. There is one object for all; nothing of it may be kept. */
export class BreakpointEvent extends CallEvent {
  /**
   * This one belongs to the handler; the guest sees no breakpoint and nobody else is asked.
   * @param ripAdvance `skip`: RIP goes behind the INT3. `stay`: it is where the handler put it, or the INT3 is not there any more.
   */
  claim(ripAdvance: RipAdvance): void {
    this.claimed = ripAdvance;
  }
}

/** A VMCALL that the guest made. There is one object for all; nothing of it may be kept. */
export class VmcallEvent extends CallEvent {
  /**
   * This one belongs to the handler; nobody else is asked.
   * @param ripAdvance `skip`, the default: RIP goes behind the VMCALL. `stay`: it is where the handler put it.
   */
  claim(ripAdvance: RipAdvance = 'skip'): void {
    this.claimed = ripAdvance;
  }
}

/** Whose breakpoints to handle. */
export interface BreakpointHookOptions extends NamedHookOptions {
  /** Only the INT3 at this address; default any. */
  readonly rip?: Gva;
  /** Called for each; says by {@link BreakpointEvent.claim} that it is its own. */
  readonly callback: (event: BreakpointEvent) => void;
}

/** Who answers VMCALLs. */
export interface VmcallHookOptions extends NamedHookOptions {
  /** Called for each; says by {@link VmcallEvent.claim} that it is its own. */
  readonly callback: (event: VmcallEvent) => void;
}

class CallHooks<E extends CallEvent> {
  readonly #listeners: ExitListeners<E>;
  readonly #event: E;

  constructor(
    switches: ExitSwitches,
    kind: 'breakpoint' | 'vmcall',
    protected readonly calls: HookCalls,
    onThrow: (cause: unknown) => void,
    event: E,
  ) {
    this.#listeners = new ExitListeners(switches, { kind }, onThrow);
    this.#event = event;
  }

  /** Sets a handler of the engine, whose calls are nobody's. @internal @throws what the backend throws */
  guard(callback: (event: E) => void): ExitHook {
    return this.#listeners.add(callback);
  }

  /** @internal Asks the handlers until one claims the instruction that a VCPU stands at. @returns undefined when nobody does */
  dispatch(vcpu: VcpuRecord, vcpuIndex: number): RipAdvance | undefined {
    const event = this.#event;
    event.vcpu = vcpu;
    event.vcpuIndex = vcpuIndex;
    event.claimed = undefined;
    this.#listeners.listeners.callUntil(event, isClaimed);
    return event.claimed;
  }

  /** @internal Switches the exit off when the last handler was removed. @throws what the backend throws */
  commitRemovals(): void {
    this.#listeners.commit();
  }

  /** @internal Removes every handler; the exit goes off at the commit. */
  clear(): void {
    this.#listeners.listeners.clear();
  }
}

function isClaimed(event: CallEvent): boolean {
  return event.claimed !== undefined;
}

/**
 * Handlers of INT3, asked in the order in which they were set until one claims it. One that nobody claims is the guest's own. The exit
 * is on exactly while there is a handler.
 */
export class BreakpointHooks extends CallHooks<BreakpointEvent> {
  /** @internal */
  constructor(switches: ExitSwitches, calls: HookCalls, onThrow: (cause: unknown) => void) {
    super(switches, 'breakpoint', calls, onThrow, new BreakpointEvent());
  }

  /**
   * Sets a handler.
   * @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws when it cannot raise the exit; nothing is set then
   */
  set({ rip, callback, name }: BreakpointHookOptions): ExitHook {
    this.calls.requireOpen();
    requireCallback(callback);
    const call = this.calls.of(() => name ?? (rip === undefined ? 'INT3' : `INT3 ${hex64(rip)}`), callback);
    if (rip === undefined) {
      return this.guard(call);
    }
    // The widest form; which paging mode the guest will be in is not known.
    requireLinearAddress(rip, Paging.LEVEL_5);
    const low = Number(BigInt.asUintN(32, rip));
    const high = Number(BigInt.asUintN(32, rip >> 32n));
    return this.guard((event) => {
      const registers = event.vcpu.u32;
      if (registers[RIP] === low && registers[RIP + 1] === high) {
        call(event);
      }
    });
  }
}

/**
 * Handlers of VMCALL, asked in the order in which they were set until one claims it. One that nobody claims is answered as if nobody were
 * there. The exit is on exactly while there is a handler.
 */
export class VmcallHooks extends CallHooks<VmcallEvent> {
  /** @internal */
  constructor(switches: ExitSwitches, calls: HookCalls, onThrow: (cause: unknown) => void) {
    super(switches, 'vmcall', calls, onThrow, new VmcallEvent());
  }

  /**
   * Sets a handler.
   * @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CALLBACK, ERR_CORE_HOOKS_CLOSED; what the backend throws when it cannot raise the exit; nothing is set then
   */
  set({ callback, name = 'VMCALL' }: VmcallHookOptions): ExitHook {
    this.calls.requireOpen();
    requireCallback(callback);
    return this.guard(this.calls.of(() => name, callback));
  }
}
