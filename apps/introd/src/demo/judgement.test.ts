import type { Alert } from '@introd/abi';
import { describe, expect, test } from 'vitest';
import { type Evidence, judgeScenario } from './judgement.js';

const CLOSED = 0x8000_0000_001c_7063n;
const OPEN = CLOSED | 4n;

function alert(found: Alert['found'], verdict: Alert['verdict'], pid = 4): Alert {
  return { found, verdict, victim: { process: { pid } } } as Alert;
}

function judge(evidence: Partial<Evidence>): string {
  return judgeScenario({
    kind: 'attack',
    alerts: [alert('before', 'blocked')],
    targetPid: 4,
    entry: CLOSED,
    userRead: undefined,
    benignDone: false,
    ...evidence,
  });
}

describe('an attack', () => {
  test.each<[string, Partial<Evidence>, string]>([
    ['caught before, with nothing read and the entry closed', {}, 'blocked'],
    ['found late, read, and closed again', { alerts: [alert('late', 'blocked')], userRead: OPEN }, 'found-late'],
    ['told and let through', { alerts: [alert('before', 'allowed')], entry: OPEN, userRead: OPEN }, 'let-through'],
    ['that nobody told', { alerts: [], entry: OPEN, userRead: OPEN }, 'missed'],
    ['reported as blocked although ring 3 read a page table', { userRead: OPEN }, 'contradicted'],
    ['reported as blocked although the entry is open', { entry: OPEN }, 'contradicted'],
    [
      'reported as repaired although the entry is open',
      { alerts: [alert('late', 'blocked')], entry: OPEN },
      'contradicted',
    ],
    ['reported for another process', { alerts: [alert('before', 'blocked', 99)] }, 'contradicted'],
    ['reported twice', { alerts: [alert('before', 'blocked'), alert('late', 'blocked')] }, 'contradicted'],
    ['whose entry cannot be read', { entry: undefined }, 'contradicted'],
  ])('%s', (_what, evidence, result) => {
    expect(judge(evidence)).toBe(result);
  });
});

describe('a benign twin', () => {
  test.each<[string, Partial<Evidence>, string]>([
    ['that did all it wanted', { alerts: [], benignDone: true }, 'untouched'],
    ['that was reported', { benignDone: true }, 'disturbed'],
    ['that lost a write', { alerts: [], benignDone: false }, 'disturbed'],
  ])('%s', (_what, evidence, result) => {
    expect(judge({ kind: 'benign', ...evidence })).toBe(result);
  });
});
