import { u32Index } from '@introd/abi';
import { CoreHooksError } from '../error.js';

/** How a processor translates linear addresses (SDM vol. 3A, 4.1.1). */
export type PagingMode = 'none' | '32-bit' | 'pae' | '4-level' | '5-level';

/** {@link PagingMode} as the numbers that the path of every exit uses. */
export const Paging = { NONE: 0, BITS_32: 1, PAE: 2, LEVEL_4: 3, LEVEL_5: 4 } as const;
/** One of the {@link Paging} numbers. */
export type Paging = (typeof Paging)[keyof typeof Paging];

/** Names of the {@link Paging} numbers. */
export const PAGING_MODES: readonly PagingMode[] = ['none', '32-bit', 'pae', '4-level', '5-level'];

/**
 * Number of a mode.
 * @throws CoreHooksError ERR_CORE_HOOKS_PAGING_MODE
 */
export function pagingOf(mode: PagingMode): Paging {
  const paging = PAGING_MODES.indexOf(mode);
  if (paging < 0) {
    throw new CoreHooksError('ERR_CORE_HOOKS_PAGING_MODE', `there is no paging mode ${String(mode)}`, {
      hint: `The modes are ${PAGING_MODES.join(', ')}.`,
    });
  }
  return paging as Paging;
}

const CR0 = u32Index('cr0');
const CR4 = u32Index('cr4');
const EFER = u32Index('efer');
const CR0_PG = 0x8000_0000;
const CR4_PAE = 1 << 5;
const CR4_LA57 = 1 << 12;
const EFER_LMA = 1 << 10;

/** Mode of a VCPU by the words of its record. EFER.LMA implies paging, so CR0 does not count with it. */
export function pagingOfRegisters(registers: Uint32Array): Paging {
  if ((registers[EFER]! & EFER_LMA) !== 0) {
    return (registers[CR4]! & CR4_LA57) === 0 ? Paging.LEVEL_4 : Paging.LEVEL_5;
  }
  if ((registers[CR0]! & CR0_PG) === 0) {
    return Paging.NONE;
  }
  return (registers[CR4]! & CR4_PAE) === 0 ? Paging.BITS_32 : Paging.PAE;
}

/** One level of a paging mode: which bits of the address select the entry, and what a set PS bit means there. */
export interface PagingLevel {
  /** Lowest bit of the index. */
  readonly shift: number;
  /** Highest index. */
  readonly indexMask: number;
  /** Whether PS makes the entry a leaf (SDM vol. 3A, tables 4-4, 4-9, 4-16, 4-18; the bit is reserved or PAT elsewhere). */
  readonly large: boolean;
  /** Whether every present entry is a leaf. */
  readonly last: boolean;
  /** Bytes that one entry covers. */
  readonly size: number;
}

function level(shift: number, bits: number, large: boolean): PagingLevel {
  return { shift, indexMask: 2 ** bits - 1, large, last: shift === 12, size: 2 ** shift };
}

const TO_PD = [level(21, 9, true), level(12, 9, false)];
const TO_PML4 = [level(39, 9, false), level(30, 9, true), ...TO_PD];

/** The levels of each {@link Paging} number, from the root down (SDM vol. 3A, 4.3 to 4.5). */
export const PAGING_LEVELS: readonly (readonly PagingLevel[])[] = [
  [],
  [level(22, 10, true), level(12, 10, false)],
  [level(30, 2, false), ...TO_PD],
  TO_PML4,
  [level(48, 9, false), ...TO_PML4],
];

/** Size of an entry in bytes. */
export function entrySizeOf(paging: Paging): 4 | 8 {
  return paging === Paging.BITS_32 ? 4 : 8;
}

/** Bits 32..51 of a physical address, in the high half of CR3 and of an entry. */
const FRAME_HIGH = 0x000f_ffff;

/**
 * Physical address of the root table that a CR3 value names. PCID, PWT, PCD and the no-flush bit do not count; outside of long mode
 * bits 32 and up do not either (SDM vol. 3A, tables 4-3, 4-7, 4-12).
 */
export function rootAddress(paging: Paging, cr3Low: number, cr3High: number): number {
  if (paging === Paging.PAE) {
    return (cr3Low & 0xffff_ffe0) >>> 0;
  }
  const low = (cr3Low & 0xffff_f000) >>> 0;
  return paging === Paging.BITS_32 ? low : low + (cr3High & FRAME_HIGH) * 0x1_0000_0000;
}

/** Number of the entry that an address selects at a level. In modes of 32 bits the high half of the address is 0. */
export function indexAt({ shift, indexMask }: PagingLevel, vaLow: number, vaHigh: number): number {
  if (shift >= 32) {
    return (vaHigh >>> (shift - 32)) & indexMask;
  }
  return ((vaLow >>> shift) | (shift > 22 ? vaHigh << (32 - shift) : 0)) & indexMask;
}

const PRESENT = 1;
const LARGE = 0x80;

/** Whether a present entry of a level maps a page. */
export function isLeaf(level: PagingLevel, low: number): boolean {
  return level.last || (level.large && (low & LARGE) !== 0);
}

/** Whether an entry has P set. */
export function isPresent(low: number): boolean {
  return (low & PRESENT) !== 0;
}

/** Physical address of the table that a present entry names. */
export function tableAddress(low: number, high: number): number {
  return ((low & 0xffff_f000) >>> 0) + (high & FRAME_HIGH) * 0x1_0000_0000;
}

/**
 * Physical address that a leaf gives to a virtual one. Address bits below the page size come from the virtual address; those of the
 * entry (PAT, reserved) do not count. A page of 4 MiB has bits 32..39 of its address at 13..20 (PSE-36; SDM vol. 3A, table 4-4).
 */
export function leafAddress(paging: Paging, size: number, low: number, high: number, vaLow: number): number {
  const offsetMask = size - 1;
  const base = ((low & ~offsetMask) >>> 0) + (vaLow & offsetMask);
  if (paging !== Paging.BITS_32) {
    return base + (high & FRAME_HIGH) * 0x1_0000_0000;
  }
  return size === 4096 ? base : base + ((low >>> 13) & 0xff) * 0x1_0000_0000;
}
