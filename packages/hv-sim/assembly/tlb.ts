// Translation look-aside buffers in software: per VCPU one for supervisor and one for user accesses, each with three
// direct-mapped tables (read, write, execute). An entry exists only when the access is permitted by the guest's tables
// and by the second-level rights, with accessed and dirty bits set, and, for writes, when the frame holds no decoded
// code: a hit needs no further check. A miss is always looked up again in memory.
import {
  BLOCK_CODE_MODE,
  BLOCK_PAGING_MODE,
  BLOCK_SIZE,
  BLOCK_SMAP_OPEN,
  LIMIT_VCPUS,
  MAP_BLOCKS,
  MAP_TLB,
  MAP_TLB_SIZE,
  VCPU_CR4,
  VCPU_RFLAGS,
} from './generated/layout';
import { currentCodeMode, currentPagingMode, setModes } from './mode';
import { followPdptes } from './pdpte';
import { cpl, cpu } from './state';

/** CR4.SMAP, as in SDM vol. 3A, 2.5. */
const CR4_SMAP: u64 = 1 << 21;
const RFLAGS_AC: u64 = 1 << 18;

/** The current VCPU's tables for its current privilege. */
export let tlbRead: usize = MAP_TLB;
export let tlbWrite: usize = MAP_TLB + MAP_TLB_SIZE;
export let tlbExecute: usize = MAP_TLB + 2 * MAP_TLB_SIZE;

const VCPU_TLB_SIZE: usize = 6 * MAP_TLB_SIZE;

function base(): usize {
  return MAP_TLB + ((cpu - MAP_BLOCKS) / BLOCK_SIZE) * VCPU_TLB_SIZE;
}

/** Empties a range of tables: a tag of 0x0101.. is no page address. */
function clear(start: usize, size: usize): void {
  memory.fill(start, 1, size);
}

/** Empties all tables of the current VCPU. */
export function flushTlb(): void {
  clear(base(), VCPU_TLB_SIZE);
}

/** Empties all tables of all VCPUs. */
export function flushAllTlbs(): void {
  clear(MAP_TLB, LIMIT_VCPUS * VCPU_TLB_SIZE);
}

/** Empties one table (0 read, 1 write, 2 execute) of all VCPUs. */
export function flushTables(table: usize): void {
  for (let i: usize = 0; i < LIMIT_VCPUS * 2; i++) clear(MAP_TLB + (i * 3 + table) * MAP_TLB_SIZE, MAP_TLB_SIZE);
}

/**
 * Chooses the tables for the current VCPU and privilege, and finds its modes; to be called when any of them has changed,
 * and after EFLAGS.AC has.
 */
export function refreshTlb(): void {
  const user = cpl() == 3;
  const start = base();
  const code = currentCodeMode();
  const paging = currentPagingMode();
  if (code != load<u32>(cpu + BLOCK_CODE_MODE)) {
    // Entries for fetches lead to instructions that were decoded for another kind of code.
    store<u32>(cpu + BLOCK_CODE_MODE, code);
    clear(start + 2 * MAP_TLB_SIZE, MAP_TLB_SIZE);
    clear(start + 5 * MAP_TLB_SIZE, MAP_TLB_SIZE);
  }
  if (paging != load<u32>(cpu + BLOCK_PAGING_MODE)) {
    store<u32>(cpu + BLOCK_PAGING_MODE, paging);
    clear(start, VCPU_TLB_SIZE);
  }
  setModes(code, paging);
  followPdptes();
  if (load<u64>(cpu + VCPU_CR4) & CR4_SMAP) {
    const open = u32((load<u64>(cpu + VCPU_RFLAGS) & RFLAGS_AC) != 0);
    if (open != load<u32>(cpu + BLOCK_SMAP_OPEN)) {
      store<u32>(cpu + BLOCK_SMAP_OPEN, open);
      clear(start, 3 * MAP_TLB_SIZE);
    }
  }
  tlbRead = start + (user ? 3 * MAP_TLB_SIZE : 0);
  tlbWrite = tlbRead + MAP_TLB_SIZE;
  tlbExecute = tlbWrite + MAP_TLB_SIZE;
}

// @ts-ignore: decorator
@inline
export function tlbEntry(table: usize, address: u64): usize {
  return table + ((usize(address >> 12) & 0xff) << 4);
}

export function fillTlb(table: usize, address: u64, host: usize, ops: usize): void {
  const entry = tlbEntry(table, address);
  store<u64>(entry, address & ~0xfff);
  store<u32>(entry, <u32>host & ~0xfff, 8);
  store<u32>(entry, <u32>ops, 12);
}
