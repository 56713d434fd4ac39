import { describe, expect, test } from 'vitest';
import { describeCase, differences } from './compare.js';
import { formGroups } from './forms.js';
import { formGroups32 } from './forms-32.js';
import { MachineCpu } from './machine-cpu.js';
import { readVectors, recordedGroups } from './vector-file.js';

const SHOWN = 5;

describe.each([
  { bitness: 64, groups: formGroups },
  { bitness: 32, groups: formGroups32 },
] as const)('vectors of $bitness-bit code recorded on a processor', ({ bitness, groups }) => {
  const machine = new MachineCpu();

  test.each(recordedGroups(bitness))('%s', (group) => {
    const failures: string[] = [];
    let cases = 0;
    for (const vectors of readVectors(group, bitness).values()) {
      for (const { test: testCase, outcome } of vectors) {
        cases++;
        const actual = machine.run(testCase);
        const found = typeof actual === 'string' ? [actual] : differences(testCase, outcome, actual);
        if (found.length > 0) failures.push(`${describeCase(testCase)}\n    ${found.join('\n    ')}`);
      }
    }
    expect(failures.length, `${failures.length} of ${cases} cases differ\n${failures.slice(0, SHOWN).join('\n')}`).toBe(
      0,
    );
    expect(cases).toBeGreaterThan(0);
  });

  test.each(Object.keys(groups))('every form of %s has vectors', (group) => {
    expect([...readVectors(group, bitness).keys()].toSorted()).toEqual(
      [...(groups[group as keyof typeof groups] as readonly string[])].toSorted(),
    );
  });
});
