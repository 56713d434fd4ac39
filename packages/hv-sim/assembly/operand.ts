// Operands of an op record: effective addresses, and the generic way to read and write operands by the record's flags
// and size. Every function that touches memory may leave `fault` set; the caller returns at once then.
import {
  FLAG_ADDRESS_16,
  FLAG_ADDRESS_32,
  FLAG_IMMEDIATE_SOURCE,
  FLAG_MEMORY_DESTINATION,
  FLAG_MEMORY_SOURCE,
  FLAG_SEGMENTED,
  OP_ACCESS_SIZE,
  OP_BASE,
  OP_DISP,
  OP_DST,
  OP_FLAGS,
  OP_IMM,
  OP_INDEX,
  OP_SCALE,
  OP_SEGMENT,
  OP_SEGMENT_NUMBER,
  OP_SIZE,
  OP_SRC,
  OP_WRITES,
} from './generated/layout';
import {
  load8,
  load16,
  load32,
  load64,
  loadRmw8,
  loadRmw16,
  loadRmw32,
  loadRmw64,
  store8,
  store16,
  store32,
  store64,
  storeRmw8,
  storeRmw16,
  storeRmw32,
  storeRmw64,
} from './memory';
import { segmentAddress } from './segmented-address';
import { cpu, registerOfSize, setRegisterOfSize } from './state';

/** Linear address of the record's memory operand, segment base included. */
export function effectiveAddress(op: usize): u64 {
  const offset =
    load<u64>(cpu + load<u16>(op, OP_BASE)) +
    (load<u64>(cpu + load<u16>(op, OP_INDEX)) << load<u8>(op, OP_SCALE)) +
    load<u64>(op, OP_DISP);
  if (load<u16>(op, OP_FLAGS) & (FLAG_ADDRESS_32 | FLAG_SEGMENTED)) return linearAddress(op, offset);
  return offset + load<u64>(cpu + load<u16>(op, OP_SEGMENT));
}

/** Cuts an offset to the instruction's address size. */
export function cutToAddressSize(op: usize, offset: u64): u64 {
  const flags = load<u16>(op, OP_FLAGS);
  return flags & FLAG_ADDRESS_32 ? offset & 0xffff_ffff : flags & FLAG_ADDRESS_16 ? offset & 0xffff : offset;
}

/** Linear address of the memory operand if it lies at this offset of its segment. */
export function linearAddress(op: usize, offset: u64): u64 {
  const cut = cutToAddressSize(op, offset);
  if (!(load<u16>(op, OP_FLAGS) & FLAG_SEGMENTED)) return cut + load<u64>(cpu + load<u16>(op, OP_SEGMENT));
  return segmentAddress(load<u8>(op, OP_SEGMENT_NUMBER), cut, load<u16>(op, OP_ACCESS_SIZE), load<u8>(op, OP_WRITES) != 0);
}

/** Offset of the memory operand without segment base: what LEA computes. */
export function effectiveOffset(op: usize): u64 {
  const offset =
    load<u64>(cpu + load<u16>(op, OP_BASE)) +
    (load<u64>(cpu + load<u16>(op, OP_INDEX)) << load<u8>(op, OP_SCALE)) +
    load<u64>(op, OP_DISP);
  return cutToAddressSize(op, offset);
}

// @ts-ignore: decorator
@inline
export function loadMemory<T>(address: u64): u64 {
  if (sizeof<T>() == 1) return load8(address);
  if (sizeof<T>() == 2) return load16(address);
  if (sizeof<T>() == 4) return load32(address);
  return load64(address);
}

// @ts-ignore: decorator
@inline
export function storeMemory<T>(address: u64, value: u64): void {
  if (sizeof<T>() == 1) store8(address, value);
  else if (sizeof<T>() == 2) store16(address, value);
  else if (sizeof<T>() == 4) store32(address, value);
  else store64(address, value);
}

/** Reads memory that the same instruction will write: faults as a write would. */
// @ts-ignore: decorator
@inline
export function loadForUpdate<T>(address: u64): u64 {
  if (sizeof<T>() == 1) return loadRmw8(address);
  if (sizeof<T>() == 2) return loadRmw16(address);
  if (sizeof<T>() == 4) return loadRmw32(address);
  return loadRmw64(address);
}

/** Writes what {@link loadForUpdate} of the same address has read; cannot fault. */
// @ts-ignore: decorator
@inline
export function storeUpdated<T>(address: u64, value: u64): void {
  if (sizeof<T>() == 1) storeRmw8(address, value);
  else if (sizeof<T>() == 2) storeRmw16(address, value);
  else if (sizeof<T>() == 4) storeRmw32(address, value);
  else storeRmw64(address, value);
}

/** Reads 1, 2, 4 or 8 bytes. */
export function loadOfSize(address: u64, size: u32): u64 {
  switch (size) {
    case 1:
      return load8(address);
    case 2:
      return load16(address);
    case 4:
      return load32(address);
    default:
      return load64(address);
  }
}

/** Writes 1, 2, 4 or 8 bytes. */
export function storeOfSize(address: u64, size: u32, value: u64): void {
  switch (size) {
    case 1:
      store8(address, value);
      break;
    case 2:
      store16(address, value);
      break;
    case 4:
      store32(address, value);
      break;
    default:
      store64(address, value);
  }
}

/** {@link loadForUpdate} of 1, 2, 4 or 8 bytes. */
export function loadForUpdateOfSize(address: u64, size: u32): u64 {
  switch (size) {
    case 1:
      return loadRmw8(address);
    case 2:
      return loadRmw16(address);
    case 4:
      return loadRmw32(address);
    default:
      return loadRmw64(address);
  }
}

/** {@link storeUpdated} of 1, 2, 4 or 8 bytes. */
export function storeUpdatedOfSize(address: u64, size: u32, value: u64): void {
  switch (size) {
    case 1:
      storeRmw8(address, value);
      break;
    case 2:
      storeRmw16(address, value);
      break;
    case 4:
      storeRmw32(address, value);
      break;
    default:
      storeRmw64(address, value);
  }
}

/** Cuts a value to 1, 2, 4 or 8 bytes. */
// @ts-ignore: decorator
@inline
export function cutToSize(value: u64, size: u32): u64 {
  return value & (0xffff_ffff_ffff_ffff >> ((8 - u64(size)) << 3));
}

/** Second operand: immediate, memory or register, of the given size, zero-extended. */
export function readSourceOfSize(op: usize, size: u32): u64 {
  const flags = load<u16>(op, OP_FLAGS);
  if (flags & FLAG_MEMORY_SOURCE) return loadOfSize(effectiveAddress(op), size);
  if (flags & FLAG_IMMEDIATE_SOURCE) return cutToSize(load<u64>(op, OP_IMM), size);
  return registerOfSize(load<u16>(op, OP_SRC), size);
}

/** Second operand: immediate, memory or register, zero-extended. */
export function readSource(op: usize): u64 {
  return readSourceOfSize(op, load<u8>(op, OP_SIZE));
}

/** Address that {@link readForUpdate} has read and {@link writeUpdated} writes. */
let updateAddress: u64 = 0;

/** First operand of an instruction that reads and writes it. */
export function readForUpdate(op: usize): u64 {
  const size = load<u8>(op, OP_SIZE);
  if (load<u16>(op, OP_FLAGS) & FLAG_MEMORY_DESTINATION) {
    updateAddress = effectiveAddress(op);
    return loadForUpdateOfSize(updateAddress, size);
  }
  return registerOfSize(load<u16>(op, OP_DST), size);
}

/** Writes the first operand after {@link readForUpdate}; cannot fault. */
export function writeUpdated(op: usize, value: u64): void {
  const size = load<u8>(op, OP_SIZE);
  if (load<u16>(op, OP_FLAGS) & FLAG_MEMORY_DESTINATION) storeUpdatedOfSize(updateAddress, size, value);
  else setRegisterOfSize(load<u16>(op, OP_DST), size, value);
}

/** Writes the first operand of an instruction that does not read it; may fault, and is the last thing to be done. */
export function writeDestination(op: usize, value: u64): void {
  const size = load<u8>(op, OP_SIZE);
  if (load<u16>(op, OP_FLAGS) & FLAG_MEMORY_DESTINATION) storeOfSize(effectiveAddress(op), size, value);
  else setRegisterOfSize(load<u16>(op, OP_DST), size, value);
}

/** Sign-extends a value of 1, 2, 4 or 8 bytes. */
// @ts-ignore: decorator
@inline
export function signExtend(value: u64, size: u32): u64 {
  const shift = (8 - u64(size)) << 3;
  return u64(<i64>(value << shift) >> shift);
}
