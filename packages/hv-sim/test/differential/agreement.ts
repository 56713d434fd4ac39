import { expect } from 'vitest';
import { describeCase, differences } from './compare.js';
import type { HostCpu } from './host-cpu.js';
import type { MachineCpu } from './machine-cpu.js';
import type { Bitness, Outcome, TestCase } from './test-case.js';
import { type Vector, writeVectors } from './vector-file.js';

/** A failing form shows this many of its cases. */
const SHOWN = 3;

/** Runs cases on both sides; fails unless they did the same. */
export async function expectAgreement(host: HostCpu, machine: MachineCpu, cases: readonly TestCase[]): Promise<void> {
  const outcomes = await host.run(cases);
  const failures: string[] = [];
  cases.forEach((testCase, i) => {
    const found = compare(testCase, outcomes[i] as Outcome | 'died', machine);
    if (found.length > 0) failures.push(`${describeCase(testCase)}\n    ${found.join('\n    ')}`);
  });
  expect(
    failures.length,
    `${failures.length} of ${cases.length} cases differ\n${failures.slice(0, SHOWN).join('\n')}`,
  ).toBe(0);
}

/** Writes what the host does with cases into the file of their group. */
export async function record(
  host: HostCpu,
  group: string,
  cases: readonly TestCase[],
  bitness: Bitness = 64,
): Promise<void> {
  const outcomes = await host.run(cases);
  const vectors = outcomes.map((outcome, i): Vector => {
    expect(outcome, describeCase(cases[i] as TestCase)).not.toBe('died');
    return { test: cases[i] as TestCase, outcome: outcome as Outcome };
  });
  writeVectors(group, vectors, bitness);
  expect(vectors.length).toBe(cases.length);
}

function compare(testCase: TestCase, expected: Outcome | 'died', machine: MachineCpu): string[] {
  if (expected === 'died') return ['the native run took its process with it'];
  const actual = machine.run(testCase);
  return typeof actual === 'string' ? [actual] : differences(testCase, expected, actual);
}
