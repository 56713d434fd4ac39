import { Verdict } from '@introd/abi';
import { CoreHooksError } from './error.js';

/**
 * Refuses a hook that would call nobody: each of its exits would fail, long after the mistake was made.
 * @throws CoreHooksError ERR_CORE_HOOKS_CALLBACK
 */
export function requireCallback(callback: unknown): void {
  if (typeof callback !== 'function') {
    throw new CoreHooksError('ERR_CORE_HOOKS_CALLBACK', `a hook needs a callback, not ${typeof callback}`, {
      hint: 'Pass a function.',
    });
  }
}

/**
 * Refuses what a callback left as its verdict when it is none: a misspelt one must not let something happen that its author meant to deny.
 * @throws CoreHooksError ERR_CORE_HOOKS_VERDICT, where a callback that throws is handled
 */
export function requireVerdict(verdict: unknown): void {
  switch (verdict) {
    case Verdict.ALLOWED:
    case Verdict.ALLOWED_VIRTUAL:
    case Verdict.ALLOWED_PATCHED:
    case Verdict.NOT_ALLOWED:
    case Verdict.RETRY:
      return;
    default:
      throw new CoreHooksError('ERR_CORE_HOOKS_VERDICT', `a callback gave ${describe(verdict)} for its verdict`, {
        hint: 'Use the numbers of Verdict.',
      });
  }
}

/** Never the text of an object, which may be code of the callback's author. */
function describe(verdict: unknown): string {
  return typeof verdict === 'number' || typeof verdict === 'string'
    ? `the ${typeof verdict} ${verdict}`
    : `something of type ${typeof verdict}`;
}
