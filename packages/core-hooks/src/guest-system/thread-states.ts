import type { Gva, VcpuRecord } from '@introd/abi';

/** A kernel stack: `low` is its lowest address, `high` the first one above it. */
export interface StackRange {
  readonly low: Gva;
  readonly high: Gva;
}

/** The thread that a VCPU runs. */
export interface RunningThread {
  readonly stack: StackRange;
  /** Stack pointer saved when it last entered the kernel or was switched out; undefined when there is none. */
  readonly savedStackPointer: Gva | undefined;
}

/** A thread that no VCPU runs at the moment. */
export interface WaitingThread {
  readonly stack: StackRange;
  /** Where it will go on. */
  readonly savedStackPointer: Gva;
  /**
   * Whether it was interrupted against its will and may stand at any instruction. One that waits voluntarily stands inside the
   * system's own wait functions.
   */
  readonly preempted: boolean;
}

/** How a walk over threads ended: all were seen, the visitor did not want more, or some could not be seen. */
export type ThreadWalk = 'complete' | 'stopped' | 'incomplete';

/**
 * Where the guest's threads stand, for changing code under them. Asked only while all VCPUs are paused. The layer that knows the
 * operating system sets {@link Engine.threadStates}.
 */
export interface ThreadStates {
  /** Size of a stack word in bytes. */
  readonly wordSize: 4 | 8;
  /** Whether an address belongs to the kernel. */
  isKernelAddress(va: Gva): boolean;
  /** The thread that a VCPU runs, whose registers are in the record; undefined when it cannot be told. */
  running(vcpu: VcpuRecord): RunningThread | undefined;
  /** Calls `visit` for each thread that does not run, until it returns false. Must be bounded whatever the guest's lists say. */
  visitWaiting(visit: (thread: WaitingThread) => boolean): ThreadWalk;
}

/** Highest bit of a 64-bit address. */
const UPPER_HALF = 1n << 63n;

/** The answer while nothing is known about the guest: no thread can be seen, so nothing is safe that depends on them. */
export const unknownThreads: ThreadStates = {
  wordSize: 8,
  isKernelAddress: (va) => va >= UPPER_HALF,
  running: () => undefined,
  visitWaiting: () => 'incomplete',
};
