import { afterAll, describe, inject, test } from 'vitest';
import { expectAgreement, record } from './agreement.js';
import { requiredFeatures } from './forms.js';
import { formGroups32 } from './forms-32.js';
import { generateCase } from './generate.js';
import { HostCpu, hostCpuMissing } from './host-cpu.js';
import { MachineCpu } from './machine-cpu.js';

/** 100 and more at full scale. */
const CASES_PER_FORM = Math.max(4, Math.ceil(inject('scale') * 1.2));
/** Cases of a form that `scripts/record-vectors.mjs` keeps; other ones than those run here. */
const RECORDED_PER_FORM = 6;
const RECORDED_FIRST = 1_000_000;

const missing = await hostCpuMissing();
const reference = missing === undefined ? await HostCpu.open() : undefined;
const refused = reference === undefined ? `no native helper: ${missing}` : await reference.refuses32BitCode();

if (reference !== undefined) afterAll(() => reference.close());

if (reference === undefined || refused !== undefined) {
  test.skip(`32-bit code on this processor (${refused})`, () => {});
} else {
  const machine = new MachineCpu();

  describe.each(Object.entries(formGroups32))('32-bit code: %s', (group, forms) => {
    for (const form of forms) {
      const lacking = reference.lacks(requiredFeatures(form));
      if (lacking.length > 0) {
        test.skip(`${form}: only its recorded vectors, this processor has no ${lacking.join(', ')}`, () => {});
        continue;
      }
      test(`${form}: ${CASES_PER_FORM} cases`, async () => {
        const cases = Array.from({ length: CASES_PER_FORM }, (_, index) => generateCase(form, index, 32));
        await expectAgreement(reference, machine, cases);
      });
    }

    if (process.env.INTROD_RECORD_VECTORS === '1') {
      test('recording', async () => {
        const cases = forms.flatMap((form) =>
          Array.from({ length: RECORDED_PER_FORM }, (_, index) => generateCase(form, RECORDED_FIRST + index, 32)),
        );
        await record(reference, group, cases, 32);
      });
    }
  });
}
