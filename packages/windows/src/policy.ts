import type { WithoutRules } from '@introd/exceptions';
import { WindowsError } from './error.js';
import { PROTECTION_IDS, type ProtectionId } from './protections/index.js';

/** How a protection runs. */
export type ProtectionMode =
  /** Stops or takes back what is not allowed, and tells. */
  | 'enforce'
  /** Tells what it would have stopped, and lets it pass. A state that is known to be bad is told once. */
  | 'beta'
  /** Tells for information only, and lets it pass. */
  | 'feedback'
  /** Looks at nothing. */
  | 'off';

/** What the operator wants to be protected. */
export interface Policy {
  readonly schemaVersion: 1;
  /** Mode of each protection; one that is not named enforces. */
  readonly protections: { readonly [P in ProtectionId]: ProtectionMode };
  /** What happens to violations while no exception rules are loaded. The original lets them pass. */
  readonly withoutRules: WithoutRules;
}

const MODES: readonly ProtectionMode[] = ['enforce', 'beta', 'feedback', 'off'];
const WITHOUT_RULES: readonly WithoutRules[] = ['allow', 'block'];

/** The policy that gives every protection the same mode. */
function uniform(mode: ProtectionMode, withoutRules: WithoutRules): Policy {
  const protections = Object.fromEntries(PROTECTION_IDS.map((id) => [id, mode])) as Record<
    ProtectionId,
    ProtectionMode
  >;
  return { schemaVersion: 1, protections, withoutRules };
}

/** Everything enforces, with rules or without. */
export const enforcePolicy: Policy = uniform('enforce', 'block');
/** Everything tells and lets pass. */
export const betaPolicy: Policy = uniform('beta', 'allow');
/** Nothing is watched. */
export const offPolicy: Policy = uniform('off', 'allow');

/**
 * Reads a policy from JSON text, e.g. `{"schemaVersion": 1, "protections": {"self-map": "beta"}}`. A protection that is not
 * named, and `withoutRules`, are as in {@link enforcePolicy}.
 * @throws WindowsError ERR_WINDOWS_POLICY_SYNTAX, ERR_WINDOWS_POLICY_INVALID
 */
export function parsePolicy(text: string): Policy {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new WindowsError('ERR_WINDOWS_POLICY_SYNTAX', `the policy is not JSON: ${(cause as Error).message}`, {
      cause,
      hint: 'a policy looks like {"schemaVersion": 1, "protections": {"self-map": "enforce"}}',
    });
  }
  const policy = object(value, 'the policy', ['schemaVersion', 'protections', 'withoutRules']);
  if (policy.schemaVersion !== 1) {
    throw invalid(
      `"schemaVersion" is ${show(policy.schemaVersion)}`,
      'this version reads policies with "schemaVersion": 1',
    );
  }
  const wanted = object(policy.protections, '"protections"', PROTECTION_IDS);
  const protections = { ...enforcePolicy.protections };
  for (const id of PROTECTION_IDS) {
    if (wanted[id] !== undefined) protections[id] = oneOf(wanted[id], MODES, `"protections.${id}"`);
  }
  const withoutRules =
    policy.withoutRules === undefined
      ? enforcePolicy.withoutRules
      : oneOf(policy.withoutRules, WITHOUT_RULES, '"withoutRules"');
  return { schemaVersion: 1, protections, withoutRules };
}

function object(value: unknown, what: string, keys: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`${what} is ${show(value)}`, 'an object is expected');
  }
  for (const key of Object.keys(value)) {
    if (!keys.includes(key)) throw invalid(`${what} has no property ${show(key)}`, `known are ${keys.join(', ')}`);
  }
  return { ...value };
}

function oneOf<T extends string>(value: unknown, words: readonly T[], what: string): T {
  const found = words.find((word) => word === value);
  if (found === undefined) throw invalid(`${what} is ${show(value)}`, `known are ${words.join(', ')}`);
  return found;
}

/** Longest piece of the text that a message repeats. */
const MAX_SHOWN = 60;

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'missing';
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text;
}

function invalid(problem: string, hint: string): WindowsError {
  return new WindowsError('ERR_WINDOWS_POLICY_INVALID', `the policy cannot be used: ${problem}`, { hint });
}
