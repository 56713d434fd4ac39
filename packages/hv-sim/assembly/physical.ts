// Guest-physical memory: where a frame lies, what the second-level rights say about it, and the exit that a violation is.
import { FAULT_EXIT, setFault } from './fault';
import {
  BLOCK_ALLOW_COUNT,
  BLOCK_ALLOWANCES,
  EXIT_KIND_EPT_VIOLATION,
  MAP_REGIONS,
  MAP_VOID,
  VCPU_EXIT_ACCESS,
  VCPU_EXIT_CAUSE,
  VCPU_EXIT_ERROR_CODE,
  VCPU_EXIT_GLA,
  VCPU_EXIT_GLA_VALID,
  VCPU_EXIT_GPA,
  VCPU_EXIT_INSTRUCTION_LENGTH,
  VCPU_EXIT_KIND,
  VCPU_EXIT_NEW_VALUE,
  VCPU_EXIT_OLD_VALUE,
  VCPU_EXIT_REGISTER,
  VCPU_EXIT_SIZE,
  VCPU_EXIT_VECTOR,
  VCPU_REPLY_VALUE,
} from './generated/layout';
import { cpu } from './state';

export const ACCESS_READ: u32 = 1;
export const ACCESS_WRITE: u32 = 2;
export const ACCESS_EXECUTE: u32 = 4;

/** Flag of a frame: it holds bytes of decoded instructions. */
export const FRAME_CODE: u32 = 1;
/** Flag of a frame: it holds the second part of an instruction that crosses a page. */
export const FRAME_TAIL: u32 = 2;

/** Tables per frame: rights (u8), flags (u8), table of decoded instructions (u32). */
export let frameRights: usize = 0;
export let frameFlags: usize = 0;
export let frameOps: usize = 0;
/** Start of guest RAM in linear memory: frames in the order of the regions. */
export let ram: usize = 0;
export let frames: u32 = 0;
let regions: u32 = 0;

/** An access of the running instruction is allowed only this once: nothing about it may be cached. */
export let bypassed: bool = false;

export function clearBypassed(): void {
  bypassed = false;
}

export function definePhysical(regionCount: u32, frameCount: u32, rights: usize, flags: usize, ops: usize, base: usize): void {
  regions = regionCount;
  frames = frameCount;
  frameRights = rights;
  frameFlags = flags;
  frameOps = ops;
  ram = base;
}

/** Number of the frame in the machine's tables, -1 when the address is not RAM. */
export function frameOf(gpa: u64): i32 {
  const number = gpa >> 12;
  let region = MAP_REGIONS;
  for (let i: u32 = 0; i < regions; i++) {
    const index = number - load<u64>(region);
    if (index < u64(load<u32>(region, 8))) return load<u32>(region, 12) + i32(index);
    region += 16;
  }
  return -1;
}

/** Whether the reply "allow once" lets the running instruction do this. */
function isAllowed(number: u64, access: u32): bool {
  const count = load<u32>(cpu + BLOCK_ALLOW_COUNT);
  let granted: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const entry = cpu + BLOCK_ALLOWANCES + (usize(i) << 4);
    if (load<u64>(entry) == number) granted |= load<u32>(entry, 8);
  }
  return (access & ~granted) == 0;
}

/** Fields that every exit has; the caller adds its own, and the run loop the time. */
export function beginExit(kind: u32): void {
  store<u32>(cpu + VCPU_EXIT_KIND, kind);
  store<u32>(cpu + VCPU_EXIT_CAUSE, 0);
  store<u32>(cpu + VCPU_EXIT_ACCESS, 0);
  store<u32>(cpu + VCPU_EXIT_SIZE, 0);
  store<u64>(cpu + VCPU_EXIT_GPA, 0);
  store<u64>(cpu + VCPU_EXIT_GLA, 0);
  store<u32>(cpu + VCPU_EXIT_GLA_VALID, 0);
  store<u32>(cpu + VCPU_EXIT_INSTRUCTION_LENGTH, 0);
  store<u32>(cpu + VCPU_EXIT_REGISTER, 0);
  store<u32>(cpu + VCPU_EXIT_VECTOR, 0);
  store<u32>(cpu + VCPU_EXIT_ERROR_CODE, 0);
  store<u64>(cpu + VCPU_EXIT_OLD_VALUE, 0);
  store<u64>(cpu + VCPU_EXIT_NEW_VALUE, 0);
  store<u64>(cpu + VCPU_REPLY_VALUE, 0);
  setFault(FAULT_EXIT);
}

/** Refuses an access: an exit with the bits that the rights lack. */
export function refuse(gpa: u64, gla: u64, access: u32, size: u32, cause: u32): void {
  beginExit(EXIT_KIND_EPT_VIOLATION);
  store<u32>(cpu + VCPU_EXIT_CAUSE, cause);
  store<u32>(cpu + VCPU_EXIT_ACCESS, access);
  store<u32>(cpu + VCPU_EXIT_SIZE, size);
  store<u64>(cpu + VCPU_EXIT_GPA, gpa);
  store<u64>(cpu + VCPU_EXIT_GLA, gla);
  store<u32>(cpu + VCPU_EXIT_GLA_VALID, 1);
}

/** Whether the second-level rights, or a reply, let the running instruction do this; refuses it otherwise. */
export function isGranted(frame: i32, gpa: u64, gla: u64, access: u32, size: u32, cause: u32): bool {
  const missing = access & ~u32(load<u8>(frameRights + frame));
  if (missing == 0) return true;
  if (isAllowed(gpa >> 12, missing)) {
    bypassed = true;
    return true;
  }
  refuse(gpa, gla, missing, size, cause);
  return false;
}

// @ts-ignore: decorator
@inline
export function hostOf(frame: i32, gpa: u64): usize {
  return ram + (usize(frame) << 12) + (usize(gpa) & 0xfff);
}

/** A page of ones in place of an address that is not RAM; what is written there is lost. */
export function voidPage(gpa: u64): usize {
  bypassed = true;
  memory.fill(MAP_VOID, 0xff, 4096);
  return MAP_VOID + (usize(gpa) & 0xfff);
}
