import { Access, type Gpa, Verdict } from '@introd/abi';
import { accounting } from '@introd/glue';
import { expect, test } from 'vitest';
import { Engine } from '../src/index.js';
import { CODE, DATA, kernel } from './guest-layout.js';
import { code, microMachine, prepare } from './sim-guest.js';

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
