import { Access, ExitCause, gpa, gva, PAGE_SIZE, Reply } from '@introd/abi';
import type { Capability } from '../../port.js';
import type { ConformanceCase } from './case.js';
import * as at from './layout.js';
import { COPY_HALF, COPY_SOURCE, OFFSET, WRITTEN } from './programs.js';
import { equal } from './session.js';

const needs: readonly Capability[] = ['memory', 'write', 'registers', 'exits', 'page-access'];
const READ_ONLY = Access.READ | Access.EXECUTE;
const TARGET = gpa(at.DATA + OFFSET);
const VECTOR_BP = 3;

/** Promises about when a second-level violation is raised, and what its record says. */
export const violationCases: readonly ConformanceCase[] = [
  {
    name: 'raises nothing for accesses that the rights allow',
    needs,
    program: 'write',
    run(session) {
      session.protect(at.DATA, Access.READ | Access.WRITE);
      session.protect(at.NEXT_DATA, Access.NONE);
      session.runToPlainEnd();
      equal(session.read64(TARGET), WRITTEN, 'memory');
    },
  },
  {
    name: 'raises a write before anything is committed, and commits it on a retry with the right given back',
    needs,
    program: 'write',
    run(session) {
      session.protect(at.DATA, READ_ONLY);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE, rip: session.label('access') });
      equal(session.read64(TARGET), 0n, 'memory at the exit');
      session.reply(Reply.RETRY);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE, rip: session.label('access') });
      equal(session.read64(TARGET), 0n, 'memory at the second exit');
      session.protect(at.DATA, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(TARGET), WRITTEN, 'memory at the end');
    },
  },
  {
    name: 'raises a read before a register changes',
    needs,
    program: 'read',
    run(session) {
      session.write64(TARGET, WRITTEN);
      session.protect(at.DATA, Access.NONE);
      const record = session.expectViolation({ gpa: TARGET, access: Access.READ, rip: session.label('access') });
      equal(record.get('rax'), 0x5555_5555_5555_5555n, 'RAX at the exit');
      session.protect(at.DATA, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), WRITTEN, 'what the guest read');
    },
  },
  {
    name: 'raises a fetch before the instruction runs, and not for data accesses to the page',
    needs,
    program: 'call',
    run(session) {
      session.protect(at.FAR_CODE, Access.READ | Access.WRITE);
      const rip = gva(BigInt(at.FAR_CODE));
      const record = session.expectViolation({
        cause: ExitCause.FETCH,
        gpa: at.FAR_CODE,
        access: Access.EXECUTE,
        rip,
        gla: rip,
      });
      equal(record.get('rax'), BigInt(at.FAR_CODE), 'RAX at the exit');
      session.protect(at.FAR_CODE, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 0x1235n, 'result of the function');
    },
  },
  {
    name: 'raises a locked read-modify-write once, as a write, before it',
    needs,
    program: 'locked-add',
    run(session) {
      session.write64(TARGET, 41n);
      session.protect(at.DATA, READ_ONLY);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE, rip: session.label('access') });
      equal(session.read64(TARGET), 41n, 'memory at the exit');
      session.reply(Reply.ALLOW_ONCE);
      session.runToPlainEnd();
      equal(session.read64(TARGET), 42n, 'memory at the end');
    },
  },
  {
    name: 'commits neither half of a write whose second page is protected',
    needs,
    program: 'write-across',
    run(session) {
      session.protect(at.NEXT_DATA, READ_ONLY);
      session.expectViolation({ gpa: at.NEXT_DATA, access: Access.WRITE, rip: session.label('access') });
      equal(session.read64(gpa(at.NEXT_DATA - 8)), 0n, 'the first page at the exit');
      session.protect(at.NEXT_DATA, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(gpa(at.NEXT_DATA - 4)), WRITTEN, 'memory at the end');
    },
  },
  {
    name: 'stops a repeated string instruction at the first protected byte, with its registers as far as it came',
    needs,
    program: 'copy',
    run(session) {
      const source = gpa(at.DATA + COPY_SOURCE);
      session.write64(source, WRITTEN);
      session.write64(gpa(source + COPY_HALF), WRITTEN + 1n);
      session.protect(at.NEXT_DATA, READ_ONLY);
      const record = session.expectViolation({ gpa: at.NEXT_DATA, access: Access.WRITE, rip: session.label('access') });
      equal(record.get('rcx'), BigInt(COPY_HALF), 'RCX at the exit');
      equal(record.get('rdi'), at.windowOf(at.NEXT_DATA), 'RDI at the exit');
      equal(session.read64(gpa(at.NEXT_DATA - COPY_HALF)), WRITTEN, 'what was copied before the exit');
      equal(session.read64(at.NEXT_DATA), 0n, 'the protected page');
      session.protect(at.NEXT_DATA, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(at.NEXT_DATA), WRITTEN + 1n, 'the rest of the copy');
    },
  },
  {
    name: 'tells a stack write of an instruction as a data access',
    needs,
    program: 'push',
    run(session) {
      session.protect(at.STACK, READ_ONLY);
      const slot = gpa(at.STACK + PAGE_SIZE - 8);
      const record = session.expectViolation({
        gpa: slot,
        gla: gva(BigInt(slot)),
        access: Access.WRITE,
        rip: session.label('access'),
      });
      equal(record.get('rsp'), BigInt(at.STACK + PAGE_SIZE), 'RSP at the exit');
      session.protect(at.STACK, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), WRITTEN, 'what was pushed');
    },
  },
  {
    name: 'tells a read of a page-table entry by the page walker as a page walk',
    needs,
    program: 'write',
    run(session) {
      session.protect(at.WINDOW_PT, Access.NONE);
      session.expectViolation({
        cause: ExitCause.PAGE_WALK,
        gpa: at.WINDOW_PT,
        access: Access.READ,
        rip: session.label('access'),
        gla: at.windowOf(TARGET),
      });
      equal(session.read64(TARGET), 0n, 'memory at the exit');
      session.protect(at.WINDOW_PT, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(TARGET), WRITTEN, 'memory at the end');
    },
  },
  {
    name: 'resolves accessed and dirty updates of the page walker itself unless asked',
    needs,
    program: 'touch-fresh',
    run(session) {
      session.protect(at.WINDOW_PT, Access.READ);
      session.runToPlainEnd();
      const entry = session.read64(gpa(at.WINDOW_PT + 2 * 8));
      equal(entry & 0x60n, 0x60n, 'accessed and dirty bits of the entry');
      equal(session.read64(at.FRESH_DATA), at.windowOf(at.FRESH_DATA), 'memory at the end');
    },
  },
  {
    name: 'raises accessed and dirty updates of the page walker when asked',
    needs,
    program: 'touch-fresh',
    run(session) {
      session.port.setExit({ kind: 'page-walk-updates' }, true);
      session.protect(at.WINDOW_PT, Access.READ);
      session.expectViolation({
        cause: ExitCause.PAGE_WALK,
        gpa: gpa(at.WINDOW_PT + 2 * 8),
        access: Access.WRITE,
        rip: session.label('access'),
      });
      equal(session.read64(gpa(at.WINDOW_PT + 2 * 8)) & 0x60n, 0n, 'accessed and dirty bits at the exit');
      session.protect(at.WINDOW_PT, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
    },
  },
  {
    name: 'tells a read of the IDT by the delivery of an event as event delivery, and delivers it on the retry',
    needs,
    program: 'breakpoint',
    run(session) {
      session.protect(at.IDT, Access.NONE);
      const gate = gpa(at.IDT + VECTOR_BP * 16);
      session.expectViolation({ cause: ExitCause.EVENT_DELIVERY, gpa: gate, access: Access.READ });
      session.protect(at.IDT, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToEnd();
      equal(session.read64(at.Mailbox.VECTOR), BigInt(VECTOR_BP), 'vector that was delivered');
      equal(session.read64(at.Mailbox.RIP), session.label('after'), 'RIP in the frame');
    },
  },
  {
    name: 'tells a stack write by the delivery of an event as event delivery, with nothing of the frame written',
    needs,
    program: 'breakpoint',
    run(session) {
      session.protect(at.STACK, READ_ONLY);
      const record = session.nextExit();
      equal(record.exitCause, ExitCause.EVENT_DELIVERY, 'cause');
      equal(record.exitAccess & Access.WRITE, Access.WRITE, 'access');
      equal(record.exitGpa - (record.exitGpa % PAGE_SIZE), at.STACK, 'page of the exit');
      for (let slot = 1; slot <= 5; slot++) {
        equal(session.read64(gpa(at.STACK + PAGE_SIZE - 8 * slot)), 0n, `stack slot ${slot} at the exit`);
      }
      session.protect(at.STACK, Access.ALL);
      session.reply(Reply.RETRY);
      session.runToEnd();
      equal(session.read64(at.Mailbox.VECTOR), BigInt(VECTOR_BP), 'vector that was delivered');
    },
  },
];
