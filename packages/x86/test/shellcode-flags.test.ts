import { ShellcodeFlag, type ShellcodeOptions, type ShellcodeResult } from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';
import { bytes, CODE, PAGE, ring0, run, zeros } from './shellcode-run.js';

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
