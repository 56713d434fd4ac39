import type { Gva } from '@introd/abi';
import type { SafePoint } from '../guest-system/safe-point.js';

/** A safe point at given instructions: where RIP of the VCPU is one of `addresses`. */
export function createSafePoint(addresses: Iterable<Gva>): SafePoint {
  const known = new Set<bigint>(addresses);
  return { allowsFault: (vcpu) => known.has(vcpu.rip) };
}
