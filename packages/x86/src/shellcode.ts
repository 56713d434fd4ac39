/**
 * Entry point `@introd/x86/shellcode`: an emulator that tells whether bytes behave as shellcode does.
 */
export { X86Error, type X86ErrorCode } from './error.js';
export { codeWindow } from './shellcode/code-window.js';
export { emulateShellcode } from './shellcode/emulate-shellcode.js';
export type {
  SegmentName,
  ShellcodeAccess,
  ShellcodeOptions,
  ShellcodeResult,
  ShellcodeSegment,
  ShellcodeTraceStep,
} from './shellcode/options.js';
export { ShellcodeFlag, type ShellcodeStatus } from './shellcode/shellcode-flags.js';
