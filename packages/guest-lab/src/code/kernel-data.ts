/**
 * LABDATA: the writable data of the lab kernel, the mailbox first.
 */
import { scenarioTable, scenarioTexts } from './attacks/driver.js';
import { hookedMemoryData } from './attacks/hooked-memory.js';
import { hookedRegistersData } from './attacks/hooked-registers.js';
import { SparePage } from './attacks/page-mapping.js';
import { selfMapFormTable } from './attacks/self-map.js';
import { bootTexts, processorEntries, processorTables } from './boot.js';
import { type KernelPlan, MAILBOX_SIZE } from './plan.js';
import { processorRecords, threadRecords } from './scheduler.js';
import { SERVICE_TABLE } from './system-calls.js';

/** Lines, or what stands before a number in them. */
const TEXTS: Readonly<Record<string, string>> = {
  ...bootTexts,
  TextReady: 'lab: ready',
  TextWrote: 'lab: wrote',
  TextUserRead: 'lab: user read ',
  TextUserFault: 'lab: user fault ',
  TextThreadFault: 'lab: thread fault ',
  TextTrapAt: 'lab: trap at ',
  TextTrapAddress: 'lab: trap address ',
  TextBugCheck: 'lab: bugcheck ',
  TextValue: 'lab: value ',
  TextEffect: 'lab: effect ',
  TextBenignOk: 'lab: benign ok',
  TextBenignLost: 'lab: benign lost ',
};

/** Text of the section. */
export function kernelData(plan: KernelPlan): string {
  return `
Mailbox: zero ${MAILBOX_SIZE}
; Time slices since the first processor started its clock.
KiTicks: dq 0
; Work of the system worker, so that something of System changes.
LabSystemWork: dq 0
; What the attack driver wants from the ordinary process: 0 nothing, 1 an attack, 2 it is running.
LabRequest: dd 0
LabSparePagesUsed: dd ${SparePage.TABLES}
KiBootFinished: dd 0
KiReadyProcessors: dd 0
DbgLock: dd 0
align 8
EmptyIdtr: dq 0, 0
${processorRecords(plan)}
${threadRecords(plan)}
LabServiceTable: dq ${SERVICE_TABLE.join(', ')}
${scenarioTable}
${selfMapFormTable}
${processorEntries(plan.processors)}
${plan.processors.map(processorTables).join('')}
${Object.entries(TEXTS)
  .map(([label, text]) => `${label}: db "${text}", 0`)
  .join('\n')}
${scenarioTexts()}
${hookedRegistersData}
${hookedMemoryData}
`;
}
