// Delivery of events through the IDT of protected mode without long mode (SDM vol. 3A, 6.12).
import {
  fault,
  FAULT_EXCEPTION,
  faultVector,
  raise,
  raiseProtection,
  unsupported,
  VECTOR_GP,
  VECTOR_NP,
  VECTOR_SS,
} from './fault';
import {
  checkFarCode,
  checkFarOffset,
  commitFarCode,
  farAttributes,
  isFarCode,
  isFarConforming,
  keepCode,
  prepareFarCode,
} from './far-code';
import {
  VCPU_CS_SELECTOR,
  VCPU_IDT_BASE,
  VCPU_IDT_LIMIT,
  VCPU_RFLAGS,
  VCPU_SS_ATTRIBUTES,
  VCPU_SS_BASE,
  VCPU_SS_LIMIT,
  VCPU_SS_SELECTOR,
} from './generated/layout';
import {
  commitStackPointer,
  commitStackSegment,
  innerStackPointer,
  newStackMask,
  prepareInnerStack,
  prepareStackSegment,
  readInnerStack,
} from './inner-stack';
import { loadImplicit, prepareStack, storeStack } from './memory';
import { dplOf, readDescriptor } from './segment';
import { isWithin } from './segmented-address';
import { moveStack, stackMask } from './sized-stack';
import { cpl, cpu, IF, NT, RF, setRip, stackPointer, TF, VM } from './state';
import { refreshTlb } from './tlb';

const TASK_GATE: u32 = 5;

/** As `deliver` of interrupt.ts. @param software INT n, INT3 or INTO: the gate's DPL must allow it */
export function deliverProtected(
  vector: i32,
  software: bool,
  hasError: bool,
  error: u32,
  returnOffset: u64,
  faulting: bool,
): void {
  const external: u32 = software ? 0 : 1;
  const gateCode = (u32(vector) << 3) | 2 | external;
  if (u32(vector) * 8 + 7 > load<u32>(cpu + VCPU_IDT_LIMIT)) return raiseProtection(gateCode);
  const gate = loadImplicit(load<u64>(cpu + VCPU_IDT_BASE) + u64(vector) * 8, 8);
  if (fault) return;
  const type = u32(gate >> 40) & 0x1f;
  // 16-bit interrupt and trap gates are 6 and 7, 32-bit ones 14 and 15.
  if (type != TASK_GATE && (type & 0x16) != 6) return raiseProtection(gateCode);
  if (software && (u32(gate >> 45) & 3) < cpl()) return raiseProtection(gateCode);
  if (!(gate & (1 << 47))) return raise(VECTOR_NP, 1, gateCode);
  if (type == TASK_GATE) return unsupported();
  const size: u32 = type & 8 ? 4 : 2;
  const target = (gate & 0xffff) | (size == 4 ? (gate >> 32) & 0xffff_0000 : 0);

  const selector = u32(gate >> 16) & 0xffff;
  const selectorCode = (selector & 0xfffc) | external;
  if ((selector & 0xfffc) == 0) return raiseProtection(external);
  if (!readDescriptor(selector, false)) {
    if (fault == FAULT_EXCEPTION && faultVector == VECTOR_GP) raiseProtection(selectorCode);
    return;
  }
  keepCode();
  const old = cpl();
  if (!isFarCode() || dplOf(farAttributes) > old) return raiseProtection(selectorCode);
  if (!checkFarCode(selectorCode)) return;
  const privilege = isFarConforming() ? old : dplOf(farAttributes);
  const inner = privilege < old;
  if (inner && !readInnerStack(privilege, external)) return;
  if (!checkFarOffset(target, external)) return;

  const bytes = size * (3 + (inner ? 2 : 0) + (hasError ? 1 : 0));
  const mask = inner ? newStackMask() : stackMask();
  const top = ((inner ? innerStackPointer : stackPointer()) - bytes) & mask;
  if (inner) {
    if (!prepareInnerStack(top, bytes, privilege, external)) return;
    if (!prepareStackSegment()) return;
  } else {
    const room = isWithin(load<u32>(cpu + VCPU_SS_ATTRIBUTES), load<u32>(cpu + VCPU_SS_LIMIT), top, bytes);
    if (!room) return raise(VECTOR_SS, 1, external);
    prepareStack((load<u64>(cpu + VCPU_SS_BASE) + top) & 0xffff_ffff, bytes, privilege == 3);
    if (fault) return;
  }
  if (!prepareFarCode()) return;

  const rflags = load<u64>(cpu + VCPU_RFLAGS);
  let at: usize = 0;
  if (hasError) {
    storeStack(at, error, size);
    at += size;
  }
  storeStack(at, returnOffset, size);
  storeStack(at + size, load<u32>(cpu + VCPU_CS_SELECTOR), size);
  storeStack(at + 2 * size, faulting ? rflags | RF : rflags, size);
  if (inner) {
    storeStack(at + 3 * size, stackPointer(), size);
    storeStack(at + 4 * size, load<u32>(cpu + VCPU_SS_SELECTOR), size);
    commitStackSegment(privilege);
    commitStackPointer(top);
  } else {
    moveStack(top);
  }
  commitFarCode((selector & 0xfffc) | privilege);
  setRip(target);
  let clear: u64 = TF | NT | RF | VM;
  if (!(type & 1)) clear |= IF;
  store<u64>(cpu + VCPU_RFLAGS, rflags & ~clear);
  refreshTlb();
}
