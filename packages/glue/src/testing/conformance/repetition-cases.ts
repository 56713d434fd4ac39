import { Access, gpa, Reply, type VcpuRecord } from '@introd/abi';
import type { Capability } from '../../port.js';
import type { ConformanceCase } from './case.js';
import * as at from './layout.js';
import { COPY_HALF, COPY_SOURCE, OFFSET, WRITTEN } from './programs.js';
import { type ConformanceSession, equal } from './session.js';

const needs: readonly Capability[] = ['memory', 'write', 'registers', 'exits', 'page-access'];
const READ_ONLY = Access.READ | Access.EXECUTE;
const SOURCE = gpa(at.DATA + COPY_SOURCE);
const LENGTH = 2 * COPY_HALF;
/** What the engine shows in place of the hidden source. */
const SHOWN = Uint8Array.from({ length: LENGTH }, (_, i) => 0xa0 + i);

/** Fills the source of the copy, so that each half is told from the other. */
function fillSource(session: ConformanceSession): void {
  session.write64(SOURCE, WRITTEN);
  session.write64(gpa(SOURCE + COPY_HALF), WRITTEN + 1n);
}

/** The next exit of the copy: a write to a byte, with so many elements left. */
function expectWrite(session: ConformanceSession, address: number, left: number): void {
  const record = session.expectViolation({ gpa: gpa(address), access: Access.WRITE, rip: session.label('access') });
  equal(record.get('rcx'), BigInt(left), 'RCX at the exit');
}

/** The next exit of the copy: a read of a byte of the source. */
function expectRead(session: ConformanceSession, offset: number): VcpuRecord {
  const record = session.expectViolation({ gpa: gpa(SOURCE + offset), access: Access.READ });
  equal(record.get('rcx'), BigInt(LENGTH - offset), 'RCX at the exit');
  return record;
}

function supply(session: ConformanceSession, record: VcpuRecord, bytes: Uint8Array): void {
  record.replyData.set(bytes);
  record.set32('replyDataLength', bytes.length);
  session.reply(Reply.SUPPLY_READ);
}

/** The bytes that the copy of page to page has written. */
function copied(session: ConformanceSession): Uint8Array {
  const bytes = new Uint8Array(LENGTH);
  session.port.readPhysical(gpa(at.NEXT_DATA + OFFSET), bytes);
  return bytes;
}

/** Promises about what a reply lets a repeated string instruction do. */
export const repetitionCases: readonly ConformanceCase[] = [
  {
    name: 'ALLOW_ONCE lets a repeated string instruction do the elements on the same pages, and no more',
    needs,
    program: 'copy',
    run(session) {
      fillSource(session);
      for (const page of [at.DATA, at.NEXT_DATA]) session.protect(page, READ_ONLY);
      expectWrite(session, at.NEXT_DATA - COPY_HALF, LENGTH);
      session.reply(Reply.ALLOW_ONCE);
      expectWrite(session, at.NEXT_DATA, COPY_HALF);
      equal(session.read64(gpa(at.NEXT_DATA - COPY_HALF)), WRITTEN, 'the first page');
      equal(session.read64(at.NEXT_DATA), 0n, 'the second page, which was not allowed yet');
      session.reply(Reply.ALLOW_ONCE);
      session.runToPlainEnd();
      equal(session.read64(at.NEXT_DATA), WRITTEN + 1n, 'the second page');
    },
  },
  {
    name: 'ALLOW_ONCE lets a repeated string instruction that goes down do the elements on the same pages, and no more',
    needs,
    program: 'copy-down',
    run(session) {
      fillSource(session);
      for (const page of [at.DATA, at.NEXT_DATA]) session.protect(page, READ_ONLY);
      expectWrite(session, at.NEXT_DATA + COPY_HALF - 1, LENGTH);
      session.reply(Reply.ALLOW_ONCE);
      expectWrite(session, at.NEXT_DATA - 1, COPY_HALF);
      equal(session.read64(at.NEXT_DATA), WRITTEN + 1n, 'the upper page');
      equal(session.read64(gpa(at.NEXT_DATA - COPY_HALF)), 0n, 'the lower page, which was not allowed yet');
      session.reply(Reply.ALLOW_ONCE);
      session.runToPlainEnd();
      equal(session.read64(gpa(at.NEXT_DATA - COPY_HALF)), WRITTEN, 'the lower page');
    },
  },
  ...(['copy', 'copy-down'] as const).map(
    (program): ConformanceCase => ({
      name: `raises one exit per element while rep-iterations is on (${program}), and one per page again once it is off`,
      needs,
      program,
      run(session) {
        const down = program === 'copy-down';
        const address = (done: number) => at.NEXT_DATA + (down ? COPY_HALF - 1 - done : done - COPY_HALF);
        fillSource(session);
        for (const page of [at.DATA, at.NEXT_DATA]) session.protect(page, READ_ONLY);
        session.port.setExit({ kind: 'rep-iterations' }, true);
        for (let done = 0; done < COPY_HALF + 2; done++) {
          expectWrite(session, address(done), LENGTH - done);
          session.reply(Reply.ALLOW_ONCE);
        }
        expectWrite(session, address(COPY_HALF + 2), COPY_HALF - 2);
        session.port.setExit({ kind: 'rep-iterations' }, false);
        session.reply(Reply.ALLOW_ONCE);
        session.runToPlainEnd();
        equal(session.read64(gpa(at.NEXT_DATA - COPY_HALF)), WRITTEN, 'the lower page');
        equal(session.read64(at.NEXT_DATA), WRITTEN + 1n, 'the upper page');
      },
    }),
  ),
  {
    name: 'SUPPLY_READ gives a repeated string instruction the elements that its data reaches, and memory to none of them',
    needs,
    program: 'copy-page-to-page',
    run(session) {
      fillSource(session);
      session.protect(at.DATA, Access.NONE);
      supply(session, expectRead(session, 0), SHOWN.subarray(0, 5));
      supply(session, expectRead(session, 5), SHOWN.subarray(5));
      session.runToPlainEnd();
      equal(copied(session).join(' '), SHOWN.join(' '), 'what the guest read');
      equal(session.read64(SOURCE), WRITTEN, 'memory');
    },
  },
  {
    name: 'SUPPLY_READ gives one element while rep-iterations is on, whatever its data reaches',
    needs,
    program: 'copy-page-to-page',
    run(session) {
      fillSource(session);
      session.protect(at.DATA, Access.NONE);
      session.port.setExit({ kind: 'rep-iterations' }, true);
      for (let done = 0; done < LENGTH; done++) supply(session, expectRead(session, done), SHOWN.subarray(done));
      session.runToPlainEnd();
      equal(copied(session).join(' '), SHOWN.join(' '), 'what the guest read');
    },
  },
];
