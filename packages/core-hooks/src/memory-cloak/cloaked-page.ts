import { Access, type Gpa, type Gva, hex64, PAGE_SIZE } from '@introd/abi';
import type { AccessEvent } from '../dispatch/access-event.js';
import { CoreHooksError } from '../error.js';
import type { PageHook } from '../page-hooks/page-hooks.js';
import type { TranslationEvent } from '../translation-hooks/translation-event.js';
import type { TranslationHook } from '../translation-hooks/translation-hook.js';
import type { CloakContext } from './cloak.js';

/** What failed once may have been a passing fault. */
const WRITE_ATTEMPTS = 2;

/** What a {@link CloakedPage} asks about the region that it is part of. */
export interface CloakedBytes {
  readonly original: Uint8Array;
  readonly patched: Uint8Array;
  onRead(event: AccessEvent, page: CloakedPage): void;
  onWrite(event: AccessEvent): void;
}

/** The hooks on the frame that holds a page at the moment. */
interface ArmedFrame {
  /** Where the first hidden byte is. */
  readonly gpa: Gpa;
  readonly write: PageHook;
  readonly read: PageHook;
}

/**
 * The part of a cloaked region that lies on one page. While the page is mapped its frame holds the patched bytes and is hooked; a frame
 * that the page leaves gets the originals back before the VCPU that unmapped it goes on.
 */
export class CloakedPage {
  /** First hidden byte. */
  readonly va: Gva;
  /** Where it is in the region. */
  readonly offset: number;
  readonly length: number;
  readonly #context: CloakContext;
  readonly #bytes: CloakedBytes;
  #translation: TranslationHook | undefined;
  #armed: ArmedFrame | undefined;

  constructor(context: CloakContext, bytes: CloakedBytes, va: Gva, offset: number, length: number) {
    this.#context = context;
    this.#bytes = bytes;
    this.va = va;
    this.offset = offset;
    this.length = length;
  }

  /** Where the first hidden byte is; undefined while the page is not mapped. */
  get gpa(): Gpa | undefined {
    return this.#armed?.gpa;
  }

  /** Whether the page is mapped and its frame could not be hooked. */
  get isRefused(): boolean {
    return this.#armed === undefined && this.#mapped !== undefined;
  }

  /** Where the first hidden byte is mapped, in RAM. */
  get #mapped(): Gpa | undefined {
    const gpa = this.#translation?.gpa;
    return gpa === undefined || !this.#context.isRam(gpa / PAGE_SIZE)
      ? undefined
      : ((gpa + Number(this.va & 0xfffn)) as Gpa);
  }

  /**
   * Follows the page from now on, and hooks its frame.
   * @throws what the hooks throw; what was set is removed by {@link release}
   */
  follow(cr3: TranslationHook['cr3']): void {
    this.#translation = this.#context.translation.guard({
      cr3,
      va: this.va,
      // Before hooks that look at what is on the page.
      priority: 'high',
      committed: (event) => this.#moved(event),
    });
    this.#arm();
  }

  #arm(): void {
    const gpa = this.#mapped;
    if (gpa === undefined) {
      return;
    }
    const { page } = this.#context;
    const { length } = this;
    const priority = 'high';
    const write = page.guard({
      gpa,
      length,
      access: Access.WRITE,
      priority,
      callback: (event) => this.#bytes.onWrite(event),
    });
    try {
      const read = page.guard({
        gpa,
        length,
        access: Access.READ,
        priority,
        hides: true,
        callback: (event) => this.#bytes.onRead(event, this),
      });
      this.#armed = { gpa, write, read };
    } catch (cause) {
      write.remove();
      throw cause;
    }
  }

  #disarm(): void {
    this.#armed?.read.remove();
    this.#armed?.write.remove();
    this.#armed = undefined;
  }

  /** The page is mapped elsewhere; every VCPU stands still. */
  #moved({ oldGpa, newGpa }: TranslationEvent): void {
    if (oldGpa === newGpa) {
      return;
    }
    if (this.#armed !== undefined) {
      this.write(this.#bytes.original);
      this.#disarm();
    }
    this.rearm();
  }

  /** Hooks the frame that is mapped now, and only then puts the patched bytes there. */
  rearm(): void {
    try {
      this.#arm();
    } catch (cause) {
      this.#context.report('rights', 'the frame of a cloaked page could not be hooked', cause);
      return;
    }
    if (this.#armed !== undefined) {
      this.#context.page.flush();
      this.write(this.#bytes.patched);
    }
  }

  /**
   * Writes this page's part of the region's bytes, if the page is mapped.
   * @throws CoreHooksError ERR_CORE_HOOKS_NO_MEMORY when the frame is no RAM any more; what it throws
   */
  store(region: Uint8Array): void {
    if (this.#armed !== undefined) {
      const bytes = region.subarray(this.offset, this.offset + this.length);
      if (!this.#context.memory.writePhysical(this.#armed.gpa, bytes)) {
        throw new CoreHooksError('ERR_CORE_HOOKS_NO_MEMORY', 'the frame of a hidden page is no RAM any more', {
          address: hex64(this.#armed.gpa),
        });
      }
    }
  }

  /**
   * The same where nothing can be taken back: what the backend refuses is reported, and tried once more.
   * @returns false when it refused twice
   */
  write(region: Uint8Array): boolean {
    for (let attempt = 1; attempt <= WRITE_ATTEMPTS; attempt++) {
      try {
        this.store(region);
        return true;
      } catch (cause) {
        this.#context.report('backend', 'the backend refused to write to a cloaked page', cause);
      }
    }
    return false;
  }

  /** Removes the hooks: read, write, translation. */
  release(): void {
    this.#disarm();
    this.#translation?.remove();
    this.#translation = undefined;
  }
}
