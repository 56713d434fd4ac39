/** Sizes of the machine's tables. */
export const MACHINE_LIMITS = {
  /** VCPUs of one machine. */
  VCPUS: 8,
  /** Regions of RAM. */
  REGIONS: 256,
  /** MSRs whose writes exit at the same time. */
  MSR_EXITS: 1024,
  /** Bytes of debug output kept before JavaScript must take them. */
  DEBUG_SIZE: 0x2000,
  /** Entries of one translation table of a TLB; 16 bytes each: page address, host page, table of decoded instructions. */
  TLB_ENTRIES: 256,
  /** Decoded instructions kept, 64 bytes each. */
  OPS: 0x2_0000,
  /** Kinds of code for which a frame may have decoded instructions, see `CodeMode`. */
  CODE_MODES: 4,
  /** Pages whose decoded instructions are kept: 4096 offsets of records, 4 bytes each. */
  OP_TABLES: 512,
  /**
   * Frames that one instruction may be allowed to touch. None needs more, together with what is delivered in its place:
   *
   * - instruction, at most 10 linear pages: RETF to another ring, 2 of code, 4 of stack (a far `imm16` apart), 4 of two
   *   descriptors;
   * - events: its own exception, an injected one, a debug trap, an interrupt, each of which may become three others in
   *   turn (benign, contributory, page fault, double fault), so 16 deliveries of 2 pages of a code descriptor and 2 of
   *   stack, and all together 2 of the IDT and 2 of the TSS, which are not longer than that: 68;
   * - each linear page has its frame and up to 4 tables, and all share the top one: (10 + 68) * 5 + 1 = 391.
   */
  ALLOWANCES: 391,
  /** Reads that one instruction may be supplied with: one per page of data, 8 for the RETF of above. */
  SUPPLIES: 8,
} as const;

const TLB_SIZE = MACHINE_LIMITS.TLB_ENTRIES * 16;

/**
 * Where everything lies in the linear memory that the machine and its WebAssembly share. What depends on the size of
 * the guest's RAM (rights, flags and decoded code per frame, then RAM itself) follows at `FRAMES`.
 */
export const MEMORY_MAP = {
  /** VCPU blocks, then the record of the guest as a whole at the place of VCPU number 8. */
  BLOCKS: 0x3_0000,
  /** Regions of RAM: first frame number (u64), number of frames (u32), number of frames in the regions before (u32). */
  REGIONS: 0x6_0000,
  /** MSRs whose writes exit. */
  MSR_EXITS: 0x6_1000,
  DEBUG: 0x6_2000,
  /** Page that stands for addresses without RAM: filled with ones before each use. */
  VOID: 0x6_4000,
  /** Where the bytes of an instruction that crosses a page are put together. */
  BOUNCE: 0x6_5000,
  /** Where the bytes of a state area are put together before anything is taken over. */
  STATE: 0x6_6000,
  /** Size of one translation table of a TLB in bytes. */
  TLB_SIZE,
  /** Per VCPU two TLBs (supervisor, user) of three tables (read, write, execute). */
  TLB: 0x7_0000,
  OPS: 0x10_0000,
  OP_TABLES: 0x10_0000 + MACHINE_LIMITS.OPS * 64,
  FRAMES: 0x10_0000 + MACHINE_LIMITS.OPS * 64 + MACHINE_LIMITS.OP_TABLES * 0x4000,
} as const;

/** Offsets of the tables per frame, of RAM and of its end, for a number of frames. */
export function frameTables(frames: number): {
  readonly rights: number;
  readonly flags: number;
  readonly ops: number;
  readonly ram: number;
  readonly end: number;
} {
  const rights = MEMORY_MAP.FRAMES;
  const flags = rights + frames;
  const ops = Math.ceil((flags + frames) / 8) * 8;
  const ram = Math.ceil((ops + 4 * frames * MACHINE_LIMITS.CODE_MODES) / 0x1_0000) * 0x1_0000;
  return { rights, flags, ops, ram, end: ram + frames * 4096 };
}
