// Where the VCPU blocks lie, and that of the guest as a whole behind them.
import { BLOCK_SIZE, LIMIT_VCPUS, MAP_BLOCKS } from './generated/layout';

/** Number of the block in which exits of the guest as a whole arrive. */
export const GUEST: usize = LIMIT_VCPUS;

/** Address of the block of a VCPU, or of the guest. */
// @ts-ignore: decorator
@inline
export function blockOf(index: usize): usize {
  return MAP_BLOCKS + index * BLOCK_SIZE;
}
