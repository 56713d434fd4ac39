/**
 * Encoding of one instruction: picks, among the forms of a mnemonic, the shortest that takes the operands.
 */
import { Encoder, Instruction, OpKind, Register } from 'iced-x86';
import type { Bitness } from '../decoder.js';
import { X86Error } from '../error.js';
import { formsOf, type InstructionForm } from './instruction-forms.js';
import type { FarOperand, MemoryOperandText, Operand } from './operand.js';
import {
  accepts,
  BRANCH_KINDS,
  BRANCHES,
  type BranchDistance,
  fits,
  fitsSigned,
  immediateKind,
} from './operand-matching.js';

/** A place in encoded bytes that waits for the address of a symbol. */
export interface Fixup {
  /** Where in the bytes. */
  readonly offset: number;
  /** Bytes to fill: 1, 2, 4 or 8. */
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

function setMemory(instruction: Instruction, memory: MemoryOperandText): void {
  instruction.memoryBase = memory.base;
  instruction.memoryIndex = memory.index;
  instruction.memoryIndexScale = memory.scale;
  instruction.segmentPrefix = memory.segment;
  const width = memory.addressSize;
  const relative = memory.base === Register.RIP;
  const absolute = memory.base === Register.None && memory.index === Register.None;
  const linked = relative || memory.symbol !== undefined;
  // A displacement with a label is filled in when the program is linked.
  const displacement = linked ? 0n : memory.displacement;
  const bits = Math.min(width, 32);
  if (width === 64 ? !fitsSigned(displacement, 32, 64) : !fits(displacement, bits)) {
    throw new X86Error('ERR_X86_ASSEMBLY', `displacement does not fit into ${bits} bits: ${displacement}`);
  }
  instruction.memoryDisplacementU64 = BigInt.asUintN(width, displacement);
  // The size of the address stands for a displacement of 32 (or 16) bits, 1 for the short form, 0 for none.
  const full = width / 8;
  const needsNone = displacement === 0n && memory.base !== Register.None;
  const byte = memory.base !== Register.None && fitsSigned(displacement, 8, width);
  instruction.memoryDisplSize = linked || absolute ? full : needsNone ? 0 : byte ? 1 : full;
}

function setFarBranch(instruction: Instruction, position: number, operand: FarOperand, bitness: Bitness): void {
  instruction.setOpKind(position, bitness === 16 ? OpKind.FarBranch16 : OpKind.FarBranch32);
  instruction.farBranchSelector = operand.selector;
  instruction.farBranch32 = 0;
}

function build(form: InstructionForm, operands: readonly Operand[], bitness: Bitness): Instruction {
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
    } else if (operand.kind === 'far') {
      setFarBranch(instruction, i, operand, bitness);
    } else if (BRANCH_KINDS.has(kind)) {
      instruction.setOpKind(i, BRANCHES[bitness].opKind);
      instruction.nearBranch64 = 0n;
    } else {
      const opKind = immediateKind(kind, operand.symbol === undefined ? operand.value : 0n)!;
      instruction.setOpKind(i, immediates++ > 0 ? OpKind.Immediate8_2nd : opKind);
      instruction.setImmediateU64(i, BigInt.asUintN(64, operand.value));
    }
  });
  return instruction;
}

const encoders = new Map<Bitness, Encoder>();

function encoderFor(bitness: Bitness): Encoder {
  let encoder = encoders.get(bitness);
  if (encoder === undefined) {
    encoder = new Encoder(bitness);
    encoders.set(bitness, encoder);
  }
  return encoder;
}

function encodeForm(
  form: InstructionForm,
  operands: readonly Operand[],
  lock: boolean,
  bitness: Bitness,
): Encoded | undefined {
  const encoder = encoderFor(bitness);
  const instruction = build(form, operands, bitness);
  try {
    instruction.hasLockPrefix = lock;
    let length: number;
    try {
      length = encoder.encode(instruction, 0n);
    } catch {
      // For instance AH with a REX prefix: this form does not exist for these operands.
      encoder.takeBuffer();
      return undefined;
    }
    const offsets = encoder.getConstantOffsets();
    const { displacementOffset, immediateOffset } = offsets;
    offsets.free();
    const bytes = encoder.takeBuffer();
    const fixups: Fixup[] = [];
    operands.forEach((operand, i) => {
      if (operand.kind === 'memory') {
        const fixup = displacementFixup(operand, displacementOffset, length);
        if (fixup !== undefined) {
          fixups.push(fixup);
        } else if (operand.base === Register.RIP) {
          // `[rip+8]` without a label counts from the end of the instruction, as written.
          const view = new DataView(bytes.buffer, bytes.byteOffset);
          view.setInt32(displacementOffset, Number(operand.displacement), true);
        }
      } else if (operand.kind === 'far') {
        // The offset stands before the selector (SDM vol. 2A, JMP ptr16:32).
        const { symbol, value: addend } = operand;
        const { size } = BRANCHES[bitness];
        fixups.push({ offset: length - 2 - size, size, relativeTo: undefined, symbol, addend });
      } else if (operand.kind === 'value' && BRANCH_KINDS.has(form.operands[i]!)) {
        const size = form.operands[i] === BRANCHES[bitness].short ? 1 : BRANCHES[bitness].size;
        const { symbol, value: addend } = operand;
        fixups.push({ offset: length - size, size, relativeTo: length, symbol, addend });
      } else if (operand.kind === 'value' && operand.symbol !== undefined) {
        const { symbol, value: addend } = operand;
        fixups.push({ offset: immediateOffset, size: bitness / 8, relativeTo: undefined, symbol, addend });
      }
    });
    return { bytes, fixups };
  } finally {
    instruction.free();
  }
}

/** The place of a displacement that waits for a label. */
function displacementFixup(memory: MemoryOperandText, offset: number, length: number): Fixup | undefined {
  const { symbol, displacement: addend, addressSize } = memory;
  if (symbol === undefined) {
    return undefined;
  }
  return addressSize === 64
    ? { offset, size: 4, relativeTo: length, symbol, addend }
    : { offset, size: addressSize / 8, relativeTo: undefined, symbol, addend };
}

/** Opcodes of the string instructions for bytes; all operands are implied (SDM vol. 2, table A-2). */
const STRING_OPCODES: ReadonlyMap<string, number> = new Map(
  Object.entries({ ins: 0x6c, outs: 0x6e, movs: 0xa4, cmps: 0xa6, stos: 0xaa, lods: 0xac, scas: 0xae }),
);

/** The bytes of a string instruction without operands; undefined when it is none, or none of this mode. */
function stringInstruction(mnemonic: string, bitness: Bitness): readonly number[] | undefined {
  const opcode = STRING_OPCODES.get(mnemonic.slice(0, -1));
  if (opcode === undefined) {
    return undefined;
  }
  switch (mnemonic.slice(-1)) {
    case 'b':
      return [opcode];
    case 'w':
      return bitness === 16 ? [opcode + 1] : [0x66, opcode + 1];
    case 'd':
      return bitness === 16 ? [0x66, opcode + 1] : [opcode + 1];
    case 'q':
      return bitness === 64 && opcode >= 0xa0 ? [0x48, opcode + 1] : undefined;
    default:
      return undefined;
  }
}

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
 * @throws X86Error when no form takes the operands, or when the size of a memory operand is not clear.
 */
export function encodeInstruction(
  mnemonic: string,
  operands: readonly Operand[],
  prefix?: string,
  distance: BranchDistance = 'near',
  bitness: Bitness = 64,
): Encoded {
  const string = operands.length === 0 ? stringInstruction(mnemonic, bitness) : undefined;
  if (string !== undefined) {
    const repeat = prefix === undefined ? [] : [REPEAT_PREFIXES.get(prefix) ?? 0];
    if (repeat[0] === 0) {
      throw new X86Error('ERR_X86_ASSEMBLY', `prefix ${prefix} has no meaning for ${mnemonic}`);
    }
    return { bytes: Uint8Array.from([...repeat, ...string]), fixups: [] };
  }
  if (prefix !== undefined && prefix !== 'lock') {
    throw new X86Error('ERR_X86_ASSEMBLY', `prefix ${prefix} has no meaning for ${mnemonic}`);
  }
  const all = formsOf(mnemonic, bitness);
  if (all.length === 0) {
    throw new X86Error('ERR_X86_ASSEMBLY', `no such instruction: ${mnemonic}`);
  }
  let candidates = all.filter((form) => accepts(form, operands, { bitness, distance }));
  // PUSH of a number pushes as many bits as the code has; the other form may be shorter but is never meant.
  if (mnemonic === 'push' && operands[0]?.kind === 'value') {
    const other = bitness === 16 ? 32 : 16;
    candidates = candidates.filter((form) => form.operandSize !== other);
  }
  if (operands.some((operand) => operand.kind === 'memory' && operand.size === undefined)) {
    const sizes = new Set(candidates.map((form) => form.memorySize));
    if (sizes.size > 1) {
      throw new X86Error('ERR_X86_ASSEMBLY', `size of the memory operand is not clear: ${mnemonic}`, {
        hint: 'write qword [..]',
      });
    }
  }
  let best: Encoded | undefined;
  for (const form of candidates) {
    const encoded = encodeForm(form, operands, prefix === 'lock', bitness);
    if (encoded !== undefined && (best === undefined || encoded.bytes.length < best.bytes.length)) {
      best = encoded;
    }
  }
  if (best === undefined) {
    throw new X86Error('ERR_X86_ASSEMBLY', `no form of ${mnemonic} takes these operands`);
  }
  return best;
}
