import type { PortBase } from './port.js';
import { decoratePort } from './port-decorator.js';

/** What an account is about: a call of the port, or a hook, hooked page or rule of the layers above. */
export type AccountKind = 'operation' | 'hook' | 'page' | 'rule';

/** Most accounts of one ledger by default. What the guest makes the layers above name is in the guest's hand, so there is a bound. */
const DEFAULT_MAX_ACCOUNTS = 4096;
/** Name of the account of a kind that takes what found no place any more. */
const OTHERS = 'others';

/** How often something happened and how long it took in all. */
export class Account {
  /** Number of calls. */
  calls = 0;
  /** Time spent in them in nanoseconds; calls that it made to others are included. */
  time = 0;

  /** @internal */
  constructor(
    readonly kind: AccountKind,
    readonly name: string,
  ) {}

  /** Adds a call that took `elapsed` nanoseconds. */
  add(elapsed: number): void {
    this.calls++;
    this.time += elapsed;
  }
}

/** One line of {@link Ledger.report}. */
export interface AccountLine {
  readonly kind: AccountKind;
  readonly name: string;
  readonly calls: number;
  /** Nanoseconds in all. */
  readonly time: number;
}

/** Options of {@link accounting} and {@link Ledger}. */
export interface LedgerOptions {
  /** The time in nanoseconds, from any origin. Default: `performance.now()`. */
  readonly now?: () => number;
  /** Most accounts, default 4096; further ones share one account `others` for each kind. */
  readonly maxAccounts?: number;
}

/** The accounts of one guest. */
export class Ledger {
  /** The time in nanoseconds. */
  readonly now: () => number;
  readonly #maxAccounts: number;
  readonly #accounts = new Map<string, Account>();

  constructor(options: LedgerOptions = {}) {
    this.now = options.now ?? (() => performance.now() * 1e6);
    this.#maxAccounts = options.maxAccounts ?? DEFAULT_MAX_ACCOUNTS;
  }

  /** The account of a name: the same object for the same kind and name. To be kept by whoever books on it often. */
  account(kind: AccountKind, name: string): Account {
    const known = this.#accounts.get(`${kind} ${name}`);
    if (known !== undefined) return known;
    if (this.#accounts.size >= this.#maxAccounts && name !== OTHERS) return this.account(kind, OTHERS);
    const account = new Account(kind, name);
    this.#accounts.set(`${kind} ${name}`, account);
    return account;
  }

  /** Every account that was used, by kind, the most expensive first; equal ones by name. */
  report(): AccountLine[] {
    return [...this.#accounts.values()]
      .filter((account) => account.calls > 0)
      .map(({ kind, name, calls, time }) => ({ kind, name, calls, time }))
      .sort((a, b) => compare(a.kind, b.kind) || b.time - a.time || compare(a.name, b.name));
  }

  /** Sets every account to zero. Accounts that somebody keeps go on. */
  reset(): void {
    for (const account of this.#accounts.values()) {
      account.calls = 0;
      account.time = 0;
    }
  }
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/**
 * Wraps a port so that each of its calls is counted and timed: what a backend costs. The engine books its hooks and pages on the same
 * ledger when it is given one. The wrapped port has exactly the capabilities of the inner one.
 */
export function accounting<P extends PortBase>(inner: P, options: LedgerOptions = {}): { port: P; ledger: Ledger } {
  const ledger = new Ledger(options);
  const port = decoratePort(inner, (operation, call) => {
    const account = ledger.account('operation', operation);
    return (...args) => {
      const start = ledger.now();
      try {
        return call(...args);
      } finally {
        account.add(ledger.now() - start);
      }
    };
  });
  return { port, ledger };
}
