import type { AlertReason } from '@introd/abi';
import { type KernelRule, RuleFlag } from './kernel-rule.js';
import { hashOf, isSameValue, matchKernelRule } from './match.js';
import { NO_NAME, PredefinedName } from './name-hash.js';
import type { Decision, KernelQuery, WithoutRules } from './query.js';
import { type LoadedRules, type RuleSource, readRuleSources } from './source.js';

const NO_RULES: LoadedRules = { rules: [], ignored: {}, revision: undefined };

/**
 * Decides from rules whether a violation is legitimate. A set of rules never changes after it was made: a new one is
 * made completely, or not at all, and then takes the old one's place.
 */
export class ExceptionsEngine {
  /** Whether rules are loaded. Without, every decision has the reason `exceptions-not-loaded`. */
  readonly loaded: boolean;
  /** Number of rules in force. */
  readonly ruleCount: number;
  /** CRC-32 of the sources as 8 hex digits, to tell rule sets apart; `undefined` when none are loaded. */
  readonly revision: string | undefined;
  /** What the sources held that has no effect here, counted by what it is: `object "msr"`, `user rules`, `signatures`. */
  readonly ignored: Readonly<Record<string, number>>;

  readonly #noName: KernelRule[] = [];
  readonly #generic: KernelRule[] = [];
  readonly #named = new Map<number, KernelRule[]>();
  readonly #feedback: KernelRule[] = [];

  private constructor(loaded: boolean, set: LoadedRules) {
    this.loaded = loaded;
    this.ruleCount = set.rules.length;
    this.revision = set.revision;
    this.ignored = set.ignored;
    for (const rule of set.rules) this.#file(rule);
  }

  /** The state in which no rules are loaded. */
  static withoutRules(): ExceptionsEngine {
    return new ExceptionsEngine(false, NO_RULES);
  }

  /**
   * Loads rules in HVMI's JSON source form.
   * @throws ExceptionsError when any source is bad, with its name, the path and the offset
   */
  static fromJson(sources: readonly RuleSource[]): ExceptionsEngine {
    return new ExceptionsEngine(true, readRuleSources(sources));
  }

  /**
   * Decides a query.
   * @param withoutRules what to answer while no rules are loaded
   */
  decide(query: KernelQuery, withoutRules: WithoutRules = 'allow'): Decision {
    if (!this.loaded) {
      return { action: withoutRules === 'allow' ? 'allowed' : 'not-allowed', reason: 'exceptions-not-loaded' };
    }
    if (isSameValue(query)) return { action: 'allowed', reason: 'same-value' };
    let reason: AlertReason = 'no-exception';
    for (const rule of this.#candidates(query)) {
      const result = matchKernelRule(rule, query);
      if (result === 'allowed' || result === 'allowed-feedback') {
        return { action: 'allowed', reason: result, rule: rule.name };
      }
      if (result !== undefined) reason = result;
    }
    return { action: 'not-allowed', reason };
  }

  #file(rule: KernelRule): void {
    if (rule.flags & RuleFlag.FEEDBACK) this.#feedback.push(rule);
    else if (rule.originator === PredefinedName.ANY) this.#generic.push(rule);
    else if (rule.originator === PredefinedName.NONE) this.#noName.push(rule);
    else {
      const bucket = this.#named.get(rule.originator);
      if (bucket) bucket.push(rule);
      else this.#named.set(rule.originator, [rule]);
    }
  }

  /** The rules whose originator fits, in the order of behaviour 1.5.4. */
  *#candidates(query: KernelQuery): Generator<KernelRule> {
    const original = hashOf(query.originator);
    const returning = hashOf(query.returnsTo);
    const samePlace =
      query.originator.image !== undefined &&
      query.returnsTo?.image !== undefined &&
      query.originator.rip === query.returnsTo.rip;
    yield* original === NO_NAME ? this.#noName : this.#generic;
    for (const rule of this.#named.get(original) ?? []) {
      if (samePlace || (rule.flags & (RuleFlag.RETURN | RuleFlag.RETURN_DRV)) === 0) yield rule;
    }
    if (!samePlace && returning !== NO_NAME) {
      const both = RuleFlag.RETURN | RuleFlag.RETURN_DRV;
      for (const rule of this.#named.get(returning) ?? []) if ((rule.flags & both) === both) yield rule;
    }
    for (const rule of this.#feedback) {
      const asked = rule.flags & RuleFlag.RETURN ? returning : original;
      const fits =
        rule.originator === PredefinedName.ANY ||
        (rule.originator === PredefinedName.NONE ? original === NO_NAME : rule.originator === asked);
      if (fits) yield rule;
    }
  }
}
