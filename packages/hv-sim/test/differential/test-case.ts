import { Random } from './random.js';

const PAGE = 0x1000;

/**
 * The addresses that a case may use, the same on the host and on the machine. Below and between and behind them nothing
 * is mapped (from `windowStart` to `windowEnd` that is certain on the host as well).
 */
export const LAYOUT = {
  windowStart: 0x0fff_0000,
  windowEnd: 0x1003_0000,
  /** Code pages, filled with INT3 around the instruction. Not written by cases. */
  code: 0x1000_0000,
  codeSize: 2 * PAGE,
  /** Writable data, the stack included. */
  data: 0x1001_0000,
  dataSize: 4 * PAGE,
  /** One page that user code can only read, right behind the data. */
  readOnly: 0x1001_4000,
  readOnlySize: PAGE,
  /** GS base of every case, below the data so that 32-bit addresses reach it too. */
  gsBase: 0x0123_4560,
} as const;

/** Bytes from the start of the data to the end of the read-only page: what is compared after a case. */
export const MEMORY_SIZE = LAYOUT.dataSize + LAYOUT.readOnlySize;

/** Selectors that user code sees: those of a 64-bit process on Linux, and its segment for 32-bit code. */
export const SELECTORS = { code: 0x33, code32: 0x23, stack: 0x2b } as const;

/** Default operand and address size of a case's code segment; 32 is compatibility mode, all data segments flat. */
export type Bitness = 32 | 64;

/** RFLAGS bits by name (SDM vol. 1, 3.4.3). */
export const Flag = {
  CF: 1 << 0,
  PF: 1 << 2,
  AF: 1 << 4,
  ZF: 1 << 6,
  SF: 1 << 7,
  IF: 1 << 9,
  DF: 1 << 10,
  OF: 1 << 11,
  ID: 1 << 21,
} as const;

/** The flags that a case starts with are random in these; IF is always set, the rest clear. */
const STATUS_FLAGS = Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.OF;
/** The flags that are compared after a case, except for the undefined ones. RF and TF belong to the way of observing. */
export const COMPARED_FLAGS = STATUS_FLAGS | Flag.DF | Flag.IF | Flag.ID;

/** Registers before or after. General registers are in the order of their encoding; xmm holds low and high halves. */
export interface Registers {
  gpr: BigUint64Array;
  rflags: number;
  xmm: BigUint64Array;
}

/** Bytes at an offset of the compared memory. */
export interface MemoryBytes {
  offset: number;
  bytes: Uint8Array;
}

/** One instruction (or a straight line of them) with all that it starts from. */
export interface TestCase {
  /** Name of the form, an iced `Code` name, or what a sequence is called. */
  form: string;
  /** Where the code stands. */
  rip: number;
  bitness: Bitness;
  code: Uint8Array;
  /** How many instructions run from beginning to end, a repeated string instruction as one. */
  instructions: number;
  /** Seed of {@link initialRegisters}; `before` is that plus overrides. */
  seed: number;
  before: Registers;
  /** Changes of {@link initialMemory}. */
  patches: MemoryBytes[];
  /** Status flags that the processor may leave in any state. */
  undefinedFlags: number;
}

/** What a case did. */
export interface Outcome {
  /** Vector of the fault, or undefined when the code ran to its end or to a branch target. */
  vector: number | undefined;
  /** Error code of the fault, 0 without one. */
  error: number;
  /** Address of a page fault, 0n otherwise. */
  cr2: bigint;
  /** Where execution goes on; the faulting instruction after a fault. */
  rip: bigint;
  after: Registers;
  /** Memory that differs from what the case started with. */
  memory: MemoryBytes[];
}

/** The registers a seed stands for; those that 32-bit code cannot reach are 0 in it. */
export function initialRegisters(seed: number, bitness: Bitness = 64): Registers {
  const random = new Random(seed);
  const gpr = new BigUint64Array(16);
  for (let i = 0; i < gpr.length; i++) gpr[i] = random.edge();
  if (bitness === 32) {
    for (let i = 0; i < 8; i++) gpr[i] = BigInt.asUintN(32, gpr[i] as bigint);
    gpr.fill(0n, 8);
  }
  const xmm = new BigUint64Array(32);
  for (let i = 0; i < xmm.length; i++) xmm[i] = random.edge();
  const rflags = (random.u32() & STATUS_FLAGS) | Flag.IF | 2;
  return { gpr, rflags, xmm };
}

/** The memory every case starts from: bytes of all kinds, with runs of equal ones for the string instructions. */
export function initialMemory(): Uint8Array {
  const random = new Random(0x6d656d);
  const memory = new Uint8Array(MEMORY_SIZE);
  const view = new DataView(memory.buffer);
  for (let offset = 0; offset < MEMORY_SIZE; offset += 8) view.setBigUint64(offset, random.edge(), true);
  return memory;
}

/** `memory` as a case begins: `base` with its patches. */
export function applyPatches(base: Uint8Array, patches: readonly MemoryBytes[]): Uint8Array {
  const memory = base.slice();
  for (const { offset, bytes } of patches) memory.set(bytes, offset);
  return memory;
}

/** The bytes in which `after` differs from `before`, as runs (gaps of less than 4 equal bytes do not end a run). */
export function memoryDifferences(before: Uint8Array, after: Uint8Array): MemoryBytes[] {
  const runs: MemoryBytes[] = [];
  if (Buffer.compare(before, after) === 0) return runs;
  let start = -1;
  let last = -1;
  for (let i = 0; i < before.length; i++) {
    if (before[i] === after[i]) continue;
    if (start >= 0 && i - last > 4) {
      runs.push({ offset: start, bytes: after.slice(start, last + 1) });
      start = -1;
    }
    if (start < 0) start = i;
    last = i;
  }
  if (start >= 0) runs.push({ offset: start, bytes: after.slice(start, last + 1) });
  return runs;
}
