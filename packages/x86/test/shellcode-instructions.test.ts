import { ShellcodeFlag, type ShellcodeOptions, type ShellcodeResult } from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';
import { bytes, CODE, ring0, run, STACK } from './shellcode-run.js';

/** An XMM register as the manuals print it, highest byte first, in halves. */
const xmm = (...values: readonly string[]): BigUint64Array => {
  const halves = new BigUint64Array(32);
  values.forEach((text, register) => {
    halves[2 * register] = BigInt(`0x${text.slice(16)}`);
    halves[2 * register + 1] = BigInt(`0x${text.slice(0, 16)}`);
  });
  return halves;
};

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

describe('instructions behind which code could hide', () => {
  /** The flags that a load of the last x87 instruction's address raises, when it is saved like this. */
  const loadsRip = (bitness: 32 | 64, save: string, load: string, options: Partial<ShellcodeOptions> = {}): boolean => {
    const { status, flags } = run(bitness, `d9 ee ${save} ${load}`, options); // fldz
    expect(status).toBe('halted');
    return (flags & ShellcodeFlag.LOAD_RIP) !== 0;
  };

  test('FNSAVE keeps the address of the last x87 instruction', () => {
    // sub esp, 6ch; fnsave [esp]; mov ebx, [esp+0ch], against its control word
    expect(loadsRip(32, '83 ec 6c dd 34 24', '8b 5c 24 0c')).toBe(true);
    expect(loadsRip(32, '83 ec 6c dd 34 24', '8b 5c 24 00')).toBe(false);
    expect(run(32, 'd9 ee 83 ec 6c dd 34 24 8b 5c 24 0c').registers.rbx).toBe(CODE);
    // A second one finds the unit as FNINIT leaves it: fnsave [esp]; fnstenv [esp]; mov ebx, [esp+0ch]
    expect(run(32, 'd9 ee 83 ec 6c dd 34 24 d9 34 24 8b 5c 24 0c').registers.rbx).toBe(0n);
  });

  test.each([
    ['XSAVE', '0f ae 24 24'],
    ['XSAVE64', '48 0f ae 24 24'],
    ['XSAVEC', '0f c7 24 24'],
    ['XSAVEOPT', '0f ae 34 24'],
  ])('%s does when it saves the state of the x87 unit', (_name, save) => {
    const load = '48 8b 5c 24 08'; // mov rbx, [rsp+8]
    expect(loadsRip(64, `b0 07 ${save}`, load)).toBe(true);
    expect(loadsRip(64, `b0 06 ${save}`, load)).toBe(false);
    expect(run(64, `d9 ee b0 07 ${save} ${load}`).registers.rbx).toBe(CODE);
    // mov al, 7; add rsp, 8; the area is not aligned: the processor faults there
    expect(run(64, `b0 07 48 83 c4 08 ${save}`)).toMatchObject({ status: 'halted', rip: CODE + 6n });
  });

  test.each([
    ['fnstsw ax', 64, '66 83 c8 ff df e0', { rax: 0n }],
    ['fnstcw [rsp]; mov eax, [rsp]', 64, 'd9 3c 24 8b 04 24', { rax: 0x37fn }],
    ['stmxcsr [rsp]; mov eax, [rsp]', 64, '0f ae 1c 24 8b 04 24', { rax: 0x1f80n }],
    ['vstmxcsr [rsp]; mov eax, [rsp]', 64, 'c5 f8 ae 1c 24 8b 04 24', { rax: 0x1f80n }],
    // mov dword [rsp], 9fc0h; ldmxcsr [rsp]; stmxcsr [rsp+8]; mov eax, [rsp+8]
    ['ldmxcsr', 64, 'c7 04 24 c0 9f 00 00 0f ae 14 24 0f ae 5c 24 08 8b 44 24 08', { rax: 0x9fc0n }],
    ['smsw eax', 64, '0f 01 e0', { rax: 0x8005_0033n }],
    ['smsw [rsp]; mov eax, [rsp]: two bytes', 64, '0f 01 24 24 8b 04 24', { rax: 0x33n }],
    ['sldt eax', 64, '83 c8 ff 0f 00 c0', { rax: 0n }],
    ['str eax', 64, '0f 00 c8', { rax: 0x40n }],
    ['str eax in 32-bit code', 32, '0f 00 c8', { rax: 0x28n }],
    ['sgdt [rsp]; mov eax, [rsp+2]', 64, '0f 01 04 24 8b 44 24 02', { rax: 0n }],
    ['rdpid rax', 64, '83 c8 ff f3 0f c7 f8', { rax: 0n }],
    ['xgetbv of XCR0', 64, '31 c9 83 ca ff 0f 01 d0', { rax: 7n, rdx: 0n }],
    ['rdsspq rax: nothing without shadow stacks', 64, '6a 05 58 f3 48 0f 1e c8', { rax: 5n }],
    ['wrfsbase rax; rdfsbase rcx', 64, 'b8 78 56 34 12 f3 48 0f ae d0 f3 48 0f ae c1', { rcx: 0x1234_5678n }],
    ['serialize; xabort 1: nothing', 64, '0f 01 e8 c6 f8 01', {}],
    ['movdiri [rsp], ecx; mov eax, [rsp]', 64, '6a 05 59 0f 38 f9 0c 24 8b 04 24', { rax: 5n }],
    // push 23h; push 12345678h
    ['lfs eax, [esp]', 32, '6a 23 68 78 56 34 12 0f b4 04 24', { rax: 0x1234_5678n }],
    ['les ebx, [esp]', 32, '6a 23 68 78 56 34 12 c4 1c 24 8c c0', { rax: 0x23n, rbx: 0x1234_5678n }],
  ] as const)('%s', (_name, bitness, code, registers) => {
    const result = run(bitness, code, { controlRegisters: { cr0: 0x8005_0033n } });
    expect(result).toMatchObject({ status: 'halted', flags: 0, registers });
    // All of it was executed: what ended it is the INT3 behind.
    expect(result.rip).toBe(CODE + BigInt(bytes(code).length));
  });

  test('XTEST tells that there is no transaction, and clears the other flags', () => {
    // stc; xtest
    const { rflags, rip } = run(64, 'f9 0f 01 d6');
    expect([rflags, rip]).toEqual([0x242n, CODE + 4n]);
  });

  test.each([
    ['LDMXCSR of reserved bits', 64, 'c7 04 24 00 00 01 00 0f ae 14 24', CODE + 7n, 'halted'],
    ['XGETBV of a register that there is not', 64, '6a 02 59 0f 01 d0', CODE + 3n, 'halted'],
    ['LES of a selector that cannot be right', 32, '6a 07 6a 00 c4 1c 24', CODE + 4n, 'invalid-selector'],
    ['XSAVES by user code', 64, '0f c7 2c 24', CODE, 'no-privilege'],
  ] as const)('%s ends it', (_name, bitness, code, rip, status) => {
    expect(run(bitness, code)).toMatchObject({ status, rip });
  });

  test('MASKMOVDQU stores the bytes that the mask selects, and asks for no others', () => {
    // mov rdi, rsp; maskmovdqu xmm0, xmm1
    const stores: string[] = [];
    const options: Partial<ShellcodeOptions> = {
      xmm: xmm('0f0e0d0c0b0a09080706050403020100', '80000000000000000000000000ff8000'),
      onMemoryAccess: ({ address, stored }) => {
        stores.push(`${(address - STACK).toString(16)} ${Buffer.from(stored ?? []).toString('hex')}`);
      },
    };
    expect(run(64, '48 89 e7 66 0f f7 c1', options).status).toBe('halted');
    expect(stores).toEqual(['1001 0102', '100f 0f']);
    // maskmovq mm0, mm1: the mask is zero
    stores.length = 0;
    expect(run(64, '48 89 e7 0f f7 c1', options).status).toBe('halted');
    expect(stores).toEqual([]);
  });

  test('VZEROUPPER and VZEROALL clear what they say', () => {
    // vmovdqu ymm0, [rsp]; ...; vmovdqu [rsp], ymm0
    const cleared = (code: string): number[] => {
      const stack = new Uint8Array(0x2000).fill(0x5a);
      const result = run(64, `c5 fe 6f 04 24 ${code} c5 fe 7f 04 24`, { stack });
      expect(result.status).toBe('halted');
      return [...result.stack.subarray(0x1000, 0x1020)];
    };
    const bytesOf = (low: number, high: number): number[] => [...Array(16).fill(low), ...Array(16).fill(high)];
    expect(cleared('')).toEqual(bytesOf(0x5a, 0x5a));
    expect(cleared('c5 f8 77')).toEqual(bytesOf(0x5a, 0));
    expect(cleared('c5 fc 77')).toEqual(bytesOf(0, 0));
  });
});
