class Listener<E> {
  removed = false;
  constructor(
    readonly callback: (event: E) => void,
    readonly owner: Listeners<E>,
  ) {}

  remove(): void {
    if (!this.removed) {
      this.removed = true;
      this.owner.drop(this);
    }
  }
}

/**
 * Callbacks of one kind of event in the order in which they were added. The list is replaced, never changed, so that a
 * callback may add and remove others: those added are first called at the next event, those removed no more.
 */
export class Listeners<E> {
  #list: readonly Listener<E>[] = [];

  constructor(readonly onThrow: (cause: unknown) => void) {}

  get size(): number {
    return this.#list.length;
  }

  add(callback: (event: E) => void): { remove(): void } {
    const listener = new Listener(callback, this);
    this.#list = [...this.#list, listener];
    return listener;
  }

  drop(listener: Listener<E>): void {
    this.#list = this.#list.filter((one) => one !== listener);
  }

  call(event: E): void {
    const list = this.#list;
    for (let at = 0; at < list.length; at++) {
      this.#callOne(list[at]!, event);
    }
  }

  /** Calls them until `isOver` says that the others need not be. */
  callUntil(event: E, isOver: (event: E) => boolean): void {
    const list = this.#list;
    for (let at = 0; at < list.length; at++) {
      this.#callOne(list[at]!, event);
      if (isOver(event)) {
        return;
      }
    }
  }

  #callOne(listener: Listener<E>, event: E): void {
    if (!listener.removed) {
      try {
        listener.callback(event);
      } catch (cause) {
        this.onThrow(cause);
      }
    }
  }

  clear(): void {
    for (const listener of this.#list) {
      listener.removed = true;
    }
    this.#list = [];
  }
}
