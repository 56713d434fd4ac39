import { emulateShellcode, ShellcodeFlag } from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';
import { bytes, CODE, PAGE, ring0, run, STACK, zeros } from './shellcode-run.js';

/** A number as the bytes of an instruction have it, low one first. */
function littleEndian(value: bigint): string {
  return Array.from({ length: 4 }, (_, at) =>
    Number((value >> BigInt(8 * at)) & 0xffn)
      .toString(16)
      .padStart(2, '0'),
  ).join(' ');
}

/** Code that writes 8 characters to the stack in two moves and takes their address. */
function writesText(text: string): string {
  const half = (at: number): string =>
    [...Buffer.from(text, 'latin1').subarray(at, at + 4)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
  // mov dword [rsp], ...; mov dword [rsp+4], ...; mov rcx, rsp
  return `c7 04 24 ${half(0)} c7 44 24 04 ${half(4)} 48 89 e1`;
}

describe('strings on the stack', () => {
  test.each(['calc.exe', 'C:\\a_b-c', 'http://x', ' "a" & b', '%TEMP%=~', 'A{}[]()|'])('%s', (text) => {
    expect(run(64, writesText(text))).toMatchObject({ status: 'halted', flags: ShellcodeFlag.STACK_STR });
  });

  test.each([0x00, 0x09, 0x1f, 0x7f, 0x80, 0xff])('a byte %i among them is of no string', (byte) => {
    expect(run(64, writesText(`calc${String.fromCharCode(byte)}exe`))).toMatchObject({ status: 'halted', flags: 0 });
  });

  test.each(Array.from({ length: 0x5f }, (_, at) => String.fromCharCode(0x20 + at)))(
    'the character %s is of one',
    (character) => {
      expect(run(64, writesText(`abcdefg${character}`)).flags).toBe(ShellcodeFlag.STACK_STR);
    },
  );
});

describe('where the stack pointer goes', () => {
  const pivots = (bitness: 32 | 64, target: bigint): boolean => {
    // mov eax, target; xchg esp, eax
    const code = `b8 ${littleEndian(target)} ${bitness === 64 ? '48 94' : '94'}`;
    return (run(bitness, code).flags & ShellcodeFlag.STACK_PIVOT) !== 0;
  };

  test('64 bytes there have to be of code or stack, for a pivot', () => {
    for (const bitness of [32, 64] as const) {
      expect(pivots(bitness, CODE + BigInt(PAGE) - 64n)).toBe(true);
      expect(pivots(bitness, CODE + BigInt(PAGE) - 56n)).toBe(false);
      expect(pivots(bitness, STACK)).toBe(true);
      expect(pivots(bitness, STACK - 8n)).toBe(false);
    }
  });

  test.each([
    ['xchg rsp, rsp', '48 87 e4'],
    ['mov rax, rsp; xchg rsp, rax', '48 89 e0 48 94'],
  ])('%s leaves it where it is, which is no pivot', (_name, code) => {
    const result = run(64, code);
    expect(result).toMatchObject({ status: 'halted', flags: 0 });
    expect(result.registers.rsp).toBe(STACK + 0x1000n);
  });

  test('xchg of its low half takes the other half along', () => {
    // mov eax, 1100h; xchg sp, ax: from 1FE000h to 1F1100h, outside; with the stack there, inside
    const code = 'b8 00 11 00 00 66 94';
    expect(run(64, code).flags).toBe(0);
    expect(run(64, code, { stackBase: 0x1f_0000n })).toMatchObject({ flags: ShellcodeFlag.STACK_PIVOT });
  });
});

describe('the edges of what is watched', () => {
  const loads = (bitness: 32 | 64, code: string): number => run(bitness, code, zeros).flags;
  /** mov eax, address; mov cl, [eax] */
  const loadsByte = (address: bigint): string => `b8 ${littleEndian(address)} 8a 08`;

  test('KdDebuggerEnabled, SystemCall and Cookie of KUSER_SHARED_DATA, and not a byte beside them', () => {
    const shared = 0x7ffe_0000n;
    const watched = Array.from({ length: 0x400 }, (_, at) => at).filter(
      (at) => (loads(64, loadsByte(shared + BigInt(at))) & ShellcodeFlag.SUD_ACCESS) !== 0,
    );
    const field = (from: number, size: number): number[] => Array.from({ length: size }, (_, at) => from + at);
    expect(watched).toEqual([0x2d4, ...field(0x308, 8), ...field(0x330, 8)]);
  });

  test('the current thread of the KPCR: FS:[124h] in 32-bit code', () => {
    const at = (offset: string): number => run(32, `64 a1 ${offset}`, { ...zeros, ...ring0 }).flags;
    expect(at('24 01 00 00')).toBe(ShellcodeFlag.KPCR_ACCESS);
    expect(at('20 01 00 00')).toBe(0);
    expect(at('28 01 00 00')).toBe(0);
    // What it is in 64-bit code.
    expect(at('88 01 00 00')).toBe(0);
    expect(run(32, '64 a1 24 01 00 00', zeros).flags).toBe(0);
  });
});

describe('code on the stack', () => {
  const base = STACK + 0x1000n;
  const code = new Uint8Array(PAGE);
  // mov byte [rip], 0f4h; nop; mov al, [rip-7]: the NOP, which becomes HLT unless stores are bypassed
  code.set(bytes('c6 05 00 00 00 00 f4 90 8a 05 f9 ff ff ff cc'));
  const options = { code, codeBase: base, bitness: 64, stack: new Uint8Array(0x2000), stackBase: STACK } as const;

  test('sees its own stores in both', () => {
    const result = emulateShellcode({ ...options, registers: { rsp: base } });
    expect(result).toMatchObject({ status: 'no-privilege', flags: ShellcodeFlag.WRITE_SELF });
    expect([result.code[7], result.stack[0x1007]]).toEqual([0xf4, 0xf4]);
  });

  test('bypassSelfWrites keeps them out of both', () => {
    const result = emulateShellcode({ ...options, registers: { rsp: base }, bypassSelfWrites: true });
    expect(result).toMatchObject({ status: 'halted', flags: ShellcodeFlag.WRITE_SELF });
    expect([result.code[7], result.stack[0x1007]]).toEqual([0x90, 0x90]);
    // Stores to the rest of the stack are made.
    const pushed = emulateShellcode({
      ...options,
      code: Uint8Array.of(0x6a, 0x05, 0xcc),
      registers: { rsp: base },
      bypassSelfWrites: true,
    });
    expect(pushed.stack[0xff8]).toBe(5);
  });
});
