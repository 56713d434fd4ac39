import { Formatter, FormatterSyntax } from 'iced-x86';
import { type Bitness, decodeInto, emptyInstruction } from './decoder.js';

let formatter: Formatter | undefined;

/**
 * The first instruction of `bytes` in Intel syntax, numbers as `0x...`. For people: nothing may be decided by it.
 * @param ip address of the first byte, for branch targets and RIP-relative operands
 * @returns `(bad)` when the bytes are not an instruction
 */
export function instructionText(bytes: Uint8Array, ip: bigint, bitness: Bitness = 64): string {
  if (formatter === undefined) {
    formatter = new Formatter(FormatterSyntax.Intel);
    formatter.hexPrefix = '0x';
    formatter.hexSuffix = '';
    formatter.uppercaseHex = false;
    formatter.smallHexNumbersInDecimal = true;
    formatter.spaceAfterOperandSeparator = true;
  }
  const instruction = emptyInstruction();
  try {
    return decodeInto(bytes, ip, bitness, instruction, 'bounds') === undefined
      ? formatter.format(instruction)
      : '(bad)';
  } finally {
    instruction.free();
  }
}
