// Which VCPU runs next, and for how long: round-robin with turns of equal length, or by seed.
import { pendingInterrupt, timerDeadline, timerInterrupts } from './apic';
import { time } from './clock';
import { NOT_AT_EXIT } from './exit-queue';
import {
  BLOCK_ACTIVE,
  BLOCK_EXIT_STATE,
  BLOCK_HALTED,
  BLOCK_HELD_UNTIL,
  BLOCK_INJECT_PENDING,
  BLOCK_PENDING_DEBUG,
  LIMIT_VCPUS,
  VCPU_RFLAGS,
} from './generated/layout';
import { IF } from './state';
import { blockOf } from './vcpu-blocks';

const NEVER: u64 = 0xffff_ffff_ffff_ffff;

/**
 * Instructions of one go while no other VCPU can run: a WebAssembly engine changes to its optimised code of the executor
 * only when that is called again.
 */
const ALONE_LIMIT: i32 = 0x1_0000;

let quantum: i32 = 100;
/** Turns are drawn: their order and their length, 1 to `quantum`. */
let seeded: bool = false;
let random: u32 = 0;
/** The VCPU whose turn it is, and what is left of its turn. */
let current: usize = 0;
let turn: i32 = 0;
/** No other VCPU can run beside the one that was chosen. */
let alone: bool = false;

/** Power-on. @param instructions per turn @param drawn turns are drawn, from the seed */
export function resetSchedule(instructions: i32, drawn: bool, seed: u32): void {
  quantum = instructions;
  seeded = drawn;
  random = seed;
  current = 0;
  turn = drawn ? 0 : quantum;
}

/** An integer in 0 .. limit - 1: the mulberry32 generator, as src/random-numbers.ts has it. */
function below(limit: u32): u32 {
  random += 0x6d2b_79f5;
  let mixed = random;
  mixed = (mixed ^ (mixed >> 15)) * (mixed | 1);
  mixed ^= mixed + (mixed ^ (mixed >> 7)) * (mixed | 61);
  mixed ^= mixed >> 14;
  return u32((u64(mixed) * u64(limit)) >> 32);
}

/** Lets the others run for so many instructions before a VCPU goes on. */
export function hold(index: usize, instructions: u32): void {
  store<u64>(blockOf(index), time + instructions, BLOCK_HELD_UNTIL);
}

function isHeld(block: usize): bool {
  return load<u64>(block + BLOCK_HELD_UNTIL) > time;
}

/** Whether a VCPU could execute now. */
function isRunnable(block: usize): bool {
  if (!load<u32>(block + BLOCK_ACTIVE) || load<u32>(block + BLOCK_EXIT_STATE) != NOT_AT_EXIT || isHeld(block)) return false;
  if (!load<u32>(block + BLOCK_HALTED)) return true;
  if (load<u32>(block + BLOCK_INJECT_PENDING) || load<u64>(block + BLOCK_PENDING_DEBUG)) return true;
  return (load<u32>(block + VCPU_RFLAGS) & IF) != 0 && pendingInterrupt(block) >= 0;
}

function chooseInOrder(): i32 {
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

function chooseBySeed(): i32 {
  // Turns keep their length even while one VCPU is alone: how far the guest is run at a time must not change what is drawn.
  alone = false;
  if (turn > 0 && isRunnable(blockOf(current))) return i32(current);
  turn = 0;
  let count: u32 = 0;
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) if (isRunnable(blockOf(i))) count++;
  if (count == 0) return -1;
  let skip = below(count);
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) {
    if (isRunnable(blockOf(i)) && skip-- == 0) return i32(i);
  }
  return -1;
}

/** The VCPU that runs next; -1 when none can. */
export function choose(): i32 {
  const chosen = seeded ? chooseBySeed() : chooseInOrder();
  if (chosen >= 0 && (usize(chosen) != current || turn <= 0)) {
    current = chosen;
    turn = seeded ? i32(below(quantum)) + 1 : quantum;
  }
  return chosen;
}

/** How many instructions the chosen VCPU may execute in one go. */
export function longestGo(): i32 {
  return alone ? ALONE_LIMIT : turn;
}

/** The chosen VCPU has used so much of its turn. */
export function useTurn(instructions: i32): void {
  turn -= instructions;
}

/** The chosen VCPU's turn is over. */
export function endTurn(): void {
  turn = 0;
}

/** Whether a VCPU that does not run can by itself come to run: a timer wakes it, or it is only held. */
export function isAnyWakeable(): bool {
  let any = false;
  for (let i: usize = 0; i < LIMIT_VCPUS; i++) {
    const block = blockOf(i);
    if (!load<u32>(block + BLOCK_ACTIVE)) continue;
    any = true;
    if (isHeld(block) || (load<u32>(block + VCPU_RFLAGS) & IF && timerInterrupts(block))) return true;
  }
  return !any;
}

/** When the scheduler must look again because of this VCPU: its timer, or the end of its hold. */
export function nextWake(block: usize): u64 {
  const deadline = timerDeadline(block);
  const held = load<u64>(block + BLOCK_HELD_UNTIL);
  let next = deadline != 0 ? deadline : NEVER;
  if (held > time && held < next) next = held;
  return next;
}
