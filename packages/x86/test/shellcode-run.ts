import { emulateShellcode, type ShellcodeOptions, type ShellcodeResult } from '@introd/x86/shellcode';

/** Where the code lies, the 8 KiB of stack, and the TIB. */
export const CODE = 0x20_0000n;
export const STACK = 0x1f_d000n;
export const TIB = 0x7fff_0000n;
export const PAGE = 0x1000;

/** The bytes of a dump. */
export function bytes(hex: string): number[] {
  return hex
    .trim()
    .split(/\s+/)
    .map((byte) => Number.parseInt(byte, 16));
}

/** Runs code that ends with INT3, on a page of zeros, unless told otherwise. */
export function run(bitness: 32 | 64, hex: string, options: Partial<ShellcodeOptions> = {}): ShellcodeResult {
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

/** The code is of the kernel. */
export const ring0 = { ring: 0 } as const;
/** Outside memory is there and full of zeros. */
export const zeros: Partial<ShellcodeOptions> = {
  memoryThreshold: 16,
  onExternalAccess: ({ size }) => new Uint8Array(size),
};
