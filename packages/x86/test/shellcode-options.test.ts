import { type Bitness, decodeInstruction, relocateInstructions } from '@introd/x86';
import { Assembler } from '@introd/x86/encoder';
import { emulateShellcode, ShellcodeFlag, type ShellcodeOptions, X86Error } from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';
import { CODE, run } from './shellcode-run.js';

/** What a call throws: the code and the message of the package's error, or what came instead. */
function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (error instanceof X86Error && error.hint !== undefined) return `${error.code}: ${error.message}`;
    throw error;
  }
  return 'none';
}

/** call $+5; pop rbx, which any emulation of it notices. */
const LOADS_RIP = 'e8 00 00 00 00 5b';

describe('options that cannot be meant are refused', () => {
  test.each([
    ['maxInstructions is NaN', { maxInstructions: Number.NaN }],
    ['maxInstructions is -1', { maxInstructions: -1 }],
    ['maxInstructions is 1.5', { maxInstructions: 1.5 }],
    ['maxInstructions is Infinity', { maxInstructions: Number.POSITIVE_INFINITY }],
    ['maxInstructions is 256', { maxInstructions: '256' }],
    ['nopThreshold is 101', { nopThreshold: 101 }],
    ['stringThreshold is NaN', { stringThreshold: Number.NaN }],
    ['stringThreshold is 0', { stringThreshold: 0 }],
    ['memoryThreshold is -1', { memoryThreshold: -1 }],
    ['forceOff is -1', { forceOff: -1 }],
    ['bitness is 16', { bitness: 16 }],
    ['bitness is undefined', { bitness: undefined }],
    ['ring is 1', { ring: 1 }],
    ['semantics is x', { semantics: 'x' }],
    ['codeBase is 4096', { codeBase: 4096 }],
    ['code is a Array', { code: [0x90] }],
    ['stack is null', { stack: null }],
    ['rip is 0', { rip: 0 }],
    ['there is no registers.eax', { registers: { eax: 1n } }],
    ['registers.rax is 1', { registers: { rax: 1 } }],
    ['registers is 5', { registers: 5 }],
    ['there is no segments.xs', { segments: { xs: { selector: 0, base: 0n } } }],
    ['segments.fs.base is undefined', { segments: { fs: { selector: 0 } } }],
    ['segments.fs.selector is 65536', { segments: { fs: { selector: 0x1_0000, base: 0n } } }],
    ['there is no controlRegisters.cr1', { controlRegisters: { cr1: 0n } }],
    ['xmm is a BigUint64Array', { xmm: new BigUint64Array(16) }],
    ['xmm is a Uint8Array', { xmm: new Uint8Array(256) }],
    ['stopOnDetection is 1', { stopOnDetection: 1 }],
    ['onInstruction is 1', { onInstruction: 1 }],
    ['there is no maxInstruction', { maxInstruction: 256 }],
    ['there is no toString', { toString: 1 }],
  ])('%s', (message, options) => {
    expect(refusal(() => run(64, LOADS_RIP, options as unknown as Partial<ShellcodeOptions>))).toBe(
      `ERR_X86_OPTIONS: ${message}`,
    );
  });

  test('an argument that is none, or lacks the code', () => {
    expect(refusal(() => emulateShellcode(undefined as unknown as ShellcodeOptions))).toBe(
      'ERR_X86_OPTIONS: the argument is undefined',
    );
    expect(refusal(() => emulateShellcode({ codeBase: CODE, bitness: 64 } as ShellcodeOptions))).toBe(
      'ERR_X86_OPTIONS: code is undefined',
    );
  });

  test('whatever may be left out may be undefined', () => {
    const options = {
      rip: undefined,
      ring: undefined,
      registers: { rax: undefined },
      rflags: undefined,
      xmm: undefined,
      segments: { fs: undefined },
      controlRegisters: undefined,
      maxInstructions: undefined,
      nopThreshold: undefined,
      stringThreshold: undefined,
      semantics: undefined,
      onMemoryAccess: undefined,
    } as unknown as Partial<ShellcodeOptions>;
    expect(run(64, LOADS_RIP, options)).toMatchObject({ status: 'halted', flags: ShellcodeFlag.LOAD_RIP });
  });

  test('a size of code that there is not, everywhere', () => {
    const wrong = 48 as Bitness;
    const expected = 'ERR_X86_OPTIONS: no code has 48 bits';
    const code = Uint8Array.of(0x90);
    expect(refusal(() => decodeInstruction(code, 0n, wrong))).toBe(expected);
    expect(refusal(() => relocateInstructions(code, 0n, 0n, 1, wrong))).toBe(expected);
    expect(refusal(() => new Assembler({ bitness: wrong }))).toBe(expected);
    expect(decodeInstruction(code, 0n, 16)).toMatchObject({ length: 1 });
  });
});
