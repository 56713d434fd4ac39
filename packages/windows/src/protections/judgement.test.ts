import type { Decision } from '@introd/exceptions';
import { describe, expect, it } from 'vitest';
import { judge } from './judgement.js';

const blocked: Decision = { action: 'not-allowed', reason: 'no-exception' };
const allowed: Decision = { action: 'allowed', reason: 'allowed', rule: 'r' };
const feedbackRule: Decision = { action: 'allowed', reason: 'allowed-feedback', rule: 'r' };
const lax: Decision = { action: 'allowed', reason: 'exceptions-not-loaded' };
const strict: Decision = { action: 'not-allowed', reason: 'exceptions-not-loaded' };

describe('what is done about a violation', () => {
  it.each<[Decision, Parameters<typeof judge>[1], ReturnType<typeof judge>]>([
    [blocked, 'enforce', { ...blocked, flags: [], stop: true, tell: true }],
    [blocked, 'beta', { ...blocked, flags: ['beta'], stop: false, tell: true }],
    [
      blocked,
      'feedback',
      { action: 'allowed', reason: 'allowed-feedback', flags: ['feedback-only'], stop: false, tell: true },
    ],
    [allowed, 'enforce', { ...allowed, flags: [], stop: false, tell: false }],
    [allowed, 'beta', { ...allowed, flags: ['beta'], stop: false, tell: false }],
    [feedbackRule, 'enforce', { ...feedbackRule, flags: ['feedback-only'], stop: false, tell: true }],
    [lax, 'enforce', { ...lax, flags: ['rules-not-loaded'], stop: false, tell: true }],
    [strict, 'enforce', { ...strict, flags: ['rules-not-loaded'], stop: true, tell: true }],
    [strict, 'beta', { ...strict, flags: ['beta', 'rules-not-loaded'], stop: false, tell: true }],
    [
      strict,
      'feedback',
      {
        action: 'allowed',
        reason: 'allowed-feedback',
        flags: ['feedback-only', 'rules-not-loaded'],
        stop: false,
        tell: true,
      },
    ],
  ])('%o in mode %s', (decision, mode, judgement) => {
    expect(judge(decision, mode)).toEqual(judgement);
  });
});
