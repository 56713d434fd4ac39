// Exits on their way to the engine: each VCPU, and the guest, has at most one; the one that waits longest goes first.
import { time } from './clock';
import {
  BLOCK_DELIVERY,
  BLOCK_EXIT_SEQUENCE,
  BLOCK_EXIT_STATE,
  EXIT_KIND_EPT_VIOLATION,
  LIMIT_VCPUS,
  VCPU_EXIT_ERROR_CODE,
  VCPU_EXIT_KIND,
  VCPU_EXIT_TIME,
  VCPU_EXIT_VECTOR,
} from './generated/layout';
import { cpu } from './state';
import { blockOf, GUEST } from './vcpu-blocks';

/** States of a block's exit. */
export const NOT_AT_EXIT: u32 = 0;
export const EXIT_WAITS: u32 = 1;
const EXIT_WITH_ENGINE: u32 = 2;

/** Which event could not be delivered because of the exit. */
export const DELIVERY_NONE: u32 = 0;
export const DELIVERY_OWN: u32 = 1;
export const DELIVERY_INJECTED: u32 = 2;
export const DELIVERY_DEBUG: u32 = 3;
export const DELIVERY_INTERRUPT: u32 = 4;

/** Orders exits. */
let sequence: u32 = 0;

/** Power-on. */
export function resetExitQueue(): void {
  sequence = 0;
}

/** Puts an exit into the queue. */
export function queue(block: usize): void {
  store<u64>(block, time, VCPU_EXIT_TIME);
  store<u32>(block, EXIT_WAITS, BLOCK_EXIT_STATE);
  store<u32>(block, ++sequence, BLOCK_EXIT_SEQUENCE);
}

/** The violation happened in the delivery of an event: says of which. */
export function queueDelivery(kind: u32, vector: i32, error: u32): void {
  if (load<u32>(cpu + VCPU_EXIT_KIND) == EXIT_KIND_EPT_VIOLATION) {
    store<u32>(cpu + BLOCK_DELIVERY, kind);
    store<u32>(cpu + VCPU_EXIT_VECTOR, vector);
    store<u32>(cpu + VCPU_EXIT_ERROR_CODE, error);
  }
  queue(cpu);
}

/** Whether some VCPU waits for the engine, or is with it. */
export function isAnyAtExit(): bool {
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) {
    if (load<u32>(blockOf(i) + BLOCK_EXIT_STATE) != NOT_AT_EXIT) return true;
  }
  return false;
}

/** Number of the record whose exit waits longest, -1 for none. */
export function waitingExit(): i32 {
  let oldest: i32 = -1;
  let order: u32 = 0xffff_ffff;
  for (let i: usize = 0; i <= GUEST; i++) {
    const block = blockOf(i);
    if (load<u32>(block + BLOCK_EXIT_STATE) != EXIT_WAITS) continue;
    if (load<u32>(block + BLOCK_EXIT_SEQUENCE) >= order) continue;
    order = load<u32>(block + BLOCK_EXIT_SEQUENCE);
    oldest = i32(i);
  }
  return oldest;
}

/** Hands the oldest exit to the engine; returns the number of its record (8 for the guest's), -1 for none. */
export function takeExit(): i32 {
  const index = waitingExit();
  if (index >= 0) store<u32>(blockOf(index), EXIT_WITH_ENGINE, BLOCK_EXIT_STATE);
  return index;
}
