// What a VCPU takes before its next instruction: an injected exception, a debug trap, an interrupt.
import { acknowledge, pendingInterrupt, requestTimer, timerInterrupts } from './apic';
import { skipTo, time } from './clock';
import {
  DELIVERY_DEBUG,
  DELIVERY_INJECTED,
  DELIVERY_INTERRUPT,
  DELIVERY_NONE,
  queue,
  queueDelivery,
} from './exit-queue';
import { eventInjectedExits } from './exits';
import { clearFault, fault, FAULT_EXCEPTION, FAULT_EXIT, raise, setFaultAddress, shutdownReason } from './fault';
import {
  BLOCK_ALLOW_COUNT,
  BLOCK_DELIVERY,
  BLOCK_HALTED,
  BLOCK_INJECT_CR2,
  BLOCK_INJECT_ERROR,
  BLOCK_INJECT_LOSES,
  BLOCK_INJECT_PENDING,
  BLOCK_INJECT_VECTOR,
  BLOCK_PASS_KIND,
  BLOCK_PENDING_DEBUG,
  BLOCK_SINGLE_STEP,
  BLOCK_SUPPLY_COUNT,
  EXIT_KIND_EVENT_INJECTED,
  VCPU_CR2,
  VCPU_EXIT_ERROR_CODE,
  VCPU_EXIT_NEW_VALUE,
  VCPU_EXIT_VECTOR,
  VCPU_RFLAGS,
} from './generated/layout';
import { deliver, deliverException, EVENT_HARDWARE, recordDebug } from './interrupt';
import { beginExit } from './physical';
import { cpu, IF, rip } from './state';

/** Values of `singleStep`. */
export const STEP_ARMED: u32 = 1;
export const STEP_DUE: u32 = 2;

/** The instruction at RIP begins anew: nothing is granted to it. */
export function forgetGrants(block: usize): void {
  store<u32>(block, 0, BLOCK_ALLOW_COUNT);
  store<u32>(block, 0, BLOCK_SUPPLY_COUNT);
  store<u32>(block, 0, BLOCK_PASS_KIND);
  store<u32>(block, DELIVERY_NONE, BLOCK_DELIVERY);
}

/** An instruction or an event is complete: everything that was granted ends with it, and so does a single step. */
export function finishInstruction(block: usize): void {
  forgetGrants(block);
  if (load<u32>(block + BLOCK_SINGLE_STEP) == STEP_ARMED) store<u32>(block, STEP_DUE, BLOCK_SINGLE_STEP);
}

/** Time passes without an instruction. */
export function passTime(): void {
  skipTo(time + 1);
}

/** Injections that lost against an interrupt since the port was opened. */
export let lostInjections: u32 = 0;

export function resetLostInjections(): void {
  lostInjections = 0;
}

/** The interrupt that goes before an injection: one that waits, or the timer's ahead of its time; -1 for none. */
function interruptToTake(): i32 {
  if (!(load<u32>(cpu + VCPU_RFLAGS) & IF)) return -1;
  const waiting = pendingInterrupt(cpu);
  if (waiting >= 0 || !timerInterrupts(cpu)) return waiting;
  requestTimer(cpu);
  return pendingInterrupt(cpu);
}

/** Delivers an interrupt to the current VCPU; false when an exit stopped its delivery. */
function takeInterrupt(vector: i32): bool {
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
  return true;
}

/** Tells the engine which event was delivered where it had injected one. */
function reportInjection(vector: i32, error: u32): void {
  if (!eventInjectedExits()) return;
  beginExit(EXIT_KIND_EVENT_INJECTED);
  clearFault();
  store<u32>(cpu + VCPU_EXIT_VECTOR, vector);
  store<u32>(cpu + VCPU_EXIT_ERROR_CODE, error);
  store<u64>(cpu + VCPU_EXIT_NEW_VALUE, load<u64>(cpu + VCPU_CR2));
  queue(cpu);
}

/** Delivers what waits for the current VCPU. Returns false when it must not go on to execute. */
export function deliverPending(interrupts: bool): bool {
  if (load<u32>(cpu + BLOCK_INJECT_PENDING)) {
    if (interrupts && load<u32>(cpu + BLOCK_INJECT_LOSES)) {
      const winner = interruptToTake();
      if (winner >= 0) {
        if (takeInterrupt(winner)) {
          lostInjections++;
          store<u32>(cpu + BLOCK_INJECT_LOSES, 0);
          store<u32>(cpu + BLOCK_INJECT_PENDING, 0);
          if (!shutdownReason) reportInjection(winner, 0);
        }
        return false;
      }
    }
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
    reportInjection(really, really == vector ? (error == -1 ? 0 : u32(error)) : 0);
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
  takeInterrupt(vector);
  return false;
}
