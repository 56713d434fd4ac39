import { DescriptorTable, ExitKind, type Field64, Reply } from '@introd/abi';
import type { Capability, SwitchedExit } from '../../port.js';
import type { ConformanceCase } from './case.js';
import * as at from './layout.js';
import * as p from './programs.js';
import { check, equal } from './session.js';

const needs: readonly Capability[] = ['memory', 'write', 'registers', 'exits'];

/** A register write that exits when it is switched on. */
interface RegisterWrite {
  readonly what: string;
  readonly program: p.ProgramName;
  readonly exit: SwitchedExit;
  /** A switch of the same kind that this write must not raise. */
  readonly other: SwitchedExit;
  readonly kind: ExitKind;
  readonly register: number;
  readonly field: Field64;
  /** The value that the program writes, from the old one. */
  written(old: bigint): bigint;
  /** Another value that the engine writes in its place. */
  replaced(old: bigint): bigint;
}

const registerWrites: readonly RegisterWrite[] = [
  {
    what: 'CR0',
    program: 'cr0',
    exit: { kind: 'cr-write', register: 0 },
    other: { kind: 'cr-write', register: 4 },
    kind: ExitKind.CR_WRITE,
    register: 0,
    field: 'cr0',
    written: (old) => old ^ p.CR0_TS,
    // CR0.MP beside it
    replaced: (old) => old ^ p.CR0_TS ^ 2n,
  },
  {
    what: 'CR3',
    program: 'cr3',
    exit: { kind: 'cr-write', register: 3 },
    other: { kind: 'cr-write', register: 0 },
    kind: ExitKind.CR_WRITE,
    register: 3,
    field: 'cr3',
    written: () => BigInt(at.OTHER_PML4),
    replaced: (old) => old,
  },
  {
    what: 'CR4',
    program: 'cr4',
    exit: { kind: 'cr-write', register: 4 },
    other: { kind: 'cr-write', register: 0 },
    kind: ExitKind.CR_WRITE,
    register: 4,
    field: 'cr4',
    written: (old) => old ^ p.CR4_DE,
    // CR4.TSD beside it
    replaced: (old) => old ^ p.CR4_DE ^ 4n,
  },
  {
    what: 'CR8',
    program: 'cr8',
    exit: { kind: 'cr-write', register: 8 },
    other: { kind: 'cr-write', register: 3 },
    kind: ExitKind.CR_WRITE,
    register: 8,
    field: 'cr8',
    written: () => 5n,
    replaced: () => 9n,
  },
  {
    what: 'an MSR',
    program: 'msr',
    exit: { kind: 'msr-write', register: p.MSR_LSTAR },
    other: { kind: 'msr-write', register: p.MSR_STAR },
    kind: ExitKind.MSR_WRITE,
    register: p.MSR_LSTAR,
    field: 'lstar',
    written: () => p.MSR_VALUE,
    replaced: () => p.MSR_VALUE + 0x1000n,
  },
  {
    what: 'an XCR',
    program: 'xcr',
    exit: { kind: 'xcr-write' },
    other: { kind: 'vmcall' },
    kind: ExitKind.XCR_WRITE,
    register: 0,
    field: 'xcr0',
    written: () => 3n,
    // x87 alone
    replaced: () => 1n,
  },
];

function casesOf(write: RegisterWrite): ConformanceCase[] {
  const raised = (session: Parameters<ConformanceCase['run']>[0]) => {
    session.port.setExit(write.exit, true);
    const record = session.expectExit(write.kind);
    const old = record.get('exitOldValue');
    equal(record.get32('exitRegister'), write.register, 'register number');
    equal(record.rip, session.label('access'), 'RIP at the exit');
    equal(record.get(write.field), old, 'the register at the exit, which is the old value');
    equal(record.get('exitNewValue'), write.written(old), 'the new value');
    equal(record.get('replyValue'), write.written(old), 'the reply value as the backend sets it');
    return { record, old };
  };
  return [
    {
      name: `raises no write of ${write.what} that is not switched on`,
      needs,
      program: write.program,
      run(session) {
        session.port.setExit(write.other, true);
        session.port.setExit(write.exit, true);
        session.port.setExit(write.exit, false);
        session.runToPlainEnd();
      },
    },
    {
      name: `raises a write of ${write.what} before the change, and ALLOW_ONCE makes it`,
      needs,
      program: write.program,
      run(session) {
        const { old } = raised(session);
        session.reply(Reply.ALLOW_ONCE);
        session.runToPlainEnd();
        equal(session.read64(at.Mailbox.RESULT), write.written(old), 'the register as the guest reads it');
      },
    },
    {
      name: `writes the reply's value to ${write.what} in place of the guest's`,
      needs,
      program: write.program,
      run(session) {
        const { record, old } = raised(session);
        record.set('replyValue', write.replaced(old));
        session.reply(Reply.ALLOW_ONCE);
        session.runToPlainEnd();
        equal(session.read64(at.Mailbox.RESULT), write.replaced(old), 'the register as the guest reads it');
      },
    },
    {
      name: `leaves ${write.what} as it was on SKIP`,
      needs,
      program: write.program,
      run(session) {
        const { old } = raised(session);
        session.reply(Reply.SKIP);
        session.runToPlainEnd();
        equal(session.read64(at.Mailbox.RESULT), old, 'the register as the guest reads it');
      },
    },
  ];
}

/** Promises about the exits that are raised only while they are switched on. */
export const switchedExitCases: readonly ConformanceCase[] = [
  ...registerWrites.flatMap(casesOf),
  {
    name: 'raises a load of a descriptor table before the change',
    needs,
    program: 'load-gdt',
    run(session) {
      session.port.setExit({ kind: 'descriptor-table' }, true);
      const record = session.expectExit(ExitKind.DESCRIPTOR_TABLE);
      equal(record.get32('exitRegister'), DescriptorTable.GDTR | DescriptorTable.WRITE, 'table and access');
      equal(record.rip, session.label('access'), 'RIP at the exit');
      check(record.get32('gdtLimit') !== p.LOADED_GDT_LIMIT, 'GDTR must not have changed at the exit');
      session.port.setExit({ kind: 'descriptor-table' }, false);
      session.reply(Reply.ALLOW_ONCE);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT) & 0xffffn, BigInt(p.LOADED_GDT_LIMIT), 'limit that the guest reads');
    },
  },
  {
    name: 'leaves a descriptor table as it was on SKIP',
    needs,
    program: 'load-gdt',
    run(session) {
      session.port.setExit({ kind: 'descriptor-table' }, true);
      const limit = session.expectExit(ExitKind.DESCRIPTOR_TABLE).get32('gdtLimit');
      session.port.setExit({ kind: 'descriptor-table' }, false);
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT) & 0xffffn, BigInt(limit), 'limit that the guest reads');
    },
  },
  {
    name: 'raises a store of a descriptor table before it',
    needs,
    program: 'store-idt',
    run(session) {
      session.port.setExit({ kind: 'descriptor-table' }, true);
      const record = session.expectExit(ExitKind.DESCRIPTOR_TABLE);
      equal(record.get32('exitRegister'), DescriptorTable.IDTR | DescriptorTable.READ, 'table and access');
      equal(session.read64(at.Mailbox.RESULT), 0n, 'memory at the exit');
      session.reply(Reply.ALLOW_ONCE);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT) & 0xffffn, 0x1ffn, 'limit that was stored');
    },
  },
  {
    name: 'raises no descriptor-table access that is not switched on',
    needs,
    program: 'load-gdt',
    run(session) {
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT) & 0xffffn, BigInt(p.LOADED_GDT_LIMIT), 'limit that the guest reads');
    },
  },
  {
    name: 'delivers INT3 to the guest unless its exit is switched on',
    needs,
    program: 'breakpoint',
    run(session) {
      session.runToEnd();
      equal(session.read64(at.Mailbox.VECTOR), 3n, 'vector');
      equal(session.read64(at.Mailbox.RIP), session.label('after'), 'RIP in the frame');
    },
  },
  {
    name: 'raises INT3 with RIP at it, and SKIP goes past it',
    needs,
    program: 'breakpoint',
    run(session) {
      session.port.setExit({ kind: 'breakpoint' }, true);
      equal(session.expectExit(ExitKind.BREAKPOINT).rip, session.label('access'), 'RIP at the exit');
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 7n, 'what the guest did after it');
    },
  },
  {
    name: 'gives INT3 to the guest on ALLOW_ONCE',
    needs,
    program: 'breakpoint',
    run(session) {
      session.port.setExit({ kind: 'breakpoint' }, true);
      session.expectExit(ExitKind.BREAKPOINT);
      session.reply(Reply.ALLOW_ONCE);
      session.runToEnd();
      equal(session.read64(at.Mailbox.VECTOR), 3n, 'vector');
      equal(session.read64(at.Mailbox.RIP), session.label('after'), 'RIP in the frame');
    },
  },
  {
    name: 'raises VMCALL with RIP at it, and SKIP goes past it',
    needs,
    program: 'vmcall',
    run(session) {
      session.port.setExit({ kind: 'vmcall' }, true);
      equal(session.expectExit(ExitKind.VMCALL).rip, session.label('access'), 'RIP at the exit');
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), p.PRELOAD, 'RAX after it');
    },
  },
  {
    name: 'raises no VMCALL that is not switched on',
    needs,
    program: 'vmcall',
    run(session) {
      // Without its exit it is an invalid opcode or does nothing, as the platform has it; either way the guest goes on.
      session.runToEnd();
    },
  },
];
