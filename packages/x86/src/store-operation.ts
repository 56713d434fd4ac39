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
} as const;
/** One of the {@link StoreOperation} numbers. */
export type StoreOperation = (typeof StoreOperation)[keyof typeof StoreOperation];

/**
 * Operation by mnemonic. The vector stores are the moves whose destination receives bytes of one register unchanged;
 * stores under a mask or with a conversion are not among them.
 */
const OPERATIONS: readonly (readonly [StoreOperation, ...Mnemonic[]])[] = [
  [StoreOperation.MOVE, Mnemonic.Mov, Mnemonic.Movnti],
  [StoreOperation.STOS, Mnemonic.Stosb, Mnemonic.Stosw, Mnemonic.Stosd, Mnemonic.Stosq],
  [StoreOperation.MOVS, Mnemonic.Movsb, Mnemonic.Movsw, Mnemonic.Movsd, Mnemonic.Movsq],
  [StoreOperation.PUSH, Mnemonic.Push],
  [StoreOperation.POP, Mnemonic.Pop],
  [StoreOperation.CALL, Mnemonic.Call],
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
  ],
];

const BY_MNEMONIC = new Map<Mnemonic, StoreOperation>(
  OPERATIONS.flatMap(([operation, ...mnemonics]) => mnemonics.map((mnemonic) => [mnemonic, operation] as const)),
);

/** The operation of a mnemonic; NONE for all that are not listed. */
export function storeOperationOf(mnemonic: Mnemonic): StoreOperation {
  return BY_MNEMONIC.get(mnemonic) ?? StoreOperation.NONE;
}

/** Whether the stored value takes the upper quadword of a vector register. */
export function storesUpperHalf(mnemonic: Mnemonic): boolean {
  return mnemonic === Mnemonic.Movhps || mnemonic === Mnemonic.Movhpd;
}
