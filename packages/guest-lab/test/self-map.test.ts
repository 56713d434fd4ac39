import { Access, type Cr3, ExitKind, gfnOf, Reply, rootOf } from '@introd/abi';
import { NO_EXIT } from '@introd/glue';
import type { Machine } from '@introd/hv-sim';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import { buildLabGuest, type LabGuest, type LabScenario } from '../src/index.js';
import {
  labMachine,
  processNamed,
  readVirtual64,
  runScenario,
  runToPhase,
  runUntil,
  selfMapEntry,
} from './guest-run.js';

const scale = inject('scale');
const FORMS = ['mov', 'or', 'xchg', 'bts', 'lock-cmpxchg'] as const;
const TARGETS = ['system', 'ordinary'] as const;
/** Present and U/S: what makes the self-map an attack. */
const ATTACKED = 5n;

let machine: Machine;
beforeAll(() => {
  machine = labMachine();
});

function booted(seed: number, vcpus = 1): LabGuest {
  const guest = buildLabGuest({ seed, vcpus, machine });
  runToPhase(guest, 'ready');
  return guest;
}

function hex16(value: bigint): string {
  return value.toString(16).padStart(16, '0');
}

const cr3Of = (guest: LabGuest, target: (typeof TARGETS)[number]) =>
  target === 'system' ? guest.truth.systemCr3 : processNamed(guest, 'notepad.exe').cr3;

describe('attack self-map without protection', () => {
  it.each(FORMS.flatMap((form) => TARGETS.map((target) => [form, target] as const)))(
    '%s in %s hands the real entry to ring 3',
    (form, target) => {
      for (let seed = 20; seed < 20 + 2 * scale; seed++) {
        const guest = booted(seed, 1 + (seed % 2));
        const cr3 = cr3Of(guest, target);
        expect(selfMapEntry(guest, cr3) & ATTACKED).toBe(1n);
        guest.start({ name: 'self-map', form, target });
        const read = (): string | undefined => guest.lines.find((line) => line.startsWith('lab: user read'));
        runUntil(guest, () => read() !== undefined, 500_000, 200);
        expect(selfMapEntry(guest, cr3) & ATTACKED).toBe(ATTACKED);
        expect(read()).toBe(`lab: user read ${hex16(selfMapEntry(guest, cr3))}`);
        runToPhase(guest, 'done', 4_000_000);
        const id = `self-map/${form}/${target}`;
        expect(guest.lines.slice(7)).toEqual([`lab: run ${id}`, 'lab: wrote', read(), `lab: done ${id}`]);
      }
    },
  );

  it.each(TARGETS)('in %s changes no other address space', (target) => {
    const guest = booted(31);
    runScenario(guest, { name: 'self-map', form: 'mov', target });
    for (const { name, cr3 } of guest.truth.processes) {
      const attacked = name === (target === 'system' ? 'System' : 'notepad.exe');
      expect(selfMapEntry(guest, cr3) & ATTACKED, name).toBe(attacked ? ATTACKED : 1n);
    }
  });

  it('can be repeated in the same guest', () => {
    const guest = booted(33);
    for (const form of FORMS) {
      const lines = runScenario(guest, { name: 'self-map', form, target: 'system' });
      expect(lines.filter((line) => line.startsWith('lab: user read'))).toHaveLength(1);
    }
    expect(runScenario(guest, { name: 'self-map-benign', target: 'system' })).toContain('lab: benign ok');
  });
});

describe('attack self-map that somebody stops', () => {
  it('in System: the write has no effect, ring 3 faults, and the guest goes on', () => {
    const guest = booted(40);
    const address = 0x1000 * Math.floor(Number(guest.truth.systemCr3) / 0x1000) + guest.truth.selfMapIndex * 8;
    guest.start({ name: 'self-map', form: 'or', target: 'system' });
    // The host repairs the entry right behind the write, as introspection does in front of it.
    runUntil(guest, () => guest.lines.includes('lab: wrote'), 500_000, 1);
    const entry = new Uint8Array(8);
    new DataView(entry.buffer).setBigUint64(0, selfMapEntry(guest, guest.truth.systemCr3) & ~4n, true);
    machine.writePhysical(address as never, entry);
    runToPhase(guest, 'done');
    const index = BigInt(guest.truth.selfMapIndex);
    const va =
      BigInt.asUintN(64, BigInt.asIntN(48, (index << 39n) | (index << 30n) | (index << 21n) | (index << 12n))) +
      index * 8n;
    expect(guest.lines.slice(7)).toEqual([
      'lab: run self-map/or/system',
      'lab: wrote',
      `lab: user fault ${hex16(va)}`,
      'lab: done self-map/or/system',
    ]);
    const work = (): bigint => readVirtual64(guest, guest.truth.systemCr3, guest.labels.get('LabSystemWork')!);
    const before = work();
    machine.run(500_000);
    expect(work()).toBeGreaterThan(before);
    expect(guest.phase).toBe('done');
  });

  it('in an ordinary process: ring 3 reads until the entry is repaired', () => {
    const guest = booted(41);
    const { cr3 } = processNamed(guest, 'notepad.exe');
    guest.start({ name: 'self-map', form: 'bts', target: 'ordinary' });
    runUntil(guest, () => guest.lines.some((line) => line.startsWith('lab: user read')), 500_000);
    machine.run(500_000);
    expect(guest.lines.some((line) => line.startsWith('lab: user fault'))).toBe(false);
    const entry = new Uint8Array(8);
    new DataView(entry.buffer).setBigUint64(0, selfMapEntry(guest, cr3) & ~4n, true);
    machine.writePhysical((Number(cr3) + guest.truth.selfMapIndex * 8) as never, entry);
    runToPhase(guest, 'done', 500_000);
    expect(guest.lines.slice(7).map((line) => line.replace(/ [0-9a-f]{16}$/, ''))).toEqual([
      'lab: run self-map/bts/ordinary',
      'lab: wrote',
      'lab: user read',
      'lab: user fault',
      'lab: done self-map/bts/ordinary',
    ]);
  });
});

/** Runs a scenario with a port that guards a PML4 page against writes and answers each with `reply`. */
function runGuarded(guest: LabGuest, cr3: Cr3, scenario: LabScenario, reply: (address: number) => Reply): number {
  let writes = 0;
  const port = guest.machine.openPort();
  try {
    port.setPageAccess(gfnOf(rootOf(cr3)), Access.READ | Access.EXECUTE);
    port.flushPageAccess();
    guest.start(scenario);
    for (let i = 0; i < 10_000 && guest.phase !== 'done'; i++) {
      const record = port.next(1);
      if (record === NO_EXIT) {
        continue;
      }
      const vcpu = record === port.vcpuCount ? port.guestRecord : port.vcpu(record);
      const violation = vcpu.exitKind === ExitKind.EPT_VIOLATION;
      writes += violation ? 1 : 0;
      port.reply(record, violation ? reply(vcpu.exitGpa) : Reply.RETRY);
    }
  } finally {
    port.close();
  }
  expect(guest.phase).toBe('done');
  return writes;
}

describe('attack self-map against a guard in front of the write', () => {
  it.each(FORMS)('%s is skipped: nothing is read, and it is tried once', (form) => {
    const guest = booted(70);
    const cr3 = guest.truth.systemCr3;
    const entry = rootOf(cr3) + guest.truth.selfMapIndex * 8;
    let refused = 0;
    runGuarded(guest, cr3, { name: 'self-map', form, target: 'system' }, (address) => {
      refused += address === entry ? 1 : 0;
      return address === entry ? Reply.SKIP : Reply.ALLOW_ONCE;
    });
    expect(refused).toBe(1);
    expect(selfMapEntry(guest, cr3) & ATTACKED).toBe(1n);
    expect(guest.lines.some((line) => line.startsWith('lab: user read'))).toBe(false);
    expect(guest.lines.some((line) => line.startsWith('lab: user fault'))).toBe(true);
  });

  it.each(TARGETS)('the benign twin in %s passes a guard that allows each write', (target) => {
    const guest = booted(71);
    const cr3 = cr3Of(guest, target);
    const writes = runGuarded(guest, cr3, { name: 'self-map-benign', target }, () => Reply.ALLOW_ONCE);
    // Each form on another entry, on the accessed bit and with the same value.
    expect(writes).toBeGreaterThan(20);
    expect(guest.lines).toContain('lab: benign ok');
  });
});

describe('benign twin', () => {
  it.each(TARGETS)('in %s has all its effects and leaves the entry closed', (target) => {
    for (let seed = 50; seed < 50 + 3 * scale; seed++) {
      const guest = booted(seed, 1 + (seed % 4));
      expect(runScenario(guest, { name: 'self-map-benign', target })).toEqual([
        `lab: run self-map-benign/${target}`,
        'lab: benign ok',
        `lab: done self-map-benign/${target}`,
      ]);
      for (const { cr3 } of guest.truth.processes) {
        expect(selfMapEntry(guest, cr3) & ATTACKED).toBe(1n);
      }
    }
  });

  it('notices a write that had no effect', () => {
    const guest = booted(60);
    const cr3 = guest.truth.systemCr3;
    guest.start({ name: 'self-map-benign', target: 'system' });
    // The host sets the accessed bit again behind the instruction that clears it.
    const after = guest.labels.get('LabAccessedClearXchg')!;
    runUntil(guest, () => guest.machine.vcpu(0).rip === after, 500_000, 1);
    guest.machine.run(3);
    const entry = new Uint8Array(8);
    new DataView(entry.buffer).setBigUint64(0, selfMapEntry(guest, cr3) | 0x20n, true);
    machine.writePhysical((Number(cr3) + guest.truth.selfMapIndex * 8) as never, entry);
    runToPhase(guest, 'done', 500_000);
    expect(guest.lines).toContain('lab: benign lost 0000000000000001');
  });
});
