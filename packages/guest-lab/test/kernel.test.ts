import { ShutdownReason } from '@introd/abi';
import type { Machine } from '@introd/hv-sim';
import { ProfileStore } from '@introd/windows-profiles';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import { buildLabGuest, LAB_BUILD, type LabGuest } from '../src/index.js';
import { labMachine, processNamed, readVirtual64, runToPhase, runUntil } from './guest-run.js';

const scale = inject('scale');
const profile = ProfileStore.bundled().byBuild(LAB_BUILD)!;

let machine: Machine;
beforeAll(() => {
  machine = labMachine();
});

function booted(seed: number, vcpus = 1): LabGuest {
  const guest = buildLabGuest({ seed, vcpus, machine });
  runToPhase(guest, 'ready', 300_000);
  return guest;
}

/** Counters of all threads that make system calls, from the kernel's own records. */
function counters(guest: LabGuest): bigint[] {
  const values: bigint[] = [];
  for (let i = 0; guest.labels.has(`ThreadRecord${i}`); i++) {
    values.push(readVirtual64(guest, guest.truth.systemCr3, guest.labels.get(`ThreadRecord${i}`)! + 0x10n));
  }
  return values;
}

/** Everything that may not differ between two runs of a seed. */
function attackedRun(): unknown[] {
  const guest = booted(7, 2);
  guest.start({ name: 'self-map', form: 'or', target: 'ordinary' });
  runToPhase(guest, 'done', 4_000_000);
  return [guest.machine.debugText, guest.machine.instructions, guest.machine.time, counters(guest)];
}

/** Runs until a program is about to make a system call whose answer it ignores, and changes number and argument. */
function callInstead(guest: LabGuest, number: number, argument: bigint): bigint {
  const vcpu = guest.machine.vcpu(0);
  const atYield = (): boolean =>
    vcpu.cpl === 3 && vcpu.get('rax') === 0n && (readVirtual64(guest, vcpu.cr3, vcpu.rip) & 0xffffn) === 0x050fn;
  runUntil(guest, atYield, 100_000, 1);
  vcpu.set('rax', BigInt(number));
  vcpu.set('r10', argument);
  const { rip } = vcpu;
  return rip;
}

describe('the lab kernel', () => {
  it('boots within 300,000 instructions, with 1, 2 and 4 processors', () => {
    for (let seed = 0; seed < 4 * scale; seed++) {
      for (const vcpus of [1, 2, 4]) {
        const guest = booted(seed, vcpus);
        expect(guest.lines).toEqual([
          ...['descriptors', 'traps', 'system-calls', 'clock', 'processors', 'threads'].map((s) => `lab: boot ${s}`),
          'lab: ready',
        ]);
        expect(guest.machine.instructions).toBeLessThanOrEqual(300_000);
      }
    }
  });

  it('does the same each time', () => {
    expect(attackedRun()).toEqual(attackedRun());
  });

  it.each([1, 2, 4])('gives every thread its turn with %d processors', (vcpus) => {
    const guest = booted(11, vcpus);
    const before = counters(guest);
    guest.machine.run(2_000_000);
    expect(guest.phase).toBe('ready');
    const grown = counters(guest).filter((value, i) => value > before[i]!);
    // One thread in each of six programs, two in services.exe.
    expect(grown).toHaveLength(8);
    // Two slices of sleep after each round: the worker of System has run for many of them.
    expect(readVirtual64(guest, guest.truth.systemCr3, guest.labels.get('LabSystemWork')!)).toBeGreaterThan(2_000n);
  });

  it('runs programs that write their own memory', () => {
    const guest = booted(3);
    guest.machine.run(1_000_000);
    for (const { name, eprocess, cr3 } of guest.truth.processes.filter(({ pid }) => pid !== 4)) {
      const base = readVirtual64(
        guest,
        guest.truth.systemCr3,
        eprocess + BigInt(profile.struct('_EPROCESS').offset('SectionBaseAddress')),
      );
      const rounds = readVirtual64(guest, cr3, base + 0x6000n);
      expect(rounds, name).toBeGreaterThan(0n);
    }
  });

  it('keeps CurrentThread and CR3 in step', () => {
    const guest = booted(5);
    const { machine: sim } = guest;
    const prcb = profile.struct('_KPCR').offset('Prcb') + profile.struct('_KPRCB').offset('CurrentThread');
    const seen = new Set<bigint>();
    for (let i = 0; i < 300; i++) {
      sim.run(997);
      const vcpu = sim.vcpu(0);
      if (vcpu.cpl !== 3) {
        continue;
      }
      // In ring 3 the KPCR waits behind SWAPGS.
      const thread = readVirtual64(guest, vcpu.cr3, vcpu.get('kernelGsBase') + BigInt(prcb));
      const field = (struct: string, name: string, at: bigint): bigint =>
        readVirtual64(guest, vcpu.cr3, at + BigInt(profile.struct(struct).offset(name)));
      const owner = field('_KTHREAD', 'Process', thread);
      expect(field('_KPROCESS', 'DirectoryTableBase', owner)).toBe(vcpu.cr3);
      expect(field('_KTHREAD', 'Teb', thread)).toBe(vcpu.get('gsBase'));
      seen.add(owner);
    }
    expect(seen.size).toBeGreaterThan(4);
  });

  it('reports a fault of the kernel as a bug check and powers off', () => {
    const guest = booted(2);
    // What a wild jump does: the address is canonical, but nothing is there.
    runUntil(guest, () => guest.machine.vcpu(0).cpl === 0, 100_000, 1);
    guest.machine.vcpu(0).set('rip', 0xffff_f123_0000_0000n);
    guest.machine.run(10_000);
    expect(guest.lines.slice(-3)).toEqual([
      'lab: trap at fffff12300000000',
      'lab: trap address fffff12300000000',
      'lab: bugcheck 0000000000000050',
    ]);
    expect(guest.machine.powerOffCode).toBe(1);
    expect(guest.phase).toBe('crashed');
  });

  it('ends a thread that faults in ring 3, and goes on', () => {
    const guest = booted(2);
    runUntil(guest, () => guest.machine.vcpu(0).cpl === 3, 100_000, 1);
    guest.machine.vcpu(0).set('rip', 0x123_4000n);
    runUntil(guest, () => guest.lines.includes('lab: thread fault 0000000001234000'));
    const before = counters(guest);
    guest.machine.run(1_000_000);
    expect(counters(guest).filter((value, i) => value > before[i]!)).toHaveLength(7);
  });

  it.each([
    ['triple-fault', 'shutdown'],
    ['loop', 'budget'],
  ] as const)('hostile %s ends the run as %s', (hostile, stopped) => {
    const guest = buildLabGuest({ seed: 1, machine, hostile });
    runToPhase(guest, 'ready');
    guest.start({ name: 'self-map', form: 'mov', target: 'system' });
    expect(guest.machine.run(1_000_000)).toBe(stopped);
    expect(guest.lines.at(-1)).toBe('lab: run self-map/mov/system');
    expect(guest.machine.shutdownReason).toBe(hostile === 'loop' ? undefined : ShutdownReason.TRIPLE_FAULT);
    // The endless loop cannot be interrupted: the same instruction, for ever.
    const { rip } = guest.machine.vcpu(0);
    expect(guest.labels.get(hostile === 'loop' ? 'LabEndlessLoop.forever' : 'LabTripleFault')! <= rip).toBe(true);
    expect(guest.phase).toBe(hostile === 'loop' ? 'running' : 'crashed');
  });

  it('answers system calls, also those that there are not', () => {
    const guest = booted(4);
    const vcpu = guest.machine.vcpu(0);
    for (const [number, argument, answer] of [
      // LabPrintValue
      [1, 0xfeed_0123_4567_89abn, 0n],
      // NtCallbackReturn without a call to return from
      [3, 1n, 0xc000_001cn],
      [9, 0n, 0xc000_001cn],
      [0xffff_ffff, 0n, 0xc000_001cn],
    ] as const) {
      const rip = callInstead(guest, number, argument);
      runUntil(guest, () => vcpu.rip === rip + 2n, 1000, 1);
      expect(vcpu.get('rax')).toBe(answer);
      expect(vcpu.cpl).toBe(3);
    }
    expect(guest.lines.filter((line) => line.startsWith('lab: value'))).toEqual(['lab: value feed0123456789ab']);
    // NtTerminateThread
    callInstead(guest, 8, 0n);
    const before = counters(guest);
    guest.machine.run(1_000_000);
    expect(counters(guest).filter((value, i) => value > before[i]!)).toHaveLength(7);
  });

  it('keeps the time of KUSER_SHARED_DATA', () => {
    const guest = booted(6);
    const time = (name: string): bigint =>
      readVirtual64(
        guest,
        processNamed(guest, 'lsass.exe').cr3,
        0x7ffe_0000n + BigInt(profile.struct('_KUSER_SHARED_DATA').offset(name)),
      );
    const [interrupts, system, microseconds] = [time('InterruptTime'), time('SystemTime'), guest.machine.time];
    guest.machine.run(500_000);
    const passed = BigInt(Math.floor((guest.machine.time - microseconds) / 5_000)) * 50_000n;
    for (const difference of [time('InterruptTime') - interrupts, time('SystemTime') - system]) {
      // Whole slices of 5,000 microseconds have passed, give or take one.
      expect(difference).toBeGreaterThanOrEqual(passed - 50_000n);
      expect(difference).toBeLessThanOrEqual(passed + 50_000n);
    }
  });

  it('lists processes that a host can find by name', () => {
    expect(processNamed(booted(1), 'notepad.exe').pid).toBeGreaterThan(4);
  });
});
