// The PDPTE registers of PAE paging (SDM vol. 3A, 4.4.1): loaded with CR3, and not looked up again by the page walk.
import { fault, raiseProtection } from './fault';
import {
  BLOCK_PDPTES_CR3,
  BLOCK_PDPTES_LOADED,
  EXIT_CAUSE_PAGE_WALK,
  OP_LENGTH,
  VCPU_CR3,
  VCPU_EXIT_GLA_VALID,
  VCPU_EXIT_INSTRUCTION_LENGTH,
  VCPU_PDPTE0,
} from './generated/layout';
import { PAGING_PAE, pagingMode } from './mode';
import { ACCESS_READ, clearBypassed, frameOf, hostOf, isGranted, voidPage } from './physical';
import { cpu } from './state';

/** Bits that a present PDPTE must not have with 52 physical address bits (SDM vol. 3A, table 4-8). */
const RESERVED: u64 = 0xfff0_0000_0000_01e6;
const PDPTES: u32 = 4;
const TABLE_SIZE: u32 = 32;

function take(cr3: u64, host: usize): void {
  memory.copy(cpu + VCPU_PDPTE0, host, TABLE_SIZE);
  store<u64>(cpu + BLOCK_PDPTES_CR3, cr3);
  store<u32>(cpu + BLOCK_PDPTES_LOADED, 1);
}

/**
 * Loads the four registers for an instruction that writes a control register; #GP(0) when one has a reserved bit set, and
 * an exit without a linear address when their table may not be read. Nothing is loaded then.
 */
export function loadPdptes(op: usize, cr3: u64): bool {
  const gpa = cr3 & 0xffff_ffe0;
  const frame = frameOf(gpa);
  clearBypassed();
  if (frame >= 0 && !isGranted(frame, gpa, 0, ACCESS_READ, TABLE_SIZE, EXIT_CAUSE_PAGE_WALK)) {
    store<u32>(cpu + VCPU_EXIT_GLA_VALID, 0);
    store<u32>(cpu + VCPU_EXIT_INSTRUCTION_LENGTH, load<u8>(op, OP_LENGTH));
    return false;
  }
  const host = frame < 0 ? voidPage(gpa) : hostOf(frame, gpa);
  for (let i: u32 = 0; i < PDPTES; i++) {
    const entry = load<u64>(host + (i << 3));
    if (entry & 1 && entry & RESERVED) raiseProtection(0);
  }
  if (fault) return false;
  take(cr3, host);
  return true;
}

/**
 * Keeps the registers in step when paging or CR3 was changed from outside, in the VCPU record: they are read as they are.
 */
export function followPdptes(): void {
  if (pagingMode != PAGING_PAE) {
    store<u32>(cpu + BLOCK_PDPTES_LOADED, 0);
    return;
  }
  const cr3 = load<u64>(cpu + VCPU_CR3);
  if (load<u32>(cpu + BLOCK_PDPTES_LOADED) && load<u64>(cpu + BLOCK_PDPTES_CR3) == cr3) return;
  const gpa = cr3 & 0xffff_ffe0;
  const frame = frameOf(gpa);
  take(cr3, frame < 0 ? voidPage(gpa) : hostOf(frame, gpa));
}
