import { expect, test } from 'vitest';
import { IntrodError } from './error.js';

test('an error carries its code, hint, cause and place', () => {
  const cause = new Error('below');
  const error = new IntrodError('ERR_TEST_PLACE', 'broken', {
    hint: 'mend it',
    cause,
    address: '0xfffff80000000000',
    offset: 12,
  });
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({
    name: 'IntrodError',
    code: 'ERR_TEST_PLACE',
    message: 'broken',
    hint: 'mend it',
    cause,
    address: '0xfffff80000000000',
    offset: 12,
  });
  expect('cause' in new IntrodError('ERR_TEST_PLACE', 'broken')).toBe(false);
});
