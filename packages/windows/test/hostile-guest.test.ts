import { gva } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { Attached, DRIVER_BASE, KERNEL_BASE, SyntheticWindows } from './synthetic-windows.js';

const scale = inject('scale');
const MOV = [0x48, 0x89, 0x08];

/** Values that structures of a guest break in an interesting way with. */
const value = (windows: SyntheticWindows) =>
  fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.constantFrom(0n, 1n, 2n ** 64n - 1n, 2n ** 63n, 0x0fff_ffff_ffff_f000n, 0xffff_ffff_0000_0000n),
    fc.constantFrom(KERNEL_BASE, DRIVER_BASE, windows.systemCr3, windows.link(windows.processes[0]!)),
    fc.constantFrom('PsActiveProcessHead', 'PsLoadedModuleList').map((name) => windows.symbol(name) as bigint),
  );

/** Where the words lie that discovery, the process list and the alerts are made from. */
function words(windows: SyntheticWindows): number[] {
  const range = (va: bigint, count: number) =>
    Array.from({ length: count }, (_, i) => windows.physical(gva(va + BigInt(i * 8))));
  const process = windows.processes[0]!;
  return [
    ...range(KERNEL_BASE, 80),
    ...range(KERNEL_BASE + 0x2000n, 16),
    ...range(DRIVER_BASE, 60),
    ...range(windows.vcpu.get('idtBase'), 32),
    ...[
      'PsActiveProcessHead',
      'PsLoadedModuleList',
      'PsInitialSystemProcess',
      'NtBuildNumber',
      'PsNtosImageBase',
    ].flatMap((name) => range(windows.symbol(name), 2)),
    ...['ActiveProcessLinks', 'UniqueProcessId', 'Pcb.DirectoryTableBase', 'ImageFileName', 'CreateTime'].flatMap(
      (name) => windows.processes.flatMap((each) => range(windows.field(each, name), 2)),
    ),
    ...range(windows.readU64(windows.symbol('PsLoadedModuleList')), 14),
    windows.entry(process.cr3),
    // The upper levels of the kernel's page tables.
    ...Array.from({ length: 8 }, (_, i) => Number(process.cr3) + (504 + i) * 8),
  ];
}

/** The full count of runs takes minutes. */
const TIMEOUT = 900_000;

describe('a guest whose structures are broken', () => {
  it(
    'never makes anything throw or hang: before, while, and after it is found',
    () => {
      const blank = new SyntheticWindows();
      blank.addProcess(368, 'smss.exe');
      const places = words(blank);
      const change = fc.tuple(fc.nat(places.length - 1), value(blank));
      const changes = fc.array(change, { minLength: 1, maxLength: 6 });
      fc.assert(
        fc.property(changes, changes, fc.boolean(), (early, late, isFoundFirst) => {
          const windows = new SyntheticWindows();
          windows.addProcess(368, 'smss.exe');
          const attached = new Attached(windows);
          const breakIt = (list: typeof early) => {
            for (const [place, word] of list) windows.write64(places[place]!, word);
          };
          if (!isFoundFirst) breakIt(early);
          attached.loadCr3();
          attached.loadCr3();
          breakIt(late);
          attached.tick();
          const entry = blank.entry(blank.systemCr3);
          if (attached.engine.hooks.page.count > 0) attached.execute(MOV, entry, windows.read64(entry) | 4n);
          attached.tick();
          expect(attached.engineProblems).toEqual([]);
          expect(['searching', 'found', 'unsupported', 'failed']).toContain(attached.guest.state);
          expect(windows.port.pauseCount).toBe(0);
          expect(attached.guest.processes.length).toBeLessThanOrEqual(65535);
          attached.guest.close();
        }),
        { numRuns: 30 * scale },
      );
    },
    TIMEOUT,
  );

  it('with a list of processes as long as memory allows is read in bounded time', () => {
    const windows = new SyntheticWindows();
    const attached = new Attached(windows);
    attached.loadCr3();
    // One page of list entries, mapped again and again: 65,536 addresses, each leading to the next.
    const base = 0xffff_c000_0000_0000n;
    const page = windows.map(base);
    for (let at = 1; at < 256; at += 1) {
      windows.map(base + BigInt(at * 4096));
      windows.alias(base + BigInt(at * 4096), page);
    }
    for (let at = 0; at < 4096; at += 8) windows.write64(page + at, base + BigInt(at + 8));
    windows.write64(page + 4088, base + 4096n);
    windows.writeU64(windows.link(windows.processes[0]!), base);
    attached.tick();
    expect(attached.guest.state).toBe('failed');
    expect(attached.guest.stateReason).toMatch(/is cyclic|does not end/);
    expect(attached.engineProblems).toEqual([]);
  });
});
