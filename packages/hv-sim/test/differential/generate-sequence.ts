import { Code, Instruction, MemorySizeExt, Mnemonic, OpKind, Register, RflagsBits } from 'iced-x86';
import { Retry } from './draft.js';
import { caseSeed, encode } from './generate.js';
import { fixedRegister, generalOperand, operandKinds, setImmediate, setRegister } from './operand-kinds.js';
import { Random } from './random.js';
import { type Gpr, gprRegister, HIGH_BYTES, LOW_BYTES } from './register-names.js';
import { Flag, initialRegisters, LAYOUT, type TestCase } from './test-case.js';

/** Registers that point to the data and are never written by a sequence: RBP and R15. */
const POINTERS = [5, 15] as const;
/** Counts the rounds of a loop: R12, not used otherwise. */
const COUNTER = 12;

/** Instructions that neither fault nor leave a register undefined, whatever their operands are. */
const MNEMONICS =
  /^(Add|Or|Adc|Sbb|And|Sub|Xor|Cmp|Test|Inc|Dec|Not|Neg|Mov|Movzx|Movsx|Movsxd|Lea|Xchg|Xadd|Cmpxchg|Rol|Ror|Rcl|Rcr|Shl|Shr|Sar|Imul|Mul|Bt|Bts|Btr|Btc|Set\w+|Cmov\w+|Bswap|Cbw|Cwde|Cdqe|Cwd|Cdq|Cqo|Clc|Stc|Cmc|Lahf|Sahf|Popcnt|Movups|Movdqu|Movq|Movd|Pxor)$/;
const SHIFTS = /^(Rol|Ror|Rcl|Rcr|Shl|Shr|Sar)$/;

const FLAG_BITS: readonly (readonly [number, number])[] = [
  [RflagsBits.OF, Flag.OF],
  [RflagsBits.SF, Flag.SF],
  [RflagsBits.ZF, Flag.ZF],
  [RflagsBits.AF, Flag.AF],
  [RflagsBits.CF, Flag.CF],
  [RflagsBits.PF, Flag.PF],
];

/** The forms among `forms` that sequences are made of. */
export function sequenceForms(forms: readonly string[]): string[] {
  return forms.filter((form) => {
    const code = Code[form as keyof typeof Code];
    const instruction = Instruction.create(code);
    const mnemonic = Mnemonic[instruction.mnemonic] as string;
    instruction.free();
    const kinds = operandKinds(code);
    if (!MNEMONICS.test(mnemonic) || kinds.some((kind) => /^(seg_|cr_|dr_|mem_offs|br|es_)/.test(kind))) return false;
    // A bit offset in a register moves the address; BSWAP of 16 bits is undefined.
    return !/^Bt[src]?_rm\d+_r\d+$/.test(form) && form !== 'Bswap_r16';
  });
}

/**
 * 5 to 20 instructions that work on the same few registers and the same little memory: a straight line, or a loop of 2
 * to 5 rounds over one.
 */
export function generateSequence(forms: readonly string[], index: number): TestCase {
  const seed = caseSeed('sequence', index);
  const random = new Random(seed ^ 0x736571);
  const before = initialRegisters(seed);
  for (const pointer of POINTERS) before.gpr[pointer] = BigInt(LAYOUT.data + 0x400 + (random.below(0x2000) & -16));
  const rip = LAYOUT.code + 0x400;
  const length = 5 + random.below(16);
  const pieces: Uint8Array[] = [];
  let size = 0;
  const rounds = random.oneIn(2) ? 1 : 2 + random.below(4);
  // DEC leaves CF as the round before left it.
  let undefinedNow = rounds > 1 ? Flag.CF : 0;
  while (pieces.length < length) {
    const instruction = Instruction.create(Code[random.pick(forms) as keyof typeof Code]);
    try {
      const flags = flagEffects(instruction);
      // What reads a flag that is undefined by now would differ for a good reason.
      if ((flags.read & undefinedNow) !== 0) continue;
      operandKinds(instruction.code).forEach((kind, operand) => {
        setOperand(instruction, operand, kind, random);
      });
      const bytes = encode(instruction, rip + size);
      pieces.push(bytes);
      size += bytes.length;
      undefinedNow = (undefinedNow & ~flags.written) | flags.undefined;
    } catch (error) {
      if (!(error instanceof Retry)) throw error;
    } finally {
      instruction.free();
    }
  }
  if (rounds > 1) {
    before.gpr[COUNTER] = BigInt(rounds);
    pieces.push(...loopEnd(rip, size));
    undefinedNow &= Flag.CF;
  }
  const code = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
  return {
    form: 'sequence',
    rip,
    bitness: 64,
    code,
    instructions: pieces.length * rounds,
    seed,
    before,
    patches: [],
    undefinedFlags: undefinedNow,
  };
}

/** DEC and JNE to `rip`, behind `size` bytes. */
function loopEnd(rip: number, size: number): Uint8Array[] {
  const decrement = Instruction.createReg(Code.Dec_rm32, gprRegister(COUNTER, 32));
  const pieces = [encode(decrement, rip + size)];
  decrement.free();
  const jump = Instruction.createBranch(Code.Jne_rel32_64, BigInt(rip));
  pieces.push(encode(jump, rip + size + (pieces[0] as Uint8Array).length));
  jump.free();
  return pieces;
}

/** Status flags that an instruction reads, surely writes, and may leave undefined. */
function flagEffects(instruction: Instruction): { read: number; written: number; undefined: number } {
  const written = toFlags(instruction.rflagsWritten | instruction.rflagsCleared | instruction.rflagsSet);
  const mayBeUndefined = toFlags(instruction.rflagsUndefined);
  // A shift by 0 writes nothing, so it does not make undefined flags defined; by another count than 1, OF and for SHL
  // and SHR also CF may be undefined.
  if (SHIFTS.test(Mnemonic[instruction.mnemonic] as string)) {
    return {
      read: toFlags(instruction.rflagsRead),
      written: 0,
      undefined: mayBeUndefined | Flag.OF | Flag.CF | Flag.AF,
    };
  }
  return { read: toFlags(instruction.rflagsRead), written, undefined: mayBeUndefined };
}

function toFlags(bits: number): number {
  return FLAG_BITS.reduce((flags, [iced, flag]) => (bits & iced ? flags | flag : flags), 0);
}

function setOperand(instruction: Instruction, operand: number, kind: string, random: Random): void {
  if (kind === 'mem' || (kind.endsWith('_or_mem') && random.oneIn(3))) {
    setMemory(instruction, operand, random);
    return;
  }
  const general = generalOperand(kind);
  const register =
    general !== undefined
      ? pickGeneral(random, general.bits)
      : kind.startsWith('xmm_')
        ? Register.XMM0 + random.below(4)
        : fixedRegister(kind);
  if (register !== undefined) setRegister(instruction, operand, register);
  else setImmediate(instruction, operand, kind, random.edge());
}

/** A register other than the pointers; few of them, so that instructions meet each other's results. */
function pickGeneral(random: Random, bits: Gpr): Register {
  const number = random.pick([0, 1, 2, 3, 6, 8, 9]);
  if (bits === 8) return random.oneIn(4) ? random.pick(HIGH_BYTES) : (LOW_BYTES[number] as Register);
  return gprRegister(number, bits);
}

function setMemory(instruction: Instruction, operand: number, random: Random): void {
  instruction.setOpKind(operand, OpKind.Memory);
  const size = Math.max(1, MemorySizeExt.size(instruction.memorySize));
  instruction.memoryBase = gprRegister(random.pick(POINTERS), 64);
  instruction.memoryDisplSize = 1;
  const displacement = random.below(64 - size + 1) - 32;
  // The pointers are multiples of 16, as the SSE forms with aligned operands need it.
  instruction.memoryDisplacement = BigInt.asUintN(64, BigInt(size === 16 ? displacement & -16 : displacement));
}
