import { describe, expect, test } from 'vitest';
import { translatedForms } from '../../src/translate.js';
import { excludedForms32, formGroups32, isAvailable } from './forms-32.js';

const listed = Object.values(formGroups32).flat();
const translated = translatedForms().filter((form) => isAvailable(form, 32));

describe('the list of forms compared in 32-bit code', () => {
  test('names each form once', () => {
    expect(new Set(listed).size).toBe(listed.length);
  });

  test('has every form that the translator knows there, except the excluded ones', () => {
    const compared = translated.filter((form) => !excludedForms32.some(({ forms }) => forms.test(form)));
    expect(compared.toSorted()).toEqual(listed.toSorted());
  });

  test.each(excludedForms32)('excludes for a reason: $reason', ({ forms }) => {
    expect(translated.filter((form) => forms.test(form))).not.toEqual([]);
    expect(listed.filter((form) => forms.test(form))).toEqual([]);
  });
});
