import type { Cr3, VcpuRecord, Verdict } from '@introd/abi';
import type { FullPort, Ledger } from '@introd/glue';
import type { EngineCounters } from './counters.js';
import { Detours, detouredCode } from './detours/detours.js';
import { ThreadSafety } from './detours/thread-safety.js';
import { Dispatcher } from './dispatch/dispatch.js';
import { EptDispatcher } from './dispatch/dispatch-ept.js';
import type { EptContext } from './dispatch/ept-context.js';
import type { ExitOutcome } from './dispatch/exit-outcome.js';
import { Grants } from './dispatch/grants.js';
import { ReadOverlay } from './dispatch/read-overlay.js';
import { RepIterations } from './dispatch/rep-iterations.js';
import { Standstill } from './dispatch/standstill.js';
import { StorePlan } from './dispatch/store-plan.js';
import { VectorState } from './dispatch/vector-state.js';
import type { EngineProblemKind } from './engine-problem.js';
import { everyAddressSpace } from './guest-system/address-spaces.js';
import type { CodeImages } from './guest-system/code-images.js';
import type { ThreadStates } from './guest-system/thread-states.js';
import { HookCalls } from './hook-calls.js';
import { InstructionCache } from './instruction-cache/instruction-cache.js';
import { IntegrityRegions } from './integrity/integrity-regions.js';
import { MemoryCloaks } from './memory-cloak/memory-cloaks.js';
import { PageHooks } from './page-hooks/page-hooks.js';
import { PageRights } from './page-hooks/page-rights.js';
import { PendingCommits } from './page-hooks/pending-commits.js';
import { type EngineChanges, EntryHooks } from './page-table-hooks/entry-hooks.js';
import type { BreakpointHooks, VmcallHooks } from './register-hooks/call-hooks.js';
import type { CrHooks } from './register-hooks/cr-hooks.js';
import type { DescriptorTableHooks } from './register-hooks/descriptor-table-hooks.js';
import type { InjectionHooks } from './register-hooks/injection-hooks.js';
import type { MsrHooks } from './register-hooks/msr-hooks.js';
import { RegisterHooks } from './register-hooks/register-hooks.js';
import type { TickHooks } from './register-hooks/tick-hooks.js';
import type { XcrHooks } from './register-hooks/xcr-hooks.js';
import { SlackAllocator } from './slack/slack-allocator.js';
import { GuestMemory } from './translation/guest-memory.js';
import { PageCache } from './translation/page-cache.js';
import { PdpteRegisters } from './translation/pdpte-registers.js';
import { Translator } from './translation/translator.js';
import { TranslationHooks } from './translation-hooks/translation-hooks.js';
import { WatchedEntries } from './translation-hooks/watched-entries.js';
import { RegionHooks } from './virtual-hooks/regions.js';
import { VirtualHooks } from './virtual-hooks/virtual-hooks.js';

/** Hooks of every kind. */
export interface EngineHooks {
  readonly page: PageHooks;
  readonly pageTable: EntryHooks;
  readonly translation: TranslationHooks;
  readonly virtual: VirtualHooks;
  readonly regions: RegionHooks;
  readonly cr: CrHooks;
  readonly msr: MsrHooks;
  readonly xcr: XcrHooks;
  readonly descriptorTable: DescriptorTableHooks;
  readonly breakpoint: BreakpointHooks;
  readonly vmcall: VmcallHooks;
  readonly injected: InjectionHooks;
  readonly tick: TickHooks;
}

/** What the layers are built on. */
export interface LayersHost {
  readonly port: FullPort;
  readonly vcpus: readonly VcpuRecord[];
  readonly counters: EngineCounters;
  readonly outcome: ExitOutcome;
  readonly fallback: Verdict;
  readonly toctou: boolean;
  readonly ledger: Ledger | undefined;
  /** What is known about the guest's operating system: looked at at each use, for it is set later. */
  readonly system: { readonly codeImages: CodeImages; readonly threadStates: ThreadStates };
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/** The layers of an engine, each made of those below it (docs/architecture.md, section 3). */
export class EngineLayers {
  readonly calls: HookCalls;
  readonly pending = new PendingCommits();
  readonly pages: PageCache;
  readonly translator: Translator;
  readonly pdptes: PdpteRegisters;
  readonly rights: PageRights;
  readonly cache: InstructionCache;
  readonly memory: GuestMemory;
  readonly registerHooks: RegisterHooks;
  readonly context: EptContext;
  readonly hooks: EngineHooks;
  readonly integrity: IntegrityRegions;
  readonly slack: SlackAllocator;
  readonly cloaks: MemoryCloaks;
  readonly threadSafety: ThreadSafety;
  readonly detours: Detours;
  readonly dispatcher: Dispatcher;

  constructor(host: LayersHost) {
    const { port, vcpus, counters, outcome, fallback, toctou, ledger, system } = host;
    const report = (kind: EngineProblemKind, message: string, cause?: unknown): void =>
      host.report(kind, message, cause);
    this.calls = new HookCalls(counters, ledger);
    this.pages = new PageCache(port);
    this.translator = new Translator(this.pages);
    this.pdptes = new PdpteRegisters(port, this.pages);
    this.rights = new PageRights(port, counters, this.pending, (cause) =>
      report('rights', 'the backend refused a change of page rights', cause),
    );
    const pageHooks = new PageHooks(this.rights, this.pending, this.calls);
    const grants = new Grants({ port, report }, vcpus);
    this.cache = new InstructionCache(this.pages, this.translator, pageHooks, counters, grants, toctou);
    const pageTable = new EntryHooks(pageHooks, this.pages, this.pending, this.calls, (cause) => {
      report('callback', 'the callback of a page-table hook failed', cause);
      return fallback;
    });
    this.memory = new GuestMemory(port, this.pages, this.translator, {
      beforeWrite: (gpa, size) => {
        this.cache.invalidateRange(gpa, size);
        return pageTable.beforeWrite(gpa, size);
      },
      wrote: (changes) => pageTable.wrote(changes as EngineChanges),
      isWriteHooked: (frame) => pageHooks.watchesWrites(frame),
      flushInstructions: () => this.cache.flush({}),
    });
    this.registerHooks = new RegisterHooks({
      port,
      calls: this.calls,
      pending: this.pending,
      fallback,
      report,
    });
    const overlay = new ReadOverlay();
    const vectors = new VectorState(port);
    this.context = {
      port,
      hooks: pageHooks,
      rights: this.rights,
      memory: this.memory,
      translator: this.translator,
      pages: this.pages,
      cache: this.cache,
      grants,
      rep: new RepIterations(port, port.vcpuCount),
      standstill: new Standstill({ fallback, report }, port.vcpuCount + 1),
      outcome,
      overlay,
      plan: new StorePlan({ port, pages: this.pages, translator: this.translator, overlay, vectors, report }),
      vectors,
      counters,
      calls: this.calls,
      fallback,
      addressSpaces: everyAddressSpace,
      report,
    };
    const translation = new TranslationHooks(this.context, this.pending);
    translation.watchThrough(new WatchedEntries(pageTable, pageHooks, this.pages, grants, this.pending, translation));
    this.cache.guardTranslations(translation);
    const virtual = new VirtualHooks(pageHooks, translation, this.pages, this.context);
    const { msr, descriptorTable, cr, xcr, breakpoint, vmcall, injected, tick } = this.registerHooks;
    this.hooks = {
      page: pageHooks,
      pageTable,
      translation,
      virtual,
      regions: new RegionHooks(virtual),
      msr,
      descriptorTable,
      cr,
      xcr,
      breakpoint,
      vmcall,
      injected,
      tick,
    };
    const systemCr3 = (): Cr3 | undefined => this.context.addressSpaces.systemCr3;
    this.integrity = new IntegrityRegions({
      memory: this.memory,
      calls: this.calls,
      systemCr3,
      isKernelAddress: (va) => system.threadStates.isKernelAddress(va),
      report,
    });
    this.slack = new SlackAllocator(this.memory, systemCr3);
    this.cloaks = new MemoryCloaks({
      port,
      memory: this.memory,
      calls: this.calls,
      translator: this.translator,
      page: pageHooks,
      translation,
      isRam: (frame) => this.pages.get(frame) !== undefined,
      isKernelAddress: (va) => system.threadStates.isKernelAddress(va),
      report,
    });
    this.threadSafety = new ThreadSafety({
      port,
      vcpus: vcpus,
      memory: this.memory,
      threadStates: () => system.threadStates,
      systemCr3,
      report,
    });
    this.detours = new Detours({
      port,
      memory: this.memory,
      cloaks: this.cloaks,
      slack: this.slack,
      breakpoint,
      vmcall,
      calls: this.calls,
      codeImages: () => system.codeImages,
      systemCr3,
      report,
    });
    this.threadSafety.register(detouredCode(this.detours));
    virtual.hiddenBytes = (cr3, va, bytes) => this.cloaks.overlay(cr3, va, bytes);
    const { standstill } = this.context;
    const ept = new EptDispatcher(this.context);
    this.dispatcher = new Dispatcher(ept, this.registerHooks, counters, outcome, standstill);
  }
}
