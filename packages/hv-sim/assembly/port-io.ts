// I/O ports: the debug port (0xE9) that collects text, and the power switch (0xF4).
import { fault, FAULT_NON_CANONICAL, raiseProtection, setAttention, shutDown } from './fault';
import {
  FLAG_IMMEDIATE_SOURCE,
  LIMIT_DEBUG_SIZE,
  MAP_DEBUG,
  OP_FLAGS,
  OP_IMM,
  OP_SIZE,
  SHUTDOWN_POWER_OFF,
  VCPU_RAX,
  VCPU_TR_ATTRIBUTES,
  VCPU_TR_BASE,
  VCPU_TR_LIMIT,
} from './generated/layout';
import { loadImplicit } from './memory';
import { cpl, cpu, flags, general, IOPL, RAX, RDX, setRegisterOfSize } from './state';

const PORT_DEBUG: i32 = 0xe9;
const PORT_POWER: i32 = 0xf4;

/** Bytes of debug output that JavaScript has not taken yet. */
export let debugLength: u32 = 0;

export function takeDebug(): void {
  debugLength = 0;
}

/** JavaScript takes the debug output. */
// @ts-ignore: decorator
@external('machine', 'debugFull')
declare function debugFull(): void;

/** Whether the VCPU may use a port: IOPL, then the bitmap of the TSS (SDM vol. 1, 19.5). Raises #GP(0) if not. */
export function portAllowed(port: i32, size: i32): bool {
  if (cpl() <= (flags() & IOPL) >> 12) return true;
  const limit = load<u32>(cpu + VCPU_TR_LIMIT);
  const tss = load<u64>(cpu + VCPU_TR_BASE);
  // A 16-bit TSS has no bitmap.
  if (limit >= 0x67 && load<u32>(cpu + VCPU_TR_ATTRIBUTES) & 8) {
    const map = u32(loadImplicit(tss + 0x66, 2));
    if (fault == 0 && map + (u32(port) >> 3) + 1 <= limit) {
      const bits = u32(loadImplicit(tss + map + (u32(port) >> 3), 2));
      if (fault == 0 && ((bits >> (u32(port) & 7)) & ((1 << u32(size)) - 1)) == 0) return true;
    }
    if (fault && fault != FAULT_NON_CANONICAL) return false;
  }
  raiseProtection(0);
  return false;
}

/** Reads a port; those without a device read as ones, the debug port as its number (as Bochs' does). */
export function portIn(port: i32, _size: i32): u64 {
  return port == PORT_DEBUG ? PORT_DEBUG : 0xffff_ffff;
}

export function portOut(port: i32, _size: i32, value: u64): void {
  if (port == PORT_DEBUG) {
    store<u8>(MAP_DEBUG + debugLength, <u8>value);
    debugLength++;
    if (debugLength == LIMIT_DEBUG_SIZE) debugFull();
  } else if (port == PORT_POWER) {
    shutDown(SHUTDOWN_POWER_OFF, <u32>value);
    setAttention();
  }
}

function portOf(op: usize): i32 {
  return load<u16>(op, OP_FLAGS) & FLAG_IMMEDIATE_SOURCE ? i32(load<u8>(op, OP_IMM)) : i32(general(RDX) & 0xffff);
}

export function input(op: usize): void {
  const port = portOf(op);
  const size = u32(load<u8>(op, OP_SIZE));
  if (portAllowed(port, size)) setRegisterOfSize(VCPU_RAX, size, portIn(port, size));
}

export function output(op: usize): void {
  const port = portOf(op);
  const size = u32(load<u8>(op, OP_SIZE));
  if (!portAllowed(port, size)) return;
  const value = general(RAX);
  portOut(port, size, size == 1 ? value & 0xff : size == 2 ? value & 0xffff : value & 0xffff_ffff);
}
