import * as library from 'iced-x86';
import { Code, Decoder, type DecoderOptions, type Instruction } from 'iced-x86';

/** Default operand and address size of a code segment in bits. */
export type Bitness = 16 | 32 | 64;

/** Longest instruction in bytes; more prefixes raise #GP (SDM vol. 2, 2.3.11). */
export const MAX_INSTRUCTION_LENGTH = 15;

/** Bytes of the buffer: setting the decoder's position back costs as much as decoding does, so it is long. */
const BUFFER_SIZE = 0x4000;
/** Bytes that mark the buffer while it is looked for. */
const MARK_SIZE = 64;

/**
 * A decoder that stays, and whose bytes are exchanged: creating one, as decoding other bytes takes otherwise, costs about
 * three times as much as decoding an instruction does.
 */
export class PlacedDecoder {
  readonly #decoder: Decoder;
  readonly #memory: { readonly buffer: ArrayBufferLike };
  readonly #address: number;
  #buffer: Uint8Array;
  #position = 0;

  /**
   * @param decoder made of a copy of {@link BUFFER_SIZE} bytes, at its first one
   * @param address where in the decoder's memory its bytes are
   */
  constructor(decoder: Decoder, memory: { readonly buffer: ArrayBufferLike }, address: number) {
    this.#decoder = decoder;
    this.#memory = memory;
    this.#address = address;
    this.#buffer = new Uint8Array(memory.buffer, address, BUFFER_SIZE);
  }

  /**
   * Decodes the first instruction of `bytes`, continued by zeros.
   * @returns its length, which is larger than that of `bytes` when it needs more of them; 0 when they are not an instruction, or may be
   * one with other bytes than zeros behind them
   */
  decode(bytes: Uint8Array, ip: bigint, out: Instruction): number {
    let position = this.#position;
    if (position > BUFFER_SIZE - MAX_INSTRUCTION_LENGTH) {
      position = 0;
      this.#decoder.position = 0;
    }
    let buffer = this.#buffer;
    if (buffer.length === 0) {
      // The memory has grown: what showed the old one is empty.
      buffer = new Uint8Array(this.#memory.buffer, this.#address, BUFFER_SIZE);
      this.#buffer = buffer;
    }
    const given = Math.min(bytes.length, MAX_INSTRUCTION_LENGTH);
    for (let at = 0; at < given; at++) {
      buffer[position + at] = bytes[at]!;
    }
    if (given < MAX_INSTRUCTION_LENGTH) {
      buffer.fill(0, position + given, position + MAX_INSTRUCTION_LENGTH);
    }
    const decoder = this.#decoder;
    decoder.ip = ip;
    decoder.decodeOut(out);
    if (out.code === Code.INVALID) {
      this.#position = 0;
      decoder.position = 0;
      return 0;
    }
    const length = out.length;
    this.#position = position + length;
    if (length > MAX_INSTRUCTION_LENGTH) {
      return 0;
    }
    return length;
  }
}

/** Name under which wasm-bindgen exports the module; it is not in the types. */
const WASM_EXPORT = '__wasm';
interface WasmModule {
  readonly memory?: { readonly buffer: ArrayBufferLike };
}

/**
 * Makes a decoder and finds its bytes in the memory of the decoder library, which has no function for that. Its object is WebAssembly
 * that owns the copy it was made of and never moves it.
 * @returns null when the library does not show its memory, or the bytes are not found: then decoders are made each time
 */
export function placeDecoder(bitness: Bitness, options: DecoderOptions): PlacedDecoder | null {
  const module = (library as Readonly<Record<string, unknown>>)[WASM_EXPORT] as WasmModule | undefined;
  const memory = module?.memory;
  if (memory === undefined) {
    return null;
  }
  const bytes = new Uint8Array(BUFFER_SIZE);
  const seed = bitness + options;
  for (let at = 0; at < MARK_SIZE; at++) {
    // Any sequence that is found nowhere else.
    bytes[at] = (at * at * 31 + at * 7 + seed) & 0xff;
  }
  const decoder = new Decoder(bitness, bytes, options);
  const all = new Uint8Array(memory.buffer);
  const address = positionOf(all, bytes.subarray(0, MARK_SIZE), 0);
  // A second place may be what an earlier object left behind; which of them counts cannot be told.
  if (address < 0 || positionOf(all, bytes.subarray(0, MARK_SIZE), address + 1) >= 0) {
    decoder.free();
    return null;
  }
  return new PlacedDecoder(decoder, memory, address);
}

/** Position of `wanted` in `bytes` from a position on, -1 when it is not there. */
function positionOf(bytes: Uint8Array, wanted: Uint8Array, from: number): number {
  const first = wanted[0]!;
  for (let start = bytes.indexOf(first, from); start >= 0; start = bytes.indexOf(first, start + 1)) {
    let same = 1;
    while (same < wanted.length && bytes[start + same] === wanted[same]) {
      same++;
    }
    if (same === wanted.length) {
      return start;
    }
  }
  return -1;
}
