// FXSAVE and FXRSTOR (SDM vol. 1, 10.5): x87, MXCSR and XMM state in 512 bytes, aligned to 16.
import { fault, raise, raiseProtection, VECTOR_NM } from './fault';
import { MAP_STATE, OP_SIZE, XSAVE_MXCSR, XSAVE_XMM, XSAVE_XSTATE_BV } from './generated/layout';
import { loadRange, probeWrite, storeProbed } from './memory';
import { effectiveAddress } from './operand';
import {
  bankSize,
  compose,
  MXCSR_MASK,
  restoreSse,
  restoreX87,
  setControlAndStatus,
  taskSwitched,
  x87Emulated,
} from './state-area';

/** Address of the area, or a fault. */
function area(op: usize): u64 {
  if (taskSwitched() || x87Emulated()) {
    raise(VECTOR_NM, 0, 0);
    return 0;
  }
  const address = effectiveAddress(op);
  if (address & 15) raiseProtection(0);
  return address;
}

/** The last 96 bytes are software's. */
export function saveLegacy(op: usize): void {
  const address = area(op);
  if (fault) return;
  probeWrite(address, <i32>XSAVE_XSTATE_BV);
  if (fault) return;
  compose(load<u8>(op, OP_SIZE));
  storeProbed(0, MAP_STATE, XSAVE_XMM + bankSize());
}

export function restoreLegacy(op: usize): void {
  const address = area(op);
  if (fault) return;
  loadRange(address, MAP_STATE, XSAVE_XSTATE_BV);
  if (fault) return;
  const mxcsr = load<u32>(MAP_STATE, XSAVE_MXCSR);
  if (mxcsr & ~MXCSR_MASK) return raiseProtection(0);
  restoreX87(load<u8>(op, OP_SIZE));
  setControlAndStatus(mxcsr);
  restoreSse();
}
