import type { ShellcodeStatus } from './shellcode-flags.js';

/**
 * Why an instruction is given up: thrown by what it calls, caught by the loop, never seen outside. One for each reason
 * is made once, so that giving up costs no stack trace.
 */
export class Abort extends Error {
  override readonly name = 'Abort';

  /** @param status what the emulation ends with */
  constructor(readonly status: ShellcodeStatus) {
    super(status);
  }
}

export const UNSUPPORTED_OPERAND = new Abort('unsupported-operand');
export const INVALID_SELECTOR = new Abort('invalid-selector');
export const MEMORY_OUTSIDE = new Abort('memory-outside');
export const UNSUPPORTED_INSTRUCTION = new Abort('unsupported-instruction');
export const NO_PRIVILEGE = new Abort('no-privilege');
export const MISALIGNED = new Abort('halted');
