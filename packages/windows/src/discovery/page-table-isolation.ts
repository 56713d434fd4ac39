import type { Gva } from '@introd/abi';
import { Code, decodeInto, emptyInstruction, Register } from '@introd/x86/decoder';
import type { VirtualMemory } from '../virtual-memory.js';

/** Bytes at the begin of the system call handler in which the switch of page tables must be (windows.md 1.2). */
const HANDLER_BYTES = 128;

/**
 * Whether the kernel runs on page tables of its own (KPTI): then its system call handler loads CR3 in its first bytes.
 * @returns `undefined` when the handler cannot be read
 */
export function isPageTableIsolationActive(memory: VirtualMemory, handler: Gva): boolean | undefined {
  const bytes = new Uint8Array(HANDLER_BYTES);
  if (!memory.read(handler, bytes)) return undefined;
  const instruction = emptyInstruction();
  try {
    for (let at = 0; at < bytes.length; ) {
      const failure = decodeInto(bytes.subarray(at), handler + BigInt(at), 64, instruction);
      if (!failure && instruction.code === Code.Mov_cr_r64 && instruction.op0Register === Register.CR3) return true;
      at += failure ? 1 : instruction.length;
    }
    return false;
  } finally {
    instruction.free();
  }
}
