import { Access, type Gfn } from '@introd/abi';
import type { PageAccessCapability } from '@introd/glue';
import type { EngineCounters } from '../counters.js';
import { FrameTable } from './frame-table.js';
import type { PendingCommits } from './pending-commits.js';

/** Rights of one frame: how many hooks restrict each access, and what the backend was told last. */
class FrameRights {
  reads = 0;
  writes = 0;
  executes = 0;
  told: Access = Access.ALL;
  constructor(readonly frame: Gfn) {}

  /** Rights that let through what no hook wants to see. */
  get wanted(): Access {
    // A second-level table cannot allow writing without reading, so a hook on reads takes the write right too.
    const read = this.reads === 0 ? Access.READ : 0;
    const write = this.writes === 0 && this.reads === 0 ? Access.WRITE : 0;
    const execute = this.executes === 0 ? Access.EXECUTE : 0;
    return read | write | execute;
  }
}

/**
 * Second-level rights, derived from counters per frame and access. The backend is told only when a counter leaves or
 * reaches zero, and all changes become effective in one batch. A change that the backend refuses stays on a list and
 * is tried again with the next batch.
 */
export class PageRights {
  readonly #port: PageAccessCapability;
  readonly #counters: EngineCounters;
  readonly #onRefusal: (cause: unknown) => void;
  readonly #pending: PendingCommits;
  readonly #frames = new FrameTable<FrameRights>();
  #refused: FrameRights[] = [];
  #unflushed = false;

  constructor(
    port: PageAccessCapability,
    counters: EngineCounters,
    pending: PendingCommits,
    onRefusal: (cause: unknown) => void,
  ) {
    this.#port = port;
    this.#pending = pending;
    this.#counters = counters;
    this.#onRefusal = onRefusal;
  }

  /**
   * One hook more that wants to see an access.
   * @throws what the backend throws when it refuses; nothing is counted then
   */
  restrict(frame: Gfn, access: Access): void {
    let rights = this.#frames.get(frame);
    if (rights === undefined) {
      rights = new FrameRights(frame);
      this.#frames.set(frame, rights);
    }
    count(rights, access, 1);
    try {
      this.#tell(rights);
    } catch (cause) {
      count(rights, access, -1);
      this.#forgetUnused(rights);
      // Whoever wanted it may try again before the next reply.
      this.#pending.any = true;
      throw cause;
    }
  }

  /** One hook less. A refusal of the backend is reported and tried again later. */
  release(frame: Gfn, access: Access): void {
    const rights = this.#frames.get(frame);
    if (rights === undefined) {
      return;
    }
    count(rights, access, -1);
    this.#tellOrRetry(rights);
  }

  /** Whether a frame is restricted, by hooks or because the backend refused to lift it. */
  isRestricted(frame: number): boolean {
    return this.#frames.get(frame) !== undefined;
  }

  /** Sets the rights of an unrestricted frame anew, through none, so that no backend can take it for no change. */
  repair(frame: Gfn): void {
    const rights = new FrameRights(frame);
    this.#frames.set(frame, rights);
    rights.told = Access.NONE;
    try {
      this.#port.setPageAccess(frame, Access.NONE);
    } catch (cause) {
      this.#onRefusal(cause);
    }
    this.#tellOrRetry(rights);
  }

  /** Has the next {@link flush} reach the processors though no right changed: it empties what they remember of translations as well. */
  requestFlush(): void {
    this.#unflushed = true;
    this.#pending.any = true;
  }

  /** Makes all changes since the last call effective. A refusal is reported and tried again at the next call. */
  flush(): void {
    if (this.#refused.length > 0) {
      const again = this.#refused;
      this.#refused = [];
      for (const rights of again) {
        this.#tellOrRetry(rights);
      }
    }
    if (this.#unflushed) {
      try {
        this.#port.flushPageAccess();
        this.#unflushed = false;
        this.#counters.rightsFlushes++;
      } catch (cause) {
        this.#pending.any = true;
        this.#onRefusal(cause);
      }
    }
  }

  /** Lifts every restriction. @returns whether the backend took all of it */
  restoreAll(): boolean {
    for (const rights of this.#frames.values()) {
      rights.reads = 0;
      rights.writes = 0;
      rights.executes = 0;
      this.#tellOrRetry(rights);
    }
    this.flush();
    return this.#refused.length === 0 && !this.#unflushed;
  }

  #tell(rights: FrameRights): void {
    const wanted = rights.wanted;
    if (wanted !== rights.told) {
      this.#port.setPageAccess(rights.frame, wanted);
      rights.told = wanted;
      this.requestFlush();
    }
    this.#forgetUnused(rights);
  }

  #tellOrRetry(rights: FrameRights): void {
    try {
      this.#tell(rights);
    } catch (cause) {
      if (!this.#refused.includes(rights)) {
        this.#refused.push(rights);
      }
      this.#pending.any = true;
      this.#onRefusal(cause);
    }
  }

  #forgetUnused(rights: FrameRights): void {
    if (rights.told === Access.ALL && rights.wanted === Access.ALL) {
      this.#frames.delete(rights.frame);
    }
  }
}

function count(rights: FrameRights, access: Access, by: 1 | -1): void {
  if (access === Access.READ) {
    rights.reads += by;
  } else if (access === Access.WRITE) {
    rights.writes += by;
  } else {
    rights.executes += by;
  }
}
