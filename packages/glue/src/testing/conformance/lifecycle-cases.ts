import { Access, ExitKind, gfnOf, gpa, Reply } from '@introd/abi';
import { type Capability, type FullPort, type SwitchedExit, supports } from '../../port.js';
import type { ConformanceCase } from './case.js';
import * as at from './layout.js';
import { OFFSET, WRITTEN } from './programs.js';
import { check, equal, throws } from './session.js';

const needs: readonly Capability[] = ['memory', 'write', 'registers', 'exits', 'page-access'];
function closed(call: () => unknown, what: string): void {
  throws('ERR_GLUE_CLOSED', call, `${what} after close`);
}

const TARGET = gpa(at.DATA + OFFSET);

/** Actions that are none of {@link Reply}. */
const NO_REPLIES = [-1, 5, 99, 0.5, Number.NaN] as Reply[];

/** What cannot be switched, as a caller without types may pass it. */
const NO_EXITS: readonly unknown[] = [
  { kind: 'msr-wrte', register: 0x10 },
  { kind: 'constructor' },
  {},
  { kind: 'cr-write' },
  { kind: 'cr-write', register: 2 },
  { kind: 'cr-write', register: 5 },
  { kind: 'msr-write' },
  { kind: 'msr-write', register: -1 },
  { kind: 'msr-write', register: 2 ** 32 },
  { kind: 'msr-write', register: 1.5 },
  { kind: 'breakpoint', register: 3 },
];

/** Promises about wrong use, and about what closing leaves behind. */
export const lifecycleCases: readonly ConformanceCase[] = [
  {
    name: 'refuses VCPUs that it does not have',
    needs: ['registers'],
    run({ port }) {
      check(port.vcpuCount >= 1, 'a guest has a VCPU');
      for (const index of [-1, 0.5, port.vcpuCount, 1000]) {
        throws('ERR_GLUE_NO_SUCH_VCPU', () => port.vcpu(index), `vcpu(${index})`);
        throws('ERR_GLUE_NO_SUCH_VCPU', () => port.fetchRegisters(index, 1), `fetchRegisters(${index})`);
        throws('ERR_GLUE_NO_SUCH_VCPU', () => port.storeRegisters(index, 1), `storeRegisters(${index})`);
        throws('ERR_GLUE_NO_SUCH_VCPU', () => port.readXsaveArea(index, new Uint8Array(1)), `readXsaveArea(${index})`);
        throws(
          'ERR_GLUE_NO_SUCH_VCPU',
          () => port.writeXsaveArea(index, new Uint8Array(1)),
          `writeXsaveArea(${index})`,
        );
        if (supports(port, 'inject')) {
          throws('ERR_GLUE_NO_SUCH_VCPU', () => port.inject(index, 13, 0, 0n), `inject(${index})`);
        }
      }
    },
  },
  {
    name: 'refuses a reply to a VCPU that stands at no exit',
    needs: ['exits'],
    run({ port }) {
      throws('ERR_GLUE_NOT_AT_EXIT', () => port.reply(0, Reply.RETRY), 'a reply before any exit');
      throws('ERR_GLUE_NOT_AT_EXIT', () => port.reply(port.vcpuCount, Reply.RETRY), 'a reply without a tick');
      for (const index of [-1, 0.5, port.vcpuCount + 1]) {
        throws('ERR_GLUE_NO_SUCH_VCPU', () => port.reply(index, Reply.RETRY), `a reply to record ${index}`);
      }
    },
  },
  {
    name: 'refuses a reply that there is not, and exits that there are not',
    needs: ['exits'],
    run({ port }) {
      for (const action of NO_REPLIES) throws('ERR_GLUE_BAD_REPLY', () => port.reply(0, action), `the reply ${action}`);
      for (const exit of NO_EXITS) {
        for (const on of [true, false]) {
          throws('ERR_GLUE_BAD_EXIT', () => port.setExit(exit as SwitchedExit, on), `the exit ${JSON.stringify(exit)}`);
        }
      }
    },
  },
  {
    name: 'keeps a VCPU at its exit when the reply is refused',
    needs,
    program: 'write',
    run(session) {
      session.protect(at.DATA, Access.READ);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE });
      for (const action of NO_REPLIES) {
        throws('ERR_GLUE_BAD_REPLY', () => session.reply(action), `the reply ${action}`);
      }
      session.reply(Reply.ALLOW_ONCE);
      session.runToPlainEnd();
      equal(session.read64(TARGET), WRITTEN, 'what the guest wrote after the right reply');
    },
  },
  {
    name: 'refuses a second reply',
    needs,
    program: 'write-twice',
    run(session) {
      session.protect(at.DATA, Access.READ);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE });
      session.reply(Reply.ALLOW_ONCE);
      throws('ERR_GLUE_NOT_AT_EXIT', () => session.reply(Reply.ALLOW_ONCE), 'a second reply');
    },
  },
  {
    name: 'refuses a resume without a pause',
    needs: ['pause'],
    run({ port }) {
      throws('ERR_GLUE_NOT_PAUSED', () => port.resume(), 'a resume without a pause');
      port.pause();
      port.resume();
      throws('ERR_GLUE_NOT_PAUSED', () => port.resume(), 'a resume too many');
    },
  },
  {
    name: 'can be closed twice, and refuses calls after that',
    needs: [],
    run({ port }) {
      port.close();
      port.close();
      if (supports(port, 'memory')) closed(() => port.readPhysical(at.CODE, new Uint8Array(1)), 'readPhysical');
      if (supports(port, 'write')) closed(() => port.writePhysical(at.CODE, new Uint8Array(1)), 'writePhysical');
      if (supports(port, 'pause')) closed(() => port.pause(), 'pause');
      if (supports(port, 'exits')) closed(() => port.next(1), 'next');
      if (supports(port, 'page-access')) closed(() => port.setPageAccess(gfnOf(at.DATA), 1), 'setPageAccess');
      if (supports(port, 'inject')) closed(() => port.inject(0, 13, 0, 0n), 'inject');
    },
  },
  {
    name: 'lets the guest go on untouched when it is closed, with rights and exits as they began',
    needs,
    program: 'write-twice',
    run(session) {
      const { target } = session;
      if (target.runUnattended === undefined || target.reopen === undefined) return;
      session.port.setExit({ kind: 'vmcall' }, true);
      session.protect(at.DATA, Access.READ);
      session.protect(at.FAR_CODE, Access.NONE);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE });
      // Closed while the VCPU stands at an exit that nobody will answer.
      session.port.close();
      target.runUnattended(10);
      session.port = target.reopen() as FullPort;
      for (const address of [at.DATA, at.FAR_CODE]) {
        equal(session.port.getPageAccess(gfnOf(address)), Access.ALL, 'rights after close');
      }
      session.runToPlainEnd();
      equal(session.read64(TARGET), WRITTEN, 'the write that was stopped');
      equal(session.read64(gpa(TARGET + 8)), WRITTEN, 'the write after it');
    },
  },
  {
    name: 'forgets switched exits when it is closed',
    needs,
    program: 'vmcall',
    run(session) {
      const { target } = session;
      if (target.reopen === undefined) return;
      session.port.setExit({ kind: 'vmcall' }, true);
      session.expectExit(ExitKind.VMCALL);
      session.port.close();
      session.port = target.reopen() as FullPort;
      session.runToEnd();
    },
  },
];
