import {
  codeWindow,
  emulateShellcode,
  ShellcodeFlag,
  type ShellcodeOptions,
  type ShellcodeResult,
} from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';

const CODE = 0x20_0000n;
const STACK = 0x1f_d000n;
const TIB = 0x7fff_0000n;
const PAGE = 0x1000;

function bytes(hex: string): number[] {
  return hex
    .trim()
    .split(/\s+/)
    .map((byte) => Number.parseInt(byte, 16));
}

/** Runs code that ends with INT3, on a page of zeros, unless told otherwise. */
function run(bitness: 32 | 64, hex: string, options: Partial<ShellcodeOptions> = {}): ShellcodeResult {
  const code = new Uint8Array(PAGE);
  code.set([...bytes(hex), 0xcc]);
  return emulateShellcode({
    code,
    codeBase: CODE,
    bitness,
    stack: new Uint8Array(0x2000),
    stackBase: STACK,
    tibBase: TIB,
    ...options,
  });
}

interface Twins {
  readonly name: string;
  readonly flag: keyof typeof ShellcodeFlag;
  readonly bitness: 32 | 64;
  /** Raises the flag. */
  readonly shellcode: string;
  /** Goes the same way and does not. */
  readonly benign: string;
  readonly status?: ShellcodeResult['status'];
  readonly benignStatus?: ShellcodeResult['status'];
  readonly options?: Partial<ShellcodeOptions>;
}

const ring0 = { ring: 0 } as const;
/** Outside memory is there and full of zeros. */
const zeros: Partial<ShellcodeOptions> = { memoryThreshold: 16, onExternalAccess: ({ size }) => new Uint8Array(size) };

const twins: readonly Twins[] = [
  {
    name: 'CALL and POP, against a call whose frame is dropped',
    flag: 'LOAD_RIP',
    bitness: 64,
    shellcode: 'e8 00 00 00 00 5b', // call $+5; pop rbx
    benign: 'e8 00 00 00 00 48 83 c4 08', // call $+5; add rsp, 8
  },
  {
    name: 'CALL and POP to memory, against a return',
    flag: 'LOAD_RIP',
    bitness: 32,
    shellcode: 'e8 00 00 00 00 8f 44 24 10', // call $+5; pop [esp+10h]
    benign: 'e8 02 00 00 00 eb 01 c3', // call f; jmp over; f: ret
  },
  {
    name: 'a load after an overwritten return address',
    flag: 'LOAD_RIP',
    bitness: 64,
    shellcode: 'e8 00 00 00 00 48 8b 04 24', // call $+5; mov rax, [rsp]
    benign: 'e8 00 00 00 00 48 89 0c 24 48 8b 04 24', // call $+5; mov [rsp], rcx; mov rax, [rsp]
  },
  {
    name: 'FNSTENV and a load of its RIP field, against one of its control word',
    flag: 'LOAD_RIP',
    bitness: 32,
    shellcode: 'd9 ee 83 ec 1c d9 34 24 8b 5c 24 0c', // fldz; sub esp, 1ch; fnstenv [esp]; mov ebx, [esp+0ch]
    benign: 'd9 ee 83 ec 1c d9 34 24 8b 5c 24 00',
  },
  {
    name: 'a written instruction that is executed, against one that is jumped over',
    flag: 'WRITE_SELF',
    bitness: 64,
    // mov byte [rip+0], 90h; what is written is the next instruction
    shellcode: 'c6 05 00 00 00 00 90 90',
    benign: 'c6 05 02 00 00 00 90 eb 01 90',
  },
  {
    name: 'the PEB through the segment, against another field of the TIB',
    flag: 'TIB_ACCESS',
    bitness: 64,
    shellcode: '65 48 8b 04 25 60 00 00 00', // mov rax, gs:[60h]
    benign: '65 48 8b 04 25 58 00 00 00',
    options: zeros,
  },
  {
    name: 'the PEB with the offset in a register, against the linear address',
    flag: 'TIB_ACCESS',
    bitness: 32,
    shellcode: 'b8 30 00 00 00 64 8b 00', // mov eax, 30h; mov eax, fs:[eax]
    benign: 'b8 30 00 ff 7f 90 8b 00', // mov eax, 7fff0030h; nop; mov eax, [eax]
    options: zeros,
  },
  {
    name: 'Wow32Reserved, against its neighbour',
    flag: 'TIB_WOW32',
    bitness: 32,
    shellcode: '64 a1 c0 00 00 00', // mov eax, fs:[0c0h]
    benign: '64 a1 c4 00 00 00',
    options: zeros,
  },
  {
    name: 'SYSCALL with a number, against one that is none',
    flag: 'SYSCALL',
    bitness: 64,
    shellcode: 'b8 18 00 00 00 0f 05', // mov eax, 18h; syscall
    benign: 'b8 00 10 00 00 0f 05',
  },
  {
    name: 'INT 2Eh, against another interrupt',
    flag: 'SYSCALL',
    bitness: 32,
    shellcode: 'b8 18 00 00 00 cd 2e',
    benign: 'b8 18 00 00 00 cd 29',
  },
  {
    name: 'SYSENTER, against a number that is none',
    flag: 'SYSCALL',
    bitness: 32,
    shellcode: 'b8 18 00 00 00 0f 34',
    benign: '83 c8 ff 90 90 0f 34', // or eax, -1
  },
  {
    name: 'the address of characters that were pushed, against that of other values',
    flag: 'STACK_STR',
    bitness: 32,
    shellcode: '68 41 42 43 44 68 45 46 47 48 89 e3', // push "ABCD"; push "EFGH"; mov ebx, esp
    benign: '68 41 42 43 44 68 45 46 00 48 89 e3',
  },
  {
    name: 'characters that the code wrote, against those that were there',
    flag: 'STACK_STR',
    bitness: 64,
    // mov rax, "AAAAAAAA"; push rax; mov rbx, rsp
    shellcode: '48 b8 41 41 41 41 41 41 41 41 50 48 89 e3',
    benign: '48 b8 41 41 41 41 41 41 41 41 90 48 89 e3',
    options: { stack: new Uint8Array(0x2000).fill(0x41) },
  },
  {
    name: 'a far jump to the 64-bit segment, against one to the 32-bit one',
    flag: 'HEAVENS_GATE',
    bitness: 32,
    shellcode: 'ea 00 00 20 00 33 00',
    benign: 'ea 00 00 20 00 23 00',
  },
  {
    name: 'a far return to the 64-bit segment, against one to the 32-bit one',
    flag: 'HEAVENS_GATE',
    bitness: 32,
    shellcode: '6a 33 68 00 00 20 00 cb', // push 33h; push 200000h; retf
    benign: '6a 23 68 00 00 20 00 cb',
  },
  {
    name: 'XCHG of the stack pointer with an address in the code, against one outside',
    flag: 'STACK_PIVOT',
    bitness: 64,
    shellcode: 'b8 00 01 20 00 48 94', // mov eax, 200100h; xchg rsp, rax
    benign: 'b8 00 01 40 00 48 94',
  },
  {
    name: 'XCHG with an aligned address, against an odd one',
    flag: 'STACK_PIVOT',
    bitness: 32,
    shellcode: 'b8 00 01 20 00 94',
    benign: 'b8 02 01 20 00 94',
  },
  {
    name: 'KdDebuggerEnabled, against the tick count beside it',
    flag: 'SUD_ACCESS',
    bitness: 64,
    shellcode: 'b8 d4 02 fe 7f 8a 08', // mov eax, 7ffe02d4h; mov cl, [rax]
    benign: 'b8 20 03 fe 7f 8a 08',
    options: zeros,
  },
  {
    name: 'gs:[188h] in ring 0, against another field',
    flag: 'KPCR_ACCESS',
    bitness: 64,
    shellcode: '65 48 8b 04 25 88 01 00 00',
    benign: '65 48 8b 04 25 80 01 00 00',
    options: { ...zeros, ...ring0 },
  },
  {
    name: 'SWAPGS in ring 0, against a NOP',
    flag: 'SWAPGS',
    bitness: 64,
    shellcode: '0f 01 f8',
    benign: '0f 1f c0',
    options: ring0,
  },
  {
    name: 'RDMSR of LSTAR, against EFER',
    flag: 'SYSCALL_MSR_READ',
    bitness: 64,
    shellcode: 'b9 82 00 00 c0 0f 32',
    benign: 'b9 80 00 00 c0 0f 32',
    options: ring0,
  },
  {
    name: 'WRMSR of SYSENTER_EIP, against SYSENTER_CS',
    flag: 'SYSCALL_MSR_WRITE',
    bitness: 32,
    shellcode: 'b9 76 01 00 00 0f 30',
    benign: 'b9 74 01 00 00 0f 30',
    options: ring0,
  },
];

describe('what each flag is raised by, and not by', () => {
  test.each(twins)('$flag, $bitness-bit: $name', ({ flag, bitness, shellcode, benign, options }) => {
    const attack = run(bitness, shellcode, options);
    expect(attack.flags & ShellcodeFlag[flag]).toBe(ShellcodeFlag[flag]);
    const twin = run(bitness, benign, options);
    expect(twin.flags & ShellcodeFlag[flag]).toBe(0);
    // It ran to the same end.
    expect(twin.status).toBe('halted');
    expect(attack.status).toBe('halted');
  });

  test('SIDT is of interest in ring 0 only', () => {
    expect(run(64, '0f 01 0c 24', ring0).flags).toBe(ShellcodeFlag.SIDT);
    expect(run(64, '0f 01 0c 24').flags).toBe(0);
  });

  test('NOP_SLED: NOPs up to the limit, against a loop and against NOPs that come later', () => {
    const nops = { code: new Uint8Array(PAGE).fill(0x90) };
    expect(run(64, '', nops)).toMatchObject({ status: 'limit', flags: ShellcodeFlag.NOP_SLED, nops: 256, steps: 256 });
    expect(run(64, 'eb fe')).toMatchObject({ status: 'limit', flags: 0, nops: 0, uniqueAddresses: 1 });
    const late = new Uint8Array(PAGE).fill(0x90);
    late.set([0x31, 0xc0]);
    expect(run(64, '', { code: late })).toMatchObject({ status: 'limit', flags: 0, nops: 0 });
  });

  test('the NOP threshold counts', () => {
    const code = new Uint8Array(PAGE).fill(0x90, 0, 128);
    code.set([0xeb, 0xfe], 128);
    expect(run(64, '', { code }).flags).toBe(0);
    expect(run(64, '', { code, nopThreshold: 50 }).flags).toBe(ShellcodeFlag.NOP_SLED);
  });

  test('the string threshold counts', () => {
    const four = '68 41 42 43 44 89 e3';
    expect(run(32, four).flags).toBe(0);
    expect(run(32, four, { stringThreshold: 4 }).flags).toBe(ShellcodeFlag.STACK_STR);
  });

  test('a string that is copied to the stack counts when its address is taken, not while the pointers move', () => {
    // std; mov esi, end of "AAAA" twice in the code; mov edi, in the stack; mov ecx, 2; rep movsd: EDI ends below it
    const copy = 'fd be 44 00 20 00 bf 04 e0 1f 00 b9 02 00 00 00 f3 a5';
    const code = new Uint8Array(PAGE);
    code.fill(0x41, 0x40, 0x48);
    code.set([...bytes(copy), 0x83, 0xc7, 0x00, 0xcc]); // add edi, 0
    expect(run(32, '', { code })).toMatchObject({ status: 'halted', flags: 0 });
    code.set([0x83, 0xc7, 0x04, 0xcc], bytes(copy).length); // add edi, 4: the first character
    expect(run(32, '', { code })).toMatchObject({ status: 'halted', flags: ShellcodeFlag.STACK_STR });
  });

  test('a flag that is forced off is not raised, the others are', () => {
    const both = 'e8 00 00 00 00 5b b8 18 00 00 00 0f 05';
    expect(run(64, both).flags).toBe(ShellcodeFlag.LOAD_RIP | ShellcodeFlag.SYSCALL);
    expect(run(64, both, { forceOff: ShellcodeFlag.LOAD_RIP }).flags).toBe(ShellcodeFlag.SYSCALL);
  });

  test('stopOnDetection ends before the next instruction, and not for a flag that is forced off', () => {
    const both = 'e8 00 00 00 00 5b b8 18 00 00 00 0f 05';
    expect(run(64, both, { stopOnDetection: true })).toMatchObject({
      status: 'detected',
      flags: ShellcodeFlag.LOAD_RIP,
      rip: CODE + 6n,
    });
    const off = { stopOnDetection: true, forceOff: ShellcodeFlag.LOAD_RIP };
    expect(run(64, both, off)).toMatchObject({ status: 'halted', flags: ShellcodeFlag.SYSCALL });
  });

  test('bypassSelfWrites notices the write and leaves the code as it is', () => {
    const code = 'c6 05 00 00 00 00 f4 90'; // mov byte [rip], 0f4h: HLT over the NOP
    expect(run(64, code)).toMatchObject({ status: 'no-privilege', flags: ShellcodeFlag.WRITE_SELF });
    expect(run(64, code, { bypassSelfWrites: true })).toMatchObject({
      status: 'halted',
      flags: ShellcodeFlag.WRITE_SELF,
    });
  });
});

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

describe('where code is taken from', () => {
  test.each([
    [0x7ff6_1234_5000n, 0x7ff6_1234_5000n, 0x1000],
    [0x7ff6_1234_5bffn, 0x7ff6_1234_5000n, 0x1000],
    [0x7ff6_1234_5c00n, 0x7ff6_1234_5000n, 0x2000],
  ])('code at %x', (rip, base, size) => {
    expect(codeWindow(rip)).toEqual({ base, size });
  });

  test('without a stack there are 8 KiB of zeros from 4 KiB below the page of RSP', () => {
    const { stack, registers, status } = emulateShellcode({
      code: Uint8Array.of(0x50, 0x5a, 0xcc), // push rax; pop rdx
      codeBase: CODE,
      bitness: 64,
      registers: { rsp: 0x7000_1238n, rax: 5n },
    });
    expect(status).toBe('halted');
    expect(registers.rdx).toBe(5n);
    expect(stack.length).toBe(0x2000);
    expect(stack[0x1230]).toBe(5);
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

describe('how an emulation ends', () => {
  test.each([
    ['memory-outside', 64, 'b8 00 00 fd 7f 67 c7 00 00 00 00 00', CODE + 5n],
    ['rip-outside', 64, 'c3', 0n],
    ['unsupported-instruction', 64, 'e4 10', CODE],
    ['unsupported-instruction', 64, '0f ae 14 24', CODE],
    ['invalid-instruction', 64, '06', CODE],
    ['no-privilege', 64, 'f4', CODE],
    ['no-privilege', 32, '0f 20 c0', CODE],
    ['invalid-selector', 32, '6a 00 07', CODE + 2n],
    ['halted', 64, '31 ff f7 f7', CODE + 2n],
    ['limit', 64, 'b9 00 10 00 00 48 8d 3d 00 01 00 00 f3 aa', undefined],
  ] as const)('%s in %d-bit code: %s', (status, bitness, hex, rip) => {
    const result = run(bitness, hex);
    expect(result.status).toBe(status);
    if (rip !== undefined) expect(result.rip).toBe(rip);
    expect(result.flags).toBe(0);
  });

  test('an instruction that is cut off by the end of the code is outside', () => {
    const code = new Uint8Array(PAGE).fill(0x90);
    code[PAGE - 1] = 0xe8;
    const options = { code, rip: CODE + BigInt(PAGE - 2) };
    expect(run(64, '', options)).toMatchObject({ status: 'rip-outside', rip: CODE + BigInt(PAGE - 1) });
  });

  test('an instruction that is given up leaves the registers as they were', () => {
    // mov rax, -1; pop [rax]: the load is fine, the store is not
    const result = run(64, '48 83 c8 ff 8f 00');
    expect(result).toMatchObject({ status: 'memory-outside', rip: CODE + 4n });
    expect(result.registers.rsp).toBe(STACK + 0x1000n);
    expect(result.registers.rax).toBe(0xffff_ffff_ffff_ffffn);
  });

  test('outside memory is asked for as often as the threshold says, loads and stores', () => {
    const asked: string[] = [];
    // mov ebx, 12340000h; mov eax, [rbx]; mov [rbx+4], eax; mov eax, [rbx+8]
    const code = 'bb 00 00 34 12 8b 03 89 43 04 8b 43 08';
    const options: Partial<ShellcodeOptions> = {
      memoryThreshold: 2,
      onExternalAccess: ({ address, size, stored }) => {
        asked.push(
          `${address.toString(16)} ${size} ${stored === undefined ? 'load' : Buffer.from(stored).toString('hex')}`,
        );
        return Uint8Array.of(1, 2, 3, 4);
      },
    };
    const result = run(64, code, options);
    expect(asked).toEqual(['12340000 4 load', '12340004 4 01020304']);
    expect(result).toMatchObject({ status: 'memory-outside', externalAccesses: 3, rip: CODE + 10n });
    expect(result.registers.rax).toBe(0x0403_0201n);
  });

  test("the TIB's pointer to itself is known without outside memory", () => {
    const result = run(64, '65 48 8b 04 25 30 00 00 00'); // mov rax, gs:[30h]
    expect(result).toMatchObject({ status: 'halted', flags: 0 });
    expect(result.registers.rax).toBe(TIB);
  });

  test('32-bit code with 16-bit addresses reads where they wrap to', () => {
    // mov ebx, 1fff0h; mov si, 1020h; mov eax, [bx+si-10h]: FFF0h + 1020h - 10h wraps to 1000h
    const low = { codeBase: 0x1000n, stackBase: 0x8000n };
    const result = run(32, 'bb f0 ff 01 00 66 be 20 10 67 8b 40 f0', low);
    expect(result.status).toBe('halted');
    expect(result.registers.rax).toBe(0x01_fff0_bbn & 0xffff_ffffn);
  });

  test('code that lies on the stack sees its own stores through both', () => {
    // push imm32 writes over the code behind it: 0x0b bytes of code, then a HLT that is replaced by INT3s
    const code = new Uint8Array(PAGE);
    code.set(bytes('68 cc cc cc cc 90 90 90 f4 f4 f4 f4 f4 f4 f4 f4'));
    const base = STACK + 0x1000n;
    const result = run(64, '', { code, codeBase: base, rip: base, registers: { rsp: base + 0x10n } });
    expect(result).toMatchObject({ status: 'halted', flags: ShellcodeFlag.WRITE_SELF, rip: base + 8n });
  });

  test('a shellcode in KUSER_SHARED_DATA is watched like one that reads it', () => {
    const page = 0x7ffe_0000n;
    const code = new Uint8Array(PAGE);
    code.set(bytes('8a 05 ce fa ff ff cc'), 0x800); // mov al, [page+2d4h]
    const result = run(64, '', { code, codeBase: page, rip: page + 0x800n });
    expect(result).toMatchObject({ status: 'halted', flags: ShellcodeFlag.SUD_ACCESS });
  });

  test('stack and code at the end of the address space are cut off there', () => {
    const top = 0xffff_ffff_ffff_f000n;
    const result = run(64, '50', { stackBase: top, registers: { rsp: 0n } });
    expect(result).toMatchObject({ status: 'halted' });
    expect(result.registers.rsp).toBe(0xffff_ffff_ffff_fff8n);
    expect(result.stack.length).toBe(PAGE);
  });
});
