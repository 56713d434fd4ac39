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
  BLOCK_SKIP_NEXT,
  BLOCK_SUPPLIES,
  BLOCK_SUPPLY_COUNT,
  EXIT_CAUSE_DATA,
  EXIT_KIND_EPT_VIOLATION,
  EXIT_KIND_EVENT_INJECTED,
  EXIT_KIND_NONE,
  LIMIT_ALLOWANCES,
  LIMIT_SUPPLIES,
  REPLY_ALLOW_ONCE,
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
import { finishInstruction } from './pending-events';
import { rip, selectVcpu, setRip } from './state';
import { blockOf, GUEST } from './vcpu-blocks';

/** Adds what the engine allows to what the running instruction may do. */
function allow(block: usize): void {
  const count = load<u32>(block + BLOCK_ALLOW_COUNT);
  if (count == LIMIT_ALLOWANCES) return;
  const entry = block + BLOCK_ALLOWANCES + (usize(count) << 4);
  store<u64>(entry, load<u64>(block + VCPU_EXIT_GPA) >> 12);
  store<u32>(entry, load<u32>(block + VCPU_EXIT_ACCESS), 8);
  store<u32>(block, count + 1, BLOCK_ALLOW_COUNT);
}

function supply(block: usize): void {
  const count = load<u32>(block + BLOCK_SUPPLY_COUNT);
  if (count == LIMIT_SUPPLIES) return;
  const entry = block + BLOCK_SUPPLIES + usize(count) * 80;
  const length = load<u32>(block + VCPU_REPLY_DATA_LENGTH);
  store<u64>(entry, load<u64>(block + VCPU_EXIT_GLA));
  store<u64>(entry, length < 64 ? length : 64, 8);
  memory.copy(entry + 16, block + VCPU_REPLY_DATA, 64);
  store<u32>(block, count + 1, BLOCK_SUPPLY_COUNT);
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
  if (index == GUEST || kind == EXIT_KIND_EVENT_INJECTED) return;
  if (action == REPLY_SKIP) {
    skip(block);
  } else if (action == REPLY_ALLOW_ONCE || action == REPLY_SUPPLY_READ) {
    if (kind == EXIT_KIND_EPT_VIOLATION) {
      allow(block);
      if (action == REPLY_SUPPLY_READ && load<u32>(block + VCPU_EXIT_CAUSE) == EXIT_CAUSE_DATA) supply(block);
    } else {
      store<u32>(block, kind, BLOCK_PASS_KIND);
      store<u32>(block, load<u32>(block + VCPU_EXIT_REGISTER), BLOCK_PASS_REGISTER);
      store<u64>(block, load<u64>(block + VCPU_REPLY_VALUE), BLOCK_PASS_VALUE);
    }
  } else {
    store<u32>(block, 0, BLOCK_SKIP_NEXT);
    finishInstruction(block);
  }
}
