import { afterAll, describe, expect, inject, test } from 'vitest';
import { describeCase, differences } from './compare.js';
import { formGroups, requiredFeatures } from './forms.js';
import { generateCase } from './generate.js';
import { generateMisplacedLock } from './generate-misplaced-lock.js';
import { generateSequence, sequenceForms } from './generate-sequence.js';
import { generateStateArea, stateAreaFeatures } from './generate-state-area.js';
import { HostCpu, hostCpuMissing } from './host-cpu.js';
import { MachineCpu } from './machine-cpu.js';
import type { Outcome, TestCase } from './test-case.js';
import { type Vector, writeVectors } from './vector-file.js';

const scale = inject('scale');
/** 100 and more at full scale. */
const CASES_PER_FORM = Math.max(8, Math.ceil(scale * 1.2));
const SEQUENCES = 50 * Math.max(1, Math.ceil(scale));
const LOCKS = 100 * Math.max(1, Math.ceil(scale / 10));
const STATE_AREAS = 100 * Math.max(1, Math.ceil(scale / 2));
/** Cases of a form that `scripts/record-vectors.mjs` keeps; other ones than those run here. */
const RECORDED_PER_FORM = 12;
const RECORDED_SEQUENCES = 100;
const RECORDED_LOCKS = 100;
const RECORDED_STATE_AREAS = 60;
const RECORDED_FIRST = 1_000_000;
/** A failing form shows this many of its cases. */
const SHOWN = 3;

const allForms = Object.values(formGroups).flat();

const missing = await hostCpuMissing();
const reference = missing === undefined ? await HostCpu.open() : undefined;

if (reference === undefined) {
  test.skip(`the same instructions on this processor (no native helper: ${missing})`, () => {});
} else {
  afterAll(() => reference.close());
  compareWithHost(reference);
}

function compareWithHost(host: HostCpu): void {
  const machine = new MachineCpu();

  describe.each(Object.entries(formGroups))('%s', (_group, forms) => {
    for (const form of forms) {
      const lacking = host.lacks(requiredFeatures(form));
      if (lacking.length > 0) {
        test.skip(`${form}: only its recorded vectors, this processor has no ${lacking.join(', ')}`, () => {});
        continue;
      }
      test(`${form}: ${CASES_PER_FORM} cases`, async () => {
        await expectAgreement(Array.from({ length: CASES_PER_FORM }, (_, index) => generateCase(form, index)));
      });
    }
  });

  test(`${SEQUENCES} straight lines and loops of 5 to 20 instructions`, async () => {
    const forms = sequenceForms(allForms);
    await expectAgreement(Array.from({ length: SEQUENCES }, (_, index) => generateSequence(forms, index)));
  });

  test(`${LOCKS} misplaced LOCK prefixes`, async () => {
    await expectAgreement(Array.from({ length: LOCKS }, (_, index) => generateMisplacedLock(allForms, index)));
  });

  const lackingState = host.lacks(stateAreaFeatures);
  if (lackingState.length > 0) {
    test.skip(`state areas: only recorded ones, this processor has no ${lackingState.join(', ')}`, () => {});
  } else {
    test(`${STATE_AREAS} state areas, restored and saved again`, async () => {
      await expectAgreement(Array.from({ length: STATE_AREAS }, (_, index) => generateStateArea(index)));
    });
  }

  if (process.env.INTROD_RECORD_VECTORS === '1') test('recording', recordAll);

  async function expectAgreement(cases: readonly TestCase[]): Promise<void> {
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

  async function recordAll(): Promise<void> {
    for (const [group, forms] of Object.entries(formGroups)) {
      const cases = forms.flatMap((form) =>
        Array.from({ length: RECORDED_PER_FORM }, (_, index) => generateCase(form, RECORDED_FIRST + index)),
      );
      await record(group, cases);
    }
    const forms = sequenceForms(allForms);
    await record(
      'sequences',
      Array.from({ length: RECORDED_SEQUENCES }, (_, index) => generateSequence(forms, RECORDED_FIRST + index)),
    );
    await record(
      'state-area',
      Array.from({ length: RECORDED_STATE_AREAS }, (_, index) => generateStateArea(RECORDED_FIRST + index)),
    );
    await record(
      'misplaced-lock',
      Array.from({ length: RECORDED_LOCKS }, (_, index) => generateMisplacedLock(allForms, RECORDED_FIRST + index)),
    );
  }

  async function record(group: string, cases: readonly TestCase[]): Promise<void> {
    const outcomes = await host.run(cases);
    const vectors = outcomes.map((outcome, i): Vector => {
      expect(outcome, describeCase(cases[i] as TestCase)).not.toBe('died');
      return { test: cases[i] as TestCase, outcome: outcome as Outcome };
    });
    writeVectors(group, vectors);
    expect(vectors.length).toBe(cases.length);
  }
}

function compare(testCase: TestCase, expected: Outcome | 'died', machine: MachineCpu): string[] {
  if (expected === 'died') return ['the native run took its process with it'];
  const actual = machine.run(testCase);
  return typeof actual === 'string' ? [actual] : differences(testCase, expected, actual);
}
