import { Code, type Instruction, MemorySizeExt, Mnemonic } from './decoder.js';

/** A cache line, which all processors of the architecture have in this size so far (CPUID.1:EBX bits 8..15). */
const CACHE_LINE = 64;
/** Rows times bytes of a row of a tile register, at most (SDM vol. 1, 18.2). */
const TILE = 1024;

/** Sizes of operands that the decoder library has no number for, or not that of what is touched. */
const SIZES: ReadonlyMap<Mnemonic, number> = new Map([
  [Mnemonic.Clflush, CACHE_LINE],
  [Mnemonic.Clflushopt, CACHE_LINE],
  [Mnemonic.Clwb, CACHE_LINE],
  [Mnemonic.Cldemote, CACHE_LINE],
  [Mnemonic.Clzero, CACHE_LINE],
  // SDM vol. 1, 10.5.1.
  [Mnemonic.Fxsave, 512],
  [Mnemonic.Fxsave64, 512],
  [Mnemonic.Fxrstor, 512],
  [Mnemonic.Fxrstor64, 512],
  // The configuration of tiles (SDM vol. 1, 18.3).
  [Mnemonic.Ldtilecfg, 64],
  [Mnemonic.Sttilecfg, 64],
  [Mnemonic.Tileloadd, TILE],
  [Mnemonic.Tileloaddt1, TILE],
  [Mnemonic.Tilestored, TILE],
]);

/** Bytes that the explicit operand of an instruction has; 0 when the processor's state decides. */
export function explicitSize(instruction: Instruction): number {
  const { mnemonic } = instruction;
  const fixed = SIZES.get(mnemonic);
  if (fixed !== undefined) {
    return fixed;
  }
  switch (instruction.code) {
    // With a 16-bit operand the base has 24 bits, but 6 bytes are accessed all the same (SDM vol. 2A, LGDT/LIDT).
    case Code.Lgdt_m1632_16:
    case Code.Lidt_m1632_16:
    case Code.Sgdt_m1632_16:
    case Code.Sidt_m1632_16:
      return 6;
    default:
      return MemorySizeExt.size(instruction.memorySize);
  }
}
