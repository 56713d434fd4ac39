import { expect, test } from 'vitest';
import { differences } from './compare.js';
import { generateCase } from './generate.js';
import { Flag, type Outcome } from './test-case.js';

const sample = generateCase('Add_rm32_r32', 1);

function outcome(): Outcome {
  const { gpr, rflags, xmm } = sample.before;
  return {
    vector: undefined,
    error: 0,
    cr2: 0n,
    rip: BigInt(sample.rip + sample.code.length),
    after: { gpr: gpr.slice(), rflags, xmm: xmm.slice() },
    memory: [{ offset: 8, bytes: Uint8Array.of(1, 2) }],
  };
}

test('equal outcomes do not differ', () => {
  expect(differences(sample, outcome(), outcome())).toEqual([]);
});

test.each<[string, (changed: Outcome) => void]>([
  ['vector', (changed) => (changed.vector = 6)],
  ['error code', (changed) => (changed.error = 2)],
  ['cr2', (changed) => (changed.cr2 = 1n)],
  ['rip', (changed) => (changed.rip += 1n)],
  ['r15', (changed) => (changed.after.gpr[15]! ^= 1n << 63n)],
  ['AF', (changed) => (changed.after.rflags ^= Flag.AF)],
  ['xmm15 high', (changed) => (changed.after.xmm[31]! ^= 1n)],
  ['memory', (changed) => (changed.memory[0]!.bytes[1] = 3)],
])('a different %s is told', (name, change) => {
  const changed = outcome();
  change(changed);
  expect(differences(sample, outcome(), changed)).toEqual([expect.stringMatching(`^${name}: `)]);
});

test('an undefined flag is not compared', () => {
  const changed = outcome();
  changed.after.rflags ^= Flag.AF;
  expect(differences({ ...sample, undefinedFlags: Flag.AF }, outcome(), changed)).toEqual([]);
});
