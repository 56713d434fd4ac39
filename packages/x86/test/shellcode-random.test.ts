import { emulateShellcode, type ShellcodeOptions, type ShellcodeResult } from '@introd/x86/shellcode';
import fc from 'fast-check';
import { describe, expect, inject, test } from 'vitest';

const scale = inject('scale');
const STATUSES = [
  'limit',
  'halted',
  'memory-outside',
  'rip-outside',
  'unsupported-instruction',
  'unsupported-operand',
  'invalid-instruction',
  'no-privilege',
  'invalid-selector',
  'detected',
];

const word = fc.oneof(
  fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  fc.constantFrom(0n, 1n, 0x20_0000n, 0x1f_e000n, 0x7fff_0000n, 0xffff_ffff_ffff_f000n, 0x8000_0000_0000_0000n),
);

/** Bytes of which more than the chance's share are instructions: prefixes, two-byte opcodes, and operands that meet memory. */
const codeByte = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 0xff }) },
  { weight: 1, arbitrary: fc.constantFrom(0x0f, 0x48, 0x66, 0xf3, 0xf2, 0x24, 0x04, 0xe8, 0xeb, 0x75, 0xa4, 0xaa) },
);

/** All of a result in one line. */
function summary({ code, stack, xmm, registers, ...rest }: ShellcodeResult): string {
  const bytes = [code, stack].map((content) => Buffer.from(content).toString('base64'));
  return [...bytes, ...xmm, ...Object.values(registers), ...Object.values(rest)].join(' ');
}

describe('whatever the bytes are', () => {
  test('an emulation ends within its limits, with a status, and does nothing that was not asked for', () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(
        fc.record({
          dense: fc.array(codeByte, { maxLength: 80 }),
          bitness: fc.constantFrom<32 | 64>(32, 64),
          ring: fc.constantFrom<0 | 3>(0, 3),
          registers: fc.record({ rax: word, rcx: word, rsp: word, rsi: word, rdi: word, rbp: word }),
          rip: fc.integer({ min: 0, max: 64 }),
          base: word,
          stackBase: fc.option(word, { nil: undefined }),
          maxInstructions: fc.integer({ min: 0, max: 600 }),
          memoryThreshold: fc.integer({ min: 0, max: 5 }),
          answers: fc.integer({ min: -1, max: 600 }),
          bypassSelfWrites: fc.boolean(),
          stopOnDetection: fc.boolean(),
          semantics: fc.constantFrom<'processor' | 'bddisasm'>('processor', 'bddisasm'),
        }),
        ({ dense, base, rip, answers, ...options }) => {
          const bytes = Uint8Array.from(dense);
          const before = bytes.slice();
          let asked = 0;
          let instructions = 0;
          const given: ShellcodeOptions = {
            ...options,
            stackBase: options.stackBase ?? 0x1f_d000n,
            code: bytes,
            codeBase: base,
            rip: base + BigInt(rip),
            onExternalAccess: ({ size, stored }) => {
              asked++;
              if (size < 1 || size > 512) throw new Error(`an access of ${size} bytes`);
              if (stored !== undefined && stored.length !== size) throw new Error('stored bytes and size differ');
              return answers < 0 ? undefined : new Uint8Array(answers);
            },
            onInstruction: () => {
              instructions++;
            },
          };
          const result = emulateShellcode(given);
          seen.add(result.status);
          expect(STATUSES).toContain(result.status);
          expect(result.steps).toBeLessThanOrEqual(options.maxInstructions);
          expect(instructions).toBeLessThanOrEqual(options.maxInstructions);
          expect(result.uniqueAddresses).toBeLessThanOrEqual(Math.min(instructions, bytes.length));
          expect(asked).toBeLessThanOrEqual(options.memoryThreshold);
          expect(result.code.length).toBeLessThanOrEqual(bytes.length);
          expect(Buffer.compare(bytes, before)).toBe(0);
          if (options.bypassSelfWrites) {
            expect(Buffer.compare(result.code, before.subarray(0, result.code.length))).toBe(0);
          }
          if (options.ring === 3) expect(result.flags).toBeLessThan(0x1_0000);
          if (options.bitness === 32) {
            for (const value of Object.values(result.registers)) expect(value).toBeLessThanOrEqual(0xffff_ffffn);
            expect(result.rip).toBeLessThanOrEqual(0xffff_ffffn);
          }
          // The same again comes to the same.
          expect(summary(emulateShellcode(given))).toBe(summary(result));
        },
      ),
      { numRuns: 5_000 * scale },
    );
    expect(seen.size).toBeGreaterThanOrEqual(7);
  });
});
