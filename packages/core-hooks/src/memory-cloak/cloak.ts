import { type Cr3, type Gva, hex64, PAGE_SIZE, Verdict } from '@introd/abi';
import { requireCallback } from '../callback.js';
import type { AccessEvent } from '../dispatch/access-event.js';
import { CoreHooksError } from '../error.js';
import { type PauseContext, whilePaused } from '../guest-pause.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { requireAddressSpace, requireLinearAddress } from '../option-checks.js';
import type { PageHooks } from '../page-hooks/page-hooks.js';
import type { GuestMemory } from '../translation/guest-memory.js';
import type { Translator } from '../translation/translator.js';
import type { TranslationHooks } from '../translation-hooks/translation-hooks.js';
import { type CloakedBytes, CloakedPage } from './cloaked-page.js';

/** What to hide. */
export interface CloakOptions extends NamedHookOptions {
  /** Address space; of kernel addresses that of the guest's system. */
  readonly cr3: Cr3;
  /** First byte. It need not be mapped; what is not is patched when it is mapped first. */
  readonly va: Gva;
  /** Number of bytes, 1 or more, on at most two pages. */
  readonly length: number;
  /** What the guest shall see; `length` bytes, or undefined for zeros. */
  readonly original: Uint8Array | undefined;
  /** What shall be there, `length` bytes, or undefined for zeros. */
  readonly patched: Uint8Array | undefined;
  /** Whether the patched bytes are written now; false when they are there already. */
  readonly apply: boolean;
  /** Whether instructions inside the region see what is there. Default false. */
  readonly allowInternal?: boolean | undefined;
  /** Told of each write to the region, which is denied whatever it says. */
  readonly onWrite?: ((event: AccessEvent) => void) | undefined;
}

/** What cloaks need of the engine. */
export interface CloakContext extends PauseContext {
  readonly calls: HookCalls;
  readonly translator: Translator;
  readonly memory: Pick<GuestMemory, 'readVirtual' | 'writePhysical'>;
  readonly page: PageHooks;
  readonly translation: TranslationHooks;
  isRam(frame: number): boolean;
}

/** Most pages of a region. */
const MAX_PAGES = 2;

/** Bytes of the guest that the engine has patched and that the guest does not see. */
export class Cloak {
  readonly cr3: Cr3;
  readonly va: Gva;
  readonly length: number;
  readonly #context: CloakContext;
  readonly #options: CloakOptions;
  readonly #onUserWrite: CloakOptions['onWrite'];
  readonly #original: Uint8Array;
  readonly #patched: Uint8Array;
  readonly #pages: CloakedPage[] = [];
  readonly #onRemove: (cloak: Cloak) => void;
  #removed = false;

  /** @internal @throws CoreHooksError ERR_CORE_HOOKS_RANGE, ERR_CORE_HOOKS_OPTIONS, ERR_CORE_HOOKS_CALLBACK */
  constructor(context: CloakContext, options: CloakOptions, onRemove: (cloak: Cloak) => void) {
    const { cr3, va, length, original, patched, onWrite } = options;
    requireAddressSpace(cr3);
    requireLinearAddress(va, context.translator.guestPaging);
    if (onWrite !== undefined) {
      requireCallback(onWrite);
    }
    this.#context = context;
    this.#options = options;
    this.#onUserWrite = context.calls.of(() => options.name ?? `cloak ${hex64(va)}`, onWrite);
    this.#onRemove = onRemove;
    this.cr3 = cr3;
    this.va = va;
    this.length = length;
    const offset = Number(va & BigInt(PAGE_SIZE - 1));
    if (!Number.isInteger(length) || length < 1 || offset + length > MAX_PAGES * PAGE_SIZE) {
      throw rangeError(va, `${length} bytes at ${hex64(va)} are not on one or two pages`, 'Hide one region for each.');
    }
    if ((original?.length ?? length) !== length || (patched?.length ?? length) !== length) {
      throw rangeError(va, `the bytes to be hidden at ${hex64(va)} are not as many as the region has`);
    }
    this.#original = Uint8Array.from(original ?? new Uint8Array(length));
    this.#patched = Uint8Array.from(patched ?? new Uint8Array(length));
    const bytes: CloakedBytes = {
      original: this.#original,
      patched: this.#patched,
      onRead: (event, page) => this.#onRead(event, page),
      onWrite: (event) => this.#onWrite(event),
    };
    const first = Math.min(PAGE_SIZE - offset, length);
    this.#pages.push(new CloakedPage(context, bytes, va, 0, first));
    if (first < length) {
      this.#pages.push(new CloakedPage(context, bytes, (va + BigInt(first)) as Gva, first, length - first));
    }
  }

  /** @internal Hooks every page, then patches. @throws what the hooks throw, after everything was undone */
  put(): void {
    whilePaused(this.#context, () => {
      try {
        for (const page of this.#pages) {
          page.follow(this.cr3);
        }
        // Nobody may see a patched byte.
        this.#context.page.flush();
        for (const page of this.#options.apply ? this.#pages : []) {
          page.store(this.#patched);
        }
      } catch (cause) {
        if (this.#options.apply) {
          this.#writeAll(this.#original);
        }
        this.#removed = true;
        this.#release();
        throw cause;
      }
    });
  }

  /** Whether it was removed. */
  get removed(): boolean {
    return this.#removed;
  }

  /** A copy of what the guest sees. */
  get original(): Uint8Array {
    return this.#original.slice();
  }

  /** A copy of what is there. */
  get patched(): Uint8Array {
    return this.#patched.slice();
  }

  /** Whether an address is in the region. */
  contains(va: bigint): boolean {
    return va >= this.va && va < this.va + BigInt(this.length);
  }

  /**
   * Changes what the guest sees.
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE when the bytes are not inside the region
   */
  modifyOriginal(offset: number, bytes: Uint8Array): void {
    this.#checkRange(offset, bytes.length);
    this.#original.set(bytes, offset);
  }

  /**
   * Changes what is there, while every VCPU stands still.
   * @param bytes the new ones; a number for so many zeros
   * @returns whether every mapped page could be written; one that could not was reported
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE when the bytes are not inside the region; what `pause` throws
   */
  modifyPatched(offset: number, bytes: Uint8Array | number): boolean {
    const source = typeof bytes === 'number' ? new Uint8Array(Math.max(0, bytes)) : bytes;
    this.#checkRange(offset, source.length);
    return whilePaused(this.#context, () => {
      this.#patched.set(source, offset);
      return this.#removed || this.#writeAll(this.#patched);
    });
  }

  /**
   * Ends it. May be called from inside any callback, and twice.
   * @param restore whether the guest gets its bytes back; the patched ones stay there otherwise, for all to see
   * @returns whether every mapped page could be written; one that could not was reported
   * @throws what `pause` throws
   */
  remove({ restore }: { readonly restore: boolean }): boolean {
    if (this.#removed) {
      return true;
    }
    const written = restore ? whilePaused(this.#context, () => this.#writeAll(this.#original)) : true;
    this.#removed = true;
    this.#release();
    return written;
  }

  /** @internal Puts what the guest sees into bytes that were read at `va`. */
  overlay(va: bigint, bytes: Uint8Array): void {
    const shift = Number(this.va - va);
    const from = Math.max(0, shift);
    const to = Math.min(bytes.length, shift + this.length);
    if (from < to) {
      bytes.set(this.#original.subarray(from - shift, to - shift), from);
    }
  }

  /** @internal Tries again to hook frames that the backend refused. */
  settle(): void {
    for (const page of this.#pages) {
      if (page.isRefused) {
        whilePaused(this.#context, () => page.rearm());
      }
    }
  }

  #release(): void {
    for (const page of this.#pages) {
      page.release();
    }
    this.#onRemove(this);
  }

  #writeAll(bytes: Uint8Array): boolean {
    let written = true;
    for (const page of this.#pages) {
      written = page.write(bytes) && written;
    }
    return written;
  }

  #onRead(event: AccessEvent, page: CloakedPage): void {
    if (this.#options.allowInternal === true && this.contains(event.rip)) {
      return;
    }
    event.overlay(page.gpa!, this.#original.subarray(page.offset, page.offset + page.length));
  }

  #onWrite(event: AccessEvent): void {
    try {
      this.#onUserWrite?.(event);
    } catch (cause) {
      // The fallback is not for this write.
      this.#context.report('callback', 'the callback about a write to hidden bytes failed', cause);
    }
    event.verdict = Verdict.NOT_ALLOWED;
    event.forceVerdict = true;
    event.removeHook = false;
  }

  #checkRange(offset: number, length: number): void {
    if (!Number.isInteger(offset) || offset < 0 || length < 1 || offset + length > this.length) {
      throw rangeError(
        this.va,
        `${length} bytes at offset ${offset} are not inside the region of ${this.length} bytes`,
      );
    }
  }
}

function rangeError(va: Gva, message: string, hint?: string): CoreHooksError {
  return new CoreHooksError('ERR_CORE_HOOKS_RANGE', message, {
    address: hex64(va),
    ...(hint === undefined ? {} : { hint }),
  });
}
