/** Running a lab guest in tests without an engine, and looking into its memory from the host. */
import { type Cr3, type Gpa, type Gva, rootOf } from '@introd/abi';
import { Machine } from '@introd/hv-sim';
import { type LabGuest, type LabPhase, type LabScenario, labMemory } from '../src/index.js';

/** Instructions after which a guest that should have got somewhere has failed. */
const DEFAULT_LIMIT = 400_000;

/** A machine for lab guests with up to 4 VCPUs, to be used again and again. */
export function labMachine(): Machine {
  return new Machine({ vcpus: 4, memory: labMemory });
}

/**
 * Runs until the condition holds, looking every `step` instructions.
 * @throws Error with the guest's lines when it crashes, or does not get there.
 */
export function runUntil(guest: LabGuest, condition: () => boolean, limit = DEFAULT_LIMIT, step = 1000): void {
  const end = guest.machine.instructions + limit;
  while (!condition()) {
    const stopped = guest.machine.run(step);
    const hung = guest.machine.instructions >= end;
    if ((stopped === 'shutdown' || hung) && !condition()) {
      const what = hung
        ? 'does not get there'
        : `shut down (${guest.machine.unsupported ?? guest.machine.shutdownReason})`;
      throw new Error(`the guest ${what} at ${guest.machine.vcpu(0).rip.toString(16)}:\n${guest.lines.join('\n')}`);
    }
  }
}

/** Runs until the guest is in a phase. */
export function runToPhase(guest: LabGuest, phase: LabPhase, limit?: number): void {
  runUntil(guest, () => guest.phase === phase, limit);
}

/** Runs a scenario from start to end and gives the lines that it printed. */
export function runScenario(guest: LabGuest, scenario: LabScenario, limit = 4_000_000): string[] {
  const before = guest.lines.length;
  guest.start(scenario);
  runToPhase(guest, 'done', limit);
  return guest.lines.slice(before);
}

/** Reads 8 bytes of physical memory. */
function readPhysical64(guest: LabGuest, address: number): bigint {
  const bytes = new Uint8Array(8);
  if (!guest.machine.readPhysical(address as Gpa, bytes)) {
    throw new Error(`no memory at ${address.toString(16)}`);
  }
  return new DataView(bytes.buffer).getBigUint64(0, true);
}

/** Self-map entry of an address space, as the host sees it. */
export function selfMapEntry(guest: LabGuest, cr3: Cr3): bigint {
  return readPhysical64(guest, rootOf(cr3) + guest.truth.selfMapIndex * 8);
}

/** Reads 8 bytes of virtual memory by a walk of 4 KiB and 2 MiB pages. */
export function readVirtual64(guest: LabGuest, cr3: Cr3, va: bigint): bigint {
  let table: number = rootOf(cr3);
  for (const shift of [39n, 30n, 21n, 12n]) {
    const entry = readPhysical64(guest, table + Number((va >> shift) & 0x1ffn) * 8);
    if ((entry & 1n) === 0n) {
      throw new Error(`${va.toString(16)} is not present`);
    }
    table = Number(entry & 0x000f_ffff_ffff_f000n);
    if (shift === 21n && (entry & 0x80n) !== 0n) {
      return readPhysical64(guest, table + Number(va & 0x1f_ffffn));
    }
  }
  return readPhysical64(guest, table + Number(va & 0xfffn));
}

/** Address space of the process with that name. */
export function processNamed(guest: LabGuest, name: string): { pid: number; cr3: Cr3; eprocess: Gva } {
  const process = guest.truth.processes.find((candidate) => candidate.name === name);
  if (process === undefined) {
    throw new Error(`no process ${name}`);
  }
  return process;
}
