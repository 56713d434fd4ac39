import { expect, test } from 'vitest';
import { Access, accessText, isExpressible } from './access.js';
import { strongerVerdict, Verdict } from './verdict.js';

test('access bits as letters', () => {
  expect([0, 1, 2, 3, 4, 5, 6, 7].map(accessText)).toEqual(['---', 'r--', '-w-', 'rw-', '--x', 'r-x', '-wx', 'rwx']);
});

test('a second-level table can express all rights but write without read', () => {
  expect([0, 1, 2, 3, 4, 5, 6, 7].filter((access) => !isExpressible(access))).toEqual([
    Access.WRITE,
    Access.WRITE | Access.EXECUTE,
  ]);
});

test('of two verdicts the stronger one wins, in either order', () => {
  const byStrength = [
    Verdict.ALLOWED,
    Verdict.ALLOWED_VIRTUAL,
    Verdict.ALLOWED_PATCHED,
    Verdict.NOT_ALLOWED,
    Verdict.RETRY,
  ];
  byStrength.forEach((weaker, i) => {
    for (const stronger of byStrength.slice(i)) {
      expect(strongerVerdict(weaker, stronger)).toBe(stronger);
      expect(strongerVerdict(stronger, weaker)).toBe(stronger);
    }
  });
});
