import { ExitKind, Reply, ShutdownReason } from '@introd/abi';
import { type Capability, NO_ERROR_CODE, NO_EXIT, RegisterGroup } from '../../port.js';
import type { ConformanceCase } from './case.js';
import * as at from './layout.js';
import { LOOP_COUNT } from './programs.js';
import { type ConformanceSession, check, describe, equal, throws } from './session.js';

const needs: readonly Capability[] = ['memory', 'write', 'registers', 'exits'];
const injectNeeds: readonly Capability[] = [...needs, 'inject'];

/** Brings VCPU 0 to its VMCALL, the point at which the cases change it. */
function atVmcall(session: ConformanceSession) {
  session.port.setExit({ kind: 'vmcall' }, true);
  return session.expectExit(ExitKind.VMCALL);
}

/** Injects at the VMCALL and goes past it; returns once the handler has run. */
function injectAndRun(session: ConformanceSession, vector: number, errorCode: number, cr2: bigint): void {
  atVmcall(session);
  session.port.inject(0, vector, errorCode, cr2);
  session.reply(Reply.SKIP);
}

function expectHandled(session: ConformanceSession, vector: number, errorCode: bigint): void {
  session.runToEnd();
  equal(session.read64(at.Mailbox.VECTOR), BigInt(vector), 'vector that the guest took');
  equal(session.read64(at.Mailbox.ERROR_CODE), errorCode, 'error code');
  equal(session.read64(at.Mailbox.RIP), session.label('after'), 'RIP in the frame');
}

/** Promises about registers, time, pausing, injection and the end of a guest. */
export const guestCases: readonly ConformanceCase[] = [
  {
    name: 'shows the registers of a VCPU at an exit, and always the same record',
    needs,
    program: 'vmcall',
    run(session) {
      const record = atVmcall(session);
      check(session.port.vcpu(0) === record, 'vcpu(0) must always be the same object');
      session.port.fetchRegisters(0, RegisterGroup.ALL);
      equal(record.get('rax'), 0x5555_5555_5555_5555n, 'RAX');
      equal(record.rip, session.label('access'), 'RIP');
      equal(record.cr3, BigInt(at.PML4), 'CR3');
      equal(record.get('rsp'), BigInt(at.STACK + 4096), 'RSP');
      equal(record.get('idtBase'), BigInt(at.IDT), 'IDT base');
      equal(record.get32('gdtLimit'), 31, 'GDT limit');
      equal(record.get32('csSelector'), 0x10, 'CS');
      equal(record.get32('csAttributes') & 0x2000, 0x2000, 'CS.L');
      equal(record.cpl, 0, 'privilege level');
      equal(record.get('efer') & 0x400n, 0x400n, 'EFER.LMA');
    },
  },
  {
    name: 'makes the guest take over general registers and RIP',
    needs,
    program: 'vmcall',
    run(session) {
      const record = atVmcall(session);
      record.set('rip', session.label('elsewhere'));
      session.port.storeRegisters(0, RegisterGroup.GENERAL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.SECOND_RESULT), 9n, 'what the guest did there');
      equal(session.read64(at.Mailbox.RESULT), 0n, 'what it did not do');
    },
  },
  {
    name: 'brings stored general registers back',
    needs,
    program: 'vmcall',
    run(session) {
      const record = atVmcall(session);
      const names = [
        'rax',
        'rcx',
        'rdx',
        'rbx',
        'rbp',
        'rsi',
        'rdi',
        'r8',
        'r9',
        'r10',
        'r11',
        'r12',
        'r13',
        'r14',
      ] as const;
      names.forEach((name, i) => {
        record.set(name, 0xfedc_ba98_0000_0000n + BigInt(i));
      });
      session.port.storeRegisters(0, RegisterGroup.GENERAL);
      session.port.fetchRegisters(0, RegisterGroup.GENERAL);
      names.forEach((name, i) => {
        equal(record.get(name), 0xfedc_ba98_0000_0000n + BigInt(i), name);
      });
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 0xfedc_ba98_0000_0000n, 'RAX as the guest stored it');
    },
  },
  {
    name: 'makes the guest take over a segment base',
    needs,
    program: 'vmcall-fs',
    run(session) {
      session.write64(at.DATA, 1n);
      session.write64(at.NEXT_DATA, 2n);
      const record = atVmcall(session);
      record.set('fsBase', at.windowOf(at.NEXT_DATA) - 0x10n);
      session.port.storeRegisters(0, RegisterGroup.SEGMENTS);
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 2n, 'what the guest read through FS');
    },
  },
  {
    name: 'makes the guest take over CR3',
    needs,
    program: 'vmcall',
    run(session) {
      const record = atVmcall(session);
      record.set('cr3', BigInt(at.OTHER_PML4));
      session.port.storeRegisters(0, RegisterGroup.CONTROL);
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      session.port.pause?.();
      session.port.fetchRegisters(0, RegisterGroup.CONTROL);
      equal(session.port.vcpu(0).cr3, BigInt(at.OTHER_PML4), 'CR3');
    },
  },
  {
    name: 'makes a tick once per second of guest time, on the record of the guest',
    needs,
    program: 'spin',
    run(session) {
      let last = -1;
      for (let ticks = 0; ticks < 3; ) {
        const index = session.port.next(100);
        if (index === NO_EXIT) continue;
        const record = session.record(index);
        equal(record.exitKind, ExitKind.TICK, `kind of ${describe(record)}`);
        equal(index, session.port.vcpuCount, 'record of the tick');
        if (last >= 0) {
          const distance = record.exitTime - last;
          check(distance > 900_000 && distance < 1_100_000, `ticks must be a second apart, got ${distance} µs`);
        }
        last = record.exitTime;
        session.port.reply(index, Reply.RETRY);
        ticks++;
      }
    },
  },
  {
    name: 'carries a time that never goes back',
    needs: [...needs, 'page-access'],
    program: 'write-loop',
    run(session) {
      session.protect(at.DATA, 1);
      let last = 0;
      for (let i = 0; i < LOOP_COUNT; i++) {
        const record = session.expectExit(ExitKind.EPT_VIOLATION);
        check(record.exitTime >= last, `time went back from ${last} to ${record.exitTime} µs`);
        last = record.exitTime;
        session.reply(Reply.ALLOW_ONCE);
      }
      session.runToPlainEnd();
    },
  },
  {
    name: 'stands still while it is paused, until as many resumes as pauses',
    needs: [...needs, 'pause'],
    program: 'count',
    run(session) {
      const { port } = session;
      const count = () => session.read64(at.Mailbox.RESULT);
      port.next(1);
      port.pause();
      port.pause();
      equal(port.pauseCount, 2, 'pauses');
      const before = count();
      equal(port.next(1), NO_EXIT, 'next of a paused guest');
      equal(count(), before, 'progress of a paused guest');
      port.resume();
      equal(port.pauseCount, 1, 'pauses');
      port.next(1);
      equal(count(), before, 'progress of a guest paused once more than resumed');
      port.resume();
      equal(port.pauseCount, 0, 'pauses');
      for (let i = 0; i < 100 && count() === before; i++) port.next(10);
      check(count() > before, 'the guest must go on after the last resume');
      throws('ERR_GLUE_NOT_PAUSED', () => port.resume(), 'a resume too many');
    },
  },
  {
    name: 'delivers an injected exception with its error code before the next instruction',
    needs: injectNeeds,
    program: 'vmcall',
    run(session) {
      injectAndRun(session, 13, 0x18, 0n);
      expectHandled(session, 13, 0x18n);
      equal(session.read64(at.Mailbox.RESULT), 0n, 'what the guest did after it');
    },
  },
  {
    name: 'delivers an injected exception without an error code',
    needs: injectNeeds,
    program: 'vmcall',
    run(session) {
      injectAndRun(session, 6, NO_ERROR_CODE, 0n);
      expectHandled(session, 6, 0n);
    },
  },
  {
    name: 'loads CR2 with an injected page fault',
    needs: injectNeeds,
    program: 'vmcall',
    run(session) {
      injectAndRun(session, 14, 4, 0xffff_8765_4321_0123n);
      expectHandled(session, 14, 4n);
      equal(session.read64(at.Mailbox.CR2), 0xffff_8765_4321_0123n, 'CR2');
    },
  },
  {
    name: 'reports the delivery of an injected exception when that is switched on',
    needs: injectNeeds,
    program: 'vmcall',
    run(session) {
      session.port.setExit({ kind: 'event-injected' }, true);
      injectAndRun(session, 14, 2, 0x7654_3000n);
      const record = session.expectExit(ExitKind.EVENT_INJECTED);
      equal(record.get32('exitVector'), 14, 'vector');
      equal(record.get32('exitErrorCode'), 2, 'error code');
      equal(record.get('exitNewValue'), 0x7654_3000n, 'CR2');
      session.reply(Reply.RETRY);
      expectHandled(session, 14, 2n);
    },
  },
  {
    name: 'takes one exception per VCPU at a time',
    needs: injectNeeds,
    program: 'vmcall',
    run(session) {
      atVmcall(session);
      session.port.inject(0, 13, 0, 0n);
      throws('ERR_GLUE_INJECTION_PENDING', () => session.port.inject(0, 14, 0, 0n), 'a second injection');
      session.reply(Reply.SKIP);
      expectHandled(session, 13, 0n);
    },
  },
  {
    name: 'refuses to inject what is no exception, and injects nothing in its place',
    needs: injectNeeds,
    program: 'vmcall',
    run(session) {
      atVmcall(session);
      const refuses = (vector: number, errorCode: number): void => {
        const what = `injection of vector ${vector} with error code ${errorCode}`;
        throws('ERR_GLUE_BAD_EVENT', () => session.port.inject(0, vector, errorCode, 0n), what);
      };
      for (const vector of [-1, 32, 45, 256, 13.5, Number.NaN]) {
        refuses(vector, 0);
        refuses(vector, NO_ERROR_CODE);
      }
      for (const errorCode of [NO_ERROR_CODE, -2, 0x1_0000, 2 ** 32, 0.5, Number.NaN]) refuses(13, errorCode);
      for (const errorCode of [0, 1]) refuses(6, errorCode);
      // Nothing is pending from the refused ones, and a good one is still taken.
      session.port.inject(0, 6, NO_ERROR_CODE, 0n);
      session.reply(Reply.SKIP);
      expectHandled(session, 6, 0n);
    },
  },
  {
    name: 'tells that the guest stopped for good, and why',
    needs,
    program: 'triple-fault',
    run(session) {
      const record = session.expectExit(ExitKind.SHUTDOWN);
      check(record === session.port.guestRecord, 'a shutdown must arrive on the record of the guest');
      equal(record.get32('exitRegister'), ShutdownReason.TRIPLE_FAULT, 'reason');
    },
  },
];
