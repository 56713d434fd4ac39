import type { Alert } from '@introd/abi';
import type { Palette } from '../terminal.js';
import type { DemoAlert, DemoGuest, DemoOutcome, DemoRecord, DemoSummary } from './record.js';
import type { DemoResult } from './run.js';

const RESULT: Record<DemoOutcome['result'], string> = {
  blocked: 'BLOCKED before it had any effect',
  'found-late': 'FOUND LATE and repaired',
  'let-through': 'LET THROUGH by policy, reported',
  missed: 'NOT STOPPED, and no alert was sent',
  contradicted: 'NOT AS REPORTED: what the guest shows does not fit the alerts',
  untouched: 'left alone, as it should be',
  disturbed: 'DISTURBED: a legitimate program was hindered or reported',
};

function count(value: number): string {
  return value.toLocaleString('en-US');
}

function guestLines(record: DemoGuest, { bold, dim }: Palette): string[] {
  return [
    '',
    bold(`Found Windows ${record.arch} build ${record.build}`),
    `  kernel       ${record.kernelBase}, ${count(record.kernelSize)} bytes, symbols ${record.pdb.guid}-${record.pdb.age}`,
    `  system CR3   ${record.systemCr3}, self-map index ${record.selfMapIndex}, KPTI ${record.kptiActive ? 'on' : 'off'}`,
    `  protections  ${record.protections.map((p) => `${p.id} ${p.state}${p.reason ? ` (${p.reason})` : ''}`).join(', ')}`,
    `  processes    ${dim('PID   name             EPROCESS            CR3')}`,
    ...record.processes.map(
      (process) =>
        `               ${String(process.pid).padEnd(5)} ${process.name.padEnd(16)} ${process.eprocess.padEnd(19)} ${process.cr3}`,
    ),
  ];
}

function whoLines(alert: Alert): string[] {
  if (alert.class === 'translation-violation')
    return ['  who          not known: found by the periodic check, after the fact'];
  const { originator, cpu } = alert;
  const module = originator.module
    ? `${originator.module.name}${originator.section ? ` ${originator.section}` : ''}`
    : 'code in no module';
  return [`  who          ${module} at ${originator.rip}: ${cpu.instruction} (VCPU ${cpu.index})`];
}

/** An alert as a person reads it: who, what, old and new value, blocked or found late, technique. */
function alertLines(alert: Alert, palette: Palette): string[] {
  const { bold, red, yellow, green } = palette;
  const { victim, write } = alert;
  const colour = alert.verdict === 'allowed' ? red : alert.found === 'late' ? yellow : green;
  const verdict =
    alert.verdict === 'allowed' ? 'let through' : alert.found === 'late' ? 'found late, repaired' : 'blocked';
  return [
    '',
    `${colour(bold(`ALERT ${alert.alertId}`))}  ${bold(alert.summary)}`,
    ...whoLines(alert),
    `  what         ${victim.type} of ${victim.process.name} (PID ${victim.process.pid}) at ${victim.address}`,
    `  value        ${write.old} -> ${write.new}`,
    `  verdict      ${colour(verdict)} (${alert.reason}${alert.flags.length > 0 ? `; ${alert.flags.join(', ')}` : ''})`,
    `  technique    ${alert.attack.id} ${alert.attack.name} (${alert.attack.tactic.name})`,
  ];
}

function outcomeLines(record: DemoOutcome, { red, green, yellow }: Palette): string[] {
  const colour = !record.good ? red : record.result === 'found-late' ? yellow : green;
  const lines = [`  ${record.kind === 'attack' ? 'attack' : 'benign'}: ${colour(RESULT[record.result])}`];
  if (record.latency !== undefined && record.result === 'found-late') {
    lines.push(`  ${count(record.latency)} us of guest time passed before it was found`);
  }
  if (record.userRead !== undefined) {
    lines.push(
      `  ring-3 code read the page-table entry ${record.userRead}` +
        (record.entry === undefined ? '' : `; physical memory holds ${record.entry}`),
    );
  } else if (record.kind === 'attack') {
    lines.push('  ring-3 code could not read a page table');
  }
  return lines;
}

function summaryLines(record: DemoSummary, { bold, green, red }: Palette): string[] {
  const exits = Object.entries(record.exits)
    .filter(([, number]) => number > 0)
    .map(([kind, number]) => `${kind} ${count(number)}`);
  const good = record.exitCode === 0;
  return [
    '',
    (good ? green : red)(
      bold(
        `${record.stopped} of ${record.attacks} attacks stopped or found in time, ${record.untouched} of ${record.benign} legitimate programs left alone`,
      ),
    ),
    `  exits        ${exits.join(', ') || 'none'}`,
    `  guest        ${count(record.instructions)} instructions`,
    ...(record.strayAlerts > 0
      ? [red(`  alerts       ${record.strayAlerts} while nothing ran that deserves one`)]
      : []),
    ...(record.problems > 0 ? [red(`  problems     ${record.problems} inside the engine`)] : []),
  ];
}

/** A record as lines for a person. */
export function textLines(record: DemoRecord, palette: Palette): string[] {
  switch (record.type) {
    case 'start':
      return [
        palette.bold(`introd demo: a lab guest on ${record.backend}, seed ${record.seed}, policy ${record.policy}`),
        '',
        'Booting the guest (real machine code, instruction by instruction)',
      ];
    case 'boot':
      return [palette.dim(`  ${count(record.instructions).padStart(9)}  ${record.step}`)];
    case 'guest':
      return guestLines(record, palette);
    case 'scenario':
      return [
        '',
        `${palette.cyan(record.kind === 'attack' ? 'Attack' : 'Benign')} ${record.scenario}: ${record.title}`,
      ];
    case 'alert':
      return alertLines((record as DemoAlert).alert, palette);
    case 'outcome':
      return outcomeLines(record, palette);
    case 'summary':
      return summaryLines(record, palette);
    case 'failure':
      return ['', palette.red(`${record.code}: ${record.message}`), ...(record.hint ? [`  ${record.hint}`] : [])];
  }
}

/** What only a person is told, at the very end. */
export function timingLines(result: DemoResult): string[] {
  const { attached, engine } = result.timings;
  if (attached === 0) return [];
  return [
    `  time         ${engine.toFixed(0)} ms in the engine of ${attached.toFixed(0)} ms attached (${((100 * engine) / attached).toFixed(1)} %)`,
    ...(result.dumped === undefined ? [] : [`  dump         ${count(result.dumped)} bytes`]),
  ];
}
