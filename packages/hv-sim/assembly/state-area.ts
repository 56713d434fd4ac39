// What FXSAVE, XSAVE and their counterparts have in common: taking the state components out of the VCPU block and putting
// them back. The legacy region of an area is put together in MAP_STATE first, so that nothing is committed in part.
import {
  BLOCK_XSAVE_FCW,
  BLOCK_XSAVE_FSW,
  BLOCK_XSAVE_MXCSR,
  BLOCK_XSAVE_ST,
  BLOCK_XSAVE_XMM,
  BLOCK_XSAVE_YMM_HIGH,
  CODE_LONG,
  COMPONENT_AVX,
  COMPONENT_SSE,
  COMPONENT_X87,
  MAP_STATE,
  VCPU_CR0,
  XSAVE_FCW,
  XSAVE_FDP,
  XSAVE_FIP,
  XSAVE_FOP,
  XSAVE_FSW,
  XSAVE_FTW,
  XSAVE_LEGACY_REST,
  XSAVE_MXCSR,
  XSAVE_MXCSR_MASK,
  XSAVE_RESERVED,
  XSAVE_ST,
  XSAVE_XMM,
  XSAVE_YMM_HIGH,
  XSAVE_SIZE,
} from './generated/layout';
import { codeMode } from './mode';
import { cpu } from './state';
import { FCW_INITIAL, legalControl, summarized } from './x87';

const CR0_EM: u32 = 4;
const CR0_TS: u32 = 8;

/** The bits of MXCSR that exist (SDM vol. 1, 10.2.3). */
export const MXCSR_MASK: u32 = 0xffff;
/** MXCSR after reset. */
export const MXCSR_INITIAL: u32 = 0x1f80;

/** Bytes of the bank of XMM or upper YMM halves that the mode reaches: 16 registers in 64-bit mode, 8 otherwise. */
export function bankSize(): usize {
  return codeMode == CODE_LONG ? 256 : 128;
}

export function taskSwitched(): bool {
  return (load<u32>(cpu, VCPU_CR0) & CR0_TS) != 0;
}

export function x87Emulated(): bool {
  return (load<u32>(cpu, VCPU_CR0) & CR0_EM) != 0;
}

function isZero(from: usize, to: usize): bool {
  for (let at = from; at < to; at += 8) if (load<u64>(cpu + at)) return false;
  return true;
}

/** XINUSE: components that are not in their initial configuration (SDM vol. 1, 13.6). */
export function componentsInUse(): u64 {
  let used: u64 = 0;
  const x87 =
    load<u16>(cpu, BLOCK_XSAVE_FCW) != FCW_INITIAL ||
    // FSW, FTW and FOP, which follow FCW, then the pointers.
    load<u64>(cpu, BLOCK_XSAVE_FCW) >> 16 != 0 ||
    !isZero(BLOCK_XSAVE_FCW + 8, BLOCK_XSAVE_MXCSR) ||
    !isZero(BLOCK_XSAVE_ST, BLOCK_XSAVE_XMM);
  if (x87) used |= COMPONENT_X87;
  if (!isZero(BLOCK_XSAVE_XMM, BLOCK_XSAVE_XMM + 256)) used |= COMPONENT_SSE;
  if (!isZero(BLOCK_XSAVE_YMM_HIGH, BLOCK_XSAVE_YMM_HIGH + 256)) used |= COMPONENT_AVX;
  return used;
}

export function controlAndStatus(): u32 {
  return load<u32>(cpu, BLOCK_XSAVE_MXCSR);
}

/**
 * Puts the whole area as XSAVE writes it together in MAP_STATE. Pointers of 4 bytes have a selector behind them, which
 * this processor saves as 0 (CPUID leaf 7, EBX bit 13).
 */
export function compose(pointerSize: u32): void {
  memory.copy(MAP_STATE, cpu + BLOCK_XSAVE_FCW, XSAVE_SIZE);
  if (pointerSize == 4) {
    store<u32>(MAP_STATE, 0, XSAVE_FIP + 4);
    store<u32>(MAP_STATE, 0, XSAVE_FDP + 4);
  }
  store<u32>(MAP_STATE, MXCSR_MASK, XSAVE_MXCSR_MASK);
}

/** Takes the x87 state over from MAP_STATE. */
export function restoreX87(pointerSize: u32): void {
  const target = cpu + BLOCK_XSAVE_FCW;
  const fcw = legalControl(load<u16>(MAP_STATE, XSAVE_FCW));
  store<u16>(target, <u16>fcw, XSAVE_FCW);
  store<u16>(target, <u16>summarized(load<u16>(MAP_STATE, XSAVE_FSW), fcw), XSAVE_FSW);
  store<u8>(target, load<u8>(MAP_STATE, XSAVE_FTW), XSAVE_FTW);
  store<u8>(target, 0, XSAVE_RESERVED);
  store<u16>(target, load<u16>(MAP_STATE, XSAVE_FOP) & 0x7ff, XSAVE_FOP);
  const mask: u64 = pointerSize == 4 ? 0xffff_ffff : -1;
  store<u64>(target, load<u64>(MAP_STATE, XSAVE_FIP) & mask, XSAVE_FIP);
  store<u64>(target, load<u64>(MAP_STATE, XSAVE_FDP) & mask, XSAVE_FDP);
  for (let at: usize = XSAVE_ST; at < XSAVE_XMM; at += 16) {
    store<u64>(target + at, load<u64>(MAP_STATE + at));
    store<u64>(target + at, u64(load<u16>(MAP_STATE + at, 8)), 8);
  }
}

/** Takes XMM registers over from MAP_STATE. */
export function restoreSse(): void {
  memory.copy(cpu + BLOCK_XSAVE_XMM, MAP_STATE + XSAVE_XMM, bankSize());
}

/** Takes upper YMM halves over from MAP_STATE. */
export function restoreAvx(): void {
  memory.copy(cpu + BLOCK_XSAVE_YMM_HIGH, MAP_STATE + XSAVE_YMM_HIGH, bankSize());
}

/** Makes MAP_STATE hold the initial configuration of a component. */
export function composeInitial(component: u64): void {
  if (component == COMPONENT_X87) {
    memory.fill(MAP_STATE, 0, XSAVE_MXCSR);
    memory.fill(MAP_STATE + XSAVE_ST, 0, XSAVE_XMM - XSAVE_ST);
    store<u16>(MAP_STATE, <u16>FCW_INITIAL, XSAVE_FCW);
  } else if (component == COMPONENT_SSE) {
    memory.fill(MAP_STATE + XSAVE_XMM, 0, XSAVE_LEGACY_REST - XSAVE_XMM);
  } else {
    memory.fill(MAP_STATE + XSAVE_YMM_HIGH, 0, XSAVE_SIZE - XSAVE_YMM_HIGH);
  }
}

export function setControlAndStatus(mxcsr: u32): void {
  store<u32>(cpu, mxcsr, BLOCK_XSAVE_MXCSR);
}
