/** What the engine counted since it was made. Numbers only; reading them costs nothing. */
export class EngineCounters {
  /** Exits of all kinds. */
  exits = 0;
  eptViolations = 0;
  crWrites = 0;
  msrWrites = 0;
  xcrWrites = 0;
  /** Instructions that load or store a descriptor table register. */
  descriptorTables = 0;
  /** INT3 instructions. */
  breakpoints = 0;
  vmcalls = 0;
  ticks = 0;
  /** Reports of delivered events. */
  injections = 0;
  /** Exits of a kind that nobody hooked. */
  otherExits = 0;
  /** Callbacks of hooks called. */
  hookCalls = 0;
  /** EPT violations on a page that no hook restricts: the processor used stale rights, which were set anew. */
  rightsRepairs = 0;
  /** EPT violations of the page walker, let through. */
  pageWalks = 0;
  /** EPT violations during the delivery of an event. */
  eventDeliveries = 0;
  /** Exits answered by entering the guest again at the same RIP. */
  retries = 0;
  /** Reads that were given other bytes than memory holds. */
  patchedReads = 0;
  /** Verdicts that a callback insisted on (`AccessEvent.forceVerdict`). */
  forcedVerdicts = 0;
  /** Exits whose instruction was not executed. */
  blocked = 0;
  /** Instructions found in the instruction cache. */
  cacheHits = 0;
  /** Instructions decoded because they were not in the cache. */
  cacheMisses = 0;
  /** Cached instructions dropped because their code page was written or mapped elsewhere. */
  cacheInvalidations = 0;
  /** Times that a part of the instruction cache, or all of it, was dropped on demand. */
  cacheFlushes = 0;
  /** Writes that the engine carried out itself. */
  emulatedWrites = 0;
  /** Emulated writes that were asked about again because memory had changed in between. */
  emulationConflicts = 0;
  /** Page-table writes that changed no monitored bit, carried out without asking anybody. */
  irrelevantPageTableWrites = 0;
  /** Exits at a RIP whose execution had been allowed right before (behaviour 1.2.4, step 3). */
  reexecutions = 0;
  /** Batches of changed rights made effective. */
  rightsFlushes = 0;
  /** Problems reported. */
  problems = 0;
}
