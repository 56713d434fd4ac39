import { ExitKind, u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import type { EngineCounters } from '../counters.js';
import type { RegisterHooks } from '../register-hooks/register-hooks.js';
import type { EptDispatcher } from './dispatch-ept.js';
import type { ExitOutcome } from './exit-outcome.js';
import type { Standstill } from './standstill.js';

const EXIT_KIND = u32Index('exitKind');

/** Takes each kind of exit to those who decide about it. */
export class Dispatcher {
  constructor(
    readonly ept: EptDispatcher,
    readonly hooks: RegisterHooks,
    readonly counters: EngineCounters,
    readonly outcome: ExitOutcome,
    readonly standstill: Standstill,
  ) {}

  /** The verdict about the exit in a record. */
  dispatch(record: VcpuRecord, index: number): Verdict {
    const { counters, hooks } = this;
    this.standstill.enter(record, index);
    switch (record.u32[EXIT_KIND]) {
      case ExitKind.EPT_VIOLATION:
        return this.ept.dispatch(record, index);
      case ExitKind.CR_WRITE:
        counters.crWrites++;
        return this.standstill.judge(hooks.cr.dispatch(record, index), record, index);
      case ExitKind.MSR_WRITE:
        counters.msrWrites++;
        return this.standstill.judge(hooks.msr.dispatch(record, index), record, index);
      case ExitKind.XCR_WRITE:
        counters.xcrWrites++;
        return this.standstill.judge(hooks.xcr.dispatch(record, index), record, index);
      case ExitKind.DESCRIPTOR_TABLE:
        counters.descriptorTables++;
        return this.standstill.judge(
          this.ept.dispatchDescriptorTable(record, index, hooks.descriptorTable),
          record,
          index,
        );
      case ExitKind.BREAKPOINT: {
        counters.breakpoints++;
        const claimed = hooks.breakpoint.dispatch(record, index);
        this.outcome.reason = claimed === undefined ? 'not-claimed' : 'claimed';
        if (claimed === undefined) {
          // Not ours: the guest takes its #BP, unless the INT3 went away after it was met.
          return this.ept.isBreakpoint(record) ? Verdict.ALLOWED : Verdict.RETRY;
        }
        return claimed === 'skip' ? Verdict.NOT_ALLOWED : Verdict.ALLOWED_VIRTUAL;
      }
      case ExitKind.VMCALL: {
        counters.vmcalls++;
        const claimed = hooks.vmcall.dispatch(record, index);
        this.outcome.reason = claimed === undefined ? 'not-claimed' : 'claimed';
        if (claimed === undefined) {
          return Verdict.ALLOWED;
        }
        return claimed === 'skip' ? Verdict.NOT_ALLOWED : Verdict.ALLOWED_VIRTUAL;
      }
      case ExitKind.TICK:
        counters.ticks++;
        hooks.tick.dispatch(record);
        return Verdict.RETRY;
      case ExitKind.EVENT_INJECTED:
        // A report; there is nothing to execute.
        counters.injections++;
        hooks.injected.dispatch(record, index);
        return Verdict.RETRY;
      default:
        // Nobody asked for it, so the guest shall have what it would have without us.
        counters.otherExits++;
        return Verdict.ALLOWED;
    }
  }
}
