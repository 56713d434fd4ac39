import { Access, ExitCause, ExitKind, gfnOf, gpa, gva, Reply } from '@introd/abi';
import type { Capability } from '../../port.js';
import type { ConformanceCase } from './case.js';
import * as at from './layout.js';
import { LOOP_COUNT, OFFSET, PRELOAD, WRITTEN } from './programs.js';
import { check, describe, equal } from './session.js';

const needs: readonly Capability[] = ['memory', 'write', 'registers', 'exits', 'page-access'];
const READ_ONLY = Access.READ | Access.EXECUTE;
const TARGET = gpa(at.DATA + OFFSET);
const FAR = gva(BigInt(at.FAR_CODE));

/** Promises about what each reply to a second-level violation does. */
export const replyCases: readonly ConformanceCase[] = [
  {
    name: 'ALLOW_ONCE commits the write once, and the next write to the page exits again',
    needs,
    program: 'write-twice',
    run(session) {
      session.protect(at.DATA, READ_ONLY);
      session.expectViolation({ gpa: TARGET, access: Access.WRITE, rip: session.label('access') });
      session.reply(Reply.ALLOW_ONCE);
      const second = gpa(TARGET + 8);
      session.expectViolation({ gpa: second, access: Access.WRITE, rip: session.label('again') });
      equal(session.read64(TARGET), WRITTEN, 'what was allowed');
      equal(session.read64(second), 0n, 'what was not');
      equal(session.port.getPageAccess(gfnOf(at.DATA)), READ_ONLY, 'rights of the frame');
      session.reply(Reply.ALLOW_ONCE);
      session.runToPlainEnd();
      equal(session.read64(second), WRITTEN, 'what was allowed later');
    },
  },
  {
    name: 'ALLOW_ONCE never opens the page to another VCPU',
    needs,
    program: 'write-loop',
    secondProgram: 'second-write',
    run(session) {
      session.protect(at.DATA, READ_ONLY);
      const other = gpa(at.DATA + 0x100);
      let allowed = 0;
      let retried = 0;
      while (allowed < LOOP_COUNT) {
        const record = session.nextExit();
        equal(record.exitKind, ExitKind.EPT_VIOLATION, `kind of ${describe(record)}`);
        equal(session.read64(other), 0n, 'what VCPU 1 must not write');
        if (record.get32('index') === 0) {
          equal(record.exitGpa, TARGET, 'GPA of VCPU 0');
          session.reply(Reply.ALLOW_ONCE, 0);
          allowed++;
        } else {
          equal(record.exitGpa, other, 'GPA of VCPU 1');
          session.reply(Reply.RETRY, 1);
          retried++;
          check(retried < 1000 * LOOP_COUNT, 'VCPU 1, which is retried again and again, must not hold up VCPU 0');
        }
      }
      check(retried > 0, 'VCPU 1 must have run meanwhile');
      // The last write that was allowed happens when VCPU 0 runs next; VCPU 1 exits in the meantime.
      for (let wait = 0; wait < 8 && session.read64(TARGET) !== 1n; wait++) {
        const record = session.nextExit();
        equal(record.get32('index'), 1, 'VCPU that exits');
        session.reply(Reply.RETRY, 1);
      }
      equal(session.read64(TARGET), 1n, 'what VCPU 0 wrote last');
    },
  },
  {
    name: 'ALLOW_ONCE of a fetch runs one instruction of the page',
    needs,
    program: 'call',
    run(session) {
      session.protect(at.FAR_CODE, Access.READ | Access.WRITE);
      const expected = { cause: ExitCause.FETCH, access: Access.EXECUTE } as const;
      session.expectViolation({ ...expected, gpa: at.FAR_CODE, rip: FAR, gla: FAR });
      session.reply(Reply.ALLOW_ONCE);
      const next = gpa(at.FAR_CODE + 5);
      const record = session.expectViolation({ ...expected, gpa: next, rip: session.label('far second') });
      equal(record.get('rax'), 0x1234n, 'RAX after the first instruction');
      session.reply(Reply.ALLOW_ONCE);
      session.expectViolation({ ...expected, gpa: gpa(at.FAR_CODE + 8) });
      session.reply(Reply.ALLOW_ONCE);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 0x1235n, 'result of the function');
    },
  },
  {
    name: 'SKIP goes past a write and changes nothing else',
    needs,
    program: 'write',
    run(session) {
      session.protect(at.DATA, READ_ONLY);
      const record = session.expectViolation({ gpa: TARGET, access: Access.WRITE, rip: session.label('access') });
      const length = record.get32('exitInstructionLength');
      check(length === 0 || length === 3, `instruction length must be 3 or unknown (0), got ${length}`);
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(TARGET), 0n, 'memory');
      equal(session.read64(at.Mailbox.RESULT), WRITTEN, 'RAX after it');
    },
  },
  {
    name: 'SKIP goes past a read and leaves the register',
    needs,
    program: 'read',
    run(session) {
      session.write64(TARGET, WRITTEN);
      session.protect(at.DATA, Access.NONE);
      session.expectViolation({ gpa: TARGET, access: Access.READ });
      session.reply(Reply.SKIP);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), PRELOAD, 'RAX after it');
    },
  },
  {
    name: 'SUPPLY_READ gives the instruction the bytes of the reply and leaves memory',
    needs,
    program: 'read',
    run(session) {
      session.write64(TARGET, WRITTEN);
      session.protect(at.DATA, Access.NONE);
      const record = session.expectViolation({ gpa: TARGET, access: Access.READ });
      record.replyData.set([1, 2, 3, 4, 5, 6, 7, 8]);
      record.set32('replyDataLength', 8);
      session.reply(Reply.SUPPLY_READ);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 0x0807_0605_0403_0201n, 'what the guest read');
      equal(session.read64(TARGET), WRITTEN, 'memory');
    },
  },
  {
    name: 'SUPPLY_READ works for an instruction that computes with what it reads',
    needs,
    program: 'read-add',
    run(session) {
      session.write64(TARGET, WRITTEN);
      session.protect(at.DATA, Access.NONE);
      const record = session.expectViolation({ gpa: TARGET, access: Access.READ });
      record.replyData.set([0x41, 0, 0, 0]);
      record.set32('replyDataLength', 4);
      session.reply(Reply.SUPPLY_READ);
      session.runToPlainEnd();
      equal(session.read64(at.Mailbox.RESULT), 0x42n, 'sum');
    },
  },
  {
    name: 'RETRY goes on where the engine put RIP',
    needs,
    program: 'write',
    run(session) {
      session.protect(at.DATA, READ_ONLY);
      const record = session.expectViolation({ gpa: TARGET, access: Access.WRITE });
      record.set('rip', session.label('after'));
      record.set('rax', 77n);
      session.port.storeRegisters(0, 1);
      session.reply(Reply.RETRY);
      session.runToPlainEnd();
      equal(session.read64(TARGET), 0n, 'memory');
      equal(session.read64(at.Mailbox.RESULT), 77n, 'RAX after it');
    },
  },
];
