import { Access, type Gpa, PAGE_SIZE } from '@introd/abi';
import type { AccessEvent } from '../dispatch/access-event.js';
import { type Grants, NO_FRAME, NOBODY } from '../dispatch/grants.js';
import { FrameTable } from '../page-hooks/frame-table.js';
import type { PageHook, PageHooks } from '../page-hooks/page-hooks.js';
import type { CachedInstruction } from './cached-instruction.js';

/** A frame that cached instructions came from, write-protected while there are any. */
export interface CodePage {
  readonly frame: number;
  readonly hook: PageHook;
  readonly instructions: Set<CachedInstruction>;
}

/** The write-protected frames that cached instructions came from. */
export class CodePages {
  readonly #hooks: PageHooks;
  readonly #grants: Grants;
  readonly #pages = new FrameTable<CodePage>();
  /** Code pages without instructions, from which a VCPU may yet execute. */
  readonly #idle = new Set<number>();
  readonly #onWrite: (event: AccessEvent) => void;

  /** @param written called when a frame is about to be written */
  constructor(hooks: PageHooks, grants: Grants, written: (frame: number) => void) {
    this.#hooks = hooks;
    this.#grants = grants;
    this.#onWrite = (event) => written(event.hook.page.frame);
  }

  get size(): number {
    return this.#pages.size;
  }

  get(frame: number): CodePage | undefined {
    return this.#pages.get(frame);
  }

  /** The frames, as they are now: what is done with them may release some. */
  frames(): readonly number[] {
    return Array.from(this.#pages.values(), (page) => page.frame);
  }

  /** Write-protects a frame, at once and for every VCPU, unless it is. */
  guard(frame: number): void {
    if (this.#pages.get(frame) !== undefined) {
      return;
    }
    for (const idle of this.#idle) {
      this.releaseUnused(idle);
    }
    const hook = this.#hooks.guard(
      { gpa: (frame * PAGE_SIZE) as Gpa, length: PAGE_SIZE, access: Access.WRITE, callback: this.#onWrite },
      true,
    );
    this.#pages.set(frame, { frame, hook, instructions: new Set() });
    this.#hooks.flush();
  }

  /** An instruction came from a frame. */
  join(frame: number, cached: CachedInstruction): void {
    this.#pages.get(frame)?.instructions.add(cached);
  }

  /** An instruction is dropped. */
  leave(frame: number, cached: CachedInstruction): void {
    this.#pages.get(frame)?.instructions.delete(cached);
    this.releaseUnused(frame);
  }

  /** Gives up a frame that no instruction came from; later, while a VCPU may yet execute what it was allowed to. */
  releaseUnused(frame: number): void {
    const page = frame === NO_FRAME ? undefined : this.#pages.get(frame);
    if (page === undefined || page.instructions.size > 0) {
      this.#idle.delete(frame);
    } else if (this.#grants.executesFrom(frame, NOBODY)) {
      this.#idle.add(frame);
    } else {
      page.hook.remove();
      this.#pages.delete(frame);
      this.#idle.delete(frame);
    }
  }
}
