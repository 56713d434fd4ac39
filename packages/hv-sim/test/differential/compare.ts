import { GENERAL_REGISTERS } from '@introd/abi';
import { COMPARED_FLAGS, Flag, type MemoryBytes, type Outcome, type TestCase } from './test-case.js';

/** What of `actual` differs from `expected`, one line each, defined state only; empty when they agree. */
export function differences(test: TestCase, expected: Outcome, actual: Outcome): string[] {
  const found: string[] = [];
  const check = (what: string, want: bigint | number | undefined, got: bigint | number | undefined): void => {
    if (want !== got) found.push(`${what}: host ${show(want)}, machine ${show(got)}`);
  };
  check('vector', expected.vector, actual.vector);
  check('error code', expected.error, actual.error);
  check('cr2', expected.cr2, actual.cr2);
  check('rip', expected.rip, actual.rip);
  for (let i = 0; i < 16; i++) {
    check(GENERAL_REGISTERS[i]!, expected.after.gpr[i], actual.after.gpr[i]);
  }
  const flags = COMPARED_FLAGS & ~test.undefinedFlags;
  for (const [name, bit] of Object.entries(Flag)) {
    if ((flags & bit) !== 0) check(name, expected.after.rflags & bit ? 1 : 0, actual.after.rflags & bit ? 1 : 0);
  }
  for (let i = 0; i < 32; i++) {
    check(`xmm${i >> 1} ${i & 1 ? 'high' : 'low'}`, expected.after.xmm[i], actual.after.xmm[i]);
  }
  const want = memoryText(expected.memory);
  const got = memoryText(actual.memory);
  // An ENTER that faults at its final stack pointer, or a PUSHA in the middle, has pushed by then on a processor; the
  // machine writes nothing before it knows that nothing faults. Below RSP that is no difference to a program.
  const mayHaveWritten = expected.vector !== undefined && /^(Enter|Pusha)/.test(test.form);
  if (want !== got && !mayHaveWritten) found.push(`memory: host [${want}], machine [${got}]`);
  return found;
}

/** A case in one paragraph, for a failing test's message. */
export function describeCase(test: TestCase): string {
  const registers = GENERAL_REGISTERS.map((name, i) => `${name}=${show(test.before.gpr[i])}`).join(' ');
  const patches = memoryText(test.patches);
  return `${test.form} at ${show(test.rip)}: ${hexBytes(test.code)}\n  before: ${registers} rflags=${show(test.before.rflags)}\n  memory: [${patches}]`;
}

function show(value: bigint | number | undefined): string {
  return value === undefined ? 'none' : `0x${value.toString(16)}`;
}

function memoryText(runs: readonly MemoryBytes[]): string {
  return runs.map(({ offset, bytes }) => `+${offset.toString(16)} ${hexBytes(bytes)}`).join(', ');
}

function hexBytes(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
