import type { Gpa, Gva } from '@introd/abi';

/** First address of the kernel mapping of the test guests; physical address `n` is mapped at `KERNEL + n`. */
const KERNEL = 0xffff_8000_0000_0000n;
/** Physical address of the top-level table; the tables below follow page by page. */
export const PML4 = 0x1000;
const PDPT = 0x2000;
const PD = 0x3000;
const PT = 0x4000;
/** Code, data and stack of the test guests: physical addresses. */
export const CODE = 0x1_0000;
export const DATA = 0x2_0000;
export const STACK = 0x3_0000;

/** Virtual address of a physical one. */
export function kernel(physical: number): Gva {
  return (KERNEL + BigInt(physical)) as Gva;
}

/** The tables that map the first 2 MiB at {@link KERNEL} and, for user code, at 0, as (address, entry) pairs. */
export function* pageTables(): Iterable<readonly [Gpa, bigint]> {
  const present = 3n;
  const user = 4n;
  const both = (from: number, kernelIndex: number, to: number): (readonly [Gpa, bigint])[] => [
    [from as Gpa, BigInt(to) | present | user],
    [(from + kernelIndex * 8) as Gpa, BigInt(to) | present | user],
  ];
  yield* both(PML4, 256, PDPT);
  yield [PDPT as Gpa, BigInt(PD) | present | user];
  yield [PD as Gpa, BigInt(PT) | present | user];
  for (let page = 0; page < 512; page++) {
    yield [(PT + page * 8) as Gpa, BigInt(page * 4096) | present | user];
  }
}

/** Physical address of the last-level entry that maps a page of the first 2 MiB. */
export function leafEntry(physical: number): Gpa {
  return (PT + (physical >>> 12) * 8) as Gpa;
}
