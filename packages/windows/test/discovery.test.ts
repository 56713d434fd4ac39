import { cr3, gva } from '@introd/abi';
import { GuestProfile, ProfileStore } from '@introd/windows-profiles';
import { describe, expect, it } from 'vitest';
import { Attached, KERNEL_BASE, SELF_MAP_INDEX, SyntheticWindows } from './synthetic-windows.js';

function attach(change?: (windows: SyntheticWindows) => void, options?: ConstructorParameters<typeof Attached>[1]) {
  const windows = new SyntheticWindows();
  windows.addProcess(368, 'smss.exe');
  change?.(windows);
  return new Attached(windows, options);
}

/** A change of the guest before the engine looks, and where it is put: every guest here is otherwise found at the first look. */
const found = (attached: Attached) => {
  attached.loadCr3();
  return attached.guest.state;
};

describe('discovery', () => {
  it('finds the kernel, its build, its page tables and its processes at the first CR3 write', () => {
    const attached = attach();
    expect(attached.guest.state).toBe('searching');
    expect(found(attached)).toBe('found');
    expect(attached.guest.info).toEqual({
      build: 19041,
      arch: 'x64',
      kernelBase: KERNEL_BASE,
      kernelSize: 0x100_0000,
      systemCr3: attached.windows.systemCr3,
      selfMapIndex: SELF_MAP_INDEX,
      kptiActive: false,
      pdb: { name: 'ntkrnlmp.pdb', guid: attached.windows.profile.pdb.guid, age: 1 },
    });
    expect(attached.guest.processes.map(({ pid, name }) => [pid, name])).toEqual([
      [4, 'System'],
      [368, 'smss.exe'],
    ]);
    expect(attached.guest.protections).toEqual([{ id: 'self-map', state: 'on' }]);
    expect(attached.alerts).toEqual([]);
    expect(attached.engineProblems).toEqual([]);
  });

  it('switches the exit on CR3 writes off once it is done, and leaves no pause behind', () => {
    const attached = attach();
    found(attached);
    const exits = attached.engine.counters.hookCalls;
    attached.loadCr3(0x1234_5000n);
    expect(attached.engine.counters.hookCalls).toBe(exits);
    expect(attached.windows.port.pauseCount).toBe(0);
  });

  it.each<[string, (windows: SyntheticWindows) => void]>([
    ['paging is off', ({ vcpu }) => vcpu.set('cr0', 0x11n)],
    ['32-bit mode', ({ vcpu }) => vcpu.set('efer', 1n)],
    ['no system call handler', ({ vcpu }) => vcpu.set('lstar', 0n)],
  ])('waits, without counting, while it is too early: %s', (reason, change) => {
    const attached = attach(change);
    for (let i = 0; i < 100; i += 1) attached.loadCr3();
    expect(attached.guest.state).toBe('searching');
    expect(attached.guest.stateReason).toContain(reason);
  });

  it('waits while the page tables do not change, whatever the flags in CR3 are', () => {
    const attached = attach();
    attached.loadCr3(attached.windows.systemCr3 | 0x8000_0000_0000_0fffn);
    expect(attached.guest.state).toBe('searching');
    expect(attached.guest.stateReason).toContain('do not change');
  });

  it('goes by SYSENTER, or by the first interrupt handler, when LSTAR is not set', () => {
    const attached = attach((windows) => {
      windows.vcpu.set('sysenterEip', windows.vcpu.get('lstar'));
      windows.vcpu.set('lstar', 0n);
    });
    expect(found(attached)).toBe('found');
    const byInterrupt = attach((windows) => {
      windows.vcpu.set('sysenterEip', 1n);
      windows.vcpu.set('lstar', 0n);
      windows.writeU64(gva(windows.vcpu.get('idtBase') + 14n * 16n), 0n);
      windows.writeU64(gva(windows.vcpu.get('idtBase') + 14n * 16n + 8n), 0n);
    });
    expect(found(byInterrupt)).toBe('found');
  });

  it('looks at most 16 MiB below the handler', () => {
    const at = (distance: bigint) =>
      attach((windows) => {
        windows.vcpu.set('lstar', KERNEL_BASE + distance);
        windows.vcpu.set32('idtLimit', 0);
      });
    expect(found(at(0xff_f000n))).toBe('found');
    expect(found(at(0x100_0000n))).toBe('searching');
  });

  it.each<[string, (windows: SyntheticWindows) => void]>([
    ['no MZ at its base', (w) => w.write(KERNEL_BASE, Uint8Array.of(0, 0))],
    ['no section ALMOSTRO', (w) => w.write(KERNEL_BASE + 0x80n + 24n + 240n + 120n, Uint8Array.of(0x42))],
    ['no section .data', (w) => w.write(KERNEL_BASE + 0x80n + 24n + 240n + 80n, Uint8Array.of(0x42))],
    ['no pointer to itself', (w) => w.writeSymbol('PsNtosImageBase', KERNEL_BASE + 0x1000n)],
    [
      'a writable section around its handler',
      (w) => w.write(KERNEL_BASE + 0x80n + 24n + 240n + 39n, Uint8Array.of(0xe0)),
    ],
    ['a missing page in ALMOSTRO', (w) => w.unmap(KERNEL_BASE + 0xcf_0000n)],
    [
      'a section that is not page aligned',
      (w) => w.write(KERNEL_BASE + 0x80n + 24n + 240n + 120n + 12n, Uint8Array.of(8)),
    ],
    ['no System process', (w) => w.writeSymbol('PsInitialSystemProcess', 0n)],
    ['a System process without page tables', (w) => w.writeU64(w.field(w.processes[0]!, 'Pcb.DirectoryTableBase'), 0n)],
    [
      'page tables that do not map the System process',
      (w) => w.writeU64(w.field(w.processes[0]!, 'Pcb.DirectoryTableBase'), 0x100_0000n),
    ],
    ['no self-map entry', (w) => w.write64(w.entry(w.systemCr3), 0n)],
    [
      'only a self-map entry that is marked by bit 11',
      (w) => w.write64(w.entry(w.systemCr3), BigInt(w.systemCr3) | 0x863n),
    ],
  ])('does not take for a kernel what has %s, and gives up after 32 looks', (_what, change) => {
    const attached = attach(change);
    for (let look = 1; look < 32; look += 1) attached.loadCr3();
    expect(attached.guest.state).toBe('searching');
    attached.loadCr3();
    expect(attached.guest.state).toBe('failed');
    expect(attached.guest.stateReason).toContain('32 looks');
    expect(attached.guest.protections).toEqual([{ id: 'self-map', state: 'off', reason: attached.guest.stateReason }]);
    expect(attached.engineProblems).toEqual([]);
  });

  it('finds the pointer to itself in the last word of a section, and not behind it', () => {
    const withSize = (virtualSize: number) =>
      attach((windows) => {
        const header = KERNEL_BASE + 0x80n + 24n + 240n + 120n;
        windows.write(header + 8n, Uint8Array.of(virtualSize & 0xff, virtualSize >> 8, 0, 0));
      });
    const end = new SyntheticWindows().profile.symbol('PsNtosImageBase') - 0xcf_0000 + 8;
    expect(found(withSize(end))).toBe('found');
    expect(found(withSize(end - 8))).toBe('searching');
  });

  it('says which symbol file it has no profile for', () => {
    const attached = attach(undefined, { profiles: new ProfileStore() });
    expect(found(attached)).toBe('unsupported');
    expect(attached.guest.stateReason).toBe(
      `Windows build 19041 x64: no profile for ntkrnlmp.pdb ${attached.windows.profile.pdb.guid}-1 (there are no profiles)`,
    );
    expect(attached.guest.info).toBeUndefined();
    expect(attached.guest.protections[0]).toMatchObject({ state: 'off' });
  });

  it('says what the profile lacks', () => {
    const { profile } = new SyntheticWindows();
    const { PsActiveProcessHead: _, ...symbols } = profile.data.symbols;
    const attached = attach(undefined, {
      profiles: new ProfileStore([new GuestProfile({ ...profile.data, symbols })]),
    });
    expect(found(attached)).toBe('unsupported');
    expect(attached.guest.stateReason).toBe('the profile of build 19041 lacks PsActiveProcessHead');
  });

  it('says that an image without a symbol file cannot be matched', () => {
    const attached = attach((windows) => windows.write(KERNEL_BASE + 0x2000n, new Uint8Array(28)));
    expect(found(attached)).toBe('unsupported');
    expect(attached.guest.stateReason).toContain('does not name a symbol file');
  });

  it('says that 5-level paging is not supported, at once', () => {
    const attached = attach(({ vcpu }) => vcpu.set('cr4', vcpu.get('cr4') | 0x1000n));
    expect(found(attached)).toBe('unsupported');
    expect(attached.guest.stateReason).toContain('5-level');
  });

  it('takes the build from the kernel itself, not from its profile', () => {
    const attached = attach((windows) =>
      windows.write(windows.symbol('NtBuildNumber'), Uint8Array.of(0x63, 0x4a, 0, 0xf0)),
    );
    found(attached);
    expect(attached.guest.info!.build).toBe(19043);
  });

  it('knows a kernel with page tables of its own, and finds it from the user ones', () => {
    const windows = new SyntheticWindows({ kpti: true });
    const user = windows.userTables();
    windows.vcpu.set('cr3', user);
    const attached = new Attached(windows);
    attached.loadCr3(cr3(windows.systemCr3));
    expect(attached.guest.state).toBe('found');
    expect(attached.guest.info).toMatchObject({ kptiActive: true, systemCr3: windows.systemCr3 });
  });

  it('spends a bounded time on a guest that is full of kernels that are none', () => {
    const attached = attach((windows) => {
      // Every page below the handler is the same headers, each with sections to be searched in vain.
      windows.writeSymbol('PsNtosImageBase', 0n);
      const headers = new Uint8Array(4096);
      windows.port.readPhysical(windows.physical(KERNEL_BASE) as never, headers);
      const page = windows.physical(KERNEL_BASE);
      for (let at = 1; at < 512; at += 1) {
        const va = KERNEL_BASE + 0x20_0000n + BigInt(at * 4096);
        windows.map(va);
        windows.alias(va, page);
      }
    });
    for (let look = 0; look < 32; look += 1) attached.loadCr3();
    expect(attached.guest.state).toBe('failed');
  });

  it('is not stopped by a listener that throws', () => {
    const attached = attach(undefined, {
      onEvent() {
        throw new Error('listener');
      },
    });
    expect(found(attached)).toBe('found');
    expect(attached.engineProblems).toEqual([]);
  });
});

describe('the list of processes', () => {
  const running = () => {
    const attached = attach();
    found(attached);
    return attached;
  };
  const pids = (attached: Attached) => attached.guest.processes.map((process) => process.pid);

  it('is read anew at each tick: new processes are noticed, ended ones dropped', () => {
    const attached = running();
    const child = attached.windows.addProcess(4312, 'notepad.exe');
    expect(pids(attached)).toEqual([4, 368]);
    attached.tick();
    expect(pids(attached)).toEqual([4, 368, 4312]);
    attached.windows.removeProcess(child);
    attached.tick();
    expect(pids(attached)).toEqual([4, 368]);
    const told = attached.events.flatMap((event) => ('process' in event ? [`${event.type} ${event.process.pid}`] : []));
    expect(told).toEqual(['process-started 4', 'process-started 368', 'process-started 4312', 'process-ended 4312']);
  });

  it('keeps one object per process, and another one when its number or page tables are used anew', () => {
    const attached = running();
    const [, smss] = attached.guest.processes;
    attached.tick();
    expect(attached.guest.processes[1]).toBe(smss);
    const created = attached.windows.field(attached.windows.processes[1]!, 'CreateTime');
    attached.windows.writeU64(created, 7n);
    attached.tick();
    expect(attached.guest.processes[1]).not.toBe(smss);
    expect(attached.guest.processes[1]!.pid).toBe(368);
  });

  it.each(['ProcessExiting', 'ProcessDelete', 'VmDeleted'])('leaves out a new process with the flag %s', (flag) => {
    const attached = running();
    const child = attached.windows.addProcess(9, 'x.exe');
    attached.windows.setFlag(child, flag, true);
    attached.tick();
    expect(pids(attached)).toEqual([4, 368]);
  });

  it('leaves out a process without an address space', () => {
    const attached = running();
    attached.windows.setFlag(attached.windows.addProcess(9, 'x.exe'), 'HasAddressSpace', false);
    attached.tick();
    expect(pids(attached)).toEqual([4, 368]);
  });

  it('keeps a known process that is exiting until it is gone', () => {
    const attached = running();
    attached.windows.setFlag(attached.windows.processes[1]!, 'ProcessExiting', true);
    attached.tick();
    expect(pids(attached)).toEqual([4, 368]);
    expect(attached.guest.processes[1]!.exiting).toBe(true);
  });

  it('does not repeat characters that a terminal would obey', () => {
    const attached = running();
    attached.windows.addProcess(9, '\u001b[31mred\n');
    attached.tick();
    expect(attached.guest.processes[2]!.name).toBe('?[31mred?');
  });

  it.each<[string, RegExp, (windows: SyntheticWindows) => void]>([
    ['cyclic', /is cyclic/, (w) => w.writeU64(w.link(w.processes[1]!), w.link(w.processes[0]!))],
    ['cyclic at one entry', /is cyclic/, (w) => w.writeU64(w.link(w.processes[1]!), w.link(w.processes[1]!))],
    ['led into user memory', /out of kernel memory/, (w) => w.writeU64(w.link(w.processes[1]!), 0x1000n)],
    [
      'led to an odd address',
      /out of kernel memory/,
      (w) => w.writeU64(w.link(w.processes[1]!), w.link(w.processes[0]!) + 1n),
    ],
    [
      'led to memory that is not there',
      /not there/,
      (w) => w.writeU64(w.link(w.processes[1]!), 0xffff_c000_0000_0000n),
    ],
    [
      'emptied',
      /does not hold the System process/,
      (w) => w.writeSymbol('PsActiveProcessHead', w.symbol('PsActiveProcessHead')),
    ],
  ])('that is %s is reported, and what was protected stays so until it is sound again', (_what, reason, damage) => {
    const attached = running();
    const { windows, guest } = attached;
    const sound = [
      windows.readU64(windows.link(windows.processes[1]!)),
      windows.readU64(windows.symbol('PsActiveProcessHead')),
    ];
    damage(windows);
    attached.tick();
    expect(guest.state).toBe('failed');
    expect(guest.stateReason).toMatch(reason);
    expect(pids(attached)).toEqual([4, 368]);
    expect(guest.protections).toEqual([{ id: 'self-map', state: 'on' }]);
    windows.write64(windows.entry(windows.processes[1]!.cr3), BigInt(windows.processes[1]!.cr3) | 0x67n);
    attached.tick();
    expect(attached.alerts).toHaveLength(1);
    windows.writeU64(windows.link(windows.processes[1]!), sound[0]!);
    windows.writeSymbol('PsActiveProcessHead', sound[1]!);
    attached.tick();
    expect(guest.state).toBe('found');
    expect(guest.stateReason).toBeUndefined();
    expect(attached.engineProblems).toEqual([]);
  });

  it('that is cyclic from the start is reported in the same way', () => {
    const attached = attach((windows) =>
      windows.writeU64(windows.link(windows.processes[1]!), windows.link(windows.processes[0]!)),
    );
    expect(found(attached)).toBe('failed');
    expect(attached.guest.stateReason).toMatch(/list of processes is cyclic/);
  });
});

describe('close', () => {
  it('removes every hook, and a second call does nothing', () => {
    const attached = attach();
    found(attached);
    expect(attached.engine.hooks.page.count).toBe(1);
    attached.guest.close();
    attached.guest.close();
    expect(attached.engine.hooks.page.count).toBe(0);
    expect(attached.guest.protections).toEqual([{ id: 'self-map', state: 'off', reason: 'closed' }]);
    const { windows } = attached;
    windows.write64(windows.entry(windows.systemCr3), BigInt(windows.systemCr3) | 0x67n);
    attached.tick();
    expect(attached.alerts).toEqual([]);
  });

  it('ends the search, too', () => {
    const attached = attach();
    attached.guest.close();
    expect(found(attached)).toBe('searching');
  });
});
