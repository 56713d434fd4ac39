import type { AlertFlag, AlertReason } from '@introd/abi';
import type { Decision } from '@introd/exceptions';
import type { ProtectionMode } from '../policy.js';

/** What is done about a violation, after the rules and the mode of the protection had their say. */
export interface Judgement {
  readonly action: Decision['action'];
  readonly reason: AlertReason;
  readonly rule?: string;
  readonly flags: readonly AlertFlag[];
  /** Whether the change is stopped or taken back. */
  readonly stop: boolean;
  /** Whether somebody must be told. */
  readonly tell: boolean;
}

/**
 * Combines a decision with the mode of a protection (behaviour 1.5.9): feedback turns everything into "allowed, and
 * told"; beta tells what would have been stopped.
 */
export function judge(decision: Decision, mode: Exclude<ProtectionMode, 'off'>): Judgement {
  const withoutRules = decision.reason === 'exceptions-not-loaded';
  const flags: AlertFlag[] = withoutRules ? ['rules-not-loaded'] : [];
  if (mode === 'feedback') {
    return {
      action: 'allowed',
      reason: 'allowed-feedback',
      flags: ['feedback-only', ...flags],
      stop: false,
      tell: true,
    };
  }
  if (mode === 'beta') flags.unshift('beta');
  if (decision.action === 'not-allowed') return { ...decision, flags, stop: mode === 'enforce', tell: true };
  const feedback = decision.reason === 'allowed-feedback';
  if (feedback) flags.unshift('feedback-only');
  // The original tells nothing while no rules are loaded; here that state is never silent.
  return { ...decision, flags, stop: false, tell: feedback || withoutRules };
}
