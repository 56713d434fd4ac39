import type { ShellcodeOptions, ShellcodeResult } from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';
import { CODE, ring0, run } from './shellcode-run.js';

describe('where processor and bddisasm differ', () => {
  const both = (bitness: 32 | 64, code: string, options: Partial<ShellcodeOptions> = {}) =>
    (['processor', 'bddisasm'] as const).map((semantics) => run(bitness, code, { ...options, semantics }));

  test('AF after a sum with a carry out of bit 3', () => {
    const [processor, bddisasm] = both(64, 'b0 0f 04 01'); // mov al, 0fh; add al, 1
    expect(processor?.rflags).toBe(0x212n);
    expect(bddisasm?.rflags).toBe(0x202n);
  });

  test('OF after SHRD by one', () => {
    // mov eax, 80000000h; mov edx, 1; shrd eax, edx, 1: the sign stays
    const [processor, bddisasm] = both(64, 'b8 00 00 00 80 ba 01 00 00 00 0f ac d0 01');
    expect(processor?.registers.rax).toBe(0xc000_0000n);
    expect(bddisasm?.registers.rax).toBe(0xc000_0000n);
    expect((processor?.rflags ?? 0n) & 0x800n).toBe(0n);
    expect((bddisasm?.rflags ?? 0n) & 0x800n).toBe(0x800n);
  });

  test('a 64-bit division', () => {
    const [processor, bddisasm] = both(64, 'b8 2b 00 00 00 31 d2 6a 05 59 48 f7 f1'); // 43 / 5
    expect(processor?.registers).toMatchObject({ rax: 8n, rdx: 3n });
    expect(bddisasm?.registers).toMatchObject({ rax: 43n, rdx: 0n });
  });

  test('IF and IOPL after POPF in ring 3, and in ring 0', () => {
    const code = '68 00 30 00 00 9d'; // push 3000h; popfd
    expect(both(32, code).map(({ rflags }) => rflags & 0x3200n)).toEqual([0x200n, 0x3000n]);
    expect(both(32, code, ring0).map(({ rflags }) => rflags & 0x3200n)).toEqual([0x3000n, 0x3000n]);
  });

  test('INTO without OF', () => {
    const [processor, bddisasm] = both(32, '31 c0 ce 40');
    expect(processor).toMatchObject({ status: 'halted', rip: CODE + 4n });
    expect(bddisasm).toMatchObject({ status: 'halted', rip: CODE + 2n });
  });

  test('a store through the code segment, which 32-bit code cannot make, and a load', () => {
    const [processor, bddisasm] = both(32, '2e 88 05 80 00 20 00'); // mov cs:[200080h], al
    expect(processor).toMatchObject({ status: 'halted', rip: CODE });
    expect(bddisasm).toMatchObject({ status: 'halted', rip: CODE + 7n });
    expect(run(32, '2e a0 80 00 20 00')).toMatchObject({ status: 'halted', rip: CODE + 6n });
    expect(run(64, '2e 88 05 80 00 00 00')).toMatchObject({ status: 'halted', rip: CODE + 7n });
  });

  test('16 bytes at an odd address', () => {
    const [processor, bddisasm] = both(64, '0f 28 44 24 08');
    expect(processor?.rip).toBe(CODE);
    expect(bddisasm?.rip).toBe(CODE + 5n);
  });
});

describe('vector instructions that no recorded vector has', () => {
  /** An XMM register as the manuals print it, highest byte first, in halves. */
  const xmm = (...values: readonly string[]): BigUint64Array => {
    const halves = new BigUint64Array(32);
    values.forEach((text, register) => {
      halves[2 * register] = BigInt(`0x${text.slice(16)}`);
      halves[2 * register + 1] = BigInt(`0x${text.slice(0, 16)}`);
    });
    return halves;
  };
  const shown = (result: ShellcodeResult, register: number): string =>
    [1, 0].map((half) => (result.xmm[2 * register + half] as bigint).toString(16).padStart(16, '0')).join('');

  // Intel, "Advanced Encryption Standard (AES) New Instructions Set", examples of each instruction.
  const state = '7b5b54657374566563746f725d53475d';
  const key = '48692853686179295b477565726f6e5d';
  test.each([
    ['AESENC', '66 0f 38 dc c1', 'a8311c2f9fdba3c58b104b58ded7e595'],
    ['AESENCLAST', '66 0f 38 dd c1', 'c7fb881e938c5964177ec42553fdc611'],
    ['AESDEC', '66 0f 38 de c1', '138ac342faea2787b58eb95eb730392a'],
    ['AESDECLAST', '66 0f 38 df c1', 'c5a391ef6b317f95d410637b72a593d0'],
    ['AESIMC', '66 0f 38 db c0', '627a6f6644b109c82b18330a81c3b3e5'],
  ])('%s', (_name, code, expected) => {
    const result = run(64, code, { xmm: xmm(state, key) });
    expect(result.status).toBe('halted');
    expect(shown(result, 0)).toBe(expected);
  });

  test('AVX: a decoder of 32 bytes at a time, which keeps the upper halves until VEX.128 clears them', () => {
    // mov al, 5ah; vmovd xmm1, eax; vpbroadcastb ymm1, xmm1; vpxor ymm0, ymm1, [rsp]; vmovdqu [rsp], ymm0
    const code = 'b0 5a c5 f9 6e c8 c4 e2 7d 78 c9 c5 f5 ef 04 24 c5 fe 7f 04 24';
    const result = run(64, code);
    expect(result.status).toBe('halted');
    expect([...result.stack.subarray(0x1000, 0x1020)]).toEqual(Array.from({ length: 32 }, () => 0x5a));
    // vpxor xmm0, xmm1, xmm1; vmovdqu [rsp], ymm0
    const cleared = run(64, `${code} c5 f1 ef c1 c5 fe 7f 04 24`);
    expect([...cleared.stack.subarray(0x1000, 0x1020)]).toEqual(Array.from({ length: 32 }, () => 0));
  });

  test('MMX: unpacking with a value of 4 bytes, and a move to memory', () => {
    // mov dword [rsp], 44332211h; pxor mm0, mm0; punpcklbw mm0, [rsp]; movq [rsp+8], mm0
    const result = run(64, 'c7 04 24 11 22 33 44 0f ef c0 0f 60 04 24 0f 7f 44 24 08');
    expect(result.status).toBe('halted');
    expect([...result.stack.subarray(0x1008, 0x1010)]).toEqual([0, 0x11, 0, 0x22, 0, 0x33, 0, 0x44]);
  });

  test('an aligned move of an odd address faults, an unaligned one does not', () => {
    expect(run(64, '0f 28 44 24 08 90')).toMatchObject({ status: 'halted', rip: CODE });
    expect(run(64, '0f 10 44 24 08 90')).toMatchObject({ status: 'halted', rip: CODE + 6n });
  });
});
