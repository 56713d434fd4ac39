import { MAILBOX, MAILBOX_SIZE, ScenarioCode, type ScenarioName } from './code/plan.js';
import { LabError } from './error.js';

/** Instruction forms in which the attack writes the self-map entry. */
export type SelfMapForm = 'mov' | 'or' | 'xchg' | 'bts' | 'lock-cmpxchg';
/** Where a scenario runs: in the System process, or in an ordinary one (notepad.exe). */
export type ScenarioTarget = 'system' | 'ordinary';

/** Something that the lab's attack driver can be told to do. */
export type LabScenario =
  /** Kernel code sets U/S in the self-map entry, then ring-3 code reads a page table through it. */
  | { readonly name: 'self-map'; readonly form: SelfMapForm; readonly target: ScenarioTarget }
  /** Kernel code writes other entries of the page, the accessed bit of the entry, and the same value again. */
  | { readonly name: 'self-map-benign'; readonly target: ScenarioTarget }
  /** Kernel code attacks what {@link HookedThing} says, or, as its twin, touches it and changes nothing that matters. */
  | { readonly name: HookedThing | `${HookedThing}-benign`; readonly target: ScenarioTarget };

/**
 * What kernel code attacks besides the self-map entry. Each attack prints `lab: effect 1` when the guest saw it take effect, and puts back what was there.
 * - `syscall-entry`: LSTAR gets another value.
 * - `smep`: CR4.SMEP is cleared.
 * - `interrupt-table`: IDTR gets another base.
 * - `remap`: the page-table entry of `LabGuardedPage` gets another frame.
 * - `overwrite`: REP MOVSB runs over the guarded bytes in the middle of `LabGuardedPage`.
 * - `push`: PUSH reads `LabSecretPage`, and its stack is the guarded bytes.
 * - `function-patch`: the first bytes of the function `LabPatchTarget` are read, printed and replaced.
 */
export type HookedThing =
  | 'syscall-entry'
  | 'smep'
  | 'interrupt-table'
  | 'remap'
  | 'overwrite'
  | 'push'
  | 'function-patch';

/** Name of a scenario on the debug port, e.g. `self-map/bts/system`. */
export function scenarioId(scenario: LabScenario): string {
  return `${kernelName(scenario)}/${scenario.target}`;
}

/**
 * The mailbox fields that tell the attack driver to run a scenario, without its sequence number.
 * @throws LabError ERR_GUEST_LAB_BAD_OPTION when there is no such scenario
 */
export function scenarioMessage(scenario: LabScenario): { readonly scenario: number; readonly target: number } {
  const name = kernelName(scenario);
  const target = ['system', 'ordinary'].indexOf(scenario.target);
  if (!Object.hasOwn(ScenarioCode, name) || target < 0) {
    throw new LabError('ERR_GUEST_LAB_BAD_OPTION', `there is no lab scenario ${scenarioId(scenario)}`);
  }
  return { scenario: ScenarioCode[name], target };
}

/** The mailbox as bytes. */
export function mailboxBytes(fields: { readonly [F in keyof typeof MAILBOX]?: number }): Uint8Array {
  const bytes = new Uint8Array(MAILBOX_SIZE);
  const view = new DataView(bytes.buffer);
  for (const [name, value] of Object.entries(fields)) {
    view.setBigUint64(MAILBOX[name as keyof typeof MAILBOX], BigInt(value), true);
  }
  return bytes;
}

function kernelName(scenario: LabScenario): ScenarioName {
  return scenario.name === 'self-map' ? `self-map/${scenario.form}` : scenario.name;
}
