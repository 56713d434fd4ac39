import type { Cr3 } from '@introd/abi';

/**
 * What the engine asks about the guest's operating system. The layer that knows it sets {@link Engine.addressSpaces}.
 */
export interface AddressSpaces {
  /** CR3 under which all kernel memory is mapped; undefined while the operating system is not known. */
  readonly systemCr3: Cr3 | undefined;
  /** Whether a CR3 belongs to a process that is known to live. User code of others is decoded anew at each exit. */
  isKnown(cr3: Cr3): boolean;
}

/** The answer while nothing is known about the guest: every address space counts, so every instruction is guarded. */
export const everyAddressSpace: AddressSpaces = { systemCr3: undefined, isKnown: () => true };
