import { Mnemonic } from './decoder.js';

/** How an instruction makes the value that it stores to memory. */
export const StoreOperation = {
  /** It stores nothing, or a value that this package does not know. */
  NONE: 0,
  /** The source as it is. */
  MOVE: 1,
  STOS: 2,
  MOVS: 3,
  PUSH: 4,
  POP: 5,
  /** The address of the next instruction. */
  CALL: 6,
  XCHG: 7,
  XADD: 8,
  CMPXCHG: 9,
  CMPXCHG8B: 10,
  CMPXCHG16B: 11,
  ADD: 12,
  ADC: 13,
  SUB: 14,
  SBB: 15,
  AND: 16,
  OR: 17,
  XOR: 18,
  INC: 19,
  DEC: 20,
  NOT: 21,
  NEG: 22,
  BTS: 23,
  BTR: 24,
  BTC: 25,
  SHL: 26,
  SHR: 27,
  SAR: 28,
  ROL: 29,
  ROR: 30,
  RCL: 31,
  RCR: 32,
  /** The source with its bytes reversed. */
  MOVBE: 33,
  /** Bytes of a vector register. */
  VECTOR: 34,
  SHLD: 35,
  SHRD: 36,
  /** 1 or 0: the condition of the source's low half, as it is encoded. */
  SETCC: 37,
  PUSHF: 38,
  /** All eight general registers. */
  PUSHA: 39,
  /** The far return address: IP, then CS. */
  CALL_FAR: 40,
  /** Limit and base of the IDT. */
  SIDT: 41,
  /** Limit and base of the GDT. */
  SGDT: 42,
  /** Bytes of a vector register where a mask says so; the others keep what memory holds. */
  VECTOR_MASKED: 43,
  /** Another memory operand of any size, as it is. */
  COPY: 44,
  /** ENTER without nested levels: RBP. */
  ENTER: 45,
  /** Memory's selector, with at least the privilege level of the source's. */
  ARPL: 46,
} as const;
/** One of the {@link StoreOperation} numbers. */
export type StoreOperation = (typeof StoreOperation)[keyof typeof StoreOperation];

/** Stores of one of the equal parts of a vector register, whose number is an immediate: the size of the parts in bytes. */
const EXTRACTS: ReadonlyMap<Mnemonic, number> = new Map([
  [Mnemonic.Pextrb, 1],
  [Mnemonic.Pextrw, 2],
  [Mnemonic.Pextrd, 4],
  [Mnemonic.Pextrq, 8],
  [Mnemonic.Extractps, 4],
  [Mnemonic.Vpextrb, 1],
  [Mnemonic.Vpextrw, 2],
  [Mnemonic.Vpextrd, 4],
  [Mnemonic.Vpextrq, 8],
  [Mnemonic.Vextractps, 4],
  [Mnemonic.Vextractf128, 16],
  [Mnemonic.Vextracti128, 16],
  [Mnemonic.Vextractf32x4, 16],
  [Mnemonic.Vextracti32x4, 16],
  [Mnemonic.Vextractf64x2, 16],
  [Mnemonic.Vextracti64x2, 16],
  [Mnemonic.Vextractf32x8, 32],
  [Mnemonic.Vextracti32x8, 32],
  [Mnemonic.Vextractf64x4, 32],
  [Mnemonic.Vextracti64x4, 32],
]);

/** Size in bytes of the parts that an instruction extracts from a vector register; undefined when it is no such one. */
export function extractedSize(mnemonic: Mnemonic): number | undefined {
  return EXTRACTS.get(mnemonic);
}

/**
 * Operation by mnemonic. The vector stores are the moves whose destination receives bytes of one register unchanged;
 * stores under a mask or with a conversion are not among them.
 */
const OPERATIONS: readonly (readonly [StoreOperation, ...Mnemonic[]])[] = [
  [StoreOperation.MOVE, Mnemonic.Mov, Mnemonic.Movnti, Mnemonic.Movdiri, Mnemonic.Sldt, Mnemonic.Str, Mnemonic.Smsw],
  [StoreOperation.COPY, Mnemonic.Movdir64b],
  [StoreOperation.STOS, Mnemonic.Stosb, Mnemonic.Stosw, Mnemonic.Stosd, Mnemonic.Stosq],
  [StoreOperation.MOVS, Mnemonic.Movsb, Mnemonic.Movsw, Mnemonic.Movsd, Mnemonic.Movsq],
  [StoreOperation.PUSH, Mnemonic.Push],
  [StoreOperation.POP, Mnemonic.Pop],
  [StoreOperation.PUSHF, Mnemonic.Pushf, Mnemonic.Pushfd, Mnemonic.Pushfq],
  [StoreOperation.PUSHA, Mnemonic.Pusha, Mnemonic.Pushad],
  [StoreOperation.ENTER, Mnemonic.Enter],
  [StoreOperation.CALL, Mnemonic.Call],
  [StoreOperation.SIDT, Mnemonic.Sidt],
  [StoreOperation.SGDT, Mnemonic.Sgdt],
  [StoreOperation.XCHG, Mnemonic.Xchg],
  [StoreOperation.XADD, Mnemonic.Xadd],
  [StoreOperation.CMPXCHG, Mnemonic.Cmpxchg],
  [StoreOperation.CMPXCHG8B, Mnemonic.Cmpxchg8b],
  [StoreOperation.CMPXCHG16B, Mnemonic.Cmpxchg16b],
  [StoreOperation.ADD, Mnemonic.Add],
  [StoreOperation.ADC, Mnemonic.Adc],
  [StoreOperation.SUB, Mnemonic.Sub],
  [StoreOperation.SBB, Mnemonic.Sbb],
  [StoreOperation.AND, Mnemonic.And],
  [StoreOperation.OR, Mnemonic.Or],
  [StoreOperation.XOR, Mnemonic.Xor],
  [StoreOperation.INC, Mnemonic.Inc],
  [StoreOperation.DEC, Mnemonic.Dec],
  [StoreOperation.NOT, Mnemonic.Not],
  [StoreOperation.NEG, Mnemonic.Neg],
  [StoreOperation.BTS, Mnemonic.Bts],
  [StoreOperation.BTR, Mnemonic.Btr],
  [StoreOperation.BTC, Mnemonic.Btc],
  [StoreOperation.SHL, Mnemonic.Shl, Mnemonic.Sal],
  [StoreOperation.SHR, Mnemonic.Shr],
  [StoreOperation.SAR, Mnemonic.Sar],
  [StoreOperation.ROL, Mnemonic.Rol],
  [StoreOperation.ROR, Mnemonic.Ror],
  [StoreOperation.RCL, Mnemonic.Rcl],
  [StoreOperation.RCR, Mnemonic.Rcr],
  [StoreOperation.MOVBE, Mnemonic.Movbe],
  [StoreOperation.ARPL, Mnemonic.Arpl],
  [StoreOperation.SHLD, Mnemonic.Shld],
  [StoreOperation.SHRD, Mnemonic.Shrd],
  [
    StoreOperation.SETCC,
    Mnemonic.Seto,
    Mnemonic.Setno,
    Mnemonic.Setb,
    Mnemonic.Setae,
    Mnemonic.Sete,
    Mnemonic.Setne,
    Mnemonic.Setbe,
    Mnemonic.Seta,
    Mnemonic.Sets,
    Mnemonic.Setns,
    Mnemonic.Setp,
    Mnemonic.Setnp,
    Mnemonic.Setl,
    Mnemonic.Setge,
    Mnemonic.Setle,
    Mnemonic.Setg,
  ],
  [StoreOperation.VECTOR_MASKED, Mnemonic.Maskmovdqu, Mnemonic.Vmaskmovdqu],
  [
    StoreOperation.VECTOR,
    Mnemonic.Movdqu,
    Mnemonic.Movdqa,
    Mnemonic.Movups,
    Mnemonic.Movaps,
    Mnemonic.Movupd,
    Mnemonic.Movapd,
    Mnemonic.Movntdq,
    Mnemonic.Movntps,
    Mnemonic.Movntpd,
    Mnemonic.Movss,
    Mnemonic.Movlps,
    Mnemonic.Movlpd,
    Mnemonic.Movhps,
    Mnemonic.Movhpd,
    Mnemonic.Movd,
    Mnemonic.Movq,
    Mnemonic.Vmovdqu,
    Mnemonic.Vmovdqa,
    Mnemonic.Vmovups,
    Mnemonic.Vmovaps,
    Mnemonic.Vmovupd,
    Mnemonic.Vmovapd,
    Mnemonic.Vmovntdq,
    Mnemonic.Vmovntps,
    Mnemonic.Vmovntpd,
    Mnemonic.Vmovss,
    Mnemonic.Vmovsd,
    Mnemonic.Vmovlps,
    Mnemonic.Vmovlpd,
    Mnemonic.Vmovhps,
    Mnemonic.Vmovhpd,
    Mnemonic.Vmovd,
    Mnemonic.Vmovq,
    Mnemonic.Vmovw,
    Mnemonic.Vmovsh,
    Mnemonic.Vmovdqu8,
    Mnemonic.Vmovdqu16,
    Mnemonic.Vmovdqu32,
    Mnemonic.Vmovdqu64,
    Mnemonic.Vmovdqa32,
    Mnemonic.Vmovdqa64,
    Mnemonic.Movntss,
    Mnemonic.Movntsd,
    ...EXTRACTS.keys(),
  ],
];

/** Conditions of SETcc by mnemonic, as they are encoded (SDM vol. 1, appendix B). */
const CONDITIONS: ReadonlyMap<Mnemonic, number> = new Map(
  OPERATIONS.find(([operation]) => operation === StoreOperation.SETCC)!
    .slice(1)
    .map((mnemonic, condition) => [mnemonic as Mnemonic, condition] as const),
);

/** The condition of a SETcc, 0 (overflow) to 15 (greater) as it is encoded. */
export function conditionOf(mnemonic: Mnemonic): number {
  return CONDITIONS.get(mnemonic)!;
}

const BY_MNEMONIC = new Map<Mnemonic, StoreOperation>(
  OPERATIONS.flatMap(([operation, ...mnemonics]) => mnemonics.map((mnemonic) => [mnemonic, operation] as const)),
);

/** The operation of a mnemonic; NONE for all that are not listed. */
export function storeOperationOf(mnemonic: Mnemonic): StoreOperation {
  return BY_MNEMONIC.get(mnemonic) ?? StoreOperation.NONE;
}

/** Whether the stored value takes the upper quadword of a vector register. */
export function storesUpperHalf(mnemonic: Mnemonic): boolean {
  return (
    mnemonic === Mnemonic.Movhps ||
    mnemonic === Mnemonic.Movhpd ||
    mnemonic === Mnemonic.Vmovhps ||
    mnemonic === Mnemonic.Vmovhpd
  );
}
