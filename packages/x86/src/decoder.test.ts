import fc from 'fast-check';
import { Decoder, DecoderError, DecoderOptions } from 'iced-x86';
import { describe, expect, inject, it } from 'vitest';
import { type Bitness, Code, decodeInto, emptyInstruction, MAX_INSTRUCTION_LENGTH } from './decoder.js';
import { placeDecoder } from './placed-decoder.js';

const scale = inject('scale');
const out = emptyInstruction();

/** What a decoder says that is made for these bytes alone. */
function alone(bytes: Uint8Array, ip: bigint, bitness: Bitness): unknown {
  const code = bytes.subarray(0, MAX_INSTRUCTION_LENGTH);
  const decoder = new Decoder(bitness, code, DecoderOptions.None);
  const instruction = emptyInstruction();
  try {
    decoder.ip = ip;
    decoder.decodeOut(instruction);
    if (decoder.lastError === DecoderError.None) {
      return [instruction.code, instruction.length, instruction.nextIP, instruction.memoryDisplacementU64];
    }
    return decoder.lastError === DecoderError.NoMoreBytes && code.length < MAX_INSTRUCTION_LENGTH
      ? 'incomplete'
      : 'invalid';
  } finally {
    instruction.free();
    decoder.free();
  }
}

function together(bytes: Uint8Array, ip: bigint, bitness: Bitness): unknown {
  return decodeInto(bytes, ip, bitness, out) ?? [out.code, out.length, out.nextIP, out.memoryDisplacementU64];
}

describe('decodeInto', () => {
  it('says the same as a decoder that is made for the bytes, whatever was decoded before [P12.1]', () => {
    // Beginnings that lead to long instructions and to the tables of VEX, EVEX and the like.
    const start = fc.constantFrom('', '0f', '66', '48', '67', 'c5f8', 'c4e2', '62f1', '0f38', 'f30f', '6566');
    fc.assert(
      fc.property(
        start,
        fc.uint8Array({ minLength: 1, maxLength: 20 }),
        fc.constantFrom<Bitness>(16, 32, 64),
        fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        (first, rest, bitness, ip) => {
          const bytes = Uint8Array.from([...Buffer.from(first, 'hex'), ...rest]);
          expect(together(bytes, ip, bitness)).toEqual(alone(bytes, ip, bitness));
        },
      ),
      { numRuns: 500 * scale },
    );
  });

  it('tells of every beginning of an instruction that bytes are missing [P12.1]', () => {
    for (const [hex, bitness] of [
      ['48b8887766554433221100'.slice(0, 20), 64],
      ['66f04881842488776655443322 11'.replaceAll(' ', ''), 64],
      ['62f1fe487f7bff', 64],
      ['ea785634120800', 32],
      ['c8100001', 16],
    ] as const) {
      const bytes = Uint8Array.from(Buffer.from(hex, 'hex'));
      for (let length = 0; length < bytes.length; length++) {
        expect(decodeInto(bytes.subarray(0, length), 0n, bitness, out), `${length} of ${hex}`).toBe('incomplete');
      }
    }
  });

  it('goes on when the end of its buffer is reached', () => {
    const bytes = Uint8Array.from(Buffer.from('48b8887766554433221190909090', 'hex'));
    for (let count = 0; count < 4000; count++) {
      expect([decodeInto(bytes, 0n, 64, out), out.code]).toEqual([undefined, Code.Mov_r64_imm64]);
    }
  });

  it('has found the place of its bytes in the decoder library', () => {
    expect(placeDecoder(64, DecoderOptions.None)).not.toBeNull();
  });
});
