import {
  ExitKind,
  Reply,
  type ShutdownReason,
  u32Index,
  VCPU_RECORD_VERSION,
  type VcpuRecord,
  Verdict,
} from '@introd/abi';
import { type FullPort, type Ledger, NO_EXIT } from '@introd/glue';
import { EngineCounters } from './counters.js';
import type { Detours } from './detours/detours.js';
import type { ThreadSafety } from './detours/thread-safety.js';
import { ExitOutcome } from './dispatch/exit-outcome.js';
import { type EngineHooks, EngineLayers } from './engine-layers.js';
import type { EngineProblem, EngineProblemKind } from './engine-problem.js';
import { CoreHooksError } from './error.js';
import { releaseGuest } from './guest-pause.js';
import type { AddressSpaces } from './guest-system/address-spaces.js';
import { type CodeImages, noCodeImages } from './guest-system/code-images.js';
import { noSafePoint, type SafePoint } from './guest-system/safe-point.js';
import { type ThreadStates, unknownThreads } from './guest-system/thread-states.js';
import type { InstructionScope } from './instruction-cache/instruction-cache.js';
import type { IntegrityRegions } from './integrity/integrity-regions.js';
import type { MemoryCloaks } from './memory-cloak/memory-cloaks.js';
import { requireOneOf } from './option-checks.js';
import type { SlackAllocator } from './slack/slack-allocator.js';
import type { GuestMemory } from './translation/guest-memory.js';
import { PAGING_MODES, Paging, type PagingMode, pagingOf, pagingOfRegisters } from './translation/paging-mode.js';
import type { Translator } from './translation/translator.js';

const EXIT_REGISTER = u32Index('exitRegister');
const REPLY_DATA_LENGTH = u32Index('replyDataLength');

/** Choices of an {@link Engine}. */
export interface EngineOptions {
  /**
   * The TOCTOU rule: an exit is decided only about an instruction whose code page was write-protected before it was read.
   * Default true. False only in tests that show what the rule is for.
   */
  readonly toctou?: boolean;
  /** The verdict when a callback throws or the engine itself fails. Default `allow`: the guest goes on. */
  readonly fallback?: 'allow' | 'block';
  /** Where the calls of hooks are booked, by hook and of page hooks by page: that of `accounting` of `@introd/glue`. Default: nowhere. */
  readonly ledger?: Ledger;
}

/** Something to be done before each reply. */
export interface ReplyStage {
  /** For problem reports. */
  readonly name: string;
  /** @param vcpu the record of the exit that is about to be replied to */
  run(vcpu: VcpuRecord): void;
}

/** What one {@link Engine.step} met. */
export type StepResult = 'exit' | 'idle' | 'shutdown';

/**
 * The engine of one guest: takes an exit, has it decided by the hooks that were set, and replies. It is synchronous and a pure
 * function of what crosses the port.
 *
 * Before each reply, in this order: removed hooks are committed, the stages of {@link beforeReply} run, and changed page rights
 * become effective in one batch.
 */
export class Engine {
  readonly port: FullPort;
  readonly memory: GuestMemory;
  readonly translator: Translator;
  readonly hooks: EngineHooks;
  readonly counters = new EngineCounters();
  /** What was done about the last exit. One object, filled anew at each exit. */
  readonly lastExit = new ExitOutcome();
  /** Kernel memory that is compared with what it should hold at each tick. */
  readonly integrity: IntegrityRegions;
  /** Functions of the guest whose calls go through handlers of ours. */
  readonly detours: Detours;
  /** Whether threads stand in code that is to be changed. */
  readonly threadSafety: ThreadSafety;
  /** Patched memory of the guest that the guest does not see. */
  readonly cloaks: MemoryCloaks;
  /** Executable memory of the guest that nothing uses. */
  readonly slack: SlackAllocator;
  /** The guest's kernel images; set by the layer that finds them. */
  codeImages: CodeImages = noCodeImages;
  /** Where the guest's threads stand; set by the layer that can tell. */
  threadStates: ThreadStates = unknownThreads;
  /** Where a page fault of no instruction may be injected; set by the layer that can tell, for a layer above. The engine itself never asks. */
  safePoint: SafePoint = noSafePoint;

  readonly #records: readonly VcpuRecord[];
  readonly #layers: EngineLayers;
  readonly #fallback: Verdict;
  readonly #stages: ReplyStage[] = [];
  readonly #problemListeners: ((problem: EngineProblem) => void)[] = [];
  #index = 0;
  #exitKind: ExitKind = ExitKind.NONE;
  #time = 0;
  #shutdownReason: ShutdownReason | undefined;
  /** Whether an exit is being handled. */
  #handling = false;
  /** Whether the last wait for an exit failed. */
  #waitFailed = false;

  /**
   * @param port the guest; the engine closes it
   * @throws CoreHooksError ERR_CORE_HOOKS_RECORD_VERSION, ERR_CORE_HOOKS_OPTIONS
   */
  constructor(port: FullPort, options: EngineOptions = {}) {
    requireOneOf('the fallback', options.fallback, ['allow', 'block']);
    requireOneOf('toctou', options.toctou, [true, false]);
    this.port = port;
    const records: VcpuRecord[] = [];
    for (let index = 0; index < port.vcpuCount; index++) {
      records.push(port.vcpu(index));
    }
    records.push(port.guestRecord);
    for (const record of records) {
      const version = record.get32('version');
      if (version !== VCPU_RECORD_VERSION) {
        throw new CoreHooksError(
          'ERR_CORE_HOOKS_RECORD_VERSION',
          `backend ${port.backend} writes VCPU records of version ${version}, the engine reads ${VCPU_RECORD_VERSION}`,
          { hint: 'Use packages of one release.' },
        );
      }
    }
    this.#records = records;
    this.#fallback = options.fallback === 'block' ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
    const layers = new EngineLayers({
      port,
      vcpus: records.slice(0, port.vcpuCount),
      counters: this.counters,
      outcome: this.lastExit,
      fallback: this.#fallback,
      toctou: options.toctou ?? true,
      ledger: options.ledger,
      system: this,
      report: (kind, message, cause) => this.#report(kind, message, cause),
    });
    this.#layers = layers;
    this.memory = layers.memory;
    this.translator = layers.translator;
    this.hooks = layers.hooks;
    this.integrity = layers.integrity;
    this.slack = layers.slack;
    this.cloaks = layers.cloaks;
    this.threadSafety = layers.threadSafety;
    this.detours = layers.detours;
  }

  /**
   * What is known about the guest's operating system; set by the layer that finds out.
   * @throws CoreHooksError ERR_CORE_HOOKS_PAGING_MODE when it is set to something with a mode that there is not
   */
  get addressSpaces(): AddressSpaces {
    return this.#layers.context.addressSpaces;
  }

  set addressSpaces(value: AddressSpaces) {
    this.#layers.context.addressSpaces = value;
    if (value.pagingMode !== undefined) {
      this.translator.guestPaging = pagingOf(value.pagingMode);
    }
  }

  /**
   * How a VCPU translates addresses, by its record.
   * @param vcpu default: none in particular. Then it is the mode of the guest's operating system, which {@link translator} and
   *   {@link memory} go by: what {@link addressSpaces} says, else that of the last exit's VCPU which had paging on (4-level before the first).
   */
  pagingMode(vcpu?: VcpuRecord): PagingMode {
    return PAGING_MODES[vcpu === undefined ? this.translator.guestPaging : pagingOfRegisters(vcpu.u32)]!;
  }

  /** Guest time of the last exit in microseconds. */
  get time(): number {
    return this.#time;
  }

  /** Why the guest stopped for good; undefined while it runs. */
  get shutdownReason(): ShutdownReason | undefined {
    return this.#shutdownReason;
  }

  /** Adds something to be done before each reply, after what was added before. */
  beforeReply(stage: ReplyStage): void {
    this.#stages.push(stage);
  }

  /** Drops decoded instructions: when an address space ends, or code was changed in a way that the engine cannot see. */
  flushInstructions(scope: InstructionScope = {}): void {
    this.#layers.cache.flush(scope);
  }

  /** Calls `listener` for each problem from now on. A listener that throws is ignored. */
  onProblem(listener: (problem: EngineProblem) => void): void {
    this.#problemListeners.push(listener);
  }

  /**
   * Waits for one exit, handles it and replies.
   * @param timeoutMs at most this long, as `next` of the port counts it
   * @returns `idle` when there was none; `shutdown` when the guest stopped for good, see {@link shutdownReason}
   * @throws CoreHooksError ERR_CORE_HOOKS_CLOSED; ERR_CORE_HOOKS_REENTERED from inside a callback; what the port's `next` throws the second
   *   time in a row. The first is reported, for it may have been a passing fault; a backend that is gone must not look like a guest that does
   *   nothing.
   */
  step(timeoutMs: number): StepResult {
    this.#layers.calls.requireOpen();
    if (this.#handling) {
      throw new CoreHooksError('ERR_CORE_HOOKS_REENTERED', 'the engine is handling an exit', {
        hint: 'Leave the callback first; its VCPU waits for the reply.',
      });
    }
    if (this.#shutdownReason !== undefined) {
      return 'shutdown';
    }
    this.#commit();
    const index = this.#next(timeoutMs);
    if (index === NO_EXIT) {
      return 'idle';
    }
    const record = this.#records[index];
    if (record === undefined) {
      this.#report('backend', `the backend delivered an exit for record ${index}, which it does not have`);
      return 'idle';
    }
    this.#index = index;
    this.#time = record.exitTime;
    this.#exitKind = record.exitKind;
    // Data of an earlier reply must not serve this one.
    record.u32[REPLY_DATA_LENGTH] = 0;
    this.counters.exits++;
    if (this.#exitKind === ExitKind.SHUTDOWN) {
      this.#shutdownReason = record.u32[EXIT_REGISTER] as ShutdownReason;
      return 'shutdown';
    }
    this.#handling = true;
    try {
      this.#handle(record, index);
    } finally {
      this.#handling = false;
    }
    return 'exit';
  }

  /** Has an exit decided, and replies to it. */
  #handle(record: VcpuRecord, index: number): void {
    const outcome = this.lastExit;
    outcome.kind = this.#exitKind;
    outcome.index = index;
    outcome.reason = 'hooks';
    const callsBefore = this.counters.hookCalls;
    let verdict = this.#fallback;
    try {
      this.#choosePaging(record, index);
      if (this.#exitKind === ExitKind.TICK) {
        this.hooks.translation.check();
      }
      verdict = this.#layers.dispatcher.dispatch(record, index);
      if (this.#exitKind === ExitKind.TICK) {
        this.integrity.tick();
      }
    } catch (cause) {
      this.#report('handler', 'handling an exit failed', cause);
    }
    outcome.hookCalls = this.counters.hookCalls - callsBefore;
    outcome.verdict = verdict;
    this.#runStages(record);
    this.#commit();
    this.#reply(record, index, verdict);
  }

  /**
   * Removes all hooks, puts back what cloaks and detours changed in the guest's memory, gives every page its rights back, and closes the port.
   * Handlers of detours stay, switched off, unless no thread can be inside one. Does not throw: what the backend refuses is reported and tried
   * once more. A second call does nothing.
   */
  close(): void {
    if (this.#layers.calls.isClosed) {
      return;
    }
    this.#layers.calls.close();
    this.integrity.clear();
    this.#tryTwice('backend', 'a detour could not be taken back', () => this.#removeDetours());
    this.detours.leaveHandlers();
    this.cloaks.clear();
    this.#layers.registerHooks.close();
    this.#tryTwice('backend', 'switching an exit off failed', () => this.#layers.context.rep.close());
    this.#layers.cache.clear();
    this.hooks.regions.clear();
    this.hooks.virtual.clear();
    this.hooks.translation.clear();
    this.hooks.pageTable.clear();
    this.hooks.page.clear();
    if (!this.#layers.rights.restoreAll()) {
      // What failed once may have been a passing fault; the port's own close is the last resort.
      this.#layers.rights.restoreAll();
    }
    this.translator.clear();
    this.#layers.pages.clear();
    releaseGuest(this.#layers.context);
    this.#tryTwice('backend', 'the backend refused to close', () => this.port.close());
  }

  /** What failed once may have been a passing fault; what fails twice is left as it is. */
  #tryTwice(kind: EngineProblemKind, message: string, action: () => void): void {
    for (let attempt = 1; attempt <= 2; attempt++) {
      try {
        action();
        return;
      } catch (cause) {
        this.#report(kind, message, cause);
      }
    }
  }

  /** Waits for an exit. */
  #next(timeoutMs: number): number {
    try {
      const index = this.port.next(timeoutMs);
      this.#waitFailed = false;
      return index;
    } catch (cause) {
      if (this.#waitFailed) {
        throw cause;
      }
      this.#waitFailed = true;
      this.#report('backend', 'the backend refused to wait for an exit', cause);
      return NO_EXIT;
    }
  }

  /** Sets the paging modes that translations go by during this exit. */
  #choosePaging(record: VcpuRecord, index: number): void {
    const { translator } = this;
    const told = this.#layers.context.addressSpaces.pagingMode;
    if (told !== undefined) {
      translator.guestPaging = pagingOf(told);
    }
    if (index === this.port.vcpuCount) {
      translator.vcpuPaging = translator.guestPaging;
      return;
    }
    const paging = pagingOfRegisters(record.u32);
    translator.vcpuPaging = paging;
    if (paging === Paging.PAE) {
      this.#layers.pdptes.follow(record, index);
    }
    if (told === undefined && paging !== Paging.NONE) {
      translator.guestPaging = paging;
    }
  }

  /** The guest's functions are as they were; handlers stay, harmless, where a thread may be inside. */
  #removeDetours(): void {
    if (this.detours.all.length === 0) {
      return;
    }
    this.detours.disableAll();
    if (this.threadSafety.check({ mode: 'check', only: ['detours'] }).status === 'safe') {
      this.detours.removeAll();
    }
  }

  #runStages(record: VcpuRecord): void {
    if (this.#stages.length === 0) {
      return;
    }
    this.#commitRemovals();
    for (let at = 0; at < this.#stages.length; at++) {
      const stage = this.#stages[at]!;
      try {
        stage.run(record);
      } catch (cause) {
        this.#report('callback', `the stage ${stage.name} before the reply threw`, cause);
      }
    }
  }

  #commit(): void {
    const pending = this.#layers.pending;
    if (!pending.any) {
      return;
    }
    pending.any = false;
    try {
      this.hooks.translation.settle();
      this.hooks.virtual.settle();
      this.cloaks.settle();
    } catch (cause) {
      // What is left is tried again at the next exit.
      this.#report('backend', 'trying again what the backend refused failed', cause);
    }
    this.#commitRemovals();
    this.#layers.rights.flush();
    this.hooks.translation.resume();
  }

  /** Does not throw: an exit is replied to whatever happens. */
  #commitRemovals(): void {
    try {
      this.hooks.translation.commitRemovals();
      this.hooks.pageTable.commitRemovals();
      this.hooks.page.commitRemovals();
      this.#layers.registerHooks.commitRemovals();
    } catch (cause) {
      this.#report('handler', 'taking removed hooks out failed', cause);
    }
  }

  #reply(record: VcpuRecord, index: number, verdict: Verdict): void {
    const action = index === this.port.vcpuCount ? Reply.RETRY : this.#replyOf(record, verdict);
    this.lastExit.reply = action;
    try {
      this.port.reply(index, action);
    } catch (cause) {
      this.#report('backend', 'the backend refused a reply', cause);
      try {
        // A guest must not be left standing.
        this.port.reply(index, action);
      } catch (again) {
        this.#report('backend', 'the backend refused a reply twice', again);
      }
    }
  }

  #replyOf(record: VcpuRecord, verdict: Verdict): Reply {
    switch (verdict) {
      case Verdict.ALLOWED:
        return Reply.ALLOW_ONCE;
      case Verdict.ALLOWED_VIRTUAL:
        return Reply.RETRY;
      case Verdict.RETRY:
        this.counters.retries++;
        return Reply.RETRY;
      case Verdict.NOT_ALLOWED:
        return Reply.SKIP;
      case Verdict.ALLOWED_PATCHED:
        if (record.u32[REPLY_DATA_LENGTH]! > 0) {
          return Reply.SUPPLY_READ;
        }
        break;
      default:
    }
    this.#report('callback', `a hook gave the verdict ${String(verdict)}, which cannot be carried out`);
    return this.#fallback === Verdict.ALLOWED ? Reply.ALLOW_ONCE : Reply.SKIP;
  }

  #report(kind: EngineProblemKind, message: string, cause?: unknown): void {
    this.counters.problems++;
    // What failed may have left something to be tried again before the reply.
    this.#layers.pending.any = true;
    const problem: EngineProblem = {
      kind,
      message,
      index: this.#index,
      exitKind: this.#exitKind,
      time: this.#time,
      ...(cause === undefined ? {} : { cause }),
    };
    for (const listener of this.#problemListeners) {
      try {
        listener(problem);
      } catch {
        // A listener's failure must not become the guest's.
      }
    }
  }
}
