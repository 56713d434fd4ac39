// How a VCPU goes on after an exit.
import { dropInterrupt } from './apic';
import { DELIVERY_DEBUG, DELIVERY_INJECTED, DELIVERY_INTERRUPT, NOT_AT_EXIT } from './exit-queue';
import {
  BLOCK_ALLOW_COUNT,
  BLOCK_ALLOWANCES,
  BLOCK_DELIVERY,
  BLOCK_EXIT_STATE,
  BLOCK_INJECT_PENDING,
  BLOCK_PASS_KIND,
  BLOCK_PASS_REGISTER,
  BLOCK_PASS_VALUE,
  BLOCK_PENDING_DEBUG,
  BLOCK_SINGLE_STEP,
  BLOCK_SKIP_NEXT,
  BLOCK_SUPPLIES,
  BLOCK_SUPPLY_COUNT,
  EXIT_CAUSE_DATA,
  EXIT_KIND_EPT_VIOLATION,
  EXIT_KIND_EVENT_INJECTED,
  EXIT_KIND_NONE,
  EXIT_KIND_SINGLE_STEP,
  LIMIT_ALLOWANCES,
  LIMIT_SUPPLIES,
  REPLY_ALLOW_ONCE,
  REPLY_SINGLE_STEP,
  REPLY_SKIP,
  REPLY_SUPPLY_READ,
  VCPU_EXIT_ACCESS,
  VCPU_EXIT_CAUSE,
  VCPU_EXIT_GLA,
  VCPU_EXIT_GPA,
  VCPU_EXIT_INSTRUCTION_LENGTH,
  VCPU_EXIT_KIND,
  VCPU_EXIT_REGISTER,
  VCPU_EXIT_VECTOR,
  VCPU_REPLY_DATA,
  VCPU_REPLY_DATA_LENGTH,
  VCPU_REPLY_VALUE,
} from './generated/layout';
import { finishInstruction, forgetGrants, STEP_ARMED, STEP_DUE } from './pending-events';
import { ACCESS_READ } from './physical';
import { rip, selectVcpu, setRip } from './state';
import { blockOf, GUEST } from './vcpu-blocks';

/** Address, length and 64 bytes of a read. */
const SUPPLY_SIZE: usize = 80;

/**
 * Adds what the engine allows to what the running instruction may do: one entry per frame. LIMIT_ALLOWANCES is more than
 * any instruction with the events in its way can need (src/memory-map.ts counts). Only page tables that another VCPU
 * rewrites all the while could fill the list; then the oldest entry goes, so that what was just allowed always holds.
 */
function allow(block: usize): void {
  const count = load<u32>(block + BLOCK_ALLOW_COUNT);
  const frame = load<u64>(block + VCPU_EXIT_GPA) >> 12;
  const access = load<u32>(block + VCPU_EXIT_ACCESS);
  const list = block + BLOCK_ALLOWANCES;
  for (let i: u32 = 0; i < count; i++) {
    const known = list + (usize(i) << 4);
    if (load<u64>(known) != frame) continue;
    store<u32>(known, load<u32>(known, 8) | access, 8);
    return;
  }
  if (count == LIMIT_ALLOWANCES) memory.copy(list, list + 16, (LIMIT_ALLOWANCES - 1) << 4);
  else store<u32>(block, count + 1, BLOCK_ALLOW_COUNT);
  const entry = list + (usize(count < LIMIT_ALLOWANCES ? count : LIMIT_ALLOWANCES - 1) << 4);
  store<u64>(entry, frame);
  store<u32>(entry, access, 8);
}

/**
 * Adds data for a read. A frame whose read was allowed is not asked for again, so there is at most one supply per page
 * that an instruction reads (src/memory-map.ts counts); a list that is full all the same loses its oldest entry.
 */
function supply(block: usize): void {
  const count = load<u32>(block + BLOCK_SUPPLY_COUNT);
  const list = block + BLOCK_SUPPLIES;
  if (count == LIMIT_SUPPLIES) memory.copy(list, list + SUPPLY_SIZE, (LIMIT_SUPPLIES - 1) * SUPPLY_SIZE);
  else store<u32>(block, count + 1, BLOCK_SUPPLY_COUNT);
  const entry = list + usize(count < LIMIT_SUPPLIES ? count : LIMIT_SUPPLIES - 1) * SUPPLY_SIZE;
  const length = load<u32>(block + VCPU_REPLY_DATA_LENGTH);
  store<u64>(entry, load<u64>(block + VCPU_EXIT_GLA));
  store<u64>(entry, length < 64 ? length : 64, 8);
  memory.copy(entry + 16, block + VCPU_REPLY_DATA, 64);
}

/** Leaves out what was about to happen: the instruction at RIP, or the event that could not be delivered. */
function skip(block: usize): void {
  const delivery = load<u32>(block + BLOCK_DELIVERY);
  if (delivery == DELIVERY_INJECTED) {
    store<u32>(block, 0, BLOCK_INJECT_PENDING);
  } else if (delivery == DELIVERY_DEBUG) {
    store<u64>(block, 0, BLOCK_PENDING_DEBUG);
  } else if (delivery == DELIVERY_INTERRUPT) {
    dropInterrupt(block, i32(load<u32>(block + VCPU_EXIT_VECTOR)));
  } else {
    const length = load<u32>(block + VCPU_EXIT_INSTRUCTION_LENGTH);
    if (length == 0) {
      // Its length must be found first, which may need the very access that was refused.
      allow(block);
      store<u32>(block, 1, BLOCK_SKIP_NEXT);
      return;
    }
    selectVcpu(block);
    setRip(rip() + length);
  }
  finishInstruction(block);
}

/** Ends an exit. */
export function reply(index: usize, action: u32): void {
  const block = blockOf(index);
  const kind = load<u32>(block + VCPU_EXIT_KIND);
  store<u32>(block, NOT_AT_EXIT, BLOCK_EXIT_STATE);
  store<u32>(block, EXIT_KIND_NONE, VCPU_EXIT_KIND);
  if (index == GUEST) return;
  // A step that is due stays so: its exit comes before anything else happens.
  if (action == REPLY_SINGLE_STEP && load<u32>(block + BLOCK_SINGLE_STEP) != STEP_DUE) {
    store<u32>(block, STEP_ARMED, BLOCK_SINGLE_STEP);
  }
  if (kind == EXIT_KIND_EVENT_INJECTED || kind == EXIT_KIND_SINGLE_STEP) return;
  if (action == REPLY_SKIP) {
    skip(block);
  } else if (action == REPLY_ALLOW_ONCE || action == REPLY_SUPPLY_READ) {
    if (kind == EXIT_KIND_EPT_VIOLATION) {
      allow(block);
      const read = load<u32>(block + VCPU_EXIT_CAUSE) == EXIT_CAUSE_DATA && load<u32>(block + VCPU_EXIT_ACCESS) & ACCESS_READ;
      if (action == REPLY_SUPPLY_READ && read) supply(block);
    } else {
      store<u32>(block, kind, BLOCK_PASS_KIND);
      store<u32>(block, load<u32>(block + VCPU_EXIT_REGISTER), BLOCK_PASS_REGISTER);
      store<u64>(block, load<u64>(block + VCPU_REPLY_VALUE), BLOCK_PASS_VALUE);
    }
  } else {
    store<u32>(block, 0, BLOCK_SKIP_NEXT);
    forgetGrants(block);
  }
}
