import { describe, expect, test } from 'vitest';
import { translatedForms } from '../../src/translate.js';
import { excludedForms } from './excluded-forms.js';
import { formGroups } from './forms.js';
import { isAvailable } from './forms-32.js';

const listed = Object.values(formGroups).flat();
const translated = translatedForms().filter((form) => isAvailable(form, 64));

function isExcluded(form: string): boolean {
  return excludedForms.some(({ forms }) => forms.test(form));
}

describe('the list of compared forms', () => {
  test('names each form once', () => {
    expect(new Set(listed).size).toBe(listed.length);
  });

  test('has every form that the translator knows, except the excluded ones', () => {
    expect(translated.filter((form) => !isExcluded(form)).toSorted()).toEqual(listed.toSorted());
  });

  test.each(excludedForms)('excludes for a reason: $reason', ({ forms }) => {
    expect(translated.filter((form) => forms.test(form))).not.toEqual([]);
    expect(listed.filter((form) => forms.test(form))).toEqual([]);
  });
});
