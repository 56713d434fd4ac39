import { ExitKind, Reply, Verdict } from '@introd/abi';

/**
 * Why an exit was answered as it was.
 * `hooks`: what the hooks said, or nobody had anything to say. `retry-not-cached`: the instruction was write-protected just now (the TOCTOU
 * rule). `retry-changing`: another VCPU may be writing what would have to be read. `retry-fetch`: the instruction cannot be read any more.
 * `retry-conflict`: memory kept changing under a store. `retry-rep`: a repeated string instruction comes near a hook; from now on each of
 * its elements exits. `retry-failed`: the engine or the backend failed. `retry-limit`: it had been taken again too often. `page-fault`: the
 * guest got the page fault that its access would have met. `page-walk`: an access of the page walker. `emulated`: the engine made the
 * store. `irrelevant-page-table-write`: it did, and no bit that matters changed. `unknown-value`: a store of a value that nobody can tell.
 * `read-supplied`: the guest sees other bytes than memory holds. `hidden-read`: it would have to, and no reply can do it.
 * `rights-repaired`: the processor used stale rights. `claimed`, `not-claimed`: an INT3 or VMCALL.
 */
export type ExitReason =
  | 'hooks'
  | 'retry-not-cached'
  | 'retry-changing'
  | 'retry-fetch'
  | 'retry-conflict'
  | 'retry-rep'
  | 'retry-failed'
  | 'retry-limit'
  | 'page-fault'
  | 'page-walk'
  | 'emulated'
  | 'irrelevant-page-table-write'
  | 'unknown-value'
  | 'read-supplied'
  | 'hidden-read'
  | 'rights-repaired'
  | 'claimed'
  | 'not-claimed';

/** What the engine did about an exit. There is one object for all; whoever wants to keep something copies it. */
export class ExitOutcome {
  kind: ExitKind = ExitKind.NONE;
  /** Number of the record that held it. */
  index = 0;
  verdict: Verdict = Verdict.ALLOWED;
  reply: Reply = Reply.RETRY;
  reason: ExitReason = 'hooks';
  /** Callbacks that were called. */
  hookCalls = 0;
}
