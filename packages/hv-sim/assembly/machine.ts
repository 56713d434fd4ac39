// What the machine offers to JavaScript.
import { resetApic } from './apic';
import { resetClock, retired, time } from './clock';
import { flushCode, invalidateFrame } from './code-cache';
import { NOT_AT_EXIT, resetExitQueue } from './exit-queue';
import { resetExits, switchExit } from './exits';
import { clearFault, fault, powerOffCode, resetFault, shutdownReason, shutdownVcpu } from './fault';
import {
  BLOCK_EXIT_STATE,
  BLOCK_HELD_UNTIL,
  BLOCK_INJECT_LOSES,
  BLOCK_INJECT_PENDING,
  BLOCK_SINGLE_STEP,
  BLOCK_SKIP_NEXT,
  EXIT_KIND_NONE,
  LIMIT_VCPUS,
  VCPU_EXIT_KIND,
} from './generated/layout';
import { readMsr } from './msr';
import { forgetGrants, lostInjections, resetLostInjections } from './pending-events';
import { definePhysical } from './physical';
import { debugLength, takeDebug } from './port-io';
import { markStale, resetRun, setTicking } from './run';
import { resetSchedule } from './schedule';
import { cpu, selectVcpu, setRipSet } from './state';
import { flushAllTlbs } from './tlb';
import { blockOf, GUEST } from './vcpu-blocks';

/** Tells where the tables per frame and RAM lie. */
export function define(regions: u32, frames: u32, rights: usize, flags: usize, ops: usize, ram: usize): void {
  definePhysical(regions, frames, rights, flags, ops, ram);
}

/** Power-on: JavaScript has cleared the VCPU blocks and RAM. */
export function reset(instructions: i32, seeded: bool, seed: u32): void {
  resetRun();
  resetSchedule(instructions, seeded, seed);
  resetExitQueue();
  resetClock();
  resetFault();
  resetExits();
  takeDebug();
  setRipSet(false);
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) resetApic(blockOf(i));
  selectVcpu(blockOf(0));
  flushCode();
  flushAllTlbs();
}

/** A port opens or closes: exits and ticks exist only in between. */
export function attach(on: bool): void {
  resetExits();
  resetLostInjections();
  for (let i: usize = 0; i <= GUEST; i++) {
    const block = blockOf(i);
    store<u32>(block, EXIT_KIND_NONE, VCPU_EXIT_KIND);
    store<u32>(block, NOT_AT_EXIT, BLOCK_EXIT_STATE);
    store<u32>(block, 0, BLOCK_INJECT_PENDING);
    store<u32>(block, 0, BLOCK_SKIP_NEXT);
    store<u32>(block, 0, BLOCK_SINGLE_STEP);
    store<u64>(block, 0, BLOCK_HELD_UNTIL);
    store<u32>(block, 0, BLOCK_INJECT_LOSES);
    forgetGrants(block);
  }
  setTicking(on);
  markStale();
}

export function invalidateCode(frame: i32): void {
  invalidateFrame(frame);
}

export function setExit(kind: u32, register: u32, on: bool): bool {
  return switchExit(kind, register, on);
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

export function currentShutdownVcpu(): u32 {
  return shutdownVcpu;
}

export function currentPowerOffCode(): u32 {
  return powerOffCode;
}

export function currentLostInjections(): u32 {
  return lostInjections;
}

export function debugSize(): u32 {
  return debugLength;
}

export function clearDebug(): void {
  takeDebug();
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

export { takeExit, waitingExit } from './exit-queue';
export { reply } from './reply';
export { markStale, run, setObserving } from './run';
export { hold } from './schedule';
