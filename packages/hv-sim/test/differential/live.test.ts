import { afterAll, describe, inject, test } from 'vitest';
import { expectAgreement, record } from './agreement.js';
import { formGroups, requiredFeatures } from './forms.js';
import { generateCase } from './generate.js';
import { generateMisplacedLock } from './generate-misplaced-lock.js';
import { generateSequence, sequenceForms } from './generate-sequence.js';
import { generateStateArea, stateAreaFeatures } from './generate-state-area.js';
import { HostCpu, hostCpuMissing } from './host-cpu.js';
import { MachineCpu } from './machine-cpu.js';

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
        await expectAgreement(
          host,
          machine,
          Array.from({ length: CASES_PER_FORM }, (_, index) => generateCase(form, index)),
        );
      });
    }
  });

  test(`${SEQUENCES} straight lines and loops of 5 to 20 instructions`, async () => {
    const forms = sequenceForms(allForms);
    await expectAgreement(
      host,
      machine,
      Array.from({ length: SEQUENCES }, (_, index) => generateSequence(forms, index)),
    );
  });

  test(`${LOCKS} misplaced LOCK prefixes`, async () => {
    await expectAgreement(
      host,
      machine,
      Array.from({ length: LOCKS }, (_, index) => generateMisplacedLock(allForms, index)),
    );
  });

  const lackingState = host.lacks(stateAreaFeatures);
  if (lackingState.length > 0) {
    test.skip(`state areas: only recorded ones, this processor has no ${lackingState.join(', ')}`, () => {});
  } else {
    test(`${STATE_AREAS} state areas, restored and saved again`, async () => {
      await expectAgreement(
        host,
        machine,
        Array.from({ length: STATE_AREAS }, (_, index) => generateStateArea(index)),
      );
    });
  }

  if (process.env.INTROD_RECORD_VECTORS === '1') test('recording', recordAll);

  async function recordAll(): Promise<void> {
    for (const [group, forms] of Object.entries(formGroups)) {
      const cases = forms.flatMap((form) =>
        Array.from({ length: RECORDED_PER_FORM }, (_, index) => generateCase(form, RECORDED_FIRST + index)),
      );
      await record(host, group, cases);
    }
    const forms = sequenceForms(allForms);
    await record(
      host,
      'sequences',
      Array.from({ length: RECORDED_SEQUENCES }, (_, index) => generateSequence(forms, RECORDED_FIRST + index)),
    );
    await record(
      host,
      'state-area',
      Array.from({ length: RECORDED_STATE_AREAS }, (_, index) => generateStateArea(RECORDED_FIRST + index)),
    );
    await record(
      host,
      'misplaced-lock',
      Array.from({ length: RECORDED_LOCKS }, (_, index) => generateMisplacedLock(allForms, RECORDED_FIRST + index)),
    );
  }
}
