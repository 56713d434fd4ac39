import type { Verdict } from '@introd/abi';
import type { ExitsCapability } from '@introd/glue';
import type { EngineProblemKind } from '../engine-problem.js';
import type { HookCalls } from '../hook-calls.js';
import type { PendingCommits } from '../page-hooks/pending-commits.js';
import { BreakpointHooks, VmcallHooks } from './call-hooks.js';
import { CrHooks } from './cr-hooks.js';
import { DescriptorTableHooks } from './descriptor-table-hooks.js';
import { ExitSwitches } from './exit-switches.js';
import { InjectionHooks } from './injection-hooks.js';
import { MsrHooks } from './msr-hooks.js';
import { TickHooks } from './tick-hooks.js';
import { XcrHooks } from './xcr-hooks.js';

/** What the sets of hooks need of the engine. */
export interface RegisterHooksContext {
  readonly port: ExitsCapability;
  readonly calls: HookCalls;
  readonly pending: PendingCommits;
  readonly fallback: Verdict;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/** The hooks of everything but memory. */
export class RegisterHooks {
  readonly msr: MsrHooks;
  readonly descriptorTable: DescriptorTableHooks;
  readonly cr: CrHooks;
  readonly xcr: XcrHooks;
  readonly breakpoint: BreakpointHooks;
  readonly vmcall: VmcallHooks;
  readonly injected: InjectionHooks;
  readonly tick: TickHooks;
  readonly #context: RegisterHooksContext;
  readonly #switches: ExitSwitches;
  readonly #sets: readonly { commitRemovals(): void; clear(): void }[];

  constructor(context: RegisterHooksContext) {
    this.#context = context;
    const { calls, fallback } = context;
    const switches = new ExitSwitches(context.port, context.pending);
    this.#switches = switches;
    const onThrow =
      (hook: string) =>
      (cause: unknown): Verdict => {
        context.report('callback', `the callback of ${hook} failed`, cause);
        return fallback;
      };
    this.msr = new MsrHooks(switches, calls, onThrow('an MSR hook'));
    this.descriptorTable = new DescriptorTableHooks(switches, calls, onThrow('a descriptor table hook'));
    this.cr = new CrHooks(switches, calls, onThrow('a control register hook'));
    this.xcr = new XcrHooks(switches, calls, onThrow('an XCR hook'));
    this.breakpoint = new BreakpointHooks(switches, calls, onThrow('a breakpoint hook'));
    this.vmcall = new VmcallHooks(switches, calls, onThrow('a VMCALL hook'));
    this.injected = new InjectionHooks(switches, calls, onThrow('an injection hook'));
    this.tick = new TickHooks(calls, onThrow('a tick hook'));
    this.#sets = [this.msr, this.descriptorTable, this.cr, this.xcr, this.breakpoint, this.vmcall, this.injected];
  }

  /** Switches off the exits that nobody wants any more. What the backend refuses is reported, and tried again the next time. */
  commitRemovals(): void {
    if (this.#switches.pending) {
      let done = true;
      for (const hooks of this.#sets) {
        done = this.#commit(hooks) && done;
      }
      this.#switches.pending = !done;
    }
  }

  /** Removes every hook. */
  close(): void {
    this.tick.close();
    for (const hooks of this.#sets) {
      hooks.clear();
    }
    this.#switches.pending = true;
    this.commitRemovals();
    // What failed once may have been a passing fault; the port's own close is the last resort.
    this.commitRemovals();
  }

  #commit(hooks: { commitRemovals(): void }): boolean {
    try {
      hooks.commitRemovals();
      return true;
    } catch (cause) {
      this.#context.report('backend', 'switching an exit off failed', cause);
      return false;
    }
  }
}
