/** Names of all protections, in the order in which they are switched on. */
export const PROTECTION_IDS = ['self-map'] as const;

/** Name of a protection. */
export type ProtectionId = (typeof PROTECTION_IDS)[number];
