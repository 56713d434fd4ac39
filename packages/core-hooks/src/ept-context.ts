import type { Verdict } from '@introd/abi';
import type { FullPort } from '@introd/glue';
import type { AddressSpaces } from './address-spaces.js';
import type { EngineCounters } from './counters.js';
import type { EngineProblemKind } from './engine-problem.js';
import type { Grants } from './grants.js';
import type { GuestMemory } from './guest-memory.js';
import type { InstructionCache } from './instruction-cache.js';
import type { PageHooks } from './page-hooks.js';
import type { PageRights } from './page-rights.js';
import type { StorePlan } from './store-plan.js';
import type { Translator } from './translator.js';

/** What those who answer an EPT violation need of the engine. */
export interface EptContext {
  readonly port: FullPort;
  readonly hooks: PageHooks;
  readonly rights: PageRights;
  readonly memory: GuestMemory;
  readonly translator: Translator;
  readonly cache: InstructionCache;
  readonly grants: Grants;
  readonly plan: StorePlan;
  readonly counters: EngineCounters;
  readonly fallback: Verdict;
  addressSpaces: AddressSpaces;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}
