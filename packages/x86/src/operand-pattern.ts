/**
 * What all instructions of a form have in common as far as their memory operands go.
 */
import { Access } from '@introd/abi';
import { InstructionInfoFactory, OpCodeOperandKind as K } from 'iced-x86';
import { type Bitness, type Code, CodeExt, EncodingKind, type Instruction, Mnemonic, OpAccess } from './decoder.js';
import { type ImplicitOperands, implicitOperandsOf } from './implicit-operands.js';
import { explicitSize } from './operand-sizes.js';

/** Kinds of operands that are always in memory. */
const ALWAYS_MEMORY: ReadonlySet<K> = new Set([
  K.mem_offs,
  K.mem,
  K.mem_mpx,
  K.mem_mib,
  K.mem_vsib32x,
  K.mem_vsib64x,
  K.mem_vsib32y,
  K.mem_vsib64y,
  K.mem_vsib32z,
  K.mem_vsib64z,
  K.seg_rSI,
  K.es_rDI,
  K.seg_rDI,
  K.seg_rBX_al,
  K.sibmem,
]);

/** Kinds that are in memory or in a register. */
const MAYBE_MEMORY: ReadonlySet<K> = new Set([
  K.r8_or_mem,
  K.r16_or_mem,
  K.r32_or_mem,
  K.r32_or_mem_mpx,
  K.r64_or_mem,
  K.r64_or_mem_mpx,
  K.mm_or_mem,
  K.xmm_or_mem,
  K.ymm_or_mem,
  K.zmm_or_mem,
  K.bnd_or_mem_mpx,
  K.k_or_mem,
]);

/** Bytes of immediates, for finding the displacement before them. */
const IMMEDIATE_BYTES: Partial<Record<K, number>> = {
  [K.imm4_m2z]: 1,
  [K.imm8]: 1,
  [K.imm8sex16]: 1,
  [K.imm8sex32]: 1,
  [K.imm8sex64]: 1,
  [K.imm16]: 2,
  [K.imm32]: 4,
  [K.imm32sex64]: 4,
  [K.imm64]: 8,
  [K.xmm_is4]: 1,
  [K.ymm_is4]: 1,
  [K.xmm_is5]: 1,
  [K.ymm_is5]: 1,
};

/**
 * Instructions whose operand is an address that is not accessed. BNDLDX and BNDSTX access an entry of a table that they find through
 * it and BNDCFGU, which is not in a VCPU record.
 */
const ADDRESS_ONLY: ReadonlySet<Mnemonic> = new Set([
  Mnemonic.Lea,
  Mnemonic.Invlpg,
  Mnemonic.Nop,
  Mnemonic.Bndmk,
  Mnemonic.Bndcl,
  Mnemonic.Bndcn,
  Mnemonic.Bndcu,
  Mnemonic.Bndldx,
  Mnemonic.Bndstx,
]);

/** Instructions on shadow stacks, which are not listed: they have protections of their own. */
const SHADOW_STACK: ReadonlySet<Mnemonic> = new Set([
  Mnemonic.Rstorssp,
  Mnemonic.Clrssbsy,
  Mnemonic.Wrssd,
  Mnemonic.Wrssq,
  Mnemonic.Wrussd,
  Mnemonic.Wrussq,
]);

const BIT_STRINGS: ReadonlySet<Mnemonic> = new Set([Mnemonic.Bt, Mnemonic.Bts, Mnemonic.Btr, Mnemonic.Btc]);

/** An operand that may be in memory, as all instructions of a form have it. */
export interface ExplicitPattern {
  readonly position: number;
  readonly kind: K;
  /** READ and WRITE bits; NONE when only the address counts. */
  readonly access: number;
  readonly size: number;
}

/** What all instructions of one form have in common. */
export class OperandPattern {
  /** @internal Positions of operands that may be in memory. */
  readonly positions: readonly number[];
  /** @internal Whether these are always in memory. */
  readonly always: boolean;
  /** @internal Whether masks and broadcasts make variants of the form. */
  readonly hasVariants: boolean;
  /** @internal By mask and broadcast. */
  readonly variants: (OperandPattern | undefined)[] = [];
  /** @internal Memory operands, once one was seen. */
  explicit: readonly ExplicitPattern[] | undefined;
  /** @internal Bytes of immediates behind the displacement; -1 when the displacement is not found by counting. */
  readonly immediateBytes: number;
  /** @internal */
  readonly bitString: boolean;
  /** @internal POP computes the address of its operand with the new RSP (SDM vol. 2B, POP). */
  readonly pops: boolean;
  /** @internal MOVDIR64B and its like have their destination in the register that comes first. */
  readonly implicitFirst: boolean;
  /** @internal */
  readonly kinds: readonly K[];
  /** @internal */
  readonly implicit: ImplicitOperands | undefined;

  /** @param instruction one of the form */
  constructor(instruction: Instruction, bitness: Bitness) {
    const info = CodeExt.opCode(instruction.code);
    try {
      const kinds: K[] = [];
      for (let position = 0; position < info.opCount; position++) {
        kinds.push(info.opKind(position));
      }
      this.kinds = kinds;
      const { encoding } = info;
      this.hasVariants = encoding === EncodingKind.EVEX || encoding === EncodingKind.MVEX;
      const countable = encoding === EncodingKind.Legacy || encoding === EncodingKind.VEX;
      this.immediateBytes =
        countable && !kinds.includes(K.mem_offs)
          ? kinds.reduce((sum, kind) => sum + (IMMEDIATE_BYTES[kind] ?? 0), 0)
          : -1;
    } finally {
      info.free();
    }
    const { mnemonic } = instruction;
    const listed = !ADDRESS_ONLY.has(mnemonic) && !SHADOW_STACK.has(mnemonic);
    this.positions = this.kinds.flatMap((kind, position) =>
      listed && (ALWAYS_MEMORY.has(kind) || MAYBE_MEMORY.has(kind)) ? [position] : [],
    );
    this.always = this.positions.every((position) => ALWAYS_MEMORY.has(this.kinds[position]!));
    this.bitString = BIT_STRINGS.has(mnemonic);
    this.implicitFirst =
      mnemonic === Mnemonic.Movdir64b || mnemonic === Mnemonic.Enqcmd || mnemonic === Mnemonic.Enqcmds;
    this.pops = mnemonic === Mnemonic.Pop;
    this.implicit = implicitOperandsOf(instruction, bitness);
  }
}

const infoFactory = new InstructionInfoFactory();

const patterns: Readonly<Record<Bitness, (OperandPattern | undefined)[]>> = { 16: [], 32: [], 64: [] };

/** What the form of an instruction has in common with all others of it. */
export function operandPatternOf(instruction: Instruction, code: Code, bitness: Bitness): OperandPattern {
  const list = patterns[bitness];
  let pattern = list[code];
  if (pattern === undefined) {
    pattern = new OperandPattern(instruction, bitness);
    list[code] = pattern;
  }
  if (!pattern.hasVariants) {
    return pattern;
  }
  const variant =
    (instruction.hasOpMask ? 1 : 0) | (instruction.zeroingMasking ? 2 : 0) | (instruction.isBroadcast ? 4 : 0);
  let of = pattern.variants[variant];
  if (of === undefined) {
    of = new OperandPattern(instruction, bitness);
    pattern.variants[variant] = of;
  }
  return of;
}

function accessOf(access: OpAccess): number {
  switch (access) {
    case OpAccess.Read:
    case OpAccess.CondRead:
      return Access.READ;
    case OpAccess.Write:
    case OpAccess.CondWrite:
      return Access.WRITE;
    case OpAccess.ReadWrite:
    case OpAccess.ReadCondWrite:
      return Access.READ | Access.WRITE;
    default:
      return Access.NONE;
  }
}

/** The operands in memory that count, of a form of which one with such operands was decoded. */
export function explicitPatterns(instruction: Instruction, pattern: OperandPattern): ExplicitPattern[] {
  const info = infoFactory.info(instruction);
  const size = explicitSize(instruction);
  const explicit = pattern.positions.map((position) => ({
    position,
    kind: pattern.kinds[position]!,
    access: accessOf(info.opAccess(position)),
    size,
  }));
  info.free();
  return explicit.filter(({ access }) => access !== Access.NONE);
}
