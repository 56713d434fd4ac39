import {
  type AlertAttack,
  type AlertVictim,
  type AlertWrite,
  type EptViolationAlert,
  hex64,
  type TranslationViolationAlert,
} from '@introd/abi';
import type { AccessEvent } from '@introd/core-hooks';
import { type Originator, originatorText, originatorToAlert } from '../../objects/originator.js';
import type { WindowsProcess } from '../../objects/process.js';
import type { Judgement } from '../judgement.js';
import type { ProtectionContext } from '../protection.js';
import { entryVirtualAddress } from './entry.js';
import type { GuardedEntry } from './guarded-entry.js';

/** The technique (ATT&CK Enterprise 19, where the tactic TA0005 is called Stealth; it was Defense Evasion before). */
const ATTACK: AlertAttack = { id: 'T1014', name: 'Rootkit', tactic: { id: 'TA0005', name: 'Stealth' } };
/** Bytes of a page-table entry. */
const ENTRY_SIZE = 8;

/** What happened to an open entry that was found late. */
export type Repair = 'done' | 'failed' | 'not-wanted';

/** Tells, when the exit is replied to, of a write that was caught before it took effect. */
export function tellWrite(
  context: ProtectionContext,
  entry: GuardedEntry,
  event: AccessEvent,
  originator: Originator,
  judgement: Judgement,
  values: { readonly old: bigint; readonly new: bigint },
): void {
  const current = context.processes.byCr3(event.vcpu.cr3);
  const what = `tried to open the page tables of ${processText(entry.process)} to user code`;
  const end = judgement.stop
    ? 'Blocked before it took effect.'
    : `It was let through${whyLetThrough(judgement)}: user code can read, and perhaps change, all memory of the guest.`;
  context.alerts.hold<EptViolationAlert>(
    entry,
    {
      protection: 'self-map',
      attack: ATTACK,
      summary: `${originatorText(originator)} ${what}. ${end}`,
      judgement,
      verdict: judgement.stop ? 'blocked' : 'allowed',
      flags: [...(event.vcpu.cpl === 0 ? [] : (['not-ring0'] as const)), ...processFlags(entry.process)],
    },
    {
      class: 'ept-violation',
      found: 'before',
      violation: 'write',
      originator: originatorToAlert(originator),
      victim: victim(context, entry),
      write: write(values.old, values.new),
      cpu: {
        index: event.vcpuIndex,
        rip: hex64(event.rip),
        cr3: hex64(event.vcpu.cr3),
        instruction: event.instruction?.text ?? '',
      },
      ...(current ? { process: current.toAlert() } : {}),
    },
  );
}

/** Tells of an entry that a check found open. */
export function tellFound(
  context: ProtectionContext,
  entry: GuardedEntry,
  judgement: Judgement,
  repair: Repair,
  value: bigint,
): void {
  const found = `The page tables of ${processText(entry.process)} were open to user code.`;
  const until = 'until then user code may have read them, and through them all memory';
  const end = {
    done: `Found late, by a periodic check, and closed again; ${until}.`,
    failed: `Found late, by a periodic check, and could not be closed; user code may be reading all memory.`,
    'not-wanted': `Found late, by a periodic check, and left open${whyLetThrough(judgement)}; user code may be reading all memory.`,
  }[repair];
  context.alerts.write<TranslationViolationAlert>(
    {
      protection: 'self-map',
      attack: ATTACK,
      summary: `${found} ${end}`,
      judgement,
      verdict: repair === 'done' ? 'blocked' : 'allowed',
      flags: ['async', ...(repair === 'failed' ? (['repair-failed'] as const) : []), ...processFlags(entry.process)],
    },
    {
      class: 'translation-violation',
      found: 'late',
      violation: 'self-map',
      victim: victim(context, entry),
      write: write(entry.lastValue, value),
    },
  );
}

function whyLetThrough(judgement: Judgement): string {
  if (judgement.flags.includes('feedback-only')) return ', as feedback is all that is asked for';
  if (judgement.flags.includes('beta')) return ', as the protection is in beta mode';
  if (judgement.flags.includes('rules-not-loaded')) return ', as no rules are loaded and the policy allows it then';
  return '';
}

function processText(process: WindowsProcess): string {
  return `${process.name} (PID ${process.pid})`;
}

function processFlags(process: WindowsProcess): readonly 'system-process'[] {
  return process.isSystem ? ['system-process'] : [];
}

function victim(context: ProtectionContext, entry: GuardedEntry): AlertVictim {
  return {
    type: 'self-map-entry',
    address: hex64(entryVirtualAddress(context.info.selfMapIndex)),
    physicalAddress: hex64(entry.address),
    process: entry.process.toAlert(),
    table: entry.table,
  };
}

function write(old: bigint, value: bigint): AlertWrite {
  return { old: hex64(old), new: hex64(value), size: ENTRY_SIZE };
}
