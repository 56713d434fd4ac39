import { Access, type Alert, gfnOf, gpa, gva, Reply, type TranslationViolationAlert } from '@introd/abi';
import { baselineRules, ExceptionsEngine } from '@introd/exceptions';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { betaPolicy, enforcePolicy, offPolicy, type Policy, type WindowsGuestOptions } from '../src/index.js';
import { Attached, DRIVER_BASE, KERNEL_BASE, SyntheticWindows } from './synthetic-windows.js';

const scale = inject('scale');
const USER = 4n;
const isOpen = (entry: bigint) => (entry & 5n) === 5n;

/** Instructions that write RCX, or set bit 2, at the address in RAX. */
const FORMS: [name: string, code: readonly number[], text: RegExp][] = [
  ['MOV', [0x48, 0x89, 0x08], /^mov/],
  ['OR', [0x48, 0x83, 0x08, 0x04], /^or/],
  ['XCHG', [0x48, 0x87, 0x08], /^xchg/],
  ['BTS', [0x48, 0x0f, 0xba, 0x28, 0x02], /^bts/],
  ['LOCK OR of one byte', [0xf0, 0x80, 0x08, 0x04], /^lock or/],
  ['XOR', [0x48, 0x83, 0x30, 0x04], /^xor/],
];
const MOV = FORMS[0]![1];

const feedbackPolicy: Policy = { ...enforcePolicy, protections: { 'self-map': 'feedback' } };
const rules = (...list: object[]) =>
  ExceptionsEngine.fromJson([{ name: 'test.json', text: JSON.stringify({ Type: 'kernel', Exceptions: list }) }]);

function attach(options: Partial<WindowsGuestOptions> = {}, change?: (windows: SyntheticWindows) => void) {
  const windows = new SyntheticWindows();
  windows.addProcess(4312, 'notepad.exe');
  change?.(windows);
  const attached = new Attached(windows, options);
  attached.loadCr3();
  expect(attached.engineProblems).toEqual([]);
  const [system, ordinary] = windows.processes.map(({ cr3 }) => windows.entry(cr3));
  return Object.assign(attached, { system: system!, ordinary: ordinary!, read: (at: number) => windows.read64(at) });
}

const late = (alert: Alert | undefined): TranslationViolationAlert => {
  expect(alert).toMatchObject({
    class: 'translation-violation',
    found: 'late',
    flags: expect.arrayContaining(['async']),
  });
  return alert as TranslationViolationAlert;
};

describe('a write to the entry of System', () => {
  it.each(FORMS)('by %s is blocked before it takes effect, and the instruction goes on', (_name, code, text) => {
    const guest = attach();
    const old = guest.read(guest.system);
    guest.execute(code, guest.system, old | USER);
    expect(guest.read(guest.system)).toBe(old);
    expect(guest.windows.vcpu.rip).toBe(DRIVER_BASE + 0x1100n + BigInt(code.length));
    expect(guest.alerts).toHaveLength(1);
    expect(guest.alerts[0]).toMatchObject({
      alertId: 'self-map-1',
      sequence: 1,
      class: 'ept-violation',
      found: 'before',
      action: 'not-allowed',
      verdict: 'blocked',
      reason: 'no-exception',
      flags: ['system-process'],
      originator: {
        rip: '0xfffff80320001100',
        module: { name: 'Evil.sys', base: '0xfffff80320000000', size: 0x3000 },
        section: '.text',
      },
      victim: {
        process: { pid: 4, name: 'System' },
        table: 'kernel',
        physicalAddress: `0x${guest.system.toString(16)}`,
      },
      write: { old: `0x${old.toString(16)}`, new: `0x${(old | USER).toString(16)}`, size: 8 },
      process: { pid: 4 },
      cpu: { index: 0, instruction: expect.stringMatching(text) },
    });
    expect(guest.alerts[0]!.summary).toBe(
      'Evil.sys (section .text) tried to open the page tables of System (PID 4) to user code. Blocked before it took effect.',
    );
  });

  it('that opens it and changes more keeps the rest of the change', () => {
    const guest = attach();
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, (old | USER | 0x200n) & ~2n);
    expect(guest.read(guest.system)).toBe((old | 0x200n) & ~2n);
    expect(guest.alerts).toHaveLength(1);
  });

  it('never lets a value with P and U/S through, whatever it is', () => {
    const guest = attach();
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.boolean(), (random, keepFrame) => {
        const before = guest.read(guest.system);
        const value = keepFrame ? (before & 0xf_ffff_ffff_f000n) | (random & 0xfffn) : random;
        fc.pre((before & 1n) !== 0n && (value & 1n) !== 0n);
        guest.execute(MOV, guest.system, value);
        expect(guest.read(guest.system)).toBe(value & ~USER);
      }),
      { numRuns: 100 * scale },
    );
  });

  it('is told with the kernel as its author, and without one when it comes from nowhere', () => {
    const guest = attach();
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, old | USER, gva(KERNEL_BASE + 0x40_0100n));
    guest.execute(MOV, guest.system, old | USER, gva(0xffff_b000_0000_0000n));
    expect(guest.alerts[0]).toMatchObject({ originator: { module: { name: 'ntoskrnl.exe' }, section: '.text' } });
    expect(guest.alerts[1]!.summary).toContain('Code at 0xffffb00000000000, which is in no driver, tried to open');
    expect(guest.alerts[1]).toMatchObject({
      sequence: 2,
      alertId: 'self-map-2',
      originator: { rip: '0xffffb00000000000' },
    });
    expect(guest.alerts[1]).not.toHaveProperty('originator.module');
  });

  it('is still blocked and told when the list of drivers is broken', () => {
    const guest = attach();
    const head = guest.windows.symbol('PsLoadedModuleList');
    guest.windows.writeU64(guest.windows.readU64(head), guest.windows.readU64(head));
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, old | USER);
    expect(guest.read(guest.system)).toBe(old);
    expect(guest.alerts).toHaveLength(1);
    expect(guest.alerts[0]).not.toHaveProperty('originator.module');
  });

  it('is blocked even when nobody can be told', () => {
    const guest = attach({
      onAlert() {
        throw new Error('the line is dead');
      },
    });
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, old | USER);
    expect(guest.read(guest.system)).toBe(old);
    expect(guest.problems).toEqual(['alert self-map-1 could not be delivered: Error: the line is dead']);
    expect(guest.engineProblems).toEqual([]);
  });

  it.each<[string, (entry: bigint) => bigint]>([
    ['sets the same value', (entry) => entry],
    ['sets the accessed bit', (entry) => entry | 0x20n],
    ['makes it read-only', (entry) => entry & ~2n],
    ['makes it not executable', (entry) => entry | (1n << 63n)],
    ['moves it elsewhere', (entry) => entry + 0x1000n],
  ])('that %s happens, and nobody is told', (_what, change) => {
    const guest = attach();
    const value = change(guest.read(guest.system));
    guest.execute(MOV, guest.system, value);
    guest.tick();
    expect(guest.read(guest.system)).toBe(value);
    expect(guest.alerts).toEqual([]);
  });

  it('of another entry of the same page happens, even with U/S, and nobody is told', () => {
    const guest = attach();
    const other = guest.system + 8;
    const reply = guest.execute(MOV, other, 0x1234_5067n);
    expect(reply === Reply.ALLOW_ONCE || guest.read(other) === 0x1234_5067n).toBe(true);
    guest.tick();
    expect(guest.alerts).toEqual([]);
  });

  it('that clears it is let through and does not end the watch', () => {
    const guest = attach();
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, 0n);
    expect(guest.read(guest.system)).toBe(0n);
    expect(guest.windows.port.getPageAccess(gfnOf(gpa(guest.system)))).not.toBe(Access.ALL);
    guest.execute(MOV, guest.system, old | USER);
    expect(guest.read(guest.system)).toBe(old);
    expect(guest.alerts).toHaveLength(1);
  });

  it('that fills an empty entry with a closed value is let through, and nobody is told', () => {
    const guest = attach();
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, 0n);
    guest.execute(MOV, guest.system, old);
    expect(guest.read(guest.system)).toBe(old);
    guest.tick();
    expect(guest.alerts).toEqual([]);
  });
});

describe('an entry that is open', () => {
  it('in an ordinary process is found and closed within one tick', () => {
    const guest = attach();
    const old = guest.read(guest.ordinary);
    guest.windows.write64(guest.ordinary, old | USER);
    expect(guest.alerts).toEqual([]);
    guest.tick();
    expect(guest.read(guest.ordinary)).toBe(old);
    const alert = late(guest.alerts[0]);
    expect(alert).toMatchObject({
      action: 'not-allowed',
      verdict: 'blocked',
      reason: 'no-exception',
      flags: ['async'],
      time: '2024-01-01T00:00:01.000000Z',
      victim: { process: { pid: 4312, name: 'notepad.exe' } },
      write: { old: `0x${old.toString(16)}`, new: `0x${(old | USER).toString(16)}` },
    });
    expect(alert.summary).toBe(
      'The page tables of notepad.exe (PID 4312) were open to user code. Found late, by a periodic check, and closed again; until then user code may have read them, and through them all memory.',
    );
    expect(alert).not.toHaveProperty('originator');
    expect(alert).not.toHaveProperty('cpu');
    guest.tick();
    expect(guest.alerts).toHaveLength(1);
  });

  it('is told again when it is opened again', () => {
    const guest = attach();
    const old = guest.read(guest.ordinary);
    for (let round = 1; round <= 3; round += 1) {
      guest.windows.write64(guest.ordinary, old | USER);
      guest.tick();
      expect(guest.alerts).toHaveLength(round);
      expect(guest.read(guest.ordinary)).toBe(old);
    }
  });

  it('since before we came is found at once, in System and elsewhere', () => {
    const guest = attach({}, (windows) => {
      for (const { cr3 } of windows.processes) {
        windows.write64(windows.entry(cr3), windows.read64(windows.entry(cr3)) | USER);
      }
    });
    expect(guest.alerts.map((alert) => late(alert).victim.process.pid)).toEqual([4, 4312]);
    expect(isOpen(guest.read(guest.system))).toBe(false);
    expect(isOpen(guest.read(guest.ordinary))).toBe(false);
  });

  it('in a process that was born with it is found when the process is first seen', () => {
    const guest = attach();
    const { windows } = guest;
    const born = windows.addProcess(77, 'born.exe');
    const entry = windows.entry(born.cr3);
    windows.write64(entry, windows.read64(entry) | USER);
    guest.tick();
    expect(guest.alerts).toHaveLength(1);
    expect(late(guest.alerts[0]).victim.process.pid).toBe(77);
    expect(isOpen(windows.read64(entry))).toBe(false);
  });

  it('in a process that has just ended is still found', () => {
    const guest = attach();
    const { windows } = guest;
    windows.write64(guest.ordinary, windows.read64(guest.ordinary) | USER);
    windows.removeProcess(windows.processes[1]!);
    guest.tick();
    expect(late(guest.alerts[0]).victim.process.pid).toBe(4312);
  });

  it('is no entry any more when the page of an ended process serves something else', () => {
    const guest = attach();
    const { windows } = guest;
    windows.removeProcess(windows.processes[1]!);
    windows.write64(guest.ordinary, 0x7777_7777_7777_7777n);
    guest.tick();
    expect(guest.alerts).toEqual([]);
    expect(windows.read64(guest.ordinary)).toBe(0x7777_7777_7777_7777n);
  });

  it('of a process that is swapped out is not looked at until it is back', () => {
    const guest = attach();
    const { windows } = guest;
    const old = windows.read64(guest.ordinary);
    windows.setFlag(windows.processes[1]!, 'Outswapped', true);
    guest.tick();
    windows.write64(guest.ordinary, old | USER);
    guest.tick();
    expect(guest.alerts).toEqual([]);
    expect(windows.read64(guest.ordinary)).toBe(old | USER);
    windows.setFlag(windows.processes[1]!, 'Outswapped', false);
    guest.tick();
    expect(guest.alerts).toHaveLength(1);
    expect(windows.read64(guest.ordinary)).toBe(old);
  });

  it('that cannot be closed is told with every check, and says so', () => {
    const guest = attach();
    const { windows } = guest;
    windows.write64(guest.ordinary, windows.read64(guest.ordinary) | USER);
    windows.port.compareExchange = () => false;
    guest.tick();
    guest.tick();
    expect(guest.alerts).toHaveLength(2);
    expect(guest.alerts[0]).toMatchObject({ verdict: 'allowed', flags: ['async', 'repair-failed'] });
    expect(guest.alerts[0]!.summary).toContain('could not be closed');
  });

  it('of a process whose CR3 leads nowhere is nothing', () => {
    const guest = attach();
    const child = guest.windows.addProcess(9, 'x.exe');
    guest.windows.writeU64(guest.windows.field(child, 'Pcb.DirectoryTableBase'), 0xf_ffff_ffff_f000n);
    guest.tick();
    guest.tick();
    expect(guest.guest.processes).toHaveLength(3);
    expect(guest.alerts).toEqual([]);
    expect(guest.engineProblems).toEqual([]);
  });
});

describe('user page tables (KPTI)', () => {
  function attachKpti() {
    const windows = new SyntheticWindows({ kpti: true });
    const [system] = windows.processes;
    const systemUser = windows.userTables();
    windows.writeU64(windows.field(system!, 'Pcb.UserDirectoryTableBase'), systemUser);
    const ordinaryUser = windows.userTables();
    windows.addProcess(4312, 'notepad.exe', undefined, ordinaryUser);
    windows.addProcess(600, 'lsass.exe', undefined, 1n);
    const guest = new Attached(windows);
    guest.loadCr3();
    return { guest, windows, systemUser: windows.entry(systemUser), ordinaryUser: windows.entry(ordinaryUser) };
  }

  it('are those that Windows names, and none where it stores a small number', () => {
    const { guest } = attachKpti();
    expect(guest.guest.state).toBe('found');
    expect(guest.guest.processes.map((process) => process.hasUserTables)).toEqual([true, true, false]);
  });

  it('of System are watched like the kernel ones', () => {
    const { guest, windows, systemUser } = attachKpti();
    const old = windows.read64(systemUser);
    guest.execute(MOV, systemUser, old | USER);
    expect(windows.read64(systemUser)).toBe(old);
    expect(guest.alerts[0]).toMatchObject({ verdict: 'blocked', victim: { table: 'user', process: { pid: 4 } } });
    const kernel = windows.entry(windows.systemCr3);
    guest.execute(MOV, kernel, windows.read64(kernel) | USER);
    expect(guest.alerts[1]).toMatchObject({ verdict: 'blocked', victim: { table: 'kernel' } });
  });

  it('of System may be cleared, which ends the watch until an entry is there again', () => {
    const { guest, windows, systemUser } = attachKpti();
    const old = windows.read64(systemUser);
    guest.execute(MOV, systemUser, 0n);
    expect(windows.read64(systemUser)).toBe(0n);
    expect(windows.port.getPageAccess(gfnOf(gpa(systemUser)))).toBe(Access.ALL);
    windows.write64(systemUser, old);
    guest.tick();
    expect(windows.port.getPageAccess(gfnOf(gpa(systemUser)))).not.toBe(Access.ALL);
    guest.execute(MOV, systemUser, old | USER);
    expect(windows.read64(systemUser)).toBe(old);
    expect(guest.alerts).toHaveLength(1);
  });

  it('of System may be filled when empty, and are looked at by the next check', () => {
    const { guest, windows, systemUser } = attachKpti();
    const old = windows.read64(systemUser);
    windows.write64(systemUser, 0n);
    guest.execute(MOV, systemUser, old | USER);
    expect(windows.read64(systemUser)).toBe(old | USER);
    expect(guest.alerts).toEqual([]);
    guest.tick();
    expect(windows.read64(systemUser)).toBe(old);
    late(guest.alerts[0]);
  });

  it('of others are checked each second', () => {
    const { guest, windows, ordinaryUser } = attachKpti();
    const old = windows.read64(ordinaryUser);
    windows.write64(ordinaryUser, old | USER);
    guest.tick();
    expect(windows.read64(ordinaryUser)).toBe(old);
    expect(late(guest.alerts[0]).victim).toMatchObject({
      table: 'user',
      process: { pid: 4312, userCr3: expect.any(String) },
    });
  });

  it('are not looked at where the kernel has none', () => {
    const guest = attach({}, (windows) => {
      windows.writeU64(windows.field(windows.processes[1]!, 'Pcb.UserDirectoryTableBase'), 0x50_0000n);
    });
    expect(guest.guest.processes[1]!.hasUserTables).toBe(false);
  });
});

describe('modes and rules', () => {
  it('off: nothing is looked at', () => {
    const guest = attach({ policy: offPolicy });
    expect(guest.guest.protections).toEqual([{ id: 'self-map', state: 'off' }]);
    expect(guest.engine.hooks.page.count).toBe(0);
    guest.windows.write64(guest.ordinary, guest.read(guest.ordinary) | USER);
    guest.tick();
    expect(guest.alerts).toEqual([]);
    expect(isOpen(guest.read(guest.ordinary))).toBe(true);
  });

  it('beta: told and let through, and what is known to be open is told once', () => {
    const guest = attach({ policy: betaPolicy });
    expect(guest.guest.protections).toEqual([{ id: 'self-map', state: 'beta' }]);
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, old | USER);
    expect(guest.read(guest.system)).toBe(old | USER);
    expect(guest.alerts).toHaveLength(1);
    expect(guest.alerts[0]).toMatchObject({
      action: 'not-allowed',
      verdict: 'allowed',
      flags: ['beta', 'system-process'],
    });
    expect(guest.alerts[0]!.summary).toContain('as the protection is in beta mode');
    guest.windows.write64(guest.ordinary, guest.read(guest.ordinary) | USER);
    for (let i = 0; i < 3; i += 1) guest.tick();
    expect(guest.alerts).toHaveLength(2);
    expect(late(guest.alerts[1])).toMatchObject({
      action: 'not-allowed',
      verdict: 'allowed',
      flags: ['beta', 'async'],
    });
    expect(isOpen(guest.read(guest.ordinary))).toBe(true);
    guest.execute(MOV, guest.system, old);
    guest.execute(MOV, guest.system, old | USER);
    expect(guest.alerts).toHaveLength(3);
  });

  it('feedback: told for information, and let through', () => {
    const guest = attach({ policy: feedbackPolicy });
    expect(guest.guest.protections).toEqual([{ id: 'self-map', state: 'feedback' }]);
    guest.execute(MOV, guest.system, guest.read(guest.system) | USER);
    guest.windows.write64(guest.ordinary, guest.read(guest.ordinary) | USER);
    for (let i = 0; i < 3; i += 1) guest.tick();
    expect(guest.alerts).toHaveLength(2);
    for (const alert of guest.alerts) {
      expect(alert).toMatchObject({ action: 'allowed', reason: 'allowed-feedback', verdict: 'allowed' });
      expect(alert.flags).toContain('feedback-only');
    }
    expect(isOpen(guest.read(guest.system))).toBe(true);
  });

  it('no rules, policy allow: let through as the original does, but told, once', () => {
    const guest = attach({
      exceptions: ExceptionsEngine.withoutRules(),
      policy: { ...enforcePolicy, withoutRules: 'allow' },
    });
    guest.execute(MOV, guest.system, guest.read(guest.system) | USER);
    guest.windows.write64(guest.ordinary, guest.read(guest.ordinary) | USER);
    for (let i = 0; i < 3; i += 1) guest.tick();
    expect(guest.alerts).toHaveLength(2);
    for (const alert of guest.alerts) {
      expect(alert).toMatchObject({ action: 'allowed', reason: 'exceptions-not-loaded', verdict: 'allowed' });
      expect(alert.flags).toContain('rules-not-loaded');
      expect(alert.summary).toContain('no rules are loaded and the policy allows it then');
      expect(alert.versions.rules).toEqual({ loaded: false, count: 0 });
    }
  });

  it('no rules, policy block: blocked and repaired, and the alert says that no rules are loaded', () => {
    const guest = attach({ exceptions: ExceptionsEngine.withoutRules() });
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, old | USER);
    expect(guest.read(guest.system)).toBe(old);
    guest.windows.write64(guest.ordinary, guest.read(guest.ordinary) | USER);
    guest.tick();
    expect(isOpen(guest.read(guest.ordinary))).toBe(false);
    expect(guest.alerts).toHaveLength(2);
    for (const alert of guest.alerts) {
      expect(alert).toMatchObject({ action: 'not-allowed', reason: 'exceptions-not-loaded', verdict: 'blocked' });
      expect(alert.flags).toContain('rules-not-loaded');
    }
  });

  it('a rule that allows the driver: neither blocked, nor told, nor taken back later', () => {
    const guest = attach({ exceptions: rules({ originator: 'evil.sys', object_type: 'selfmap' }) });
    const old = guest.read(guest.system);
    guest.execute(MOV, guest.system, old | USER);
    for (let i = 0; i < 3; i += 1) guest.tick();
    expect(guest.read(guest.system)).toBe(old | USER);
    expect(guest.alerts).toEqual([]);
    // A driver that the rule does not name opens it after it was closed.
    guest.execute(MOV, guest.system, old);
    guest.execute(MOV, guest.system, old | USER, gva(KERNEL_BASE + 0x40_0100n));
    expect(guest.read(guest.system)).toBe(old);
    expect(guest.alerts).toHaveLength(1);
  });

  it('a feedback rule: let through and told for information', () => {
    const guest = attach({ exceptions: rules({ originator: 'evil.sys', object_type: 'selfmap', flags: 'feedback' }) });
    guest.execute(MOV, guest.system, guest.read(guest.system) | USER);
    for (let i = 0; i < 3; i += 1) guest.tick();
    expect(isOpen(guest.read(guest.system))).toBe(true);
    expect(guest.alerts).toHaveLength(1);
    expect(guest.alerts[0]).toMatchObject({
      action: 'allowed',
      reason: 'allowed-feedback',
      rule: 'test.json#Exceptions[0]',
      flags: ['feedback-only', 'system-process'],
    });
  });

  it('the baseline: start-up code of the kernel is let through and told', () => {
    const guest = attach({ exceptions: ExceptionsEngine.fromJson(baselineRules) });
    guest.execute(MOV, guest.system, guest.read(guest.system) | USER, gva(KERNEL_BASE + 0x70_0100n));
    expect(isOpen(guest.read(guest.system))).toBe(true);
    expect(guest.alerts[0]).toMatchObject({ reason: 'allowed-feedback', originator: { section: 'INIT' } });
  });
});

describe('what a backend cannot do', () => {
  it('switches the protection off, with the reason', () => {
    const windows = new SyntheticWindows();
    const capabilities = new Set(windows.port.capabilities);
    capabilities.delete('page-access');
    Object.defineProperty(windows.port, 'capabilities', { value: capabilities });
    const guest = new Attached(windows);
    guest.loadCr3();
    expect(guest.guest.state).toBe('found');
    expect(guest.guest.protections).toEqual([
      { id: 'self-map', state: 'off', reason: 'the backend cannot do page-access' },
    ]);
  });

  it('leaves the check of each second when the page cannot be hooked, and says so', () => {
    const windows = new SyntheticWindows();
    const guest = new Attached(windows);
    const { setPageAccess } = windows.port;
    windows.port.setPageAccess = () => {
      throw new Error('no more rights');
    };
    guest.loadCr3();
    windows.port.setPageAccess = setPageAccess;
    expect(guest.problems[0]).toContain(
      'the self-map entry of System cannot be watched, only checked each second: no more rights',
    );
    const entry = windows.entry(windows.systemCr3);
    windows.write64(entry, windows.read64(entry) | USER);
    guest.tick();
    expect(isOpen(windows.read64(entry))).toBe(false);
    expect(guest.alerts).toHaveLength(1);
  });
});
