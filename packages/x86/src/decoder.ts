/**
 * Decoding of x86 machine code: a thin layer over iced-x86 that keeps its WebAssembly objects in one place. This entry
 * point (`@introd/x86/decoder`) knows nothing about what an instruction does to memory or registers, so that the
 * embedded machine may use it without sharing the engine's knowledge of operands and effects.
 */
import { Decoder, DecoderError, DecoderOptions, Instruction } from 'iced-x86';
import { X86Error } from './error.js';
import { type Bitness, MAX_INSTRUCTION_LENGTH, type PlacedDecoder, placeDecoder } from './placed-decoder.js';

export {
  Code,
  CodeExt,
  CodeSize,
  ConditionCode,
  CpuidFeature,
  DecoderError,
  EncodingKind,
  FlowControl,
  Instruction,
  MemorySize,
  MemorySizeExt,
  Mnemonic,
  OpAccess,
  OpKind,
  Register,
  RegisterExt,
} from 'iced-x86';
export { type Bitness, MAX_INSTRUCTION_LENGTH } from './placed-decoder.js';

/** Why bytes are not an instruction. */
export type DecodeFailure = 'invalid' | 'incomplete';

/**
 * Decodes the first instruction of `bytes`.
 * @param bytes machine code; at most the first 15 bytes count
 * @param ip address of the first byte, for RIP-relative operands and branch targets
 * @param bitness default operand and address size of the code segment
 * @param out receives the instruction; it is an object of the decoder library and stays usable until its owner frees it
 * @param variant which instructions there are beside those that every processor has
 * @returns undefined when `out` holds the instruction; `incomplete` when it needs more bytes than there are
 * @throws X86Error `ERR_X86_OPTIONS` when there is no code of that size
 */
export function decodeInto(
  bytes: Uint8Array,
  ip: bigint,
  bitness: Bitness,
  out: Instruction,
  variant: DecoderVariant = 'common',
): DecodeFailure | undefined {
  if (bytes.length === 0) {
    return 'incomplete';
  }
  const length = placedFor(bitness, variant)?.decode(bytes, ip, out) ?? 0;
  if (length > 0) {
    return length <= bytes.length ? undefined : 'incomplete';
  }
  return decodeExactly(bytes, ip, bitness, out, variant);
}

/**
 * Instructions that processors treat differently: `bounds` knows those of MPX, which are NOPs (`common`) on processors without it
 * (SDM vol. 2A, BNDMOV).
 */
export type DecoderVariant = 'common' | 'bounds';

const OPTIONS: Readonly<Record<DecoderVariant, DecoderOptions>> = {
  common: DecoderOptions.None,
  bounds: DecoderOptions.MPX,
};

type PlacedDecoders = Partial<Record<Bitness, PlacedDecoder | null>>;
/** One for each size of code, made when it is first needed; null when there can be none. */
const placed: Readonly<Record<DecoderVariant, PlacedDecoders>> = { common: {}, bounds: {} };

function placedFor(bitness: Bitness, variant: DecoderVariant): PlacedDecoder | null {
  const decoders = placed[variant];
  let decoder = decoders[bitness];
  if (decoder === undefined) {
    requireBitness(bitness);
    decoder = placeDecoder(bitness, OPTIONS[variant]);
    decoders[bitness] = decoder;
  }
  return decoder;
}

/**
 * Says no to a size of code that there is not.
 * @throws X86Error `ERR_X86_OPTIONS`
 */
export function requireBitness(bitness: Bitness): void {
  if (bitness !== 16 && bitness !== 32 && bitness !== 64) {
    throw new X86Error('ERR_X86_OPTIONS', `no code has ${String(bitness)} bits`, { hint: '16, 32 or 64' });
  }
}

/** Decodes with a decoder that has no more than these bytes, so that it tells what is wrong with them. */
function decodeExactly(
  bytes: Uint8Array,
  ip: bigint,
  bitness: Bitness,
  out: Instruction,
  variant: DecoderVariant,
): DecodeFailure | undefined {
  const code = bytes.length > MAX_INSTRUCTION_LENGTH ? bytes.subarray(0, MAX_INSTRUCTION_LENGTH) : bytes;
  const decoder = new Decoder(bitness, code, OPTIONS[variant]);
  try {
    decoder.ip = ip;
    decoder.decodeOut(out);
    const error = decoder.lastError;
    if (error === DecoderError.None) {
      return undefined;
    }
    // With 15 bytes at hand nothing is missing: the instruction is longer than any may be.
    return error === DecoderError.NoMoreBytes && code.length < MAX_INSTRUCTION_LENGTH ? 'incomplete' : 'invalid';
  } finally {
    decoder.free();
  }
}

/** An empty instruction for {@link decodeInto}, to be reused. */
export function emptyInstruction(): Instruction {
  return new Instruction();
}

/**
 * Decodes the instructions of a piece of code one after the other. Creating a decoder costs several times as much
 * as decoding an instruction, so whoever decodes more than one uses this.
 */
export class InstructionStream {
  readonly #decoder: Decoder;
  readonly #length: number;

  /**
   * @param bytes machine code; a copy of it is kept until {@link free}
   * @param ip address of the first byte
   * @param bitness default operand and address size of the code segment
   * @throws X86Error `ERR_X86_OPTIONS` when there is no code of that size
   */
  constructor(bytes: Uint8Array, ip: bigint, bitness: Bitness = 64) {
    requireBitness(bitness);
    this.#decoder = new Decoder(bitness, bytes, DecoderOptions.None);
    this.#decoder.ip = ip;
    this.#length = bytes.length;
  }

  /**
   * Decodes the next instruction into `out`.
   * @returns undefined when `out` holds it; after a failure the stream is at its end
   */
  next(out: Instruction): DecodeFailure | undefined {
    const start = this.#decoder.position;
    this.#decoder.decodeOut(out);
    const error = this.#decoder.lastError;
    if (error === DecoderError.None) return undefined;
    return error === DecoderError.NoMoreBytes && this.#length - start < MAX_INSTRUCTION_LENGTH
      ? 'incomplete'
      : 'invalid';
  }

  /** Releases the decoder; the stream must not be used again. */
  free(): void {
    this.#decoder.free();
  }
}
