import type { AlertReason } from '@introd/abi';
import { type KernelRule, RuleFlag } from './kernel-rule.js';
import { hashOf, isSameValue, matchKernelRule } from './match.js';
import { NO_NAME, PredefinedName } from './name-hash.js';
import type { Decision, KernelQuery, WithoutRules } from './query.js';
import { type LoadedRules, type RuleSource, readRuleSources } from './source.js';

/** Bits of a rule about the code that is returned to; the JSON word `return` sets both. */
const RETURNS = RuleFlag.RETURN | RuleFlag.RETURN_DRV;

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
    return this.#search(query);
  }

  /** Tries the rules in the order of behaviour 1.5.4; the first that fits decides. */
  #search(query: KernelQuery): Decision {
    const scan = new Scan(query);
    const original = hashOf(query.originator);
    const returning = hashOf(query.returnsTo);
    const samePlace =
      query.originator.image !== undefined &&
      query.returnsTo?.image !== undefined &&
      query.originator.rip === query.returnsTo.rip;
    const named = this.#named.get(original);
    const found =
      scan.tryAll(original === NO_NAME ? this.#noName : this.#generic) ??
      (named && (samePlace ? scan.tryAll(named) : scan.tryDirect(named))) ??
      (samePlace || returning === NO_NAME ? undefined : scan.tryReturning(this.#named.get(returning) ?? [])) ??
      scan.tryFeedback(this.#feedback, original, returning);
    return found ?? { action: 'not-allowed', reason: scan.reason };
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
}

/** One search through the rules. */
class Scan {
  /** Why nothing fitted: what the last rule said that came as far as its signatures. */
  reason: AlertReason = 'no-exception';

  constructor(private readonly query: KernelQuery) {}

  tryAll(rules: readonly KernelRule[]): Decision | undefined {
    for (const rule of rules) {
      const decision = this.#try(rule);
      if (decision) return decision;
    }
    return undefined;
  }

  /** Tries the rules about the code that did it, not about the one it returns to. */
  tryDirect(rules: readonly KernelRule[]): Decision | undefined {
    for (const rule of rules) {
      const decision = (rule.flags & RETURNS) === 0 ? this.#try(rule) : undefined;
      if (decision) return decision;
    }
    return undefined;
  }

  /** Tries the rules about the code that it returns to. */
  tryReturning(rules: readonly KernelRule[]): Decision | undefined {
    for (const rule of rules) {
      const decision = (rule.flags & RETURNS) === RETURNS ? this.#try(rule) : undefined;
      if (decision) return decision;
    }
    return undefined;
  }

  /** Tries the feedback rules, which lie together whoever they are about. */
  tryFeedback(rules: readonly KernelRule[], original: number, returning: number): Decision | undefined {
    for (const rule of rules) {
      const asked = rule.flags & RuleFlag.RETURN ? returning : original;
      const fits =
        rule.originator === PredefinedName.ANY ||
        (rule.originator === PredefinedName.NONE ? original === NO_NAME : rule.originator === asked);
      const decision = fits ? this.#try(rule) : undefined;
      if (decision) return decision;
    }
    return undefined;
  }

  #try(rule: KernelRule): Decision | undefined {
    const result = matchKernelRule(rule, this.query);
    if (result === 'allowed' || result === 'allowed-feedback') {
      return { action: 'allowed', reason: result, rule: rule.name };
    }
    if (result !== undefined) this.reason = result;
    return undefined;
  }
}
