import { type Gpa, Verdict } from '@introd/abi';
import type { PageHook } from '../page-hooks/page-hooks.js';
import type { AccessEvent } from './access-event.js';
import type { EptContext } from './ept-context.js';
import { PageTableWrite } from './page-table-write.js';
import { Plan } from './store-plan.js';

/** One call that a hook will get when the access happens. */
class Commit {
  hook!: PageHook;
  gpa = 0;
  size = 0;
  glaLow = 0;
  glaHigh = 0;
  hasEntry = false;
  readonly write = new PageTableWrite();
}

/** The hooks that want to know when the access that they were asked about happens. The objects are used again for the next exit. */
export class CommitList {
  readonly #context: EptContext;
  readonly #commits: Commit[] = [];
  #count = 0;

  constructor(context: EptContext) {
    this.#context = context;
  }

  clear(): void {
    this.#count = 0;
  }

  /** Notes the hook whose callback ran. */
  note(event: AccessEvent): void {
    let commit = this.#commits[this.#count];
    if (commit === undefined) {
      commit = new Commit();
      this.#commits.push(commit);
    }
    this.#count++;
    commit.hook = event.hook;
    commit.gpa = event.gpa;
    commit.size = event.size;
    commit.glaLow = event.glaLow;
    commit.glaHigh = event.glaHigh;
    const write = event.pageTableWrite;
    commit.hasEntry = write !== undefined;
    if (write !== undefined) {
      commit.write.copyFrom(write);
    }
  }

  /** Calls `committed` of each hook noted. */
  tell(event: AccessEvent): void {
    const { plan, counters } = this.#context;
    const count = this.#count;
    this.#count = 0;
    for (let at = 0; at < count; at++) {
      const commit = this.#commits[at]!;
      const { hook, write } = commit;
      if (hook.removed) {
        continue;
      }
      if (commit.hasEntry && plan.kind === Plan.EMULATE) {
        // What was committed: later callbacks may have replaced it.
        write.copyFrom(plan.view(write.gpa, write.size));
      }
      event.hook = hook;
      event.gpa = commit.gpa as Gpa;
      event.size = commit.size;
      event.access = hook.access;
      event.glaLow = commit.glaLow;
      event.glaHigh = commit.glaHigh;
      event.pageTableWrite = commit.hasEntry ? write : undefined;
      event.verdict = Verdict.ALLOWED;
      event.removeHook = false;
      if (!hook.isGuard) {
        counters.hookCalls++;
      }
      try {
        hook.committed!(event);
      } catch (cause) {
        this.#context.report('callback', 'the callback of a page hook after a write threw', cause);
      }
      if (event.removeHook) {
        hook.removeChain();
      }
    }
  }
}
