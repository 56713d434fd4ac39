// The common operations by the forms of their operands: register, immediate, memory. `T` is the width.
// Functions that touch memory return with `fault` set before anything is committed.
import { alu, aluOfKind, conditionHolds, cut, unary } from './alu';
import { fault } from './fault';
import { ALU_CMP, ALU_TEST, OP_DST, OP_IMM, OP_KIND, OP_LENGTH, OP_SRC } from './generated/layout';
import { multiply } from './multiply';
import { effectiveAddress, loadForUpdate, loadMemory, storeMemory, storeUpdated } from './operand';
import { shift } from './shift';
import { register, setRegister } from './state';

// @ts-ignore: decorator
@inline
export function dst(op: usize): usize {
  return load<u16>(op, OP_DST);
}

// @ts-ignore: decorator
@inline
export function src(op: usize): usize {
  return load<u16>(op, OP_SRC);
}

// @ts-ignore: decorator
@inline
export function length(op: usize): u32 {
  return load<u8>(op, OP_LENGTH);
}

/** Whether the result of this kind is dropped. */
// @ts-ignore: decorator
@inline
function compares(kind: u32): bool {
  return kind == ALU_CMP || kind == ALU_TEST;
}

// @ts-ignore: decorator
@inline
export function aluRegisterRegister<T>(kind: u32, op: usize): void {
  const result = alu<T>(kind, register<T>(dst(op)), register<T>(src(op)));
  if (!compares(kind)) setRegister<T>(dst(op), result);
}

// @ts-ignore: decorator
@inline
export function aluRegisterImmediate<T>(kind: u32, op: usize): void {
  const result = alu<T>(kind, register<T>(dst(op)), cut<T>(load<u64>(op, OP_IMM)));
  if (!compares(kind)) setRegister<T>(dst(op), result);
}

// @ts-ignore: decorator
@inline
export function aluRegisterMemory<T>(kind: u32, op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  const result = alu<T>(kind, register<T>(dst(op)), value);
  if (!compares(kind)) setRegister<T>(dst(op), result);
}

// @ts-ignore: decorator
@inline
function aluMemory<T>(kind: u32, address: u64, second: u64): void {
  if (compares(kind)) {
    const value = loadMemory<T>(address);
    if (fault) return;
    alu<T>(kind, value, second);
  } else {
    const value = loadForUpdate<T>(address);
    if (fault) return;
    storeUpdated<T>(address, alu<T>(kind, value, second));
  }
}

// @ts-ignore: decorator
@inline
export function aluMemoryRegister<T>(kind: u32, op: usize): void {
  aluMemory<T>(kind, effectiveAddress(op), register<T>(src(op)));
}

// @ts-ignore: decorator
@inline
export function aluMemoryImmediate<T>(kind: u32, op: usize): void {
  aluMemory<T>(kind, effectiveAddress(op), cut<T>(load<u64>(op, OP_IMM)));
}

// @ts-ignore: decorator
@inline
function kindToRegister<T>(op: usize, second: u64): void {
  const kind = load<u8>(op, OP_KIND);
  const result = aluOfKind<T>(kind, register<T>(dst(op)), second);
  if (kind < ALU_CMP) setRegister<T>(dst(op), result);
}

export function kindRegisterRegister<T>(op: usize): void {
  kindToRegister<T>(op, register<T>(src(op)));
}

export function kindRegisterImmediate<T>(op: usize): void {
  kindToRegister<T>(op, cut<T>(load<u64>(op, OP_IMM)));
}

export function kindRegisterMemory<T>(op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  kindToRegister<T>(op, value);
}

// @ts-ignore: decorator
@inline
function kindMemory<T>(op: usize, second: u64): void {
  const kind = load<u8>(op, OP_KIND);
  const address = effectiveAddress(op);
  if (kind >= ALU_CMP) {
    const value = loadMemory<T>(address);
    if (fault) return;
    aluOfKind<T>(kind, value, second);
  } else {
    const value = loadForUpdate<T>(address);
    if (fault) return;
    storeUpdated<T>(address, aluOfKind<T>(kind, value, second));
  }
}

export function kindMemoryRegister<T>(op: usize): void {
  kindMemory<T>(op, register<T>(src(op)));
}

export function kindMemoryImmediate<T>(op: usize): void {
  kindMemory<T>(op, cut<T>(load<u64>(op, OP_IMM)));
}

// @ts-ignore: decorator
@inline
export function movRegisterRegister<T>(op: usize): void {
  setRegister<T>(dst(op), register<T>(src(op)));
}

// @ts-ignore: decorator
@inline
export function movRegisterImmediate<T>(op: usize): void {
  setRegister<T>(dst(op), cut<T>(load<u64>(op, OP_IMM)));
}

// @ts-ignore: decorator
@inline
export function movRegisterMemory<T>(op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  setRegister<T>(dst(op), value);
}

// @ts-ignore: decorator
@inline
export function movMemoryRegister<T>(op: usize): void {
  storeMemory<T>(effectiveAddress(op), register<T>(src(op)));
}

// @ts-ignore: decorator
@inline
export function movMemoryImmediate<T>(op: usize): void {
  storeMemory<T>(effectiveAddress(op), cut<T>(load<u64>(op, OP_IMM)));
}

/** MOVZX and MOVSX from memory: `S` is the source's type, signed for MOVSX. */
// @ts-ignore: decorator
@inline
export function extendMemory<T, S>(op: usize): void {
  const value = loadMemory<S>(effectiveAddress(op));
  if (fault) return;
  if (isSigned<S>()) setRegister<T>(dst(op), cut<T>(u64(i64(<S>value))));
  else setRegister<T>(dst(op), value);
}

// @ts-ignore: decorator
@inline
export function unaryRegister<T>(kind: u32, op: usize): void {
  setRegister<T>(dst(op), unary<T>(kind, register<T>(dst(op))));
}

// @ts-ignore: decorator
@inline
export function shiftImmediate<T>(kind: u32, op: usize): void {
  setRegister<T>(dst(op), shift<T>(kind, register<T>(dst(op)), load<u32>(op, OP_IMM)));
}

// @ts-ignore: decorator
@inline
export function multiplyMemory<T>(op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  setRegister<T>(dst(op), multiply<T>(register<T>(dst(op)), value));
}

/** CMOVcc from memory: the operand is read whether or not the condition holds. */
// @ts-ignore: decorator
@inline
export function conditionalMove<T>(op: usize): void {
  const value = loadMemory<T>(effectiveAddress(op));
  if (fault) return;
  setRegister<T>(dst(op), conditionHolds(load<u8>(op, OP_KIND)) ? value : register<T>(dst(op)));
}
