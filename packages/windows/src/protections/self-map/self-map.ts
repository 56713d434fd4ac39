import { Access, rootOf } from '@introd/abi';
import type { AccessEvent } from '@introd/core-hooks';
import type { Decision, KernelQuery } from '@introd/exceptions';
import { type Originator, originatorAt } from '../../objects/originator.js';
import type { WindowsProcess } from '../../objects/process.js';
import { PROCESS_FIELDS } from '../../objects/process-reader.js';
import { judge } from '../judgement.js';
import type { Protection, ProtectionContext, ProtectionNeeds } from '../protection.js';
import { type Repair, tellFound, tellWrite } from './alerts.js';
import { closed, isOpen, isPresent, pointsTo } from './entry.js';
import { GuardedEntry } from './guarded-entry.js';

/** How often closing an entry is tried when the guest changes it at the same time. */
const MAX_REPAIRS = 4;

/**
 * Keeps user code from reading the page tables through the self-map entry (behaviour 1.3). Writes to the entry of the
 * System process are caught before they happen; the entries of all other processes are checked each second, because
 * hooking every PML4 would cost too much.
 */
export class SelfMapProtection implements Protection {
  readonly id = 'self-map';
  readonly needs: ProtectionNeeds = {
    capabilities: ['memory', 'write', 'map', 'exits', 'page-access'],
    profile: PROCESS_FIELDS,
  };

  #context: ProtectionContext | undefined;
  readonly #entries = new Map<WindowsProcess, readonly GuardedEntry[]>();

  enable(context: ProtectionContext): void {
    this.#context = context;
  }

  disable(): void {
    for (const entries of this.#entries.values()) for (const entry of entries) entry.hook?.remove();
    this.#entries.clear();
    this.#context = undefined;
  }

  processAppeared(process: WindowsProcess): void {
    const context = this.#context!;
    const { port } = context.engine;
    const index = context.info.selfMapIndex;
    const entries = [new GuardedEntry(process, 'kernel', process.cr3, index, port)];
    if (process.hasUserTables) entries.push(new GuardedEntry(process, 'user', process.userCr3, index, port));
    this.#entries.set(process, entries);
    // The hook comes first, so that nothing can change between the look and the watch.
    if (process.isSystem) for (const entry of entries) this.#hook(context, entry);
    if (process.outswapped) return;
    for (const entry of entries) {
      // A process that is born with an open entry has it told: U/S does not count as known.
      entry.lastValue = closed(entry.value ?? 0n);
      if (!entry.isClosed()) this.#onOpen(context, entry);
    }
  }

  processGone(process: WindowsProcess): void {
    const context = this.#context!;
    for (const entry of this.#entries.get(process) ?? []) {
      entry.hook?.remove();
      // The page may serve something else by now; it is still a PML4 while its entry refers to it.
      const isPml4 = pointsTo(entry.value ?? 0n, rootOf(entry.cr3));
      if (isPml4 && !process.outswapped && !entry.isClosed()) this.#onOpen(context, entry);
    }
    this.#entries.delete(process);
  }

  tick(): void {
    const context = this.#context!;
    for (const [process, entries] of this.#entries) {
      if (process.outswapped) continue;
      for (const entry of entries) {
        if (process.isSystem && !entry.hook && isPresent(entry.value ?? 0n)) this.#hook(context, entry);
        if (!entry.isClosed()) this.#onOpen(context, entry);
      }
    }
  }

  /** An entry was found open: tells and closes it, unless that is allowed or known. */
  #onOpen(context: ProtectionContext, entry: GuardedEntry): void {
    const { value } = entry;
    if (value === undefined || !isOpen(value) || entry.knownOpen === 'allowed-by-rule') return;
    const judgement = judge(this.#lateDecision(context), context.mode);
    if (entry.knownOpen === 'told' && !judgement.stop) return;
    const repair = judgement.stop ? this.#repair(context, entry, value) : 'not-wanted';
    tellFound(context, entry, judgement, repair, value);
    entry.knownOpen = repair === 'done' ? undefined : 'told';
    entry.lastValue = repair === 'done' ? closed(value) : value;
  }

  /** Who did it is not known any more, so no rule can be asked (behaviour 1.3). */
  #lateDecision(context: ProtectionContext): Decision {
    if (context.exceptions.loaded) return { action: 'not-allowed', reason: 'no-exception' };
    return {
      action: context.withoutRules === 'allow' ? 'allowed' : 'not-allowed',
      reason: 'exceptions-not-loaded',
    };
  }

  #repair(context: ProtectionContext, entry: GuardedEntry, value: bigint): Repair {
    const { memory } = context.engine;
    let current: bigint | undefined = value;
    for (let attempt = 0; attempt < MAX_REPAIRS && current !== undefined; attempt += 1) {
      if (!isOpen(current) || memory.compareExchange64(entry.address, current, closed(current)) === true) return 'done';
      current = entry.value;
    }
    return 'failed';
  }

  #hook(context: ProtectionContext, entry: GuardedEntry): void {
    try {
      entry.hook = context.engine.hooks.page.set({
        gpa: entry.address,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        priority: 'high',
        callback: (event) => this.#onWrite(context, entry, event),
      });
      context.engine.hooks.page.flush();
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      context.problem(
        `the self-map entry of ${entry.process.name} cannot be watched, only checked each second: ${why}`,
      );
    }
  }

  /** Decides a write to the entry, which is not yet in memory. */
  #onWrite(context: ProtectionContext, entry: GuardedEntry, event: AccessEvent): void {
    const write = event.pageTableWrite;
    if (!write) return;
    context.alerts.drop(entry);
    const { old, new: value } = write;
    if (entry.table === 'user' && isPresent(old) && !isPresent(value)) {
      // Windows drops a user table this way; the check of each second takes over until there is an entry again. The kernel's
      // own table never goes, so there clearing the entry must not end the watch.
      event.removeHook = true;
      entry.hook = undefined;
      entry.lastValue = value;
      return;
    }
    if (!isOpen(value)) {
      entry.lastValue = value;
      return;
    }
    // The kernel has to fill a new user table somehow (behaviour 1.3); what it fills in is looked at by the next check.
    if (entry.table === 'user' && old === 0n) return;
    if (entry.knownOpen !== undefined && isOpen(old)) return;
    const { originator, decision } = this.#decide(context, event, old, value);
    const judgement = judge(decision, context.mode);
    if (judgement.stop) {
      write.replace(closed(value));
      entry.lastValue = closed(value);
    } else {
      entry.knownOpen = judgement.tell && judgement.reason !== 'allowed-feedback' ? 'told' : 'allowed-by-rule';
      entry.lastValue = value;
    }
    if (judgement.tell) tellWrite(context, entry, event, originator, judgement, { old, new: value });
  }

  #decide(
    context: ProtectionContext,
    event: AccessEvent,
    old: bigint,
    value: bigint,
  ): { readonly originator: Originator; readonly decision: Decision } {
    const { rip } = event;
    try {
      const originator = originatorAt(context.drivers, rip);
      const query: KernelQuery = {
        kind: 'kernel',
        originator,
        returnsTo: undefined,
        // An entry that is still empty was cleared: #onWrite asks nobody about that of a new user table.
        victim: { object: 'selfmap', zone: 'ept', access: Access.WRITE, initialised: true },
        oldValue: entryBytes(old),
        newValue: entryBytes(value),
        bits: 64,
      };
      return { originator, decision: context.exceptions.decide(query, context.withoutRules) };
    } catch (cause) {
      // Evidence that cannot be gathered must not let the write through (behaviour 1.3, step 4).
      context.problem(`the writer of a self-map entry could not be identified: ${String(cause)}`);
      return {
        originator: { rip, image: undefined, section: undefined },
        decision: { action: 'not-allowed', reason: 'internal-error' },
      };
    }
  }
}

function entryBytes(entry: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(entry).buffer);
}
