// Integer arithmetic, comparison, logic, unpacking and packing of vector registers (SDM vol. 2), by the kinds of
// src/vector-kinds.ts. WebAssembly's 128-bit operations do nearly all of it.
import { fault } from './fault';
import {
  FLAG_IMMEDIATE_SOURCE,
  OP_DST,
  OP_FLAGS,
  OP_IMM,
  OP_KIND,
  V_MOVSHDUP,
  V_MOVSLDUP,
  V_PABSB,
  V_PABSD,
  V_PABSW,
  V_PACKSSDW,
  V_PACKSSWB,
  V_PACKUSWB,
  V_PADDB,
  V_PADDD,
  V_PADDQ,
  V_PADDSB,
  V_PADDSW,
  V_PADDUSB,
  V_PADDUSW,
  V_PADDW,
  V_PAND,
  V_PANDN,
  V_PAVGB,
  V_PAVGW,
  V_PCMPEQB,
  V_PCMPEQD,
  V_PCMPEQW,
  V_PCMPGTB,
  V_PCMPGTD,
  V_PCMPGTW,
  V_PMADDWD,
  V_PMAXSW,
  V_PMAXUB,
  V_PMINSW,
  V_PMINUB,
  V_PMULHUW,
  V_PMULHW,
  V_PMULLW,
  V_PMULUDQ,
  V_POR,
  V_PSADBW,
  V_PSHUFB,
  V_PSLLD,
  V_PSLLQ,
  V_PSLLW,
  V_PSRAD,
  V_PSRAW,
  V_PSRLD,
  V_PSRLQ,
  V_PSRLW,
  V_PSUBB,
  V_PSUBD,
  V_PSUBQ,
  V_PSUBSB,
  V_PSUBSW,
  V_PSUBUSB,
  V_PSUBUSW,
  V_PSUBW,
  V_PUNPCKHBW,
  V_PUNPCKHDQ,
  V_PUNPCKHQDQ,
  V_PUNPCKHWD,
  V_PUNPCKLBW,
  V_PUNPCKLDQ,
  V_PUNPCKLQDQ,
  V_PUNPCKLWD,
  V_PXOR,
} from './generated/layout';
import { readVector } from './sse';
import { cpu } from './state';

/** High words of the products of words. */
function highWords(low: v128, high: v128): v128 {
  // Of each product of 32 bits the odd words.
  return v128.shuffle<u16>(low, high, 1, 3, 5, 7, 9, 11, 13, 15);
}

/** Sums of the absolute differences of eight bytes each. */
function sumOfDifferences(a: v128, b: v128): v128 {
  const difference = v128.or(i8x16.sub_sat_u(a, b), i8x16.sub_sat_u(b, a));
  const sums = i32x4.extadd_pairwise_i16x8_u(i16x8.extadd_pairwise_i8x16_u(difference));
  const halves = i64x2.add(v128.and(sums, i64x2.splat(0xffff_ffff)), i64x2.shr_u(sums, 32));
  return halves;
}

/** Result of a kind with two operands: the destination and the source. */
function combine(kind: u32, a: v128, b: v128): v128 {
  switch (kind) {
    case V_PADDB:
      return i8x16.add(a, b);
    case V_PADDW:
      return i16x8.add(a, b);
    case V_PADDD:
      return i32x4.add(a, b);
    case V_PADDQ:
      return i64x2.add(a, b);
    case V_PADDSB:
      return i8x16.add_sat_s(a, b);
    case V_PADDSW:
      return i16x8.add_sat_s(a, b);
    case V_PADDUSB:
      return i8x16.add_sat_u(a, b);
    case V_PADDUSW:
      return i16x8.add_sat_u(a, b);
    case V_PSUBB:
      return i8x16.sub(a, b);
    case V_PSUBW:
      return i16x8.sub(a, b);
    case V_PSUBD:
      return i32x4.sub(a, b);
    case V_PSUBQ:
      return i64x2.sub(a, b);
    case V_PSUBSB:
      return i8x16.sub_sat_s(a, b);
    case V_PSUBSW:
      return i16x8.sub_sat_s(a, b);
    case V_PSUBUSB:
      return i8x16.sub_sat_u(a, b);
    case V_PSUBUSW:
      return i16x8.sub_sat_u(a, b);
    case V_PMULLW:
      return i16x8.mul(a, b);
    case V_PMULHW:
      return highWords(i32x4.extmul_low_i16x8_s(a, b), i32x4.extmul_high_i16x8_s(a, b));
    case V_PMULHUW:
      return highWords(i32x4.extmul_low_i16x8_u(a, b), i32x4.extmul_high_i16x8_u(a, b));
    case V_PMULUDQ: {
      const mask = i64x2.splat(0xffff_ffff);
      return i64x2.mul(v128.and(a, mask), v128.and(b, mask));
    }
    case V_PMADDWD:
      return i32x4.dot_i16x8_s(a, b);
    case V_PSADBW:
      return sumOfDifferences(a, b);
    case V_PAND:
      return v128.and(a, b);
    case V_PANDN:
      return v128.andnot(b, a);
    case V_POR:
      return v128.or(a, b);
    case V_PXOR:
      return v128.xor(a, b);
    case V_PCMPEQB:
      return i8x16.eq(a, b);
    case V_PCMPEQW:
      return i16x8.eq(a, b);
    case V_PCMPEQD:
      return i32x4.eq(a, b);
    case V_PCMPGTB:
      return i8x16.gt_s(a, b);
    case V_PCMPGTW:
      return i16x8.gt_s(a, b);
    case V_PCMPGTD:
      return i32x4.gt_s(a, b);
    case V_PMINUB:
      return i8x16.min_u(a, b);
    case V_PMAXUB:
      return i8x16.max_u(a, b);
    case V_PMINSW:
      return i16x8.min_s(a, b);
    case V_PMAXSW:
      return i16x8.max_s(a, b);
    case V_PAVGB:
      return i8x16.avgr_u(a, b);
    case V_PAVGW:
      return i16x8.avgr_u(a, b);
    case V_PUNPCKLBW:
      return v128.shuffle<u8>(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    case V_PUNPCKHBW:
      return v128.shuffle<u8>(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    case V_PUNPCKLWD:
      return v128.shuffle<u16>(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    case V_PUNPCKHWD:
      return v128.shuffle<u16>(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    case V_PUNPCKLDQ:
      return v128.shuffle<u32>(a, b, 0, 4, 1, 5);
    case V_PUNPCKHDQ:
      return v128.shuffle<u32>(a, b, 2, 6, 3, 7);
    case V_PUNPCKLQDQ:
      return v128.shuffle<u64>(a, b, 0, 2);
    case V_PUNPCKHQDQ:
      return v128.shuffle<u64>(a, b, 1, 3);
    case V_PACKSSWB:
      return i8x16.narrow_i16x8_s(a, b);
    case V_PACKSSDW:
      return i16x8.narrow_i32x4_s(a, b);
    case V_PACKUSWB:
      return i8x16.narrow_i16x8_u(a, b);
    case V_MOVSLDUP:
      return v128.shuffle<u32>(b, b, 0, 0, 2, 2);
    case V_MOVSHDUP:
      return v128.shuffle<u32>(b, b, 1, 1, 3, 3);
    case V_PSHUFB:
      // A selector with bit 7 gives 0, as one beyond 15 does in WebAssembly; bits 4 to 6 do not count.
      return i8x16.swizzle(a, v128.and(b, i8x16.splat(<i8>0x8f)));
    case V_PABSB:
      return i8x16.abs(b);
    case V_PABSW:
      return i16x8.abs(b);
    default:
      return i32x4.abs(b); // PABSD
  }
}

/** Result of a shift of all elements by a count of up to 64 bits. */
function shiftElements(kind: u32, a: v128, count: u64): v128 {
  const bits: u64 = kind == V_PSLLW || kind == V_PSRLW || kind == V_PSRAW ? 16 : kind == V_PSLLQ || kind == V_PSRLQ ? 64 : 32;
  const arithmetic = kind == V_PSRAW || kind == V_PSRAD;
  if (count >= bits) {
    if (!arithmetic) return i64x2.splat(0);
    count = bits - 1;
  }
  const by = <i32>count;
  switch (kind) {
    case V_PSLLW:
      return i16x8.shl(a, by);
    case V_PSLLD:
      return i32x4.shl(a, by);
    case V_PSLLQ:
      return i64x2.shl(a, by);
    case V_PSRLW:
      return i16x8.shr_u(a, by);
    case V_PSRLD:
      return i32x4.shr_u(a, by);
    case V_PSRLQ:
      return i64x2.shr_u(a, by);
    case V_PSRAW:
      return i16x8.shr_s(a, by);
    default:
      return i32x4.shr_s(a, by); // PSRAD
  }
}

/** VECTOR: a register and a register or memory. */
export function execVector(op: usize): void {
  const source = readVector(op);
  if (fault) return;
  const destination = cpu + load<u16>(op, OP_DST);
  v128.store(destination, combine(load<u8>(op, OP_KIND), v128.load(destination), source));
}

/** VECTOR_SHIFT: the count is the low half of a register or of memory, or an immediate of 8 bits. */
export function execVectorShift(op: usize): void {
  let count: u64;
  if (load<u16>(op, OP_FLAGS) & FLAG_IMMEDIATE_SOURCE) {
    count = load<u64>(op, OP_IMM) & 0xff;
  } else {
    count = u64(i64x2.extract_lane(readVector(op), 0));
    if (fault) return;
  }
  const destination = cpu + load<u16>(op, OP_DST);
  v128.store(destination, shiftElements(load<u8>(op, OP_KIND), v128.load(destination), count));
}
