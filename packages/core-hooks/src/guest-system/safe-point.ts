import type { VcpuRecord } from '@introd/abi';

/**
 * Where a kernel page fault may be injected: the guest's own fault handler must be able to bring the page in there (interrupts on, no
 * lock held, no fault being handled). The layer that knows the operating system sets {@link Engine.safePoint}.
 *
 * Nothing in this package asks: the page faults that the engine injects are those that the guest's own instruction meets, wherever it stands.
 * It is for a layer that has the guest bring in absent pages by faults of its own.
 */
export interface SafePoint {
  /** Whether a VCPU at an exit, whose registers are in the record, stands at such a place. */
  allowsFault(vcpu: VcpuRecord): boolean;
}

/** The answer while nothing is known about the guest: nowhere. */
export const noSafePoint: SafePoint = { allowsFault: () => false };
