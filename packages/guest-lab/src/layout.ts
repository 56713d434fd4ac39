import { type Gva, gpa, gva, PAGE_SIZE } from '@introd/abi';
import type { MemoryRegion } from '@introd/glue';
import type { SeededRandom } from './seeded-random.js';

/** RAM of the lab guest: 64 MiB with the hole for video memory and firmware that every PC has below 1 MiB. */
export const labMemory: readonly MemoryRegion[] = [
  { start: gpa(0), size: 0xa_0000 },
  { start: gpa(0x10_0000), size: 0x3f0_0000 },
];

/** Where the loader puts the PML4 of System: [first, end). */
const SYSTEM_ROOT = { first: 0x1a_0000, end: 0x2a_0000 } as const;
/**
 * Physical memory for everything but the kernel image: [first, end). It begins above 0x6F0000, because forensic tools also look
 * for the root of System in 0x650000..0x6EFFFF, where old releases left it, and the root of a process looks the same.
 */
const GENERAL = { first: 0x70_0000, end: 0x100_0000 } as const;
/** First physical address of the kernel image: this, plus up to 7 times 2 MiB. */
const IMAGE_PHYSICAL = 0x100_0000;
/** Physical memory that the guest leaves to the attack driver. */
const SPARE_PHYSICAL = 0x340_0000;
/** Size of {@link LabLayout.spare} in bytes. */
export const SPARE_SIZE = 0x4_0000;
/** Size of the pool in bytes. */
export const POOL_SIZE = 0x20_0000;

const LARGE_PAGE = 0x20_0000;
/** Root entries: of KUSER_SHARED_DATA (0xFFFFF780_00000000), and of the kernel image region (0xFFFFF800_00000000). */
const SHARED_DATA_INDEX = 0x1ef;
const IMAGE_INDEX = 0x1f0;

/** The seeded choices: where things lie. */
export interface LabLayout {
  /** ntoskrnl.exe, 2 MiB aligned. */
  readonly kernelBase: Gva;
  /** Where its first page lies in physical memory. */
  readonly kernelPhysical: number;
  /** Bases of the other boot drivers. */
  readonly driverBases: readonly Gva[];
  /** 0x100..0x1FE */
  readonly selfMapIndex: number;
  /** Physical address of System's PML4. */
  readonly systemRoot: number;
  /** Non-paged pool. */
  readonly pool: Gva;
  /** Processor structures, kernel stacks and the spare memory. */
  readonly systemPtes: Gva;
  /** PFN database, 2 MiB aligned. */
  readonly pfnDatabase: Gva;
  /** Physical memory that nobody uses. */
  readonly sparePhysical: number;
  /** Frames for everything else, shuffled. */
  readonly freeFrames: number[];
  /** Value of ObHeaderCookie, 1..255. */
  readonly objectCookie: number;
  /** Address in the user half that no process uses. */
  readonly stubVa: Gva;
}

/** Makes the choices of a seed. */
export function chooseLayout(random: SeededRandom): LabLayout {
  const selfMapIndex = pickIndex(random, [SHARED_DATA_INDEX, IMAGE_INDEX], 0x100, 0x1ff);
  const taken = [SHARED_DATA_INDEX, IMAGE_INDEX, selfMapIndex];
  const pool = pickIndex(random, taken, 0x180, 0x1ef);
  const systemPtes = pickIndex(random, [...taken, pool], 0x180, 0x1ef);
  const pfnDatabase = pickIndex(random, [...taken, pool, systemPtes], 0x180, 0x1ef);
  // Slots of 2 MiB in the 32 GiB from 0xFFFFF800_00000000; the drivers lie behind the kernel, which takes 8 slots.
  const slot = 1 + random.below(0x3f00);
  const image = (n: number): Gva => gva(rootEntry(IMAGE_INDEX) + BigInt(n) * BigInt(LARGE_PAGE));
  const driverSlot = slot + 9 + random.below(16);
  const freeFrames: number[] = [];
  for (let at = GENERAL.first; at < GENERAL.end; at += PAGE_SIZE) freeFrames.push(at / PAGE_SIZE);
  return {
    kernelBase: image(slot),
    kernelPhysical: IMAGE_PHYSICAL + random.below(8) * LARGE_PAGE,
    driverBases: [0, 1, 2, 3].map((n) => gva(image(driverSlot + n) + BigInt(random.below(16) * 0x1_0000))),
    selfMapIndex,
    systemRoot: SYSTEM_ROOT.first + random.below((SYSTEM_ROOT.end - SYSTEM_ROOT.first) / PAGE_SIZE) * PAGE_SIZE,
    pool: gva(rootEntry(pool) + BigInt(random.below(0x1_0000)) * BigInt(LARGE_PAGE)),
    systemPtes: gva(rootEntry(systemPtes) + BigInt(random.below(0x1_0000)) * BigInt(LARGE_PAGE)),
    pfnDatabase: gva(rootEntry(pfnDatabase)),
    sparePhysical: SPARE_PHYSICAL,
    freeFrames: random.shuffle(freeFrames),
    objectCookie: 1 + random.below(255),
    stubVa: gva(BigInt(0x1000_0000 + random.below(0x1000) * 0x1_0000)),
  };
}

function pickIndex(random: SeededRandom, taken: readonly number[], first: number, end: number): number {
  for (;;) {
    const index = first + random.below(end - first);
    if (!taken.includes(index)) return index;
  }
}

function rootEntry(index: number): bigint {
  return BigInt.asUintN(64, BigInt.asIntN(48, BigInt(index) << 39n));
}
