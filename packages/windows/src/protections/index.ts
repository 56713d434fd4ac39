import { SelfMapProtection } from './self-map/self-map.js';

/**
 * All protections by their names, in the order in which they are switched on. A new one is added here and nowhere else:
 * the policy and the reports follow from this list.
 */
export const protectionFactories = {
  'self-map': () => new SelfMapProtection(),
};

/** Name of a protection. */
export type ProtectionId = keyof typeof protectionFactories;

/** Names of all protections. */
export const PROTECTION_IDS = Object.keys(protectionFactories) as readonly ProtectionId[];
