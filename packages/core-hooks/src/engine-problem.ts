import type { ExitKind } from '@introd/abi';

/** What failed while the engine handled an exit. */
export type EngineProblemKind =
  /** A hook's callback, or a stage before the reply, threw. */
  | 'callback'
  /** The engine's own handling of an exit threw. */
  | 'handler'
  /** The backend refused a change of rights; it is tried again before the next replies and when the engine closes. */
  | 'rights'
  /** The backend refused a reply, a register write or the switching of an exit. */
  | 'backend'
  /** An instruction wrote to a hooked page-table entry a value that the engine cannot tell; the write was blocked. */
  | 'unknown-page-table-write'
  /** A watched page-table entry changed without an exit; who follows it was told late, and was not asked. */
  | 'missed-page-table-write'
  /** An instruction read hidden bytes in a way that cannot be answered with what the guest shall see; it was blocked. */
  | 'hidden-read'
  /** A guest made an exit repeat beyond the engine's bound; it was answered without the instruction. */
  | 'retry-limit';

/** Something failed inside the engine. The guest went on, with the fallback verdict where no better one was known. */
export interface EngineProblem {
  readonly kind: EngineProblemKind;
  /** What happened, for people. */
  readonly message: string;
  /** The error that was thrown, if one was. */
  readonly cause?: unknown;
  /** Record that held the exit: a VCPU's number, or the number of VCPUs for the guest's record. */
  readonly index?: number;
  readonly exitKind?: ExitKind;
  /** Guest time in microseconds. */
  readonly time: number;
}
