import { codeWindow, emulateShellcode, ShellcodeFlag, type ShellcodeOptions } from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';
import { bytes, CODE, PAGE, run, STACK, TIB } from './shellcode-run.js';

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

describe('how an emulation ends', () => {
  test.each([
    ['memory-outside', 64, 'b8 00 00 fd 7f 67 c7 00 00 00 00 00', CODE + 5n],
    ['rip-outside', 64, 'c3', 0n],
    ['unsupported-instruction', 64, 'e4 10', CODE],
    ['unsupported-instruction', 64, '0f ae 0c 24', CODE],
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
