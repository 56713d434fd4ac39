// The machine's loop: deterministic round-robin over the VCPUs, events between instructions, exits and replies.
import {
  acknowledge,
  dropInterrupt,
  pendingInterrupt,
  pollTimer,
  resetApic,
  timerDeadline,
  timerInterrupts,
} from './apic';
import { endSlice, resetClock, retired, skipTo, startSlice, time } from './clock';
import { fetch, flushCode, invalidateFrame } from './code-cache';
import { eventInjectedExits, resetExits, switchExit } from './exits';
import { execute } from './exec';
import {
  clearAttention,
  clearFault,
  fault,
  FAULT_EXCEPTION,
  FAULT_EXIT,
  faultError,
  faultVector,
  powerOffCode,
  raise,
  resetFault,
  setFaultAddress,
  shutDown,
  shutdownReason,
  unsupported,
} from './fault';
import {
  BLOCK_ACTIVE,
  BLOCK_ALLOW_COUNT,
  BLOCK_ALLOWANCES,
  BLOCK_DELIVERY,
  BLOCK_EXIT_SEQUENCE,
  BLOCK_EXIT_STATE,
  BLOCK_HALTED,
  BLOCK_INJECT_CR2,
  BLOCK_INJECT_ERROR,
  BLOCK_INJECT_PENDING,
  BLOCK_INJECT_VECTOR,
  BLOCK_MXCSR,
  BLOCK_PASS_KIND,
  BLOCK_PASS_REGISTER,
  BLOCK_PASS_VALUE,
  BLOCK_PENDING_DEBUG,
  BLOCK_SHADOW,
  BLOCK_SIZE,
  BLOCK_SKIP_NEXT,
  BLOCK_SUPPLIES,
  BLOCK_SUPPLY_COUNT,
  EXIT_CAUSE_DATA,
  EXIT_CAUSE_EVENT_DELIVERY,
  EXIT_KIND_EPT_VIOLATION,
  EXIT_KIND_EVENT_INJECTED,
  EXIT_KIND_NONE,
  EXIT_KIND_TICK,
  LIMIT_ALLOWANCES,
  LIMIT_SUPPLIES,
  LIMIT_VCPUS,
  MAP_BLOCKS,
  OP_LENGTH,
  REPLY_ALLOW_ONCE,
  REPLY_SKIP,
  REPLY_SUPPLY_READ,
  SHUTDOWN_HALTED,
  VCPU_CR0,
  VCPU_CR2,
  VCPU_EFER,
  VCPU_EXIT_ACCESS,
  VCPU_EXIT_CAUSE,
  VCPU_EXIT_ERROR_CODE,
  VCPU_EXIT_GLA,
  VCPU_EXIT_GPA,
  VCPU_EXIT_INSTRUCTION_LENGTH,
  VCPU_EXIT_KIND,
  VCPU_EXIT_NEW_VALUE,
  VCPU_EXIT_REGISTER,
  VCPU_EXIT_TIME,
  VCPU_EXIT_VECTOR,
  VCPU_INDEX,
  VCPU_REPLY_DATA,
  VCPU_REPLY_DATA_LENGTH,
  VCPU_REPLY_VALUE,
  VCPU_RFLAGS,
} from './generated/layout';
import { delivered, deliver, deliverException, EVENT_HARDWARE, forgetDelivered, recordDebug } from './interrupt';
import { readMsr } from './msr';
import { beginExit, definePhysical } from './physical';
import { debugLength, takeDebug } from './port-io';
import { isLongCode } from './segment';
import { cpu, IF, rip, selectVcpu, setRip, setRipSet, TF } from './state';
import { flushAllTlbs, refreshTlb } from './tlb';

/** JavaScript wants to see the machine after every instruction. */
// @ts-ignore: decorator
@external('machine', 'observed')
declare function observed(vcpu: i32): void;

const NOT_AT_EXIT: u32 = 0;
const EXIT_WAITS: u32 = 1;
const EXIT_WITH_ENGINE: u32 = 2;

const DELIVERY_NONE: u32 = 0;
const DELIVERY_OWN: u32 = 1;
const DELIVERY_INJECTED: u32 = 2;
const DELIVERY_DEBUG: u32 = 3;
const DELIVERY_INTERRUPT: u32 = 4;

/** What {@link run} ended with. */
const RAN_BUDGET: i32 = 0;
const RAN_EXIT: i32 = 1;
const RAN_SHUTDOWN: i32 = 2;

const NEVER: u64 = 0xffff_ffff_ffff_ffff;
/** A tick of guest time in microseconds. */
const TICK: u64 = 1_000_000;
const CR0_PG: u64 = 1 << 31;
const EFER_LMA: u64 = 0x400;
/** DR6.BS. */
const DEBUG_SINGLE_STEP: u64 = 0x4000;

/**
 * Instructions of one go while no other VCPU can run: a WebAssembly engine changes to its optimised code of the executor
 * only when that is called again.
 */
const ALONE_LIMIT: i32 = 0x1_0000;

const GUEST: usize = LIMIT_VCPUS;

let quantum: i32 = 100;
/** The VCPU whose turn it is, and what is left of its turn. */
let current: usize = 0;
let turn: i32 = 0;
let observing: bool = false;
/** Orders exits. */
let sequence: u32 = 0;
/** Time of the next tick, 0 while no port is open. */
let nextTick: u64 = 0;
/** Cached translations may be too wide: rights were taken away, or memory changed from outside. */
let stale: bool = false;

// @ts-ignore: decorator
@inline
function blockOf(index: usize): usize {
  return MAP_BLOCKS + index * BLOCK_SIZE;
}

/** Tells where the tables per frame and RAM lie. */
export function define(regions: u32, frames: u32, rights: usize, flags: usize, ops: usize, ram: usize): void {
  definePhysical(regions, frames, rights, flags, ops, ram);
}

/** Power-on: JavaScript has cleared the VCPU blocks and RAM. */
export function reset(instructions: i32): void {
  quantum = instructions;
  current = 0;
  turn = quantum;
  observing = false;
  sequence = 0;
  nextTick = 0;
  stale = false;
  resetClock();
  resetFault();
  resetExits();
  takeDebug();
  setRipSet(false);
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) {
    resetApic(blockOf(i));
    store<u32>(blockOf(i), 0x1f80, BLOCK_MXCSR);
  }
  selectVcpu(blockOf(0));
  flushCode();
  flushAllTlbs();
}

export function setObserving(on: bool): void {
  observing = on;
}

/** Rights were taken away or memory was written from outside: TLBs are emptied before the next instruction. */
export function markStale(): void {
  stale = true;
}

export function invalidateCode(frame: i32): void {
  invalidateFrame(frame);
}

export function setExit(kind: u32, register: u32, on: bool): bool {
  return switchExit(kind, register, on);
}

/** A port opens or closes: exits and ticks exist only in between. */
export function attach(on: bool): void {
  nextTick = on ? time + TICK : 0;
  resetExits();
  for (let i: usize = 0; i <= GUEST; i++) {
    const block = blockOf(i);
    store<u32>(block, EXIT_KIND_NONE, VCPU_EXIT_KIND);
    store<u32>(block, NOT_AT_EXIT, BLOCK_EXIT_STATE);
    store<u32>(block, 0, BLOCK_INJECT_PENDING);
    store<u32>(block, 0, BLOCK_SKIP_NEXT);
    finishInstruction(block);
  }
  stale = true;
}

export function currentTime(): f64 {
  return f64(time);
}

export function currentInstructions(): f64 {
  return f64(retired);
}

export function currentShutdown(): u32 {
  return shutdownReason;
}

export function currentPowerOffCode(): u32 {
  return powerOffCode;
}

export function debugSize(): u32 {
  return debugLength;
}

export function clearDebug(): void {
  takeDebug();
}

/** Everything that was granted to the running instruction ends with it. */
function finishInstruction(block: usize): void {
  store<u32>(block, 0, BLOCK_ALLOW_COUNT);
  store<u32>(block, 0, BLOCK_SUPPLY_COUNT);
  store<u32>(block, 0, BLOCK_PASS_KIND);
  store<u32>(block, DELIVERY_NONE, BLOCK_DELIVERY);
}

/** Puts an exit into the queue. */
function queue(block: usize): void {
  store<u64>(block, time, VCPU_EXIT_TIME);
  store<u32>(block, EXIT_WAITS, BLOCK_EXIT_STATE);
  store<u32>(block, ++sequence, BLOCK_EXIT_SEQUENCE);
}

/** The violation happened in the delivery of an event: says of which. */
function queueDelivery(kind: u32, vector: i32, error: u32): void {
  if (load<u32>(cpu + VCPU_EXIT_KIND) == EXIT_KIND_EPT_VIOLATION) {
    store<u32>(cpu + BLOCK_DELIVERY, kind);
    store<u32>(cpu + VCPU_EXIT_VECTOR, vector);
    store<u32>(cpu + VCPU_EXIT_ERROR_CODE, error);
  }
  queue(cpu);
}

/** Time passes without an instruction. */
function passTime(): void {
  skipTo(time + 1);
}

/** Delivers what waits for the current VCPU. Returns false when it must not go on to execute. */
function deliverPending(interrupts: bool): bool {
  if (load<u32>(cpu + BLOCK_INJECT_PENDING)) {
    const vector = i32(load<u32>(cpu + BLOCK_INJECT_VECTOR));
    const error = load<i32>(cpu + BLOCK_INJECT_ERROR);
    const injectedCr2 = load<u64>(cpu + BLOCK_INJECT_CR2);
    raise(vector, error != -1, error == -1 ? 0 : u32(error));
    setFaultAddress(injectedCr2);
    const really = deliverException(rip(), vector != 1 && vector != 3 && vector != 4);
    if (fault == FAULT_EXIT) {
      queueDelivery(DELIVERY_INJECTED, vector, u32(error));
      return false;
    }
    store<u32>(cpu + BLOCK_INJECT_PENDING, 0);
    store<u32>(cpu + BLOCK_HALTED, 0);
    finishInstruction(cpu);
    passTime();
    if (shutdownReason) return false;
    if (eventInjectedExits()) {
      beginExit(EXIT_KIND_EVENT_INJECTED);
      clearFault();
      store<u32>(cpu + VCPU_EXIT_VECTOR, really);
      store<u32>(cpu + VCPU_EXIT_ERROR_CODE, really == vector ? (error == -1 ? 0 : u32(error)) : 0);
      store<u64>(cpu + VCPU_EXIT_NEW_VALUE, load<u64>(cpu + VCPU_CR2));
      queue(cpu);
    }
    return false;
  }
  const debug = load<u64>(cpu + BLOCK_PENDING_DEBUG);
  if (debug) {
    raise(1, 0, 0);
    deliverException(rip(), false);
    if (fault == FAULT_EXIT) {
      queueDelivery(DELIVERY_DEBUG, 1, 0);
      return false;
    }
    recordDebug(debug);
    store<u64>(cpu + BLOCK_PENDING_DEBUG, 0);
    store<u32>(cpu + BLOCK_HALTED, 0);
    finishInstruction(cpu);
    passTime();
    return false;
  }
  if (!interrupts || !(load<u32>(cpu + VCPU_RFLAGS) & IF)) return true;
  const vector = pendingInterrupt(cpu);
  if (vector < 0) return true;
  deliver(vector, EVENT_HARDWARE, false, 0, rip(), false);
  if (fault == FAULT_EXCEPTION) {
    // The interrupt has failed as an exception: it is gone, and the exception comes in its place.
    deliverException(rip(), true);
  }
  if (fault == FAULT_EXIT) {
    queueDelivery(DELIVERY_INTERRUPT, vector, 0);
    return false;
  }
  acknowledge(cpu, vector);
  store<u32>(cpu + BLOCK_HALTED, 0);
  finishInstruction(cpu);
  passTime();
  return false;
}

/** Steps over the instruction at RIP without executing it. */
function skipInstruction(): void {
  const op = fetch();
  if (fault == FAULT_EXIT) return queue(cpu);
  if (fault == 0) setRip(rip() + u64(load<u8>(op, OP_LENGTH)));
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
  if (!isLongCode() || !(load<u64>(cpu + VCPU_CR0) & CR0_PG) || !(load<u64>(cpu + VCPU_EFER) & EFER_LMA)) {
    unsupported();
    return 0;
  }
  const trap = (load<u32>(cpu + VCPU_RFLAGS) & TF) != 0;
  const granted = load<u32>(cpu + BLOCK_ALLOW_COUNT) | load<u32>(cpu + BLOCK_SUPPLY_COUNT) | load<u32>(cpu + BLOCK_PASS_KIND);
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

/** Whether a VCPU could execute now. */
function isRunnable(block: usize): bool {
  if (!load<u32>(block + BLOCK_ACTIVE) || load<u32>(block + BLOCK_EXIT_STATE) != NOT_AT_EXIT) return false;
  if (!load<u32>(block + BLOCK_HALTED)) return true;
  if (load<u32>(block + BLOCK_INJECT_PENDING) || load<u64>(block + BLOCK_PENDING_DEBUG)) return true;
  return (load<u32>(block + VCPU_RFLAGS) & IF) != 0 && pendingInterrupt(block) >= 0;
}

/** Chooses the VCPU that runs next; -1 when none can. `alone` tells that no other could. */
let alone: bool = false;

function choose(): i32 {
  let chosen: i32 = -1;
  alone = true;
  for (let step: usize = 0; step < LIMIT_VCPUS; step++) {
    const index = (current + step) % LIMIT_VCPUS;
    if (!isRunnable(blockOf(index))) continue;
    if (chosen >= 0) {
      alone = false;
      // The turn of the one chosen first is over: this one follows.
      if (turn <= 0 && usize(chosen) == current) return i32(index);
      break;
    }
    chosen = i32(index);
  }
  return chosen;
}

/** Whether some VCPU waits for the engine, or is with it. */
function isAnyAtExit(): bool {
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) {
    if (load<u32>(blockOf(i) + BLOCK_EXIT_STATE) != NOT_AT_EXIT) return true;
  }
  return false;
}

/** Whether a halted VCPU can be woken by a timer. */
function isAnyWakeable(): bool {
  let any = false;
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) {
    const block = blockOf(i);
    if (!load<u32>(block + BLOCK_ACTIVE)) continue;
    any = true;
    if (load<u32>(block + VCPU_RFLAGS) & IF && timerInterrupts(block)) return true;
  }
  return !any;
}

/** Lets timers and the tick happen; returns the time of the next of them. */
function passEvents(): u64 {
  let next: u64 = NEVER;
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) {
    const block = blockOf(i);
    if (!load<u32>(block + BLOCK_ACTIVE)) continue;
    pollTimer(block);
    const deadline = timerDeadline(block);
    if (deadline != 0 && deadline < next) next = deadline;
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

/** Number of the record whose exit waits longest, -1 for none. */
function oldestExit(): i32 {
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
  const index = oldestExit();
  if (index >= 0) store<u32>(blockOf(index), EXIT_WITH_ENGINE, BLOCK_EXIT_STATE);
  return index;
}

/** Number of the record whose exit {@link takeExit} would hand out. */
export function waitingExit(): i32 {
  return oldestExit();
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
    if (untilExit && oldestExit() >= 0) return RAN_EXIT;
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
    if (usize(chosen) != current || turn <= 0) {
      current = chosen;
      turn = quantum;
    }
    selectVcpu(blockOf(current));
    const left = event - time;
    let limit = alone ? ALONE_LIMIT : turn;
    if (u64(limit) > left) limit = i32(left);
    turn -= runVcpu(limit);
    // An exit takes a VCPU long enough for the others to go on: one that exits again and again must not hold them up.
    if (load<u32>(cpu + BLOCK_EXIT_STATE) != NOT_AT_EXIT) turn = 0;
  }
}

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

/** Reads an MSR of a VCPU into its exit record's place for 64-bit answers; false when there is none. */
export function readVcpuMsr(index: usize, msr: u32): bool {
  const selected = cpu;
  selectVcpu(blockOf(index));
  clearFault();
  const value = readMsr(msr);
  const known = fault == 0;
  clearFault();
  selectVcpu(selected);
  answerLow = u32(value);
  answerHigh = u32(value >> 32);
  return known;
}

/** Halves of the last {@link readVcpuMsr}. */
let answerLow: u32 = 0;
let answerHigh: u32 = 0;

export function msrLow(): u32 {
  return answerLow;
}

export function msrHigh(): u32 {
  return answerHigh;
}
