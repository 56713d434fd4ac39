/**
 * Encoding of one instruction: picks, among the forms of a mnemonic, the shortest that takes the operands.
 */
import { Encoder, Instruction, OpCodeOperandKind as K, OpKind, Register } from 'iced-x86';
import { AssemblyError } from './error.js';
import { formsOf, type InstructionForm } from './instruction-forms.js';
import type { MemoryOperandText, Operand, RegisterClass, RegisterOperand, ValueOperand } from './operand.js';

/** A place in encoded bytes that waits for the address of a symbol. */
export interface Fixup {
  /** Where in the bytes. */
  readonly offset: number;
  /** Bytes to fill: 1, 4 or 8. */
  readonly size: number;
  /** For a relative value, the offset that it counts from (the end of the instruction); undefined = absolute. */
  readonly relativeTo: number | undefined;
  /** Label, or undefined when {@link addend} is already the address. */
  readonly symbol: string | undefined;
  readonly addend: bigint;
}

/** An encoded instruction. */
export interface Encoded {
  readonly bytes: Uint8Array;
  readonly fixups: readonly Fixup[];
}

const REGISTER_KINDS: Partial<Record<K, RegisterClass>> = {
  [K.r8_reg]: 'r8',
  [K.r8_opcode]: 'r8',
  [K.r8_or_mem]: 'r8',
  [K.r16_reg]: 'r16',
  [K.r16_reg_mem]: 'r16',
  [K.r16_rm]: 'r16',
  [K.r16_opcode]: 'r16',
  [K.r16_or_mem]: 'r16',
  [K.r32_reg]: 'r32',
  [K.r32_reg_mem]: 'r32',
  [K.r32_rm]: 'r32',
  [K.r32_opcode]: 'r32',
  [K.r32_or_mem]: 'r32',
  [K.r64_reg]: 'r64',
  [K.r64_reg_mem]: 'r64',
  [K.r64_rm]: 'r64',
  [K.r64_opcode]: 'r64',
  [K.r64_or_mem]: 'r64',
  [K.xmm_reg]: 'xmm',
  [K.xmm_rm]: 'xmm',
  [K.xmm_or_mem]: 'xmm',
  [K.seg_reg]: 'segment',
  [K.cr_reg]: 'control',
  [K.dr_reg]: 'debug',
};

const FIXED_REGISTERS: Partial<Record<K, Register>> = {
  [K.es]: Register.ES,
  [K.cs]: Register.CS,
  [K.ss]: Register.SS,
  [K.ds]: Register.DS,
  [K.fs]: Register.FS,
  [K.gs]: Register.GS,
  [K.al]: Register.AL,
  [K.cl]: Register.CL,
  [K.ax]: Register.AX,
  [K.dx]: Register.DX,
  [K.eax]: Register.EAX,
  [K.rax]: Register.RAX,
};

const MEMORY_KINDS: ReadonlySet<K> = new Set([
  K.mem,
  K.r8_or_mem,
  K.r16_or_mem,
  K.r32_or_mem,
  K.r64_or_mem,
  K.xmm_or_mem,
]);

const BRANCH_KINDS: ReadonlySet<K> = new Set([K.br64_1, K.br64_4]);

/** Whether a value fits into `bits` bits, signed or unsigned. */
function fits(value: bigint, bits: number): boolean {
  return value >= -(1n << BigInt(bits - 1)) && value < 1n << BigInt(bits);
}

/** Whether `value`, as a number of `width` bits, is the sign extension of its low `bits` bits. */
function fitsSigned(value: bigint, bits: number, width: number): boolean {
  return fits(value, width) && BigInt.asIntN(bits, value) === BigInt.asIntN(width, value);
}

/** The operand kind of an immediate that holds the value, undefined when none of that kind does. */
function immediateKind(kind: K, value: bigint): OpKind | undefined {
  switch (kind) {
    case K.imm8:
      return fits(value, 8) ? OpKind.Immediate8 : undefined;
    case K.imm8_const_1:
      return value === 1n ? OpKind.Immediate8 : undefined;
    case K.imm8sex16:
      return fitsSigned(value, 8, 16) ? OpKind.Immediate8to16 : undefined;
    case K.imm8sex32:
      return fitsSigned(value, 8, 32) ? OpKind.Immediate8to32 : undefined;
    case K.imm8sex64:
      return fitsSigned(value, 8, 64) ? OpKind.Immediate8to64 : undefined;
    case K.imm16:
      return fits(value, 16) ? OpKind.Immediate16 : undefined;
    case K.imm32:
      return fits(value, 32) ? OpKind.Immediate32 : undefined;
    case K.imm32sex64:
      return fitsSigned(value, 32, 64) ? OpKind.Immediate32to64 : undefined;
    case K.imm64:
      return fits(value, 64) ? OpKind.Immediate64 : undefined;
    default:
      return undefined;
  }
}

function acceptsRegister(kind: K, operand: RegisterOperand): boolean {
  return REGISTER_KINDS[kind] === operand.class || FIXED_REGISTERS[kind] === operand.register;
}

function acceptsValue(kind: K, operand: ValueOperand, distance: BranchDistance): boolean {
  if (BRANCH_KINDS.has(kind)) {
    return (kind === K.br64_1) === (distance === 'short');
  }
  return operand.symbol === undefined ? immediateKind(kind, operand.value) !== undefined : kind === K.imm64;
}

function acceptsOperand(form: InstructionForm, kind: K, operand: Operand, distance: BranchDistance): boolean {
  if (operand.kind === 'register') {
    return acceptsRegister(kind, operand);
  }
  if (operand.kind === 'value') {
    return acceptsValue(kind, operand, distance);
  }
  const sizeFits = operand.size === undefined || form.memorySize === 0 || operand.size === form.memorySize;
  return MEMORY_KINDS.has(kind) && sizeFits;
}

function accepts(form: InstructionForm, operands: readonly Operand[], distance: BranchDistance): boolean {
  return (
    form.operands.length === operands.length &&
    operands.every((operand, i) => acceptsOperand(form, form.operands[i]!, operand, distance))
  );
}

function setMemory(instruction: Instruction, memory: MemoryOperandText): void {
  instruction.memoryBase = memory.base;
  instruction.memoryIndex = memory.index;
  instruction.memoryIndexScale = memory.scale;
  instruction.segmentPrefix = memory.segment;
  const relative = memory.base === Register.RIP;
  const absolute = memory.base === Register.None && memory.index === Register.None;
  // The displacement of a RIP-relative operand is filled in when the program is linked.
  const displacement = relative ? 0n : memory.displacement;
  if (!relative && !fitsSigned(displacement, 32, 64)) {
    throw new AssemblyError(`displacement does not fit into 32 bits: ${displacement}`);
  }
  instruction.memoryDisplacementU64 = BigInt.asUintN(64, displacement);
  // 8 stands for a 32-bit displacement of a 64-bit address, 1 for the short form, 0 for none.
  const needsNone = displacement === 0n && memory.base !== Register.None;
  const byte = memory.base !== Register.None && fitsSigned(displacement, 8, 64);
  instruction.memoryDisplSize = relative || absolute ? 8 : needsNone ? 0 : byte ? 1 : 8;
}

function build(form: InstructionForm, operands: readonly Operand[]): Instruction {
  const instruction = new Instruction();
  instruction.code = form.code;
  let immediates = 0;
  operands.forEach((operand, i) => {
    const kind = form.operands[i]!;
    if (operand.kind === 'register') {
      instruction.setOpKind(i, OpKind.Register);
      instruction.setOpRegister(i, operand.register);
    } else if (operand.kind === 'memory') {
      instruction.setOpKind(i, OpKind.Memory);
      setMemory(instruction, operand);
    } else if (BRANCH_KINDS.has(kind)) {
      instruction.setOpKind(i, OpKind.NearBranch64);
      instruction.nearBranch64 = 0n;
    } else {
      const opKind = operand.symbol === undefined ? immediateKind(kind, operand.value)! : OpKind.Immediate64;
      instruction.setOpKind(i, immediates++ > 0 ? OpKind.Immediate8_2nd : opKind);
      instruction.setImmediateU64(i, BigInt.asUintN(64, operand.value));
    }
  });
  return instruction;
}

let sharedEncoder: Encoder | undefined;

function encodeForm(form: InstructionForm, operands: readonly Operand[], lock: boolean): Encoded | undefined {
  sharedEncoder ??= new Encoder(64);
  const instruction = build(form, operands);
  try {
    instruction.hasLockPrefix = lock;
    let length: number;
    try {
      length = sharedEncoder.encode(instruction, 0n);
    } catch {
      // For instance AH with a REX prefix: this form does not exist for these operands.
      sharedEncoder.takeBuffer();
      return undefined;
    }
    const offsets = sharedEncoder.getConstantOffsets();
    const { displacementOffset, immediateOffset } = offsets;
    offsets.free();
    const bytes = sharedEncoder.takeBuffer();
    const fixups: Fixup[] = [];
    operands.forEach((operand, i) => {
      if (operand.kind === 'memory' && operand.base === Register.RIP) {
        const { symbol, displacement: addend } = operand;
        // `[rip+8]` without a label counts from the end of the instruction, as written.
        if (symbol === undefined) {
          new DataView(bytes.buffer, bytes.byteOffset).setInt32(displacementOffset, Number(addend), true);
        } else {
          fixups.push({ offset: displacementOffset, size: 4, relativeTo: length, symbol, addend });
        }
      } else if (operand.kind === 'value' && BRANCH_KINDS.has(form.operands[i]!)) {
        const size = form.operands[i] === K.br64_1 ? 1 : 4;
        const { symbol, value: addend } = operand;
        fixups.push({ offset: length - size, size, relativeTo: length, symbol, addend });
      } else if (operand.kind === 'value' && operand.symbol !== undefined) {
        const { symbol, value: addend } = operand;
        fixups.push({ offset: immediateOffset, size: 8, relativeTo: undefined, symbol, addend });
      }
    });
    return { bytes, fixups };
  } finally {
    instruction.free();
  }
}

/** How far a branch reaches: one byte or four. */
export type BranchDistance = 'short' | 'near';

/** String instructions: all operands are implied, so that their bytes say everything (SDM vol. 2, table A-2). */
const STRING_INSTRUCTIONS: ReadonlyMap<string, readonly number[]> = new Map(
  Object.entries({ ins: 0x6c, outs: 0x6e, movs: 0xa4, cmps: 0xa6, stos: 0xaa, lods: 0xac, scas: 0xae }).flatMap(
    ([name, opcode]): [string, readonly number[]][] => [
      [`${name}b`, [opcode]],
      [`${name}w`, [0x66, opcode + 1]],
      [`${name}d`, [opcode + 1]],
      ...(opcode < 0xa0 ? [] : ([[`${name}q`, [0x48, opcode + 1]]] as [string, readonly number[]][])),
    ],
  ),
);

/** Prefix bytes of string instructions (SDM vol. 2, 2.1.1). */
const REPEAT_PREFIXES: ReadonlyMap<string, number> = new Map([
  ['rep', 0xf3],
  ['repe', 0xf3],
  ['repz', 0xf3],
  ['repne', 0xf2],
  ['repnz', 0xf2],
]);

/**
 * Encodes one instruction.
 * @param mnemonic lower case
 * @param prefix `lock`, `rep`, `repe`, `repne` or none
 * @throws AssemblyError when no form takes the operands, or when the size of a memory operand is not clear.
 */
export function encodeInstruction(
  mnemonic: string,
  operands: readonly Operand[],
  prefix?: string,
  distance: BranchDistance = 'near',
): Encoded {
  const string = operands.length === 0 ? STRING_INSTRUCTIONS.get(mnemonic) : undefined;
  if (string !== undefined) {
    const repeat = prefix === undefined ? [] : [REPEAT_PREFIXES.get(prefix) ?? 0];
    if (repeat[0] === 0) {
      throw new AssemblyError(`prefix ${prefix} has no meaning for ${mnemonic}`);
    }
    return { bytes: Uint8Array.from([...repeat, ...string]), fixups: [] };
  }
  if (prefix !== undefined && prefix !== 'lock') {
    throw new AssemblyError(`prefix ${prefix} has no meaning for ${mnemonic}`);
  }
  const all = formsOf(mnemonic);
  if (all.length === 0) {
    throw new AssemblyError(`no such instruction: ${mnemonic}`);
  }
  let candidates = all.filter((form) => accepts(form, operands, distance));
  // PUSH of a number pushes 64 bits; the 16-bit form is shorter but is never meant.
  if (mnemonic === 'push' && operands[0]?.kind === 'value') {
    candidates = candidates.filter((form) => form.operandSize !== 16);
  }
  if (operands.some((operand) => operand.kind === 'memory' && operand.size === undefined)) {
    const sizes = new Set(candidates.map((form) => form.memorySize));
    if (sizes.size > 1) {
      throw new AssemblyError(`size of the memory operand is not clear: ${mnemonic}`, { hint: 'write qword [..]' });
    }
  }
  let best: Encoded | undefined;
  for (const form of candidates) {
    const encoded = encodeForm(form, operands, prefix === 'lock');
    if (encoded !== undefined && (best === undefined || encoded.bytes.length < best.bytes.length)) {
      best = encoded;
    }
  }
  if (best === undefined) {
    throw new AssemblyError(`no form of ${mnemonic} takes these operands`);
  }
  return best;
}
