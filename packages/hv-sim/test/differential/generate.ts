import {
  Code,
  Decoder,
  DecoderOptions,
  Encoder,
  FlowControl,
  type Instruction,
  MemorySizeExt,
  Mnemonic,
  OpKind,
  Register,
} from 'iced-x86';
import { addressMemory } from './address-operand.js';
import { Draft, Retry } from './draft.js';
import {
  fixedRegister,
  generalOperand,
  isImmediate,
  operandKinds,
  setImmediate,
  setRegister,
} from './operand-kinds.js';
import { type Gpr, gprRegister, HIGH_BYTES, LOW_BYTES } from './register-names.js';
import { prepare, settle } from './special-cases.js';
import { type Bitness, LAYOUT, type TestCase } from './test-case.js';
import { undefinedFlags } from './undefined-flags.js';

const ATTEMPTS = 200;
const MAX_INSTRUCTION = 15;

/**
 * Case number `index` of a form. The same arguments give the same case for ever.
 *
 * @param form name of an iced `Code`
 * @param bitness of the code that it stands in
 */
export function generateCase(form: string, index: number, bitness: Bitness = 64): TestCase {
  const code = Code[form as keyof typeof Code] as Code | undefined;
  if (code === undefined) throw new Error(`iced has no form ${form}`);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const draft = new Draft(form, caseSeed(form, index * ATTEMPTS + attempt), bitness);
    try {
      return buildCase(code, draft);
    } catch (error) {
      if (!(error instanceof Retry)) throw error;
    } finally {
      draft.instruction.free();
    }
  }
  throw new Error(`no encodable case of ${form} found`);
}

/** FNV-1a over the name, so that a form's cases do not depend on the other forms. */
export function caseSeed(form: string, index: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < form.length; i++) hash = Math.imul(hash ^ form.charCodeAt(i), 0x01000193);
  return (hash ^ Math.imul(index + 1, 0x9e3779b1)) >>> 0;
}

function buildCase(code: Code, draft: Draft): TestCase {
  const { instruction, random } = draft;
  instruction.code = code;
  draft.mnemonic = Mnemonic[instruction.mnemonic] as string;
  draft.memorySize = MemorySizeExt.size(instruction.memorySize);
  draft.rip = LAYOUT.code + 0x400 + random.below(0x800);
  if (random.oneIn(12)) draft.rip = LAYOUT.code + 0x1000 - 1 - random.below(6);
  const kinds = operandKinds(code);
  draft.operandBits = operandBits(kinds) ?? draft.memorySize * 8;
  prepare(draft);
  if (draft.lockable && random.oneIn(4)) {
    instruction.hasLockPrefix = true;
    draft.forceMemory = true;
  }
  kinds.forEach((kind, operand) => {
    setOperand(draft, operand, kind);
  });
  settle(draft);
  const bytes = mutate(draft, encode(instruction, draft.rip, draft.bitness));
  if (decodedForm(bytes, draft.bitness) !== code) throw new Retry();
  return {
    form: draft.form,
    rip: draft.rip,
    bitness: draft.bitness,
    code: bytes,
    instructions: 1,
    seed: draft.seed,
    before: draft.before,
    patches: draft.patches,
    undefinedFlags: undefinedFlags(draft.mnemonic, draft.shift),
  };
}

/** Size of the first operand that is a general register or may be one. */
function operandBits(kinds: readonly string[]): number | undefined {
  for (const kind of kinds) {
    const bits = generalOperand(kind)?.bits ?? { al: 8, ax: 16, eax: 32, rax: 64 }[kind];
    if (bits !== undefined) return bits;
  }
  return undefined;
}

function setOperand(draft: Draft, operand: number, kind: string): void {
  const { instruction, random } = draft;
  if (kind === 'mem' || (kind.endsWith('_or_mem') && (draft.forceMemory || random.oneIn(2)))) {
    instruction.setOpKind(operand, OpKind.Memory);
    addressMemory(draft, 'any');
    return;
  }
  const register = drawRegister(draft, kind);
  if (register !== undefined) {
    setRegister(instruction, operand, register);
    draft.operandRegisters.push(register);
  } else if (isImmediate(kind)) {
    const value = draft.immediate() ?? random.edge();
    setImmediate(instruction, operand, kind, value);
    draft.lastImmediate = Number(BigInt.asUintN(8, value));
  } else {
    setOther(draft, operand, kind);
  }
}

const CONTROL_REGISTERS = [Register.CR0, Register.CR2, Register.CR3, Register.CR4, Register.CR8];

/** The register for an operand that is one (by now), or undefined. */
function drawRegister(draft: Draft, kind: string): Register | undefined {
  const general = generalOperand(kind);
  if (general !== undefined) return pickGeneral(draft, general.bits);
  if (kind.startsWith('xmm_')) return Register.XMM0 + draft.random.below(draft.registers);
  if (kind === 'seg_reg') return draft.segmentOperand();
  if (kind === 'cr_reg')
    return draft.random.pick(draft.bitness === 64 ? CONTROL_REGISTERS : CONTROL_REGISTERS.slice(0, -1));
  if (kind === 'dr_reg') return Register.DR0 + draft.random.below(4);
  return fixedRegister(kind);
}

function setOther(draft: Draft, operand: number, kind: string): void {
  const { instruction, address32 } = draft;
  switch (kind) {
    case 'mem_offs':
      instruction.setOpKind(operand, OpKind.Memory);
      addressMemory(draft, 'offset');
      break;
    case 'seg_rBX_al':
      instruction.setOpKind(operand, OpKind.Memory);
      instruction.memoryBase = address32 ? Register.EBX : Register.RBX;
      instruction.memoryIndex = Register.AL;
      instruction.memoryIndexScale = 1;
      break;
    case 'es_rDI':
      instruction.setOpKind(operand, address32 ? OpKind.MemoryESEDI : OpKind.MemoryESRDI);
      break;
    case 'seg_rDI':
      instruction.setOpKind(operand, address32 ? OpKind.MemorySegEDI : OpKind.MemorySegRDI);
      break;
    case 'seg_rSI':
      instruction.setOpKind(operand, address32 ? OpKind.MemorySegESI : OpKind.MemorySegRSI);
      break;
    case 'br32_1':
    case 'br32_4':
      instruction.setOpKind(operand, OpKind.NearBranch32);
      instruction.nearBranch32 = draft.branchTarget(kind === 'br32_1');
      break;
    case 'br64_1':
    case 'br64_4':
      instruction.setOpKind(operand, OpKind.NearBranch64);
      instruction.nearBranch64 = BigInt(draft.branchTarget(kind === 'br64_1'));
      break;
    default:
      throw new Error(`${draft.form}: operand kind ${kind} is not generated`);
  }
}

function pickGeneral(draft: Draft, bits: Gpr): Register {
  const { random } = draft;
  if (bits === 8) {
    if (random.oneIn(4)) return random.pick(HIGH_BYTES);
    return random.pick(draft.bitness === 64 ? LOW_BYTES : LOW_BYTES.slice(0, 4));
  }
  return gprRegister(random.below(draft.registers), bits);
}

/** The instruction's bytes, at its address. */
export function encode(instruction: Instruction, rip: number, bitness: Bitness = 64): Uint8Array {
  const encoder = new Encoder(bitness);
  try {
    encoder.encode(instruction, BigInt(rip));
    return encoder.takeBuffer();
  } catch {
    // For instance AH beside a register that needs REX: another attempt draws other operands.
    throw new Retry();
  } finally {
    encoder.free();
  }
}

const LEGACY_PREFIXES = new Set([0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65]);

/** Sometimes adds a prefix that changes nothing: a DS override, a REX without bits, an operand size beside REX.W. */
function mutate(draft: Draft, bytes: Uint8Array): Uint8Array {
  const { random } = draft;
  if (!random.oneIn(10)) return bytes;
  let opcode = 0;
  while (LEGACY_PREFIXES.has(bytes[opcode] as number)) opcode++;
  const hasRex = draft.bitness === 64 && ((bytes[opcode] as number) & 0xf0) === 0x40;
  const choice = random.below(3);
  let at = 0;
  let prefix = random.pick([0x26, draft.mayUseCodeSegment ? 0x2e : 0x3e, 0x36, 0x3e]);
  if (choice === 1 && !hasRex && draft.bitness === 64) {
    at = opcode;
    prefix = 0x40;
  } else if (choice === 2 && hasRex && ((bytes[opcode] as number) & 8) !== 0) {
    prefix = 0x66;
  } else if (draft.instruction.segmentPrefix !== Register.None) {
    return bytes;
  }
  const mutated = Uint8Array.from([...bytes.subarray(0, at), prefix, ...bytes.subarray(at)]);
  return mutated.length <= MAX_INSTRUCTION && isSameForm(draft.instruction, mutated, draft.bitness) ? mutated : bytes;
}

/** The form that a decoder sees; with some operands another form has precedence. */
function decodedForm(bytes: Uint8Array, bitness: Bitness): Code {
  const decoder = new Decoder(bitness, bytes, DecoderOptions.None);
  const instruction = decoder.decode();
  const { code } = instruction;
  instruction.free();
  decoder.free();
  return code;
}

function isSameForm(instruction: Instruction, bytes: Uint8Array, bitness: Bitness): boolean {
  // Processors differ in what an operand-size prefix does to near branches.
  if (instruction.flowControl !== FlowControl.Next) return false;
  const decoder = new Decoder(bitness, bytes, DecoderOptions.None);
  const decoded = decoder.decode();
  const same =
    decoded.code === instruction.code &&
    decoded.length === bytes.length &&
    Array.from({ length: decoded.opCount }, (_, i) => i).every(
      (i) => decoded.opKind(i) === instruction.opKind(i) && decoded.opRegister(i) === instruction.opRegister(i),
    );
  decoded.free();
  decoder.free();
  return same;
}
