export { EngineCounters } from './counters.js';
export type {
  ArgumentLocation,
  BuildRange,
  CodePattern,
  DetourDescriptor,
  DetourHandler,
  DetourPreparation,
  FunctionLocation,
  HypercallKind,
  PublicData,
} from './detours/descriptor.js';
export { Detour, type PublicDataResult } from './detours/detour.js';
export { DetourCall } from './detours/detour-call.js';
export { type DetourFailure, type DetourResult, Detours, type DetoursResult } from './detours/detours.js';
export {
  type PatchedCode,
  type ThreadCheck,
  type ThreadCheckOptions,
  ThreadSafety,
} from './detours/thread-safety.js';
export { AccessEvent } from './dispatch/access-event.js';
export { ExitOutcome, type ExitReason } from './dispatch/exit-outcome.js';
export { PageTableWrite } from './dispatch/page-table-write.js';
export { Engine, type EngineOptions, type ReplyStage, type StepResult } from './engine.js';
export type { EngineHooks } from './engine-layers.js';
export type { EngineProblem, EngineProblemKind } from './engine-problem.js';
export { CoreHooksError, type CoreHooksErrorCode } from './error.js';
export { type AddressSpaces, everyAddressSpace } from './guest-system/address-spaces.js';
export { type CodeImage, type CodeImages, type CodeSection, noCodeImages } from './guest-system/code-images.js';
export { noSafePoint, type SafePoint } from './guest-system/safe-point.js';
export {
  type RunningThread,
  type StackRange,
  type ThreadStates,
  type ThreadWalk,
  unknownThreads,
  type WaitingThread,
} from './guest-system/thread-states.js';
export type { NamedHookOptions } from './hook-calls.js';
export type { InstructionScope } from './instruction-cache/instruction-cache.js';
export {
  type IntegrityAddition,
  type IntegrityEvent,
  type IntegrityOptions,
  IntegrityRegion,
  IntegrityRegions,
  type RestoreResult,
} from './integrity/integrity-regions.js';
export type { ChangedWord } from './integrity/region-contents.js';
export { Cloak, type CloakOptions } from './memory-cloak/cloak.js';
export { MemoryCloaks } from './memory-cloak/memory-cloaks.js';
export { type HookParent, PageHook, type PageHookOptions, PageHooks } from './page-hooks/page-hooks.js';
export { EntryHook, type EntryHookOptions, EntryHooks } from './page-table-hooks/entry-hooks.js';
export { EntryWriteEvent } from './page-table-hooks/entry-write-event.js';
export type { EntryRoot } from './page-table-hooks/table-page.js';
export {
  BreakpointEvent,
  type BreakpointHookOptions,
  BreakpointHooks,
  type RipAdvance,
  VmcallEvent,
  type VmcallHookOptions,
  VmcallHooks,
} from './register-hooks/call-hooks.js';
export { type ControlRegister, CrHooks, CrWriteEvent } from './register-hooks/cr-hooks.js';
export {
  DescriptorTableEvent,
  type DescriptorTableHook,
  DescriptorTableHooks,
} from './register-hooks/descriptor-table-hooks.js';
export type { ExitHook } from './register-hooks/exit-listeners.js';
export { InjectedEvent, InjectionHooks } from './register-hooks/injection-hooks.js';
export { MsrHooks, MsrWriteEvent } from './register-hooks/msr-hooks.js';
export { type RegisterHook, RegisterWriteEvent } from './register-hooks/register-write.js';
export { type TickEvent, type TickHook, TickHooks } from './register-hooks/tick-hooks.js';
export { XcrHooks, XcrWriteEvent } from './register-hooks/xcr-hooks.js';
export { type SlackAllocation, SlackAllocator, type SlackRequest } from './slack/slack-allocator.js';
export { GuestMemory, type ReadResult } from './translation/guest-memory.js';
export type { PagingMode } from './translation/paging-mode.js';
export {
  type Translation,
  type TranslationStatus,
  Translator,
  Walk,
  type WalkedEntry,
} from './translation/translator.js';
export type { SafeWriteResult, WriteResult, WritingRing } from './translation/virtual-write.js';
export { TranslationEvent } from './translation-hooks/translation-event.js';
export { TranslationHook, type TranslationHookOptions } from './translation-hooks/translation-hook.js';
export { TranslationHooks } from './translation-hooks/translation-hooks.js';
export { HookedObject, HookedRegion, RegionHooks, type RegionOptions } from './virtual-hooks/regions.js';
export { type HashMismatch, VirtualHook, type VirtualHookOptions } from './virtual-hooks/virtual-hook.js';
export { type HiddenBytes, VirtualHooks } from './virtual-hooks/virtual-hooks.js';
