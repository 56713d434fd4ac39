import type { Protection } from './protection.js';
import { SelfMapProtection } from './self-map/self-map.js';

/** All protections, in the order in which they are switched on. A new one is added here and in `ids.ts`, nowhere else. */
export function createProtections(): Protection[] {
  return [new SelfMapProtection()];
}
