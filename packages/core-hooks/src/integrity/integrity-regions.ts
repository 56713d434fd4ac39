import { type Cr3, type Gva, hex64, U64_MASK } from '@introd/abi';
import { requireCallback } from '../callback.js';
import type { EngineProblemKind } from '../engine-problem.js';
import { CoreHooksError } from '../error.js';
import type { HookCalls, NamedHookOptions } from '../hook-calls.js';
import { requireAddressSpace } from '../option-checks.js';
import type { GuestMemory, ReadResult } from '../translation/guest-memory.js';
import type { WriteResult } from '../translation/virtual-write.js';
import { type ChangedWord, changedWords, contentHash } from './region-contents.js';

/** Longest region; what has to be read at each tick is the guest's time. */
const MAX_LENGTH = 16 * 1024 * 1024;

/** What to watch. */
export interface IntegrityOptions extends NamedHookOptions {
  /** First byte, a kernel address. */
  readonly va: Gva;
  /** Number of bytes, 1 to 16 MiB. */
  readonly length: number;
  /** Address space; default that of the guest's system. */
  readonly cr3?: Cr3 | undefined;
  /** Whether the contents are kept, so that changes can be told word by word and undone. Default true. */
  readonly keepOriginal?: boolean | undefined;
  /** Called at each check that finds other contents, until they are restored or recalculated. */
  readonly callback: (event: IntegrityEvent) => void;
}

/** A region has other contents than it should. */
export interface IntegrityEvent {
  readonly region: IntegrityRegion;
  /** The contents that were found. To be read only. */
  readonly contents: Uint8Array;
  /** How many checks in all found other contents in this region. */
  readonly violations: number;
  /** Every 8-byte word (the last one may be shorter) that differs from the original; none when the original was not kept. */
  changedWords(): readonly ChangedWord[];
}

/** Outcome of {@link IntegrityRegions.add}. Unless it is `ok`, nothing is watched. */
export type IntegrityAddition =
  | { readonly status: 'ok'; readonly region: IntegrityRegion }
  | { readonly status: Exclude<ReadResult['status'], 'ok'> | 'unknown-address-space'; readonly at: Gva };

/** Outcome of {@link IntegrityRegion.restore}: like that of a write; `not-kept` when the original contents were not kept. */
export type RestoreResult = WriteResult | { readonly status: 'not-kept' };

/** What integrity regions need of the engine. */
export interface IntegrityContext {
  readonly calls: HookCalls;
  readonly memory: Pick<GuestMemory, 'readVirtual' | 'writeVirtual'>;
  systemCr3(): Cr3 | undefined;
  isKernelAddress(va: Gva): boolean;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/** A range of kernel memory whose contents are compared at each tick. */
export class IntegrityRegion {
  readonly va: Gva;
  readonly length: number;
  readonly cr3: Cr3;
  /** @internal */
  readonly callback: (event: IntegrityEvent) => void;
  readonly #memory: IntegrityContext['memory'];
  readonly #keep: boolean;
  #hash: number;
  #original: Uint8Array | undefined;
  #removed = false;
  #violations = 0;

  /** @internal */
  constructor({ memory, calls }: IntegrityContext, cr3: Cr3, options: IntegrityOptions, contents: Uint8Array) {
    this.va = options.va;
    this.length = options.length;
    this.cr3 = cr3;
    this.callback = calls.of(() => options.name ?? `integrity ${hex64(this.va)}`, options.callback);
    this.#memory = memory;
    this.#keep = options.keepOriginal ?? true;
    this.#hash = contentHash(contents);
    this.#original = this.#keep ? contents : undefined;
  }

  /** CRC-32C of the contents that it should have. */
  get hash(): number {
    return this.#hash;
  }

  /** The contents that it should have; undefined when they were not kept. To be read only. */
  get original(): Uint8Array | undefined {
    return this.#original;
  }

  /** Checks that found other contents. */
  get violations(): number {
    return this.#violations;
  }

  get removed(): boolean {
    return this.#removed;
  }

  /** Ends the watch. May be called from inside the callback, and twice. */
  remove(): void {
    this.#removed = true;
  }

  /**
   * What is there now becomes what should be.
   * @returns why not otherwise; nothing has changed then
   * @throws CoreHooksError ERR_CORE_HOOKS_REMOVED
   */
  recalculate(): ReadResult {
    this.#requireWatched();
    const contents = new Uint8Array(this.length);
    const result = this.#memory.readVirtual(this.cr3, this.va, contents);
    if (result.status === 'ok') {
      this.#hash = contentHash(contents);
      this.#original = this.#keep ? contents : undefined;
    }
    return result;
  }

  /**
   * Writes back the original contents, all or nothing: of the whole region, or of a part.
   * @param offset first byte of the part
   * @param length bytes of the part
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE when the part is not inside the region; ERR_CORE_HOOKS_REMOVED
   */
  restore(offset = 0, length = this.length - offset): RestoreResult {
    this.#requireWatched();
    if (
      !Number.isInteger(offset) ||
      !Number.isInteger(length) ||
      offset < 0 ||
      length < 1 ||
      offset + length > this.length
    ) {
      throw new CoreHooksError(
        'ERR_CORE_HOOKS_RANGE',
        `${length} bytes at offset ${offset} are not inside the region of ${this.length} bytes`,
        { address: hex64(this.va), hint: 'Restore a part of the region, at least one byte.' },
      );
    }
    if (this.#original === undefined) {
      return { status: 'not-kept' };
    }
    const bytes = this.#original.subarray(offset, offset + length);
    return this.#memory.writeVirtual(this.cr3, (this.va + BigInt(offset)) as Gva, bytes);
  }

  #requireWatched(): void {
    if (this.#removed) {
      throw new CoreHooksError('ERR_CORE_HOOKS_REMOVED', `the integrity region at ${hex64(this.va)} was removed`, {
        address: hex64(this.va),
        hint: 'Restore or recalculate before remove(), or add the region again.',
      });
    }
  }

  /** @internal Notes that a check found other contents. */
  noteViolation(): number {
    this.#violations++;
    return this.#violations;
  }
}

/**
 * Kernel memory that is compared with what it should hold once in each second of guest time (core-hooks.md section 17). A write that
 * is undone in between is not seen; what must not change for a moment gets a page hook.
 */
export class IntegrityRegions {
  readonly #context: IntegrityContext;
  readonly #regions = new Set<IntegrityRegion>();
  #checking = false;
  /** Whether ticks check anything. {@link check} does whatever this says. */
  active = true;

  /** @internal */
  constructor(context: IntegrityContext) {
    this.#context = context;
  }

  /**
   * Watches a region from now on.
   * @throws CoreHooksError ERR_CORE_HOOKS_RANGE when the range is empty, too long, or not of the kernel; ERR_CORE_HOOKS_CALLBACK;
   *   ERR_CORE_HOOKS_OPTIONS; ERR_CORE_HOOKS_CLOSED
   */
  add(options: IntegrityOptions): IntegrityAddition {
    const { va, length } = options;
    this.#context.calls.requireOpen();
    requireCallback(options.callback);
    const last = va + BigInt(Number.isInteger(length) ? length : 0) - 1n;
    if (!Number.isInteger(length) || length < 1 || length > MAX_LENGTH || last > U64_MASK) {
      throw new CoreHooksError('ERR_CORE_HOOKS_RANGE', `cannot watch the contents of ${length} bytes at ${hex64(va)}`, {
        address: hex64(va),
        hint: 'A region has 1 byte to 16 MiB.',
      });
    }
    if (!this.#context.isKernelAddress(va) || !this.#context.isKernelAddress(last as Gva)) {
      throw new CoreHooksError('ERR_CORE_HOOKS_RANGE', `${hex64(va)} is not an address of the kernel`, {
        address: hex64(va),
        hint: 'Only kernel memory is there in every address space.',
      });
    }
    const cr3 = options.cr3 ?? this.#context.systemCr3();
    if (cr3 === undefined) {
      return { status: 'unknown-address-space', at: va };
    }
    requireAddressSpace(cr3);
    const contents = new Uint8Array(length);
    const result = this.#context.memory.readVirtual(cr3, va, contents);
    if (result.status !== 'ok') {
      return { status: result.status, at: result.at };
    }
    const region = new IntegrityRegion(this.#context, cr3, options, contents);
    this.#regions.add(region);
    return { status: 'ok', region };
  }

  /** Number of regions that are watched. */
  get count(): number {
    let count = 0;
    for (const region of this.#regions) {
      count += region.removed ? 0 : 1;
    }
    return count;
  }

  /** Compares every region now, in the order in which they were added. One with an absent page is left for the next time. */
  check(): void {
    if (this.#checking) {
      // From inside a callback; the check that called it goes on.
      return;
    }
    this.#checking = true;
    try {
      // A copy, because those that a callback adds have just been read.
      const regions = [...this.#regions];
      for (const region of regions) {
        if (!region.removed) {
          try {
            this.#compare(region);
          } catch (cause) {
            this.#context.report('backend', `the integrity region at ${hex64(region.va)} could not be read`, cause);
          }
        }
      }
    } finally {
      this.#checking = false;
      for (const region of this.#regions) {
        if (region.removed) {
          this.#regions.delete(region);
        }
      }
    }
  }

  /** @internal */
  tick(): void {
    if (this.active && this.#regions.size > 0) {
      this.check();
    }
  }

  /** @internal */
  clear(): void {
    for (const region of this.#regions) {
      region.remove();
    }
    this.#regions.clear();
  }

  #compare(region: IntegrityRegion): void {
    const contents = new Uint8Array(region.length);
    const result = this.#context.memory.readVirtual(region.cr3, region.va, contents);
    if (result.status !== 'ok' || contentHash(contents) === region.hash) {
      return;
    }
    const { original } = region;
    const event: IntegrityEvent = {
      region,
      contents,
      violations: region.noteViolation(),
      changedWords: () => (original === undefined ? [] : changedWords(original, contents)),
    };
    try {
      region.callback(event);
    } catch (cause) {
      this.#context.report('callback', `the callback of the integrity region at ${hex64(region.va)} threw`, cause);
    }
  }
}
