import { ExitKind, u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import type { EngineCounters } from '../counters.js';
import type { CrHooks } from '../register-hooks/cr-hooks.js';
import type { TickHooks } from '../register-hooks/tick-hooks.js';
import type { EptDispatcher } from './dispatch-ept.js';

const EXIT_KIND = u32Index('exitKind');
const EXIT_REGISTER = u32Index('exitRegister');

/** Takes each kind of exit to those who decide about it. */
export class Dispatcher {
  constructor(
    readonly ept: EptDispatcher,
    readonly cr: CrHooks,
    readonly tick: TickHooks,
    readonly counters: EngineCounters,
  ) {}

  /** The verdict about the exit in a record. */
  dispatch(record: VcpuRecord, index: number, time: number): Verdict {
    switch (record.u32[EXIT_KIND]) {
      case ExitKind.EPT_VIOLATION:
        return this.ept.dispatch(record, index);
      case ExitKind.CR_WRITE:
        this.counters.crWrites++;
        return this.cr.dispatch(record, index, record.u32[EXIT_REGISTER]!);
      case ExitKind.TICK:
        this.counters.ticks++;
        this.tick.dispatch(time);
        return Verdict.RETRY;
      case ExitKind.EVENT_INJECTED:
        // A report; there is nothing to execute.
        this.counters.otherExits++;
        return Verdict.RETRY;
      default:
        // Nobody asked for it, so the guest shall have what it would have without us.
        this.counters.otherExits++;
        return Verdict.ALLOWED;
    }
  }
}
