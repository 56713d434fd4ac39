import { FCW_INITIAL, MXCSR_INITIAL, MXCSR_MASK, XSAVE_AREA, XSAVE_HEADER_END, XStateComponent } from '@introd/abi';
import { GlueError } from './error.js';

// The vector registers of a VCPU as a backend in software keeps them: the bytes of an XSAVE area with x87, SSE and AVX,
// whose header is made when it is read.

const AT = XSAVE_AREA.offset;
const LEGACY = XStateComponent.X87 | XStateComponent.SSE;
const KNOWN = LEGACY | XStateComponent.AVX;

/** Puts every component into its initial configuration (SDM vol. 1, 13.6); `state` has XSAVE_AREA.size bytes. */
export function initXsaveState(state: Uint8Array): void {
  state.fill(0);
  put16(state, AT.fcw, FCW_INITIAL);
  put16(state, AT.mxcsr, MXCSR_INITIAL);
  put16(state, AT.mxcsrMask, MXCSR_MASK);
}

/** Size in bytes of the standard XSAVE area for an XCR0 with x87, SSE and AVX (SDM vol. 1, 13.4.3). */
export function xsaveAreaSize(xcr0: number): number {
  return (xcr0 & XStateComponent.AVX) === 0 ? XSAVE_HEADER_END : XSAVE_AREA.size;
}

/** What a backend's `readXsaveArea` does, for the registers in `state` and the low half of XCR0. */
export function readXsaveState(state: Uint8Array, xcr0: number, target: Uint8Array): number {
  const size = xsaveAreaSize(xcr0);
  const inUse = componentsInUse(state) & (xcr0 | LEGACY);
  const length = Math.min(size, target.length);
  for (let i = 0; i < length; i++) target[i] = state[i]!;
  if (length > AT.xstateBv) target[AT.xstateBv] = inUse;
  return size;
}

/** What a backend's `writeXsaveArea` does. */
export function writeXsaveState(state: Uint8Array, xcr0: number, source: Uint8Array): void {
  if (source.length < XSAVE_HEADER_END) throw refused(`${source.length} bytes are less than region and header`);
  const present = source[AT.xstateBv]!;
  if ((present & ~((xcr0 | LEGACY) & KNOWN)) !== 0) throw refused('XSTATE_BV names a component that is not in XCR0');
  for (let i = AT.xstateBv + 1; i < XSAVE_HEADER_END; i++) {
    if (source[i] !== 0) throw refused('the header is not that of a standard area');
  }
  if (source[AT.mxcsr + 2] !== 0 || source[AT.mxcsr + 3] !== 0) throw refused('MXCSR has reserved bits set');
  const avx = (present & XStateComponent.AVX) !== 0;
  if (avx && source.length < XSAVE_AREA.size) throw refused('its AVX component is cut');
  const mxcsr = get16(source, AT.mxcsr);
  initXsaveState(state);
  put16(state, AT.mxcsr, mxcsr);
  if ((present & XStateComponent.X87) !== 0) {
    copy(state, source, AT.fcw, AT.mxcsr);
    state[AT.reserved] = 0;
    copy(state, source, AT.st, AT.xmm);
  }
  if ((present & XStateComponent.SSE) !== 0) copy(state, source, AT.xmm, AT.legacyRest);
  if (avx) copy(state, source, AT.ymmHigh, XSAVE_AREA.size);
}

/** Components that are not in their initial configuration; MXCSR counts to none (SDM vol. 1, 13.6). */
function componentsInUse(state: Uint8Array): number {
  let used = 0;
  const x87 = get16(state, AT.fcw) !== FCW_INITIAL || !isZero(state, AT.fsw, AT.mxcsr) || !isZero(state, AT.st, AT.xmm);
  if (x87) used |= XStateComponent.X87;
  if (!isZero(state, AT.xmm, AT.legacyRest)) used |= XStateComponent.SSE;
  if (!isZero(state, AT.ymmHigh, XSAVE_AREA.size)) used |= XStateComponent.AVX;
  return used;
}

function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (bytes[i] !== 0) return false;
  return true;
}

function copy(target: Uint8Array, source: Uint8Array, from: number, to: number): void {
  for (let i = from; i < to; i++) target[i] = source[i]!;
}

function get16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value & 0xff;
  bytes[at + 1] = value >>> 8;
}

function refused(reason: string): GlueError {
  return new GlueError('ERR_GLUE_BAD_XSAVE_AREA', `the XSAVE area cannot be restored: ${reason}`);
}
