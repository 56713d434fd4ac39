import type { Cr3, Gva } from '@introd/abi';
import type { RelocationFailure } from '@introd/x86';
import { whilePaused } from '../guest-pause.js';
import type { CodeImage } from '../guest-system/code-images.js';
import type { Cloak } from '../memory-cloak/cloak.js';
import type { MemoryCloaks } from '../memory-cloak/memory-cloaks.js';
import type { SlackAllocation, SlackAllocator } from '../slack/slack-allocator.js';
import { type DetourDescriptor, type DetourHandler, includesBuild } from './descriptor.js';
import { Detour } from './detour.js';
import {
  BRANCH_SIZE,
  branch,
  branchTarget,
  buildHandler,
  checkDescriptor,
  FUNCTION_BYTES,
  handlerSize,
  JMP,
  relocationOffset,
} from './detour-code.js';
import { type FoundFunction, findFunction } from './function-search.js';
import { HandlerCalls, type HandlerCallsContext } from './handler-calls.js';
import type { PatchedCode } from './thread-safety.js';

/** Why a detour was not set. Nothing of it is in the guest. */
export type DetourFailure =
  /** There is one of that name. */
  | { readonly reason: 'exists' }
  | { readonly reason: 'unknown-address-space' | 'no-image' | 'no-function' | 'no-handler' | 'not-readable' }
  /** The function begins with a JMP: somebody else has detoured it. */
  | { readonly reason: 'already-detoured'; readonly function: Gva; readonly target: string }
  /** Its first instructions cannot be moved. */
  | { readonly reason: 'relocation'; readonly function: Gva; readonly detail: RelocationFailure }
  /** Code and moved instructions are more than 512 bytes. */
  | { readonly reason: 'too-long' }
  | { readonly reason: 'slack'; readonly detail: Exclude<SlackAllocation, { readonly status: 'ok' }> }
  /** The descriptor's own preparation said so. */
  | { readonly reason: 'preparation' }
  /** The backend refused, or a callback threw. Only of {@link Detours.setAll}. */
  | { readonly reason: 'error'; readonly cause: unknown };

/** Outcome of {@link Detours.set}. */
export type DetourResult =
  | { readonly status: 'set'; readonly detour: Detour }
  /** Not for this build, or its preparation says that it is not wanted. */
  | { readonly status: 'skipped' }
  | ({ readonly status: 'failed' } & DetourFailure);

/** Outcome of {@link Detours.setAll}. */
export interface DetoursResult {
  readonly set: readonly Detour[];
  readonly failed: readonly { readonly descriptor: DetourDescriptor; readonly failure: DetourFailure }[];
  /** Whether one failed that the guest cannot be protected without. */
  readonly critical: boolean;
}

/** What detours need of the engine. */
export interface DetoursContext extends HandlerCallsContext {
  readonly cloaks: MemoryCloaks;
  readonly slack: SlackAllocator;
  systemCr3(): Cr3 | undefined;
}

/** A function that a branch can be put into. */
interface Target {
  readonly image: CodeImage;
  readonly cr3: Cr3;
  readonly found: FoundFunction;
  readonly handler: DetourHandler;
  readonly bytes: Uint8Array;
  readonly size: number;
}

/** Detours as code that threads may stand in: handlers go away, replaced instructions have moved. @internal */
export function detouredCode(detours: Detours): PatchedCode {
  return {
    name: 'detours',
    contains: (va) => detours.handlerAt(va) !== undefined,
    relocate: (va) => detours.relocate(va),
  };
}

/**
 * Functions of the guest whose calls go through code of ours first (core-hooks.md section 15). A branch over the first instructions of the
 * function leads to a handler in slack space, which calls the engine by INT3 or VMCALL, executes the instructions that the branch replaced, and
 * jumps back. The guest sees neither: both are cloaked.
 */
export class Detours {
  readonly #context: DetoursContext;
  readonly #detours = new Map<string, Detour>();
  readonly #calls: HandlerCalls;
  #options: bigint | undefined;

  /** @internal */
  constructor(context: DetoursContext) {
    this.#context = context;
    this.#calls = new HandlerCalls(context);
  }

  /**
   * Sets a detour, while every VCPU stands still. Threads that stand inside the replaced instructions have to be moved afterwards
   * ({@link ThreadSafety}).
   * @throws CoreHooksError ERR_CORE_HOOKS_DETOUR for a descriptor that contradicts itself; what the backend and the preparation throw.
   *   Nothing is left in the guest then.
   */
  set(descriptor: DetourDescriptor): DetourResult {
    this.#context.calls.requireOpen();
    checkDescriptor(descriptor);
    const { build } = this.#context.codeImages();
    if (!includesBuild(descriptor.builds, build)) {
      return { status: 'skipped' };
    }
    return whilePaused(this.#context, () => {
      const target = this.#find(descriptor, build);
      return 'status' in target ? target : this.#place(descriptor, target);
    });
  }

  /** Sets every one of a list, in its order; a failure does not end it. Then {@link applyOptions} holds for all of them. */
  setAll(descriptors: readonly DetourDescriptor[]): DetoursResult {
    this.#context.calls.requireOpen();
    const set: Detour[] = [];
    const failed: { descriptor: DetourDescriptor; failure: DetourFailure }[] = [];
    for (const descriptor of descriptors) {
      try {
        const result = this.set(descriptor);
        if (result.status === 'set') {
          set.push(result.detour);
        } else if (result.status === 'failed') {
          failed.push({ descriptor, failure: result });
        }
      } catch (cause) {
        failed.push({ descriptor, failure: { reason: 'error', cause } });
      }
    }
    return { set, failed, critical: failed.some(({ descriptor }) => descriptor.critical ?? true) };
  }

  /**
   * Switches the hypercalls of all detours by options: on while one of `enable` is on and none of `disable`. Holds for those set later too.
   * @throws what `pause` throws; nothing is switched then
   */
  applyOptions(options: bigint): void {
    whilePaused(this.#context, () => {
      this.#options = options;
      for (const detour of this.#detours.values()) {
        this.#applyOptionsTo(detour);
      }
    });
  }

  /** The detours that are set. */
  get all(): readonly Detour[] {
    return [...this.#detours.values()];
  }

  /** The detour of a name. */
  find(name: string): Detour | undefined {
    return this.#detours.get(name);
  }

  /** The detour whose handler an address is in. */
  handlerAt(va: Gva): Detour | undefined {
    return this.all.find((detour) => detour.containsInHandler(va));
  }

  /** The detour that replaced the instruction at an address. */
  prologueAt(va: Gva): Detour | undefined {
    return this.all.find((detour) => detour.containsInPrologue(va));
  }

  /** Where an instruction went that a branch replaced; undefined for others, and for the start of a function. */
  relocate(va: Gva): Gva | undefined {
    return this.prologueAt(va)?.relocate(va);
  }

  /**
   * Gives every function its bytes back and switches every hypercall off. The handlers stay until {@link removeAll}.
   * @throws what `pause` throws
   */
  disableAll(): void {
    whilePaused(this.#context, () => {
      for (const detour of this.all.toReversed()) {
        detour.disable();
      }
    });
  }

  /**
   * Takes every detour back, in reverse order, with its handler; no thread may be inside one.
   * @throws what `pause` throws
   */
  removeAll(): void {
    whilePaused(this.#context, () => {
      for (const detour of this.all.toReversed()) {
        detour.remove();
      }
    });
  }

  /** @internal Leaves every handler that is still there. */
  leaveHandlers(): void {
    for (const detour of this.#detours.values()) {
      detour.leave();
    }
  }

  #find(descriptor: DetourDescriptor, build: number | undefined): Target | DetourResult {
    const failed = (failure: DetourFailure): DetourResult => ({ status: 'failed', ...failure });
    if (this.#detours.has(descriptor.name)) {
      return failed({ reason: 'exists' });
    }
    const images = this.#context.codeImages();
    const cr3 = this.#context.systemCr3();
    if (cr3 === undefined) {
      return failed({ reason: 'unknown-address-space' });
    }
    const image = descriptor.module === undefined ? images.kernel : images.find(descriptor.module);
    if (image === undefined) {
      return failed({ reason: 'no-image' });
    }
    const found = findFunction(image, descriptor.function);
    if (found === undefined) {
      return failed({ reason: 'no-function' });
    }
    const handler = descriptor.handlers.find((one) => includesBuild(one.builds, build));
    if (handler === undefined) {
      return failed({ reason: 'no-handler' });
    }
    const bytes = this.#read(image, cr3, found.va);
    if (bytes === undefined) {
      return failed({ reason: 'not-readable' });
    }
    if (bytes[0] === JMP) {
      return failed({ reason: 'already-detoured', function: found.va, target: branchTarget(bytes, found.va) });
    }
    const size = handlerSize(handler, bytes, found.va, images.bitness);
    if (size === 'too-long') {
      return failed({ reason: 'too-long' });
    }
    if (typeof size === 'string') {
      return failed({ reason: 'relocation', function: found.va, detail: size });
    }
    return { image, cr3, found, handler, bytes, size };
  }

  /** The first bytes of a function: those in memory, which count, else those of the image. */
  #read(image: CodeImage, cr3: Cr3, va: Gva): Uint8Array | undefined {
    for (let count = FUNCTION_BYTES; count >= BRANCH_SIZE; count--) {
      const bytes = new Uint8Array(count);
      if (this.#context.memory.readVirtual(cr3, va, bytes).status === 'ok' || image.read(va, bytes)) {
        return bytes;
      }
    }
    return undefined;
  }

  /** Handler first, then the branch; whatever fails, everything before it is undone in reverse order. */
  #place(descriptor: DetourDescriptor, { image, cr3, found, handler, bytes, size }: Target): DetourResult {
    const { slack, cloaks } = this.#context;
    const { bitness } = this.#context.codeImages();
    const code = Uint8Array.from(handler.code);
    const prepared = descriptor.prepare?.({ function: found.va, handler, code }) ?? 'set';
    if (prepared !== 'set') {
      return prepared === 'skip' ? { status: 'skipped' } : { status: 'failed', reason: 'preparation' };
    }
    const allocation = slack.allocate({ image, size, paged: false });
    if (allocation.status !== 'ok') {
      return { status: 'failed', reason: 'slack', detail: allocation };
    }
    const { va } = allocation;
    let handlerCloak: Cloak | undefined;
    let functionCloak: Cloak | undefined;
    try {
      const built = buildHandler(handler, code, bytes, found.va, va, bitness);
      const jump = typeof built === 'string' ? undefined : branch(found.va, va, built.prologueSize, bitness);
      if (typeof built === 'string' || jump === undefined) {
        slack.free(va);
        const detail = typeof built === 'string' ? built : 'out-of-range';
        return { status: 'failed', reason: 'relocation', function: found.va, detail };
      }
      const { onWrite } = descriptor;
      const shared = { cr3, apply: true, onWrite, name: descriptor.name } as const;
      handlerCloak = cloaks.hide({ ...shared, va, length: size, original: undefined, patched: built.bytes });
      const length = built.prologueSize;
      const original = bytes.subarray(0, length);
      functionCloak = cloaks.hide({ ...shared, va: found.va, length, original, patched: jump });
      const detour = new Detour({
        descriptor,
        handler,
        argumentLocations: found.arguments ?? descriptor.arguments,
        function: found.va,
        prologueSize: length,
        handlerAddress: va,
        handlerSize: size,
        relocatedAt: relocationOffset(handler),
        handlerCloak,
        functionCloak,
        whilePaused: (action) => whilePaused(this.#context, action),
        release: (one) => this.#release(one),
      });
      this.#detours.set(detour.name, detour);
      this.#calls.add(detour);
      this.#applyOptionsTo(detour);
      return { status: 'set', detour };
    } catch (cause) {
      functionCloak?.remove({ restore: true });
      handlerCloak?.remove({ restore: true });
      slack.free(va);
      const detour = this.#detours.get(descriptor.name);
      if (detour !== undefined) {
        this.#detours.delete(descriptor.name);
        this.#calls.drop(detour);
      }
      throw cause;
    }
  }

  #release(detour: Detour): void {
    this.#context.slack.free(detour.handler);
    this.#detours.delete(detour.name);
    this.#calls.drop(detour);
  }

  #applyOptionsTo(detour: Detour): void {
    const { enable, disable = 0n } = detour.descriptor;
    if (this.#options !== undefined && enable !== undefined && detour.hasBranch) {
      detour.setEnabled((enable & this.#options) !== 0n && (disable & this.#options) === 0n);
    }
  }
}
