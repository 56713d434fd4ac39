/**
 * A memory-forensics tool that knows Windows and has the symbol file must see the lab guest as a Windows machine: at boot and
 * in the middle of a run, in a raw image and in an ELF core.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { buildLabGuest, type LabGuest } from '@introd/guest-lab';
import { beforeAll, describe, expect, inject, test } from 'vitest';
import { analyse, type ForensicReport, findRoot, fromElf, fromRaw, type Isf } from './forensic-reader.js';
import { runToPhase } from './guest-run.js';

const scale = inject('scale');
const seeds = Array.from({ length: 2 + scale }, (_, i) => 1 + i * 104_729);
const data = process.env.INTROD_REFERENCE_DATA;
const folder = data ? path.join(data, 'isf') : undefined;
const hasXz = spawnSync('xz', ['--version']).status === 0;
const missing = !folder
  ? 'INTROD_REFERENCE_DATA is not set'
  : !existsSync(folder)
    ? 'there are no symbol files in INTROD_REFERENCE_DATA'
    : !hasXz
      ? 'the program xz is not installed'
      : undefined;

const files = new Map<string, Isf>();

/** The symbol file of a GUID and age, as a symbol server would give it. */
function symbols(guid: string, age: number): Isf {
  const file = path.join(folder!, `${guid}-${age}.json.xz`);
  const known = files.get(file);
  if (known) return known;
  const { stdout, status } = spawnSync('xz', ['-dc', file], { maxBuffer: 2 ** 28, encoding: 'utf8' });
  if (status !== 0) throw new Error(`no symbol file ${file}`);
  const isf = JSON.parse(stdout) as Isf;
  files.set(file, isf);
  return isf;
}

function join(pieces: Iterable<Uint8Array>): Uint8Array {
  return new Uint8Array(Buffer.concat([...pieces]));
}

/** What must be found, whatever the guest is doing. */
function compare(report: ForensicReport, guest: LabGuest): void {
  const { truth } = guest;
  expect(report.cr3).toBe(truth.systemCr3);
  expect(report.selfMapIndex).toBe(truth.selfMapIndex);
  expect(report.kernelBase).toBe(truth.kernelBase);
  expect({ guid: report.guid, age: report.age }).toEqual({ guid: truth.pdb.guid, age: truth.pdb.age });
  expect(report.build).toBe(19041);
  expect(report.buildLab).toMatch(/^19041\..*amd64fre/);
  expect(report.processes.map(({ pid, name, eprocess, cr3 }) => ({ pid, name, eprocess, cr3 }))).toEqual(
    truth.processes,
  );
  expect(report.drivers.map(({ name, base, size }) => ({ name, base, size }))).toEqual(truth.modules);
  expect(report.drivers.map((driver) => driver.name)).toEqual(expect.arrayContaining(['ntoskrnl.exe', 'hal.dll']));
  expect(report.drivers.length).toBeGreaterThanOrEqual(4);
  const rva = (name: string): bigint => BigInt(symbols(report.guid, report.age).symbols[name]!.address);
  expect(report.debugger).toEqual({
    tag: 'KDBG',
    size: 0x380,
    kernBase: truth.kernelBase,
    moduleList: rva('PsLoadedModuleList'),
    processHead: rva('PsActiveProcessHead'),
  });
  expect(report.version).toEqual({
    minor: 19041,
    machine: 0x8664,
    kernBase: truth.kernelBase,
    moduleList: rva('PsLoadedModuleList'),
    listLeadsToBlock: true,
  });
  expect(report.sharedData).toEqual({ build: 19041, major: 10, productType: 1, root: 'C:\\Windows' });
}

/** Process by process: parents, threads, modules, ranges, users. */
function compareProcesses(report: ForensicReport): void {
  const pids = report.processes.map((process) => process.pid);
  const [system, ...ordinary] = report.processes;
  expect(system).toMatchObject({ pid: 4, name: 'System', parentPid: 0, modules: [], userSid: 'S-1-5-18' });
  expect(ordinary.length).toBeGreaterThanOrEqual(4);
  expect(new Set(report.processes.map((process) => process.cr3)).size).toBe(report.processes.length);
  const tids = report.processes.flatMap((process) => process.threads.map((thread) => thread.tid));
  expect(new Set([...pids, ...tids]).size).toBe(pids.length + tids.length);
  for (const process of report.processes) expect(process.threads.length).toBeGreaterThan(0);
  for (const process of ordinary) {
    expect(pids).toContain(process.parentPid);
    expect(process.imagePath.toLowerCase()).toMatch(new RegExp(`\\\\windows\\\\system32\\\\${process.name}$`));
    expect(process.commandLine).not.toBe('');
    expect(process.createTime).toBeGreaterThan(system!.createTime);
    expect(process.modules[0]!.name).toBe(process.name);
    expect(process.modules.map((module) => module.name)).toContain('ntdll.dll');
    for (const module of process.modules) {
      const vad = process.vads.find((range) => range.start === module.base);
      expect(vad?.file.endsWith(module.name)).toBe(true);
      expect(vad?.end).toBe(module.base + BigInt(module.size) - 1n);
    }
    for (const [i, vad] of process.vads.entries()) {
      expect(vad.end).toBeGreaterThan(vad.start);
      if (i > 0) expect(vad.start).toBeGreaterThan(process.vads[i - 1]!.end);
    }
    for (const thread of process.threads) {
      expect(process.vads.some((vad) => thread.start >= vad.start && thread.start <= vad.end)).toBe(true);
    }
  }
  expect(report.processes.find((process) => process.name === 'notepad.exe')?.userSid).toMatch(/^S-1-5-21-/);
}

describe(`a forensic tool sees Windows${missing ? ` (skipped: ${missing})` : ''}`, () => {
  describe.skipIf(missing !== undefined).each(seeds)('in the guest of seed %i', (seed) => {
    let guest: LabGuest;
    beforeAll(() => {
      guest = buildLabGuest({ seed, vcpus: 1 + (seed % 2) });
    });

    test('before the first instruction, in a raw image', () => {
      const report = analyse(fromRaw(join(guest.rawImage())), symbols);
      compare(report, guest);
      compareProcesses(report);
    });

    test('when it is ready, and in the middle of its work, in both formats', () => {
      runToPhase(guest, 'ready');
      for (let stop = 0; stop < 3; stop++) {
        guest.machine.run(7919);
        const raw = analyse(fromRaw(join(guest.rawImage())), symbols);
        compare(raw, guest);
        compareProcesses(raw);
        const core = fromElf(join(guest.elfCore()));
        expect(analyse(core, symbols)).toEqual(raw);
        expect(core.rips).toEqual(
          Array.from({ length: guest.machine.vcpuCount }, (_, i) => guest.machine.vcpu(i).rip as bigint),
        );
        const threads = new Set(raw.processors.map((processor) => processor.currentThread));
        expect(threads.size).toBe(guest.machine.vcpuCount);
      }
    });

    test('after the attack, whose trace it can see', () => {
      if (guest.phase === 'booting') runToPhase(guest, 'ready');
      guest.start({ name: 'self-map', form: 'or', target: 'system' });
      runToPhase(guest, 'done');
      const memory = fromRaw(join(guest.rawImage()));
      compare(analyse(memory, symbols), guest);
      const { root, index } = findRoot(memory);
      const entry = memory.read(root + index * 8, 1)[0]!;
      // Present and open to ring 3: nobody stopped it.
      expect(entry & 5).toBe(5);
    });
  });

  test.skipIf(missing !== undefined)('and does not, when a list is closed past its head', () => {
    const guest = buildLabGuest({ seed: 3, hostile: 'cyclic-processes' });
    expect(() => analyse(fromRaw(join(guest.rawImage())), symbols)).toThrow(/not linked both ways|does not end/);
  });
});
