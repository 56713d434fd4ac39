import type { Verdict } from '@introd/abi';
import type { FullPort } from '@introd/glue';
import type { EngineCounters } from '../counters.js';
import type { EngineProblemKind } from '../engine-problem.js';
import type { AddressSpaces } from '../guest-system/address-spaces.js';
import type { HookCalls } from '../hook-calls.js';
import type { InstructionCache } from '../instruction-cache/instruction-cache.js';
import type { PageHooks } from '../page-hooks/page-hooks.js';
import type { PageRights } from '../page-hooks/page-rights.js';
import type { GuestMemory } from '../translation/guest-memory.js';
import type { PageCache } from '../translation/page-cache.js';
import type { Translator } from '../translation/translator.js';
import type { ExitOutcome } from './exit-outcome.js';
import type { Grants } from './grants.js';
import type { ReadOverlay } from './read-overlay.js';
import type { RepIterations } from './rep-iterations.js';
import type { Standstill } from './standstill.js';
import type { StorePlan } from './store-plan.js';
import type { VectorState } from './vector-state.js';

/** What those who answer an EPT violation need of the engine. */
export interface EptContext {
  readonly port: FullPort;
  readonly hooks: PageHooks;
  readonly rights: PageRights;
  readonly memory: GuestMemory;
  readonly translator: Translator;
  readonly pages: PageCache;
  readonly cache: InstructionCache;
  readonly grants: Grants;
  readonly plan: StorePlan;
  /** Vector registers of the VCPU at hand. */
  readonly vectors: VectorState;
  /** What read hooks want the guest to see at the exit at hand. */
  readonly overlay: ReadOverlay;
  readonly rep: RepIterations;
  readonly standstill: Standstill;
  /** What is done about the exit at hand. */
  readonly outcome: ExitOutcome;
  readonly counters: EngineCounters;
  readonly calls: HookCalls;
  readonly fallback: Verdict;
  addressSpaces: AddressSpaces;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}
