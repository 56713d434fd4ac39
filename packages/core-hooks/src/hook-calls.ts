import type { Ledger } from '@introd/glue';
import type { EngineCounters } from './counters.js';
import { CoreHooksError } from './error.js';

/** What every hook may be given. */
export interface NamedHookOptions {
  /** What its calls are booked on when the engine has a ledger. By default its kind, and the register or address that it is on. */
  readonly name?: string | undefined;
}

type Callback<E> = (event: E) => void;

/**
 * Calls of users' callbacks: each is counted, and booked on the engine's ledger when it has one. The engine's own hooks do not come by here;
 * whoever they call in turn does.
 */
export class HookCalls {
  readonly #counters: EngineCounters;
  readonly #ledger: Ledger | undefined;
  #closed = false;

  constructor(counters: EngineCounters, ledger: Ledger | undefined) {
    this.#counters = counters;
    this.#ledger = ledger;
  }

  /** Whether there is a ledger. */
  get isBooked(): boolean {
    return this.#ledger !== undefined;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Refuses every hook from now on. */
  close(): void {
    this.#closed = true;
  }

  /** @throws CoreHooksError ERR_CORE_HOOKS_CLOSED */
  requireOpen(): void {
    if (this.#closed) {
      throw new CoreHooksError('ERR_CORE_HOOKS_CLOSED', 'the engine is closed', {
        hint: 'Make a new engine on a new port of the backend.',
      });
    }
  }

  /** A callback as it is to be called: counted and booked. @param name of its account; asked for at the first call */
  of<E>(name: () => string, callback: Callback<E>): Callback<E>;
  of<E>(name: () => string, callback: Callback<E> | undefined): Callback<E> | undefined;
  of<E>(name: () => string, callback: Callback<E> | undefined): Callback<E> | undefined {
    if (callback === undefined) {
      return undefined;
    }
    const counters = this.#counters;
    const booked = this.booked(name, callback);
    return (event) => {
      counters.hookCalls++;
      booked(event);
    };
  }

  /**
   * A callback whose calls are booked, also those that throw, and not counted: that is left to the caller. Without a ledger it is the
   * callback itself.
   * @param page name of a second account, that of the page
   */
  booked<E>(name: () => string, callback: Callback<E>, page?: () => string): Callback<E> {
    const ledger = this.#ledger;
    if (ledger === undefined) {
      return callback;
    }
    let accounts: ReturnType<Ledger['account']>[] | undefined;
    return (event) => {
      const start = ledger.now();
      try {
        callback(event);
      } finally {
        const elapsed = ledger.now() - start;
        accounts ??= [ledger.account('hook', name()), ...(page === undefined ? [] : [ledger.account('page', page())])];
        for (const account of accounts) {
          account.add(elapsed);
        }
      }
    };
  }
}
