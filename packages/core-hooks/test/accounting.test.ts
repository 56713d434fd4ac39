import { Access, type Cr3, DescriptorTable, ExitKind, type Gpa, Verdict } from '@introd/abi';
import { accounting, Ledger } from '@introd/glue';
import { expect, test } from 'vitest';
import { Engine } from '../src/index.js';
import { DetourGuest } from './detour-guest.js';
import { CODE, DATA, kernel, leafEntry, PML4 } from './guest-layout.js';
import { code, microMachine, prepare } from './sim-guest.js';
import { SyntheticGuest } from './synthetic-guest.js';

/** Goes on by 3 at each look. */
function clock(): () => number {
  let time = 0;
  return () => {
    time += 3;
    return time;
  };
}

/** mov [rbx], rax; mov [rbx+16], rax; mov [rbx+16], rax; hlt */
const STORES = '48 89 03 48 89 43 10 48 89 43 10 f4';

test('an engine with a ledger books each call of a hook by name and by page, and the calls of the port', () => {
  const machine = microMachine();
  prepare(machine);
  machine.writePhysical(CODE as Gpa, code(STORES));
  machine.vcpu(0).set('rbx', kernel(DATA));
  const { port, ledger } = accounting(machine.openPort(), { now: clock() });
  const engine = new Engine(port, { ledger });
  const set = (offset: number, name: string | undefined, callback: () => void) =>
    engine.hooks.page.set({ gpa: (DATA + offset) as Gpa, length: 8, access: Access.WRITE, callback, name });
  set(0, 'first word', () => {});
  set(16, undefined, () => {
    throw new Error('a hook that fails is booked as well');
  });
  const problems: string[] = [];
  engine.onProblem((problem) => problems.push(problem.kind));
  while (engine.step(10) !== 'shutdown');
  const report = ledger.report();
  expect(report.filter((line) => line.kind === 'hook')).toEqual([
    { kind: 'hook', name: '-w- 0x20010', calls: 2, time: 6 },
    { kind: 'hook', name: 'first word', calls: 1, time: 3 },
  ]);
  expect(report.filter((line) => line.kind === 'page')).toEqual([{ kind: 'page', name: '0x20000', calls: 3, time: 9 }]);
  expect(problems).toEqual(['callback', 'callback']);
  const replies = report.find((line) => line.name === 'reply');
  expect(replies?.calls).toBe(engine.counters.exits - 1);
  engine.close();
});

test('without a ledger the verdicts are the same', () => {
  const run = (withLedger: boolean): boolean => {
    const machine = microMachine();
    prepare(machine);
    machine.writePhysical(CODE as Gpa, code(STORES));
    machine.vcpu(0).set('rbx', kernel(DATA));
    machine.vcpu(0).set('rax', 0x77n);
    const { port, ledger } = accounting(machine.openPort());
    const engine = new Engine(port, withLedger ? { ledger } : {});
    engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    while (engine.step(10) !== 'shutdown');
    const bytes = new Uint8Array(24);
    machine.readPhysical(DATA as Gpa, bytes);
    engine.close();
    expect(ledger.report().some((line) => line.kind === 'hook')).toBe(withLedger);
    return bytes[0] === 0 && bytes[16] === 0x77;
  };
  expect(run(true)).toBe(true);
  expect(run(false)).toBe(true);
});

const CR3 = BigInt(PML4) as Cr3;
const EFER = 0xc000_0080;
const nothing = (): void => {};

/** Calls by name of account. */
function calls(ledger: Ledger): Record<string, number> {
  const lines = ledger.report().filter(({ kind }) => kind === 'hook');
  return Object.fromEntries(lines.map(({ name, calls: count }) => [name, count]));
}

/** As many as were counted, one by one: what the ledger has is what the engine counted. */
function expectCounted(guest: { readonly engine: Engine }, ledger: Ledger): void {
  const booked = Object.values(calls(ledger)).reduce((sum, count) => sum + count, 0);
  expect(guest.engine.counters.hookCalls).toBe(booked);
}

test('hooks on registers, calls, injections and ticks have an account each, by register or by the name they were given', () => {
  const ledger = new Ledger({ now: clock() });
  const guest = new SyntheticGuest({ ledger });
  const { hooks } = guest.engine;
  hooks.cr.set(4, nothing);
  hooks.cr.set(4, nothing, { name: 'SMEP' });
  hooks.msr.set(EFER, nothing);
  hooks.xcr.set(() => {
    throw new Error('booked as well');
  });
  hooks.descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, nothing);
  hooks.descriptorTable.set(DescriptorTable.GDTR | DescriptorTable.WRITE, nothing);
  hooks.breakpoint.set({ callback: nothing });
  hooks.breakpoint.set({ rip: kernel(CODE), callback: nothing });
  hooks.breakpoint.set({ rip: kernel(CODE + 1), callback: nothing });
  hooks.vmcall.set({ callback: nothing });
  hooks.injected.set(nothing);
  hooks.tick.set(nothing);
  // lidt [rbx], from another table than that of zeros that it loads
  guest.code('0f 01 1b');
  guest.vcpu.set('rbx', kernel(DATA));
  guest.vcpu.set('idtBase', kernel(DATA));
  const { port, engine, vcpu } = guest;
  port.raiseRegisterWrite(0, ExitKind.CR_WRITE, 4, 0n, 1n);
  engine.step(1);
  expect(engine.lastExit.hookCalls).toBe(2);
  port.raiseRegisterWrite(0, ExitKind.MSR_WRITE, EFER, 0n, 1n);
  engine.step(1);
  port.raiseRegisterWrite(0, ExitKind.XCR_WRITE, 0, 0n, 1n);
  engine.step(1);
  for (let exit = 0; exit < 2; exit++) {
    // The first time the instruction is taken into the cache.
    vcpu.set32('exitKind', ExitKind.DESCRIPTOR_TABLE);
    vcpu.set32('exitRegister', DescriptorTable.IDTR | DescriptorTable.WRITE);
    port.raise(0);
    engine.step(1);
  }
  for (const kind of [ExitKind.BREAKPOINT, ExitKind.VMCALL]) {
    vcpu.set32('exitKind', kind);
    port.raise(0);
    engine.step(1);
  }
  port.reportInjection(0, 14, 0, 0n);
  engine.step(1);
  port.raiseTick();
  engine.step(1);
  expect(calls(ledger)).toEqual({
    CR4: 1,
    SMEP: 1,
    'MSR 0xc0000080': 1,
    XCR: 1,
    IDTR: 1,
    INT3: 1,
    'INT3 0xffff800000010000': 1,
    VMCALL: 1,
    'injected event': 1,
    tick: 1,
  });
  expectCounted(guest, ledger);
  engine.close();
});

test('hooks on entries, translations, virtual addresses, regions, cloaks and contents have an account each; the engine has none', () => {
  const ledger = new Ledger({ now: clock() });
  const guest = new SyntheticGuest({ ledger });
  const { engine, port, vcpu } = guest;
  const { hooks } = engine;
  engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
  const both = { callback: nothing, committed: nothing };
  const entry = leafEntry(DATA);
  hooks.pageTable.set({ gpa: entry, entrySize: 8, ...both });
  hooks.translation.set({ cr3: CR3, va: kernel(DATA), ...both });
  hooks.translation.set({ cr3: CR3, va: kernel(DATA), committed: nothing, name: 'driver' });
  const onWord = { cr3: CR3, va: kernel(DATA), length: 8, access: Access.WRITE };
  hooks.virtual.set({ ...onWord, callback: nothing, hash: true, onHashMismatch: nothing });
  const other = { va: kernel(DATA + 0x100), length: 0x2000, access: Access.WRITE, callback: nothing };
  hooks.regions.create({ cr3: CR3 }).hook({ ...other, committed: nothing });
  hooks.page.set({ gpa: (DATA + 0x5000) as Gpa, length: 8, access: Access.WRITE, ...both });
  const cloak = { cr3: CR3, length: 4, original: undefined, patched: undefined, apply: true };
  engine.cloaks.hide({ ...cloak, va: kernel(DATA + 0x6000), onWrite: nothing });
  engine.cloaks.hide({ ...cloak, va: kernel(DATA + 0x7000) });
  engine.integrity.add({ va: kernel(DATA + 0x8000), length: 64, callback: nothing });

  // mov [rbx], rax
  guest.code('48 89 03');
  const storeAt = (gpa: number, value: bigint): void => {
    guest.code('48 89 03');
    vcpu.set('rbx', kernel(gpa));
    vcpu.set('rax', value);
    guest.settle(gpa);
  };
  storeAt(entry, 0n);
  port.writePhysical((DATA + 0x9000) as Gpa, Uint8Array.of(1));
  storeAt(entry, BigInt(DATA + 0x9000) | 3n);
  for (const offset of [0x9200, 0x5000, 0x6000, 0x7000]) {
    storeAt(DATA + offset, 1n);
  }
  port.writePhysical((DATA + 0x8000) as Gpa, Uint8Array.of(1));
  port.raiseTick();
  engine.step(1);
  expect(calls(ledger)).toEqual({
    'page-table entry 0x4100': 4,
    'translation of 0xffff800000020000': 4,
    driver: 2,
    'virtual -w- 0xffff800000020000': 1,
    'region -w- 0xffff800000020100': 2,
    '-w- 0x25000': 2,
    'cloak 0xffff800000026000': 1,
    'integrity 0xffff800000028000': 1,
  });
  expectCounted(guest, ledger);
  expect(guest.problems).toEqual([]);
  engine.close();
});

test('a detour is booked by its name, the breakpoint of its handler by none', () => {
  const ledger = new Ledger({ now: clock() });
  const guest = new DetourGuest({ engine: { ledger } });
  guest.detour({ callback: nothing });
  guest.run(10_000);
  expect(guest.rax).toBe(42n);
  expect(calls(ledger)).toEqual({ Sum: 1 });
  expectCounted(guest, ledger);
  guest.close();
});
