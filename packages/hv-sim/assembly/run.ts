// The machine's loop: VCPUs in the order of the schedule, with events between instructions.
import { pollTimer } from './apic';
import { endSlice, skipTo, startSlice, time } from './clock';
import { fetch } from './code-cache';
import { execute } from './exec';
import { DELIVERY_OWN, isAnyAtExit, NOT_AT_EXIT, queue, queueDelivery, waitingExit } from './exit-queue';
import {
  clearAttention,
  clearFault,
  fault,
  FAULT_EXCEPTION,
  FAULT_EXIT,
  faultError,
  faultVector,
  shutDown,
  shutdownReason,
  unsupported,
} from './fault';
import {
  BLOCK_ACTIVE,
  BLOCK_ALLOW_COUNT,
  BLOCK_DELIVERY,
  BLOCK_EXIT_STATE,
  BLOCK_PASS_KIND,
  BLOCK_PENDING_DEBUG,
  BLOCK_SHADOW,
  BLOCK_SINGLE_STEP,
  BLOCK_SKIP_NEXT,
  BLOCK_SUPPLY_COUNT,
  EXIT_CAUSE_EVENT_DELIVERY,
  EXIT_KIND_SINGLE_STEP,
  EXIT_KIND_TICK,
  LIMIT_VCPUS,
  OP_LENGTH,
  SHUTDOWN_HALTED,
  VCPU_CR0,
  VCPU_EXIT_CAUSE,
  VCPU_EXIT_KIND,
  VCPU_INDEX,
  VCPU_RFLAGS,
} from './generated/layout';
import { delivered, deliverException, forgetDelivered } from './interrupt';
import { CR0_PE, wrapRip } from './mode';
import { deliverPending, finishInstruction, passTime, STEP_DUE } from './pending-events';
import { beginExit } from './physical';
import { choose, endTurn, isAnyWakeable, longestGo, nextWake, useTurn } from './schedule';
import { cpu, rip, selectVcpu, setRip, TF, VM } from './state';
import { flushAllTlbs, refreshTlb } from './tlb';
import { blockOf, GUEST } from './vcpu-blocks';

/** JavaScript wants to see the machine after every instruction. */
// @ts-ignore: decorator
@external('machine', 'observed')
declare function observed(vcpu: i32): void;

/** What {@link run} ended with. */
const RAN_BUDGET: i32 = 0;
const RAN_EXIT: i32 = 1;
const RAN_SHUTDOWN: i32 = 2;

const NEVER: u64 = 0xffff_ffff_ffff_ffff;
/** A tick of guest time in microseconds. */
const TICK: u64 = 1_000_000;
/** DR6.BS. */
const DEBUG_SINGLE_STEP: u64 = 0x4000;

let observing: bool = false;
/** Time of the next tick, 0 while no port is open. */
let nextTick: u64 = 0;
/** Cached translations may be too wide: rights were taken away, or memory changed from outside. */
let stale: bool = false;

/** Power-on. */
export function resetRun(): void {
  observing = false;
  nextTick = 0;
  stale = false;
}

/** Whether ticks happen, from now on. */
export function setTicking(on: bool): void {
  nextTick = on ? time + TICK : 0;
}

/** Whether JavaScript sees the machine after every instruction. */
export function setObserving(on: bool): void {
  observing = on;
}

/** Rights were taken away or memory was written from outside: TLBs are emptied before the next instruction. */
export function markStale(): void {
  stale = true;
}

/** Steps over the instruction at RIP without executing it. */
function skipInstruction(): void {
  const op = fetch();
  if (fault == FAULT_EXIT) return queue(cpu);
  if (fault == 0) {
    setRip(rip() + u64(load<u8>(op, OP_LENGTH)));
    wrapRip();
  }
  clearFault();
  store<u32>(cpu + BLOCK_SKIP_NEXT, 0);
  finishInstruction(cpu);
}

/** Runs the current VCPU for up to `limit` instructions; returns how much of its turn is used. */
function runVcpu(limit: i32): i32 {
  const started = time;
  clearFault();
  clearAttention();
  refreshTlb();
  if (load<u32>(cpu + BLOCK_SKIP_NEXT)) {
    skipInstruction();
    passTime();
    return 1;
  }
  const shadow = load<u32>(cpu + BLOCK_SHADOW);
  if (!deliverPending(shadow == 0)) return i32(time - started);
  if (!(load<u64>(cpu + VCPU_CR0) & CR0_PE) || load<u32>(cpu + VCPU_RFLAGS) & VM) {
    // Real mode and its virtual kind.
    unsupported();
    return 0;
  }
  const trap = (load<u32>(cpu + VCPU_RFLAGS) & TF) != 0;
  const granted =
    load<u32>(cpu + BLOCK_ALLOW_COUNT) |
    load<u32>(cpu + BLOCK_SUPPLY_COUNT) |
    load<u32>(cpu + BLOCK_PASS_KIND) |
    load<u32>(cpu + BLOCK_SINGLE_STEP);
  const slice = trap || shadow || granted || observing ? 1 : limit;
  store<u32>(cpu + BLOCK_SHADOW, 0);
  if (trap) forgetDelivered();
  startSlice(slice);
  const done = execute(slice);
  endSlice(done);
  if (done > 0) {
    if (granted) finishInstruction(cpu);
    if (trap && !delivered) store<u64>(cpu + BLOCK_PENDING_DEBUG, DEBUG_SINGLE_STEP);
  }
  if (fault == FAULT_EXCEPTION) {
    const vector = faultVector;
    const error = faultError;
    deliverException(rip(), vector != 1);
    if (fault == FAULT_EXIT) {
      queueDelivery(DELIVERY_OWN, vector, error);
    } else {
      finishInstruction(cpu);
      passTime();
    }
  } else if (fault == FAULT_EXIT) {
    if (done == 0) store<u32>(cpu + BLOCK_SHADOW, shadow);
    if (load<u32>(cpu + VCPU_EXIT_CAUSE) == EXIT_CAUSE_EVENT_DELIVERY) store<u32>(cpu + BLOCK_DELIVERY, DELIVERY_OWN);
    queue(cpu);
  }
  if (observing && done > 0) observed(load<u32>(cpu + VCPU_INDEX));
  return i32(time - started);
}

/** Raises the exit of a single step that is done, unless another exit goes first. */
function finishStep(): void {
  if (load<u32>(cpu + BLOCK_SINGLE_STEP) != STEP_DUE || load<u32>(cpu + BLOCK_EXIT_STATE) != NOT_AT_EXIT) return;
  store<u32>(cpu + BLOCK_SINGLE_STEP, 0);
  beginExit(EXIT_KIND_SINGLE_STEP);
  clearFault();
  queue(cpu);
}

/** Lets timers and the tick happen; returns the time of the next of them. */
function passEvents(): u64 {
  let next: u64 = NEVER;
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) {
    const block = blockOf(i);
    if (!load<u32>(block + BLOCK_ACTIVE)) continue;
    pollTimer(block);
    const wake = nextWake(block);
    if (wake < next) next = wake;
  }
  if (nextTick != 0) {
    const guest = blockOf(GUEST);
    if (time >= nextTick && load<u32>(guest + BLOCK_EXIT_STATE) == NOT_AT_EXIT) {
      store<u32>(guest, EXIT_KIND_TICK, VCPU_EXIT_KIND);
      queue(guest);
      nextTick += TICK;
    }
    if (nextTick > time && nextTick < next) next = nextTick;
  }
  return next;
}

/**
 * Lets up to `budget` microseconds pass.
 * @param untilExit end when an exit waits; otherwise the other VCPUs go on
 */
export function run(budget: i32, untilExit: bool): i32 {
  const end = time + u64(budget);
  while (true) {
    if (shutdownReason) return RAN_SHUTDOWN;
    if (stale) {
      stale = false;
      flushAllTlbs();
    }
    let event = passEvents();
    if (untilExit && waitingExit() >= 0) return RAN_EXIT;
    if (time >= end) return RAN_BUDGET;
    if (event > end) event = end;
    const chosen = choose();
    if (chosen < 0) {
      if (!isAnyAtExit() && !isAnyWakeable()) {
        shutDown(SHUTDOWN_HALTED, 0);
        return RAN_SHUTDOWN;
      }
      skipTo(event);
      continue;
    }
    selectVcpu(blockOf(chosen));
    const left = event - time;
    let limit = longestGo();
    if (u64(limit) > left) limit = i32(left);
    if (load<u32>(cpu + BLOCK_SINGLE_STEP) != STEP_DUE) useTurn(runVcpu(limit));
    finishStep();
    // An exit takes a VCPU long enough for the others to go on: one that exits again and again must not hold them up.
    if (load<u32>(cpu + BLOCK_EXIT_STATE) != NOT_AT_EXIT) endTurn();
  }
}
