// Exits that are raised only while they are switched on, each before its change.
import {
  BLOCK_PASS_KIND,
  BLOCK_PASS_REGISTER,
  BLOCK_PASS_VALUE,
  LIMIT_MSR_EXITS,
  MAP_MSR_EXITS,
  OP_LENGTH,
  SWITCH_BREAKPOINT,
  SWITCH_CR_WRITE,
  SWITCH_DESCRIPTOR_TABLE,
  SWITCH_EVENT_INJECTED,
  SWITCH_MSR_WRITE,
  SWITCH_PAGE_WALK_UPDATES,
  SWITCH_REP_ITERATIONS,
  SWITCH_VMCALL,
  SWITCH_XCR_WRITE,
  VCPU_EXIT_INSTRUCTION_LENGTH,
  VCPU_EXIT_NEW_VALUE,
  VCPU_EXIT_OLD_VALUE,
  VCPU_EXIT_REGISTER,
  VCPU_REPLY_VALUE,
} from './generated/layout';
import { beginExit } from './physical';
import { cpu } from './state';
import { setUpdatesExit } from './translate';

/** Control registers whose writes exit, a bit each. */
export let crExits: u32 = 0;
let switches: u32 = 0;
let msrCount: u32 = 0;

export function resetExits(): void {
  crExits = 0;
  switches = 0;
  msrCount = 0;
  setUpdatesExit(false);
}

/** Switches an exit on or off; false when no further MSR can be watched. */
export function switchExit(kind: u32, register: u32, on: bool): bool {
  if (kind == SWITCH_CR_WRITE) {
    if (on) crExits |= 1 << register;
    else crExits &= ~(1 << register);
    return true;
  }
  if (kind == SWITCH_MSR_WRITE) return switchMsr(register, on);
  if (kind == SWITCH_PAGE_WALK_UPDATES) setUpdatesExit(on);
  if (on) switches |= 1 << kind;
  else switches &= ~(1 << kind);
  return true;
}

function switchMsr(msr: u32, on: bool): bool {
  for (let i: u32 = 0; i < msrCount; i++) {
    const slot = MAP_MSR_EXITS + (usize(i) << 2);
    if (load<u32>(slot) != msr) continue;
    if (!on) {
      msrCount--;
      store<u32>(slot, load<u32>(MAP_MSR_EXITS + (usize(msrCount) << 2)));
    }
    return true;
  }
  if (!on) return true;
  if (msrCount == LIMIT_MSR_EXITS) return false;
  store<u32>(MAP_MSR_EXITS + (usize(msrCount) << 2), msr);
  msrCount++;
  return true;
}

export function msrExits(msr: u32): bool {
  for (let i: u32 = 0; i < msrCount; i++) {
    if (load<u32>(MAP_MSR_EXITS + (usize(i) << 2)) == msr) return true;
  }
  return false;
}

export function xcrExits(): bool {
  return (switches & (1 << SWITCH_XCR_WRITE)) != 0;
}

export function descriptorTableExits(): bool {
  return (switches & (1 << SWITCH_DESCRIPTOR_TABLE)) != 0;
}

export function breakpointExits(): bool {
  return (switches & (1 << SWITCH_BREAKPOINT)) != 0;
}

export function vmcallExits(): bool {
  return (switches & (1 << SWITCH_VMCALL)) != 0;
}

export function eventInjectedExits(): bool {
  return (switches & (1 << SWITCH_EVENT_INJECTED)) != 0;
}

/** Whether a reply lets one element of a repeated string instruction through, instead of those on its pages. */
export function repIterationExits(): bool {
  return (switches & (1 << SWITCH_REP_ITERATIONS)) != 0;
}

/** Whether the engine has allowed this exit's operation for the running instruction. */
export function isPassed(kind: u32, register: u32): bool {
  return load<u32>(cpu + BLOCK_PASS_KIND) == kind && load<u32>(cpu + BLOCK_PASS_REGISTER) == register;
}

/** The value that the engine wants to be committed. */
export function passedValue(): u64 {
  return load<u64>(cpu + BLOCK_PASS_VALUE);
}

/** Raises an exit of an instruction that writes a register or touches a table. */
export function registerExit(op: usize, kind: u32, register: u32, oldValue: u64, newValue: u64): void {
  beginExit(kind);
  store<u32>(cpu + VCPU_EXIT_INSTRUCTION_LENGTH, load<u8>(op, OP_LENGTH));
  store<u32>(cpu + VCPU_EXIT_REGISTER, register);
  store<u64>(cpu + VCPU_EXIT_OLD_VALUE, oldValue);
  store<u64>(cpu + VCPU_EXIT_NEW_VALUE, newValue);
  store<u64>(cpu + VCPU_REPLY_VALUE, newValue);
}
