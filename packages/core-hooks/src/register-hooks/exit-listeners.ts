import type { SwitchedExit } from '@introd/glue';
import type { ExitSwitches } from './exit-switches.js';
import { Listeners } from './listeners.js';

/** A callback that was set. */
export interface ExitHook {
  /** Ends it. May be called from inside the callback. A second call does nothing. */
  remove(): void;
}

/**
 * Callbacks of one kind of exit. The exit is on exactly while there are any: it goes on with the first, before that is set, and off
 * after the last was removed, before the next reply. One that is set in between finds it still on.
 */
export class ExitListeners<E> {
  readonly #switches: ExitSwitches;
  readonly #exit: SwitchedExit;
  readonly listeners: Listeners<E>;
  #on = false;

  constructor(switches: ExitSwitches, exit: SwitchedExit, onThrow: (cause: unknown) => void) {
    this.#switches = switches;
    this.#exit = exit;
    this.listeners = new Listeners(onThrow);
  }

  /** @throws what the backend throws when it cannot raise the exit; nothing is set then */
  add(callback: (event: E) => void): ExitHook {
    if (!this.#on) {
      this.#switches.turn(this.#exit, true);
      this.#on = true;
    }
    const listener = this.listeners.add(callback);
    return {
      remove: () => {
        this.#switches.pending = true;
        listener.remove();
      },
    };
  }

  /** Whether the exit is on although nobody listens any more. */
  get isLeftOn(): boolean {
    return this.#on && this.listeners.size === 0;
  }

  /** Switches the exit off when nobody listens any more. @throws what the backend throws; it is tried again at the next call */
  commit(): void {
    if (this.isLeftOn) {
      this.#switches.turn(this.#exit, false);
      this.#on = false;
    }
  }
}
