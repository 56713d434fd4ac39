// The local APIC as x2APIC mode shows it (SDM vol. 3A, chapter 10): fixed interrupts between VCPUs and the timer, whose
// count is one microsecond. The software-enable bit of the spurious-vector register must be set, as on hardware.
import { now, time } from './clock';
import { raiseProtection, setAttention, unsupported } from './fault';
import {
  BLOCK_ACTIVE,
  BLOCK_IRR,
  BLOCK_ISR,
  BLOCK_LVT_TIMER,
  BLOCK_SIZE,
  BLOCK_SPURIOUS_VECTOR,
  BLOCK_TIMER_DEADLINE,
  BLOCK_TIMER_INITIAL,
  LIMIT_VCPUS,
  MAP_BLOCKS,
  VCPU_CR8,
  VCPU_INDEX,
} from './generated/layout';
import { cpu } from './state';

const APIC_ENABLED: u32 = 0x100;
const LVT_MASKED: u32 = 0x1_0000;
const LVT_PERIODIC: u32 = 0x2_0000;
/** Version 0x15, seven LVT entries (SDM vol. 3A, figure 10-7). */
const VERSION: u64 = 0x6_0015;

export function resetApic(block: usize): void {
  store<u64>(block + BLOCK_TIMER_DEADLINE, 0);
  store<u32>(block + BLOCK_TIMER_INITIAL, 0);
  store<u32>(block + BLOCK_LVT_TIMER, LVT_MASKED);
  store<u32>(block + BLOCK_SPURIOUS_VECTOR, 0xff);
  memory.fill(block + BLOCK_IRR, 0, 64);
}

function isEnabled(block: usize): bool {
  return (load<u32>(block + BLOCK_SPURIOUS_VECTOR) & APIC_ENABLED) != 0;
}

/** Makes an interrupt wait in a VCPU. */
function request(block: usize, vector: u32): void {
  // Vectors below 16 are illegal (SDM vol. 3A, 10.5.2).
  if (!isEnabled(block) || vector < 16) return;
  const word = block + BLOCK_IRR + usize((vector >> 6) << 3);
  store<u64>(word, load<u64>(word) | (u64(1) << (vector & 63)));
}

/** Highest vector of a 256-bit register, -1 when it is empty. */
function highest(register: usize): i32 {
  for (let i: i32 = 3; i >= 0; i--) {
    const word = load<u64>(register + (usize(i) << 3));
    if (word) return (i << 6) + 63 - i32(clz<u64>(word));
  }
  return -1;
}

function clearBit(register: usize, vector: i32): void {
  const word = register + usize((vector >> 6) << 3);
  store<u64>(word, load<u64>(word) & ~(u64(1) << (vector & 63)));
}

/** Vector of the interrupt that the priorities let through, -1 for none (SDM vol. 3A, 10.8.3). */
export function pendingInterrupt(block: usize): i32 {
  const vector = highest(block + BLOCK_IRR);
  if (vector < 0) return -1;
  const serving = highest(block + BLOCK_ISR);
  const priority = vector >> 4;
  if (priority <= i32(load<u64>(block + VCPU_CR8)) || (serving >= 0 && priority <= serving >> 4)) return -1;
  return vector;
}

/** PPR: the class of the task priority or of the interrupt in service, whichever is higher (SDM vol. 3A, 10.8.3.1). */
function processorPriority(): u64 {
  const task = load<u64>(cpu + VCPU_CR8) << 4;
  const serving = highest(cpu + BLOCK_ISR);
  const served = serving >= 0 ? u64(serving & 0xf0) : 0;
  return served > task ? served : task;
}

/** The interrupt has been delivered. */
export function acknowledge(block: usize, vector: i32): void {
  clearBit(block + BLOCK_IRR, vector);
  const word = block + BLOCK_ISR + usize((vector >> 6) << 3);
  store<u64>(word, load<u64>(word) | (u64(1) << (vector & 63)));
}

/** The interrupt is lost. */
export function dropInterrupt(block: usize, vector: i32): void {
  clearBit(block + BLOCK_IRR, vector);
}

/** Lets a VCPU's timer fire if its time has come. */
export function pollTimer(block: usize): void {
  const deadline = load<u64>(block + BLOCK_TIMER_DEADLINE);
  if (deadline == 0 || time < deadline) return;
  const lvt = load<u32>(block + BLOCK_LVT_TIMER);
  if (!(lvt & LVT_MASKED)) request(block, lvt & 0xff);
  const period = u64(load<u32>(block + BLOCK_TIMER_INITIAL));
  store<u64>(block + BLOCK_TIMER_DEADLINE, lvt & LVT_PERIODIC ? time + period - ((time - deadline) % period) : 0);
}

/** Time at which a VCPU's timer fires, 0 for never. */
export function timerDeadline(block: usize): u64 {
  return load<u64>(block + BLOCK_TIMER_DEADLINE);
}

/** Whether the timer can interrupt at all. */
export function timerInterrupts(block: usize): bool {
  return timerDeadline(block) != 0 && !(load<u32>(block + BLOCK_LVT_TIMER) & LVT_MASKED) && isEnabled(block);
}

/** Makes the timer's interrupt wait ahead of its time; the timer itself goes on. */
export function requestTimer(block: usize): void {
  request(block, load<u32>(block + BLOCK_LVT_TIMER) & 0xff);
}

function startTimer(initial: u32): void {
  store<u32>(cpu + BLOCK_TIMER_INITIAL, initial);
  store<u64>(cpu + BLOCK_TIMER_DEADLINE, initial ? now() + initial : 0);
  setAttention();
}

function currentCount(): u64 {
  const deadline = load<u64>(cpu + BLOCK_TIMER_DEADLINE);
  const at = now();
  return deadline > at ? deadline - at : 0;
}

function sendInterrupt(command: u64): void {
  const mode = u32(command >> 8) & 7;
  // Fixed and lowest priority only: nothing boots its VCPUs through INIT and SIPI here.
  if (mode > 1) return unsupported();
  const vector = u32(command) & 0xff;
  const destination = u32(command >> 32);
  const shorthand = u32(command >> 18) & 3;
  const self = load<u32>(cpu + VCPU_INDEX);
  for (let id: u32 = 0; id < LIMIT_VCPUS; id++) {
    const block = MAP_BLOCKS + usize(id) * BLOCK_SIZE;
    if (!load<u32>(block + BLOCK_ACTIVE)) continue;
    let chosen: bool;
    if (shorthand == 1) chosen = id == self;
    else if (shorthand == 2) chosen = true;
    else if (shorthand == 3) chosen = id != self;
    else if (destination == 0xffff_ffff) chosen = true;
    else if (command & 0x800) chosen = destination >> 16 == id >> 4 && (destination & (1 << (id & 15))) != 0;
    else chosen = destination == id;
    if (chosen) request(block, vector);
  }
  setAttention();
}

/** Value of an APIC register by its MSR; #GP when there is none. */
export function readApic(msr: u32): u64 {
  const register = msr & 0xff;
  if (register >= 0x10 && register <= 0x17) return load<u32>(cpu + BLOCK_ISR + (usize(register - 0x10) << 2));
  if (register >= 0x18 && register <= 0x1f) return 0;
  if (register >= 0x20 && register <= 0x27) return load<u32>(cpu + BLOCK_IRR + (usize(register - 0x20) << 2));
  const id = load<u32>(cpu + VCPU_INDEX);
  switch (register) {
    case 0x02:
      return id;
    case 0x03:
      return VERSION;
    case 0x08:
      return load<u64>(cpu + VCPU_CR8) << 4;
    case 0x0a:
      return processorPriority();
    case 0x0d:
      return u64(((id >> 4) << 16) | (1 << (id & 15)));
    case 0x0f:
      return load<u32>(cpu + BLOCK_SPURIOUS_VECTOR);
    case 0x28:
    case 0x30:
    case 0x3e:
      return 0;
    case 0x32:
      return load<u32>(cpu + BLOCK_LVT_TIMER);
    case 0x33:
    case 0x34:
    case 0x35:
    case 0x36:
    case 0x37:
      return LVT_MASKED;
    case 0x38:
      return load<u32>(cpu + BLOCK_TIMER_INITIAL);
    case 0x39:
      return currentCount();
  }
  raiseProtection(0);
  return 0;
}

/** Writes an APIC register by its MSR; #GP when there is none or it cannot be written so. */
export function writeApic(msr: u32, value: u64): void {
  const register = msr & 0xff;
  // Only the interrupt command register has 64 bits.
  if (register != 0x30 && value >> 32) return raiseProtection(0);
  switch (register) {
    case 0x08:
      if (value > 0xff) return raiseProtection(0);
      store<u64>(cpu + VCPU_CR8, value >> 4);
      setAttention();
      return;
    case 0x0b: {
      if (value) return raiseProtection(0);
      const serving = highest(cpu + BLOCK_ISR);
      if (serving >= 0) clearBit(cpu + BLOCK_ISR, serving);
      setAttention();
      return;
    }
    case 0x0f:
      store<u32>(cpu + BLOCK_SPURIOUS_VECTOR, <u32>value & 0x13ff);
      return;
    case 0x30:
      return sendInterrupt(value);
    case 0x32:
      store<u32>(cpu + BLOCK_LVT_TIMER, <u32>value & (LVT_PERIODIC | LVT_MASKED | 0xff));
      setAttention();
      return;
    case 0x28:
    case 0x33:
    case 0x34:
    case 0x35:
    case 0x36:
    case 0x37:
    case 0x3e:
      return;
    case 0x38:
      return startTimer(<u32>value);
    case 0x3f:
      request(cpu, <u32>value & 0xff);
      setAttention();
      return;
  }
  raiseProtection(0);
}
