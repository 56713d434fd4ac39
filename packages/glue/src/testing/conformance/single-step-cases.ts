import { Access, ExitKind, gpa, gva, Reply } from '@introd/abi';
import type { Capability } from '../../port.js';
import type { ConformanceCase } from './case.js';
import { exceptionHandler } from './guest.js';
import * as at from './layout.js';
import { COPY_HALF, COPY_SOURCE, OFFSET, WRITTEN } from './programs.js';
import { equal } from './session.js';

const needs: readonly Capability[] = ['memory', 'write', 'registers', 'exits', 'page-access'];
const READ_ONLY = Access.READ | Access.EXECUTE;
const TARGET = gpa(at.DATA + OFFSET);

/** Promises about the reply SINGLE_STEP and its exit. */
export const singleStepCases: readonly ConformanceCase[] = [
  {
    name: 'SINGLE_STEP runs one instruction with the rights as they are, then exits at the next',
    needs,
    program: 'write-twice',
    run(session) {
      session.protect(at.DATA, READ_ONLY);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE, rip: session.label('access') });
      session.protect(at.DATA, Access.ALL);
      session.reply(Reply.SINGLE_STEP);
      const record = session.expectExit(ExitKind.SINGLE_STEP);
      equal(record.rip, session.label('again'), 'RIP at the exit');
      equal(session.read64(TARGET), WRITTEN, 'what the instruction wrote');
      equal(session.read64(gpa(TARGET + 8)), 0n, 'what the next one has not written yet');
      session.protect(at.DATA, READ_ONLY);
      session.reply(Reply.RETRY);
      session.expectViolation({ gpa: gpa(TARGET + 8), access: Access.WRITE, rip: session.label('again') });
      session.protect(at.DATA, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
    },
  },
  {
    name: 'SINGLE_STEP as the reply to its own exit runs the next instruction',
    needs,
    program: 'write-twice',
    run(session) {
      session.protect(at.DATA, READ_ONLY);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE });
      session.protect(at.DATA, Access.ALL);
      session.reply(Reply.SINGLE_STEP);
      equal(session.expectExit(ExitKind.SINGLE_STEP).rip, session.label('again'), 'RIP after one step');
      session.reply(Reply.SINGLE_STEP);
      equal(session.expectExit(ExitKind.SINGLE_STEP).rip, gva(session.label('again') + 4n), 'RIP after two steps');
      equal(session.read64(gpa(TARGET + 8)), WRITTEN, 'what the second step wrote');
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
    },
  },
  {
    name: 'an exit of the instruction that is single-stepped comes first, and the exit of the step after it',
    needs,
    program: 'write',
    run(session) {
      session.protect(at.DATA, READ_ONLY);
      const expected = { gpa: TARGET, access: Access.WRITE, rip: session.label('access') };
      session.expectViolation(expected);
      session.reply(Reply.SINGLE_STEP);
      session.expectViolation(expected);
      session.reply(Reply.ALLOW_ONCE);
      const record = session.expectExit(ExitKind.SINGLE_STEP);
      equal(record.rip, session.label('after'), 'RIP at the exit');
      equal(session.read64(TARGET), WRITTEN, 'what was allowed');
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
    },
  },
  {
    name: 'SINGLE_STEP of a repeated string instruction does one element',
    needs,
    program: 'copy-page-to-page',
    run(session) {
      const source = gpa(at.DATA + COPY_SOURCE);
      session.write64(source, WRITTEN);
      session.protect(at.NEXT_DATA, READ_ONLY);
      session.expectViolation({ gpa: gpa(at.NEXT_DATA + OFFSET), access: Access.WRITE });
      session.protect(at.NEXT_DATA, Access.ALL);
      session.reply(Reply.SINGLE_STEP);
      const record = session.expectExit(ExitKind.SINGLE_STEP);
      equal(record.rip, session.label('access'), 'RIP at the exit');
      equal(record.get('rcx'), BigInt(2 * COPY_HALF - 1), 'RCX at the exit');
      equal(session.read64(gpa(at.NEXT_DATA + OFFSET)), WRITTEN & 0xffn, 'the element');
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(gpa(at.NEXT_DATA + OFFSET)), WRITTEN, 'the first half of the copy');
    },
  },
  {
    name: 'SINGLE_STEP ends with the delivery of an event, at the first instruction of its handler',
    needs: [...needs, 'inject'],
    program: 'vmcall',
    run(session) {
      session.port.setExit({ kind: 'vmcall' }, true);
      session.expectExit(ExitKind.VMCALL);
      session.port.inject(0, 13, 0x18, 0n);
      session.reply(Reply.SINGLE_STEP);
      equal(session.expectExit(ExitKind.SINGLE_STEP).rip, exceptionHandler(13), 'RIP at the exit');
      session.reply(Reply.RETRY);
      session.runToEnd();
      equal(session.read64(at.Mailbox.VECTOR), 13n, 'vector that the guest took');
    },
  },
];
