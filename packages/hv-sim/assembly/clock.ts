// Guest time. One instruction of any VCPU takes one microsecond; so does the delivery of an exception, so that a guest
// that only faults still lets time pass.
import { remaining, setRemaining } from './state';

/** Microseconds since the machine started, at the start of the running `execute`. */
export let time: u64 = 0;
/** Instructions retired. */
export let retired: u64 = 0;
/** What the running `execute` may retire, 0 outside of it. */
let budget: i32 = 0;

/** Time-stamp counter ticks per microsecond. */
export const TSC_PER_MICROSECOND: u64 = 1000;

/** Time of the current instruction in microseconds. */
export function now(): u64 {
  return budget == 0 ? time : time + u64(budget - remaining);
}

export function startSlice(instructions: i32): void {
  budget = instructions;
  setRemaining(instructions);
}

/** Lets the time of a slice pass. */
export function endSlice(instructions: i32): void {
  budget = 0;
  time += instructions;
  retired += instructions;
}

/** Lets time pass without instructions. */
export function skipTo(moment: u64): void {
  time = moment;
}

export function resetClock(): void {
  time = 0;
  retired = 0;
  budget = 0;
}
