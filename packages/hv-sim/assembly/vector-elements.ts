// Vector instructions that move elements about: by an immediate, to and from general registers, and byte by byte to
// memory (SDM vol. 2: PSHUF*, SHUFP*, PALIGNR, PSLLDQ, PINSRW, PEXTRW, PMOVMSKB, MASKMOVDQU).
import { fault } from './fault';
import {
  OP_DST,
  OP_IMM,
  OP_KIND,
  OP_SRC,
  V_MOVMSKPD,
  V_MOVMSKPS,
  V_PALIGNR,
  V_PSHUFD,
  V_PSHUFHW,
  V_PSHUFLW,
  V_PSLLDQ,
  V_PSRLDQ,
  V_SHUFPD,
  V_SHUFPS,
} from './generated/layout';
import { probeWrite, store8 } from './memory';
import { linearAddress, readSource } from './operand';
import { readVector } from './sse';
import { cpu, general, RDI, register, setRegister } from './state';

/** Number of a dword that two bits of an immediate select. */
// @ts-ignore: decorator
@inline
function select(immediate: u32, field: u32): u32 {
  return (immediate >> (field << 1)) & 3;
}

/** Dword `number` of a vector. */
function dword(value: v128, number: u32): u32 {
  const half = u64(number & 2 ? i64x2.extract_lane(value, 1) : i64x2.extract_lane(value, 0));
  return <u32>(number & 1 ? half >> 32 : half);
}

function vectorOf(low: u64, high: u64): v128 {
  return i64x2.replace_lane(i64x2.splat(low), 1, high);
}

function dwords(a: u32, b: u32, c: u32, d: u32): v128 {
  return vectorOf(u64(a) | (u64(b) << 32), u64(c) | (u64(d) << 32));
}

/** Four words of a half in the order that an immediate tells. */
function shuffleWords(half: u64, immediate: u32): u64 {
  let result: u64 = 0;
  for (let i: u32 = 0; i < 4; i++) {
    result |= ((half >> (select(immediate, i) << 4)) & 0xffff) << (i << 4);
  }
  return result;
}

/** The 16 bytes from byte `by` on of a value of 32 bytes; zeros behind it. */
function bytesFrom(low: v128, high: v128, by: u32): v128 {
  if (by >= 32) return i64x2.splat(0);
  if (by >= 16) {
    low = high;
    high = i64x2.splat(0);
    by -= 16;
  }
  // Selectors by, by + 1, ...: those of 16 and more give 0 in the one part and count from 0 in the other.
  const selectors = i8x16.add(i8x16.splat(<i8>by), v128(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const upper = i8x16.sub(selectors, i8x16.splat(16));
  return v128.or(i8x16.swizzle(low, selectors), i8x16.swizzle(high, upper));
}

/** The 16 bytes that shifting left by `by` bytes leaves. */
function bytesUpTo(value: v128, by: u32): v128 {
  return by >= 16 ? i64x2.splat(0) : bytesFrom(i64x2.splat(0), value, 16 - by);
}

/** VECTOR_ARRANGE: a register, a register or memory, and an immediate. */
export function execArrange(op: usize): void {
  const b = readVector(op);
  if (fault) return;
  const destination = cpu + load<u16>(op, OP_DST);
  const a = v128.load(destination);
  const immediate = load<u32>(op, OP_IMM) & 0xff;
  let result: v128;
  switch (u32(load<u8>(op, OP_KIND))) {
    case V_PSHUFD:
      result = dwords(
        dword(b, select(immediate, 0)),
        dword(b, select(immediate, 1)),
        dword(b, select(immediate, 2)),
        dword(b, select(immediate, 3)),
      );
      break;
    case V_PSHUFLW:
      result = i64x2.replace_lane(b, 0, shuffleWords(i64x2.extract_lane(b, 0), immediate));
      break;
    case V_PSHUFHW:
      result = i64x2.replace_lane(b, 1, shuffleWords(i64x2.extract_lane(b, 1), immediate));
      break;
    case V_SHUFPS:
      result = dwords(
        dword(a, select(immediate, 0)),
        dword(a, select(immediate, 1)),
        dword(b, select(immediate, 2)),
        dword(b, select(immediate, 3)),
      );
      break;
    case V_SHUFPD:
      result = vectorOf(
        immediate & 1 ? i64x2.extract_lane(a, 1) : i64x2.extract_lane(a, 0),
        immediate & 2 ? i64x2.extract_lane(b, 1) : i64x2.extract_lane(b, 0),
      );
      break;
    case V_PALIGNR:
      result = bytesFrom(b, a, immediate);
      break;
    case V_PSLLDQ:
      result = bytesUpTo(a, immediate);
      break;
    default:
      result = bytesFrom(a, i64x2.splat(0), immediate); // PSRLDQ
  }
  v128.store(destination, result);
}

/** VECTOR_MASK: sign bits of the elements, in a general register. */
export function execMask(op: usize): void {
  const value = v128.load(cpu + load<u16>(op, OP_SRC));
  const kind: u32 = load<u8>(op, OP_KIND);
  const mask = kind == V_MOVMSKPS ? i32x4.bitmask(value) : kind == V_MOVMSKPD ? i64x2.bitmask(value) : i8x16.bitmask(value);
  setRegister<u32>(load<u16>(op, OP_DST), u64(<u32>mask));
}

export function execInsertWord(op: usize): void {
  const value = readSource(op);
  if (fault) return;
  store<u16>(cpu + load<u16>(op, OP_DST) + ((load<u8>(op, OP_IMM) & 7) << 1), <u16>value);
}

export function execExtractWord(op: usize): void {
  const word = load<u16>(cpu + load<u16>(op, OP_SRC) + ((load<u8>(op, OP_IMM) & 7) << 1));
  setRegister<u32>(load<u16>(op, OP_DST), u64(word));
}

/**
 * MASKMOVDQU: the bytes whose mask byte has its sign bit go to DS:RDI. What no byte goes to is not touched; in each page
 * the range from the first to the last byte must be writable.
 */
export function execMaskMove(op: usize): void {
  const mask = <u32>i8x16.bitmask(v128.load(cpu + load<u16>(op, OP_SRC)));
  if (mask == 0) return;
  const address = linearAddress(op, general(RDI));
  const inFirst = 4096 - (<u32>address & 0xfff);
  const first = inFirst < 16 ? mask & ((1 << inFirst) - 1) : mask;
  probeSelected(address, first);
  if (fault) return;
  probeSelected(address, mask & ~first);
  if (fault) return;
  const source = cpu + load<u16>(op, OP_DST);
  for (let i: u32 = 0; i < 16; i++) {
    if (mask & (1 << i)) store8(address + i, load<u8>(source + i));
  }
}

/** Prepares a write of the bytes from the first to the last one selected. */
function probeSelected(address: u64, selected: u32): void {
  if (selected == 0) return;
  const low = ctz(selected);
  probeWrite(address + low, 32 - clz(selected) - low);
}
