import type { VcpuRecord } from '@introd/abi';
import type { PauseContext } from '../guest-pause.js';
import type { CodeImages } from '../guest-system/code-images.js';
import type { HookCalls } from '../hook-calls.js';
import type {
  BreakpointEvent,
  BreakpointHooks,
  RipAdvance,
  VmcallEvent,
  VmcallHooks,
} from '../register-hooks/call-hooks.js';
import type { HypercallKind } from './descriptor.js';
import { type Detour, HYPERCALLS } from './detour.js';
import { type CallContext, DetourCall } from './detour-call.js';

/** What {@link HandlerCalls} needs of the engine. */
export interface HandlerCallsContext extends PauseContext, CallContext {
  readonly port: PauseContext['port'] & CallContext['port'];
  readonly breakpoint: BreakpointHooks;
  readonly vmcall: VmcallHooks;
  readonly calls: HookCalls;
  codeImages(): CodeImages;
}

/** A detour whose handler calls the engine. */
interface CallingDetour {
  readonly detour: Detour;
  readonly callback: ((call: DetourCall) => void) | undefined;
}

/** Takes the hypercalls of handlers to the callbacks of their detours, and does what these decide. Found by their exact RIP. */
export class HandlerCalls {
  readonly #context: HandlerCallsContext;
  /** By the RIP of the hypercall. */
  readonly #detours = new Map<bigint, CallingDetour>();
  /** The engine's hooks on each kind of hypercall, set while some handler makes it. */
  readonly #exits = new Map<HypercallKind, { remove(): void }>();

  constructor(context: HandlerCallsContext) {
    this.#context = context;
  }

  /**
   * Answers the hypercall of a detour from now on, if it makes one.
   * @throws what the backend throws when it cannot raise the exit
   */
  add(detour: Detour): void {
    const { hypercall, hypercallKind: kind } = detour;
    if (hypercall === undefined || kind === undefined) {
      return;
    }
    if (!this.#exits.has(kind)) {
      const callback = (event: BreakpointEvent | VmcallEvent): void => {
        const advance = this.#dispatch(kind, event.vcpu, event.vcpuIndex);
        if (advance !== undefined) {
          event.claim(advance);
        }
      };
      const { breakpoint, vmcall } = this.#context;
      this.#exits.set(kind, kind === 'int3' ? breakpoint.guard(callback) : vmcall.guard(callback));
    }
    const callback = this.#context.calls.of(() => detour.name, detour.descriptor.callback);
    this.#detours.set(hypercall, { detour, callback });
  }

  /** The opposite. */
  drop(detour: Detour): void {
    const { hypercall, hypercallKind: kind } = detour;
    if (hypercall === undefined || kind === undefined || this.#detours.get(hypercall)?.detour !== detour) {
      return;
    }
    this.#detours.delete(hypercall);
    for (const { detour: other } of this.#detours.values()) {
      if (other.hypercallKind === kind) {
        return;
      }
    }
    this.#exits.get(kind)?.remove();
    this.#exits.delete(kind);
  }

  /** @returns undefined when the instruction is nobody's hypercall */
  #dispatch(kind: HypercallKind, vcpu: VcpuRecord, vcpuIndex: number): RipAdvance | undefined {
    const calling = this.#detours.get(vcpu.rip);
    if (calling?.detour.hypercallKind !== kind) {
      return undefined;
    }
    const { detour, callback } = calling;
    if (!detour.enabled || callback === undefined) {
      // It was met right before it was switched off.
      return 'skip';
    }
    const call = new DetourCall(detour, vcpu, vcpuIndex, this.#context, this.#context.codeImages().bitness);
    detour.hits++;
    try {
      callback(call);
      return this.#conclude(call, kind);
    } catch (cause) {
      this.#context.report('callback', `the callback of the detour ${detour.name} failed`, cause);
      return 'skip';
    }
  }

  #conclude(call: DetourCall, kind: HypercallKind): RipAdvance {
    const { detour } = call;
    if (call.outcome === 'remove-and-restart' && kind === 'vmcall') {
      this.#context.report('callback', `the detour ${detour.name} cannot be restarted from a VMCALL`);
      return 'skip';
    }
    if (call.outcome !== 'continue') {
      detour.disable();
    }
    if (call.outcome === 'remove-and-restart') {
      return call.jump(detour.function) ? 'stay' : 'skip';
    }
    if (call.skipped !== 0 && detour.hypercall !== undefined) {
      return call.jump(detour.hypercall + BigInt(HYPERCALLS[kind].on.length + call.skipped)) ? 'stay' : 'skip';
    }
    return 'skip';
  }
}
