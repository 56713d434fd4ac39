import type { Cr3 } from '@introd/abi';
import type { PagingMode } from '../translation/paging-mode.js';

/**
 * What the engine asks about the guest's operating system. The layer that knows it sets {@link Engine.addressSpaces}.
 */
export interface AddressSpaces {
  /** CR3 under which all kernel memory is mapped; undefined while the operating system is not known. */
  readonly systemCr3: Cr3 | undefined;
  /**
   * Mode of the operating system's page tables. Undefined: that of the last exit's VCPU which had paging on, which a guest can change on
   * one VCPU to mislead the engine; so it should be told as soon as it is known.
   */
  readonly pagingMode?: PagingMode | undefined;
  /** Whether a CR3 belongs to a process that is known to live. User code of others is decoded anew at each exit. */
  isKnown(cr3: Cr3): boolean;
}

/** The answer while nothing is known about the guest: every address space counts, so every instruction is guarded. */
export const everyAddressSpace: AddressSpaces = { systemCr3: undefined, isKnown: () => true };
