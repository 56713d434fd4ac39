import { defineRecord } from '@introd/abi';

/**
 * A decoded instruction as the instruction core executes it: operands resolved to byte offsets from the VCPU block,
 * so that AH is RAX's offset plus one and a missing base is the offset of a field that is always 0.
 * The translator writes these records, the machine's fetch finds them, the executor links them.
 */
export const OP_RECORD = defineRecord({
  /** Operation, one of the numbers of `OpCode`. */
  code: 'u16',
  /** Length of the instruction in bytes, 1..15. */
  length: 'u8',
  /** Operand size in bytes: 1, 2, 4, 8 or 16. */
  size: 'u8',
  /** First operand when it is a register: byte offset in the VCPU block. */
  dst: 'u16',
  /** Second operand when it is a register. */
  src: 'u16',
  /** Base register of the memory operand, or the zero field; for RIP-relative operands RIP (of the instruction itself). */
  base: 'u16',
  /** Index register of the memory operand, or the zero field. */
  index: 'u16',
  /** Base address of the segment of the memory operand: FS base, GS base, or the zero field. */
  segment: 'u16',
  /** Binary logarithm of the index scale, 0..3. */
  scale: 'u8',
  /** What distinguishes operations that share a code: ALU kind, shift kind, condition, control register, segment. */
  kind: 'u8',
  /** Bits of {@link OpFlag}. */
  flags: 'u16',
  /** Third operand, always a register (VEX forms). */
  third: 'u16',
  /** Offset of the instruction in its page. */
  pageOffset: 'u16',
  /** Size in bytes of the second operand where it differs from `size` (MOVZX, MOVSX, CRC32); nesting level of ENTER; selector of a far pointer. */
  sourceSize: 'u16',
  /** Immediate, sign-extended; for direct jumps the distance from the end of the instruction to the target. */
  imm: 'u64',
  /** Displacement, sign-extended; for RIP-relative operands counted from the start of the instruction. */
  disp: 'u64',
  /** Record of the instruction that follows in the same page, 0 while unknown. */
  next: 'u32',
  /** Record of the target of a direct jump in the same page, 0 while unknown. */
  taken: 'u32',
  /** Always 0: the "link" of jumps that cannot be linked. */
  unlinked: 'u32',
  /** Size in bytes of the memory operand, for the check against its segment's limit; only in 16- and 32-bit code. */
  accessSize: 'u16',
  /** Segment register of the memory operand by its number (ES CS SS DS FS GS); only in 16- and 32-bit code. */
  segmentNumber: 'u8',
  /** 1 when the memory operand is written; only in 16- and 32-bit code. */
  writes: 'u8',
});

/** Bits of an op record's `flags`. */
export const OpFlag = {
  /** The effective address is cut to 32 bits before the segment base is added. */
  ADDRESS_32: 1,
  /** The memory operand goes through SS: an address outside it, or one that is not canonical, is #SS, not #GP. */
  STACK: 2,
  /** The first operand is the memory operand. */
  MEMORY_DESTINATION: 4,
  /** The second operand is the memory operand. */
  MEMORY_SOURCE: 8,
  /** The second operand is the immediate. */
  IMMEDIATE_SOURCE: 0x10,
  /** F3 prefix of a string instruction. */
  REPEAT: 0x20,
  /** F2 prefix of a string instruction. */
  REPEAT_NOT_EQUAL: 0x40,
  /** The record lies in memory that is used again: nothing may link to it. */
  UNLINKED: 0x80,
  /** The target of this direct jump lies in the same page. */
  TARGET_IN_PAGE: 0x100,
  /** The next instruction begins in the same page. */
  NEXT_IN_PAGE: 0x200,
  /** Translated from 16- or 32-bit code: the memory operand goes through its segment's base, limit and rights. */
  SEGMENTED: 0x400,
  /** The effective address is cut to 16 bits. */
  ADDRESS_16: 0x800,
} as const;

/**
 * Kinds of code. The same bytes are other instructions in another kind, so that decoded instructions are kept for each
 * apart. `FLAT_32` is 32-bit code in a segment of all 4 GiB that begins with a page; in `LIMITED` code each fetch is checked
 * against the segment's limit.
 */
export const CodeMode = { LONG: 0, FLAT_32: 1, LIMITED_32: 2, LIMITED_16: 3 } as const;

/** Default operand and address size of each kind of code, by its number. */
export const CODE_BITNESS: readonly (16 | 32 | 64)[] = [64, 32, 32, 16];
