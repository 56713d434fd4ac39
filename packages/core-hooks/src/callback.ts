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
