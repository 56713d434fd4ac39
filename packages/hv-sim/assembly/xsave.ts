// XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS (SDM vol. 1, 13.7 to 13.12). With the components x87, SSE and AVX
// the compacted form lies as the standard one does: AVX is the first behind the header in both.
import { fault, raise, raiseProtection, raiseUndefined, VECTOR_NM } from './fault';
import {
  COMPONENT_AVX,
  COMPONENT_SSE,
  COMPONENT_X87,
  I_XRSTORS,
  I_XSAVE,
  I_XSAVEC,
  I_XSAVES,
  MAP_STATE,
  OP_CODE,
  OP_SIZE,
  VCPU_CR4,
  VCPU_XCR0,
  XSAVE_HEADER_REST,
  XSAVE_MXCSR,
  XSAVE_SIZE,
  XSAVE_ST,
  XSAVE_XCOMP_BV,
  XSAVE_XMM,
  XSAVE_XSTATE_BV,
  XSAVE_YMM_HIGH,
} from './generated/layout';
import { load64, loadRange, probeWrite, storeProbed } from './memory';
import { effectiveAddress } from './operand';
import { cpl, cpu, general, RAX, RDX } from './state';
import {
  bankSize,
  componentsInUse,
  compose,
  composeInitial,
  controlAndStatus,
  MXCSR_INITIAL,
  MXCSR_MASK,
  restoreAvx,
  restoreSse,
  restoreX87,
  setControlAndStatus,
  taskSwitched,
} from './state-area';

const CR4_OSXSAVE: u32 = 1 << 18;
/** Bit of XCOMP_BV: the area is compacted. */
const COMPACTED: u64 = 1 << 63;
const YMM_HIGH_SIZE: usize = XSAVE_SIZE - XSAVE_YMM_HIGH;

/** Address of the area, aligned to 64 bytes, or a fault; `supervisor` for the instructions of ring 0. */
function area(op: usize, supervisor: bool): u64 {
  if (!(load<u32>(cpu, VCPU_CR4) & CR4_OSXSAVE)) {
    raiseUndefined();
    return 0;
  }
  if (taskSwitched()) {
    raise(VECTOR_NM, 0, 0);
    return 0;
  }
  const address = effectiveAddress(op);
  if ((supervisor && cpl() != 0) || address & 63) raiseProtection(0);
  return address;
}

/** RFBM: the components of XCR0 that EDX:EAX asks for. IA32_XSS is always 0. */
function requested(): u64 {
  return ((general(RDX) << 32) | (general(RAX) & 0xffff_ffff)) & load<u64>(cpu + VCPU_XCR0);
}

function storePart(offset: usize, size: usize): void {
  storeProbed(offset, MAP_STATE + offset, size);
}

export function saveExtended(op: usize): void {
  const code: u32 = load<u16>(op, OP_CODE);
  const compact = code == I_XSAVEC || code == I_XSAVES;
  const address = area(op, code == I_XSAVES);
  if (fault) return;
  const mask = requested();
  let inUse = componentsInUse();
  if (compact && controlAndStatus() != MXCSR_INITIAL) inUse |= COMPONENT_SSE;
  const saved = code == I_XSAVE ? mask : mask & inUse;
  probeWrite(address, <i32>(mask & COMPONENT_AVX ? XSAVE_SIZE : XSAVE_YMM_HIGH));
  if (fault) return;
  let header = mask & inUse;
  if (!compact) {
    header |= load64(address + XSAVE_XSTATE_BV) & ~mask;
    if (fault) return;
  }
  compose(load<u8>(op, OP_SIZE));
  store<u64>(MAP_STATE, header, XSAVE_XSTATE_BV);
  store<u64>(MAP_STATE, mask | COMPACTED, XSAVE_XCOMP_BV);
  if (saved & COMPONENT_X87) {
    storePart(0, XSAVE_MXCSR);
    storePart(XSAVE_ST, XSAVE_XMM - XSAVE_ST);
  }
  if (compact ? saved & COMPONENT_SSE : mask & (COMPONENT_SSE | COMPONENT_AVX)) {
    storePart(XSAVE_MXCSR, XSAVE_ST - XSAVE_MXCSR);
  }
  if (saved & COMPONENT_SSE) storePart(XSAVE_XMM, bankSize());
  storePart(XSAVE_XSTATE_BV, compact ? 16 : 8);
  if (saved & COMPONENT_AVX) storePart(XSAVE_YMM_HIGH, bankSize());
}

/** Whether the header in MAP_STATE is one that the instruction takes. */
function isLegalHeader(compactOnly: bool): bool {
  const present = load<u64>(MAP_STATE, XSAVE_XSTATE_BV);
  const layout = load<u64>(MAP_STATE, XSAVE_XCOMP_BV);
  const known = load<u64>(cpu + VCPU_XCR0);
  if (!(layout & COMPACTED)) {
    if (compactOnly || layout || present & ~known) return false;
    return load<u64>(MAP_STATE, XSAVE_HEADER_REST) == 0;
  }
  if (layout & ~(known | COMPACTED) || present & (~layout | COMPACTED)) return false;
  for (let at: usize = XSAVE_HEADER_REST; at < XSAVE_YMM_HIGH; at += 8) {
    if (load<u64>(MAP_STATE + at)) return false;
  }
  return true;
}

export function restoreExtended(op: usize): void {
  const supervisor = load<u16>(op, OP_CODE) == I_XRSTORS;
  const address = area(op, supervisor);
  if (fault) return;
  const mask = requested();
  loadRange(address, MAP_STATE, XSAVE_YMM_HIGH);
  if (fault) return;
  if (!isLegalHeader(supervisor)) return raiseProtection(0);
  const present = load<u64>(MAP_STATE, XSAVE_XSTATE_BV);
  const compact = load<u64>(MAP_STATE, XSAVE_XCOMP_BV) != 0;
  // MXCSR belongs to SSE in the compacted form; in the standard one it is always taken for SSE and for AVX.
  let takesMxcsr = (mask & (COMPONENT_SSE | COMPONENT_AVX)) != 0;
  let mxcsr = load<u32>(MAP_STATE, XSAVE_MXCSR);
  if (compact) {
    takesMxcsr = (mask & COMPONENT_SSE) != 0;
    if (!(present & COMPONENT_SSE)) mxcsr = MXCSR_INITIAL;
  }
  if (takesMxcsr && mxcsr & ~MXCSR_MASK) return raiseProtection(0);
  if (mask & present & COMPONENT_AVX) {
    loadRange(address + XSAVE_YMM_HIGH, MAP_STATE + XSAVE_YMM_HIGH, YMM_HIGH_SIZE);
    if (fault) return;
  }
  if (!(present & COMPONENT_X87)) composeInitial(COMPONENT_X87);
  if (!(present & COMPONENT_SSE)) composeInitial(COMPONENT_SSE);
  if (!(present & COMPONENT_AVX)) composeInitial(COMPONENT_AVX);
  if (mask & COMPONENT_X87) restoreX87(load<u8>(op, OP_SIZE));
  if (takesMxcsr) setControlAndStatus(mxcsr);
  if (mask & COMPONENT_SSE) restoreSse();
  if (mask & COMPONENT_AVX) restoreAvx();
}
