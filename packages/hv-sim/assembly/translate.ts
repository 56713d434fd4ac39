// The page walker (SDM vol. 3A, 4.2 to 4.6): no paging, 32-bit and PAE paging, 4 and 5 levels, with all sizes of pages.
import { invalidateFrame } from './code-cache';
import { fault, raisePageFault } from './fault';
import {
  EXIT_CAUSE_PAGE_WALK,
  VCPU_CR0,
  VCPU_CR3,
  VCPU_CR4,
  VCPU_EFER,
  VCPU_PDPTE0,
  VCPU_RFLAGS,
} from './generated/layout';
import {
  CR4_PSE,
  PAGING_32_BIT,
  PAGING_5_LEVEL,
  PAGING_NONE,
  PAGING_PAE,
  pagingMode,
} from './mode';
import {
  ACCESS_EXECUTE,
  ACCESS_READ,
  ACCESS_WRITE,
  clearBypassed,
  FRAME_CODE,
  frameFlags,
  frameOf,
  frameRights,
  hostOf,
  isGranted,
  ram,
  voidPage,
} from './physical';
import { cpl, cpu } from './state';

const ENTRY_PRESENT: u64 = 1;
const ENTRY_WRITABLE: u64 = 2;
const ENTRY_USER: u64 = 4;
const ENTRY_ACCESSED: u64 = 0x20;
const ENTRY_DIRTY: u64 = 0x40;
const ENTRY_LARGE: u64 = 0x80;
const ENTRY_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const CR0_WP: u64 = 1 << 16;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const EFER_NXE: u64 = 1 << 11;
/** Bits 52..62, which long mode ignores and PAE paging reserves. */
const ENTRY_IGNORED: u64 = 0x7ff0_0000_0000_0000;
const RFLAGS_AC: u64 = 1 << 18;

const ERROR_PRESENT: u32 = 1;
const ERROR_WRITE: u32 = 2;
const ERROR_USER: u32 = 4;
const ERROR_RESERVED: u32 = 8;
const ERROR_FETCH: u32 = 0x10;

/** Whether the page walker's accessed and dirty updates exit when second-level rights forbid them. */
let updatesExit: bool = false;

export function setUpdatesExit(on: bool): void {
  updatesExit = on;
}

/** Frame of the last translation, -1 when it is not RAM. */
export let translatedFrame: i32 = -1;

/** Translates for the current privilege. */
export function translate(address: u64, access: u32, size: u32, cause: u32): usize {
  const user = cpl() == 3;
  return walk(address, access, size, cause, user, (load<u64>(cpu + VCPU_RFLAGS) & RFLAGS_AC) != 0);
}

/** Translates for the processor itself (descriptor tables, TSS): supervisor, whatever the CPL, and SMAP always applies. */
export function translateImplicit(address: u64, access: u32, size: u32, cause: u32): usize {
  return walk(address, access, size, cause, false, false);
}

/** Translates for a privilege that the VCPU is about to have: the stack that an event is delivered on. */
export function translateFor(address: u64, access: u32, size: u32, cause: u32, user: bool): usize {
  const open = cpl() != 3 && (load<u64>(cpu + VCPU_RFLAGS) & RFLAGS_AC) != 0;
  return walk(address, access, size, cause, user, open);
}

function fail(address: u64, access: u32, user: bool, bits: u32): usize {
  let error = bits;
  if (access & ACCESS_WRITE) error |= ERROR_WRITE;
  if (user) error |= ERROR_USER;
  // Bit 4 exists only with NX or SMEP (SDM vol. 3A, 4.7).
  const noExecute = load<u64>(cpu + VCPU_EFER) & EFER_NXE && pagingMode != PAGING_32_BIT;
  if (access & ACCESS_EXECUTE && (noExecute || load<u64>(cpu + VCPU_CR4) & CR4_SMEP)) error |= ERROR_FETCH;
  raisePageFault(address, error);
  return 0;
}

/** Reserved bits of an 8-byte entry at a level (5..1); with 52 physical address bits none are left in the address. */
// @ts-ignore: decorator
@inline
function hasReserved(entry: u64, level: u32, noExecute: bool): bool {
  if (!noExecute && entry >> 63) return true;
  if (pagingMode == PAGING_PAE && entry & ENTRY_IGNORED) return true;
  if (!(entry & ENTRY_LARGE)) return false;
  if (level >= 4) return true;
  if (level == 3) return (entry & 0x3fff_e000) != 0;
  if (level == 2) return (entry & 0x1f_e000) != 0;
  return false;
}

/** Whether the walker may set bits in the entry at `host`; refuses it when such updates exit. */
function mayUpdate(host: usize, gpa: u64, address: u64, size: u32): bool {
  if (!updatesExit || host < ram) return true;
  return isGranted(i32((host - ram) >> 12), gpa, address, ACCESS_WRITE, size, EXIT_CAUSE_PAGE_WALK);
}

/** Sets accessed and dirty bits, which are in the low byte of entries of both sizes. */
function update(host: usize, bits: u64): void {
  const entry = u64(load<u8>(host));
  if ((entry & bits) == bits || host < ram) return;
  const frame = i32((host - ram) >> 12);
  if (load<u8>(frameFlags + frame) & FRAME_CODE) invalidateFrame(frame);
  store<u8>(host, <u8>(entry | bits));
}

/** Where a paging-structure entry of the current walk lies; 0 with `fault` set when it may not be read. */
function reachEntry(gpa: u64, address: u64, size: u32): usize {
  const frame = frameOf(gpa);
  if (frame < 0) return voidPage(gpa);
  if (load<u8>(frameRights + frame) != 7) {
    if (!isGranted(frame, gpa, address, ACCESS_READ, size, EXIT_CAUSE_PAGE_WALK)) return 0;
  }
  return hostOf(frame, gpa);
}

/** Whether the guest's own rights forbid an access (SDM vol. 3A, 4.6.1). */
// @ts-ignore: decorator
@inline
function isDenied(permitted: u64, forbidExecute: bool, access: u32, user: bool, smapOpen: bool): bool {
  const userPage = (permitted & ENTRY_USER) != 0;
  if (access & ACCESS_EXECUTE && forbidExecute) return true;
  if (user) return !userPage || (access & ACCESS_WRITE && !(permitted & ENTRY_WRITABLE));
  if (access & ACCESS_WRITE && !(permitted & ENTRY_WRITABLE) && load<u64>(cpu + VCPU_CR0) & CR0_WP) return true;
  if (!userPage) return false;
  const cr4 = load<u64>(cpu + VCPU_CR4);
  if (access & ACCESS_EXECUTE) return (cr4 & CR4_SMEP) != 0;
  return cr4 & CR4_SMAP && !smapOpen;
}

/** Where the page's byte lies, -1 for what is not RAM; false when the second level refuses the access. */
// @ts-ignore: decorator
@inline
function reachPage(gpa: u64, address: u64, access: u32, size: u32, cause: u32): bool {
  const frame = frameOf(gpa);
  translatedFrame = frame;
  return frame < 0 || load<u8>(frameRights + frame) == 7 || isGranted(frame, gpa, address, access, size, cause);
}

// @ts-ignore: decorator
@inline
function hostOfPage(gpa: u64): usize {
  return translatedFrame < 0 ? voidPage(gpa) : hostOf(translatedFrame, gpa);
}

/** 32-bit paging: entries of 4 bytes, pages of 4 KiB and, with CR4.PSE, of 4 MiB in 40 physical bits (SDM vol. 3A, 4.3). */
function walk32(address: u64, access: u32, size: u32, cause: u32, user: bool, smapOpen: bool): usize {
  const directoryGpa = (load<u64>(cpu + VCPU_CR3) & 0xffff_f000) + ((address >> 22) << 2);
  const directory = reachEntry(directoryGpa, address, 4);
  if (directory == 0) return 0;
  const first = u64(load<u32>(directory));
  if (!(first & ENTRY_PRESENT)) return fail(address, access, user, 0);
  const large = (first & ENTRY_LARGE) != 0 && (load<u64>(cpu + VCPU_CR4) & CR4_PSE) != 0;
  let permitted = first;
  let tableGpa: u64 = 0;
  let table: usize = 0;
  let gpa: u64;
  if (large) {
    if (first & 0x20_0000) return fail(address, access, user, ERROR_PRESENT | ERROR_RESERVED);
    gpa = (((first >> 13) & 0xff) << 32) | (first & 0xffc0_0000) | (address & 0x3f_ffff);
  } else {
    tableGpa = (first & 0xffff_f000) + (((address >> 12) & 0x3ff) << 2);
    table = reachEntry(tableGpa, address, 4);
    if (table == 0) return 0;
    const second = u64(load<u32>(table));
    if (!(second & ENTRY_PRESENT)) return fail(address, access, user, 0);
    permitted &= second;
    gpa = (second & 0xffff_f000) | (address & 0xfff);
  }
  if (isDenied(permitted, false, access, user, smapOpen)) return fail(address, access, user, ERROR_PRESENT);
  if (!reachPage(gpa, address, access, size, cause)) return 0;
  const leafBits = access & ACCESS_WRITE ? ENTRY_ACCESSED | ENTRY_DIRTY : ENTRY_ACCESSED;
  const directoryBits = large ? leafBits : ENTRY_ACCESSED;
  if (updatesExit) {
    if ((first & directoryBits) != directoryBits && !mayUpdate(directory, directoryGpa, address, 4)) return 0;
    if (!large && (load<u32>(table) & leafBits) != leafBits && !mayUpdate(table, tableGpa, address, 4)) return 0;
  }
  update(directory, directoryBits);
  if (!large) update(table, leafBits);
  return hostOfPage(gpa);
}

/**
 * Address in linear memory of a guest-linear byte, 0 with `fault` set. Accessed and dirty bits are set only when the
 * guest's tables and the second-level rights permit the access.
 */
function walk(linear: u64, access: u32, size: u32, cause: u32, user: bool, smapOpen: bool): usize {
  clearBypassed();
  let address = linear;
  let level: u32 = 4;
  let shift: u64 = 39;
  let table = load<u64>(cpu + VCPU_CR3) & ENTRY_ADDRESS;
  if (pagingMode <= PAGING_PAE) {
    // Outside of long mode linear addresses have 32 bits.
    address &= 0xffff_ffff;
    if (pagingMode == PAGING_NONE) return reachPage(address, address, access, size, cause) ? hostOfPage(address) : 0;
    if (pagingMode == PAGING_32_BIT) return walk32(address, access, size, cause, user, smapOpen);
    const root = load<u64>(cpu + VCPU_PDPTE0 + ((usize(address) >> 30) << 3));
    if (!(root & ENTRY_PRESENT)) return fail(address, access, user, 0);
    table = root & ENTRY_ADDRESS;
    level = 2;
    shift = 21;
  } else if (pagingMode == PAGING_5_LEVEL) {
    level = 5;
    shift = 48;
  }
  const noExecute = (load<u64>(cpu + VCPU_EFER) & EFER_NXE) != 0;
  let permitted: u64 = ENTRY_WRITABLE | ENTRY_USER;
  let forbidExecute = false;
  let host5: usize = 0;
  let host4: usize = 0;
  let host3: usize = 0;
  let host2: usize = 0;
  let host: usize = 0;
  let gpa5: u64 = 0;
  let gpa4: u64 = 0;
  let gpa3: u64 = 0;
  let gpa2: u64 = 0;
  let entryGpa: u64 = 0;
  let entry: u64 = 0;
  while (true) {
    entryGpa = table + (((address >> shift) & 0x1ff) << 3);
    host = reachEntry(entryGpa, address, 8);
    if (host == 0) return 0;
    entry = load<u64>(host);
    if (!(entry & ENTRY_PRESENT)) return fail(address, access, user, 0);
    if (hasReserved(entry, level, noExecute)) return fail(address, access, user, ERROR_PRESENT | ERROR_RESERVED);
    permitted &= entry;
    if (entry >> 63) forbidExecute = true;
    if (level == 1 || (entry & ENTRY_LARGE && level < 4)) break;
    if (level == 4) {
      host4 = host;
      gpa4 = entryGpa;
    } else if (level == 3) {
      host3 = host;
      gpa3 = entryGpa;
    } else if (level == 2) {
      host2 = host;
      gpa2 = entryGpa;
    } else {
      host5 = host;
      gpa5 = entryGpa;
    }
    table = entry & ENTRY_ADDRESS;
    level--;
    shift -= 9;
  }
  if (isDenied(permitted, forbidExecute, access, user, smapOpen)) return fail(address, access, user, ERROR_PRESENT);
  const offsetMask: u64 = (u64(1) << shift) - 1;
  const gpa = (entry & ENTRY_ADDRESS & ~offsetMask) | (address & offsetMask);
  if (!reachPage(gpa, address, access, size, cause)) return 0;
  const leafBits = access & ACCESS_WRITE ? ENTRY_ACCESSED | ENTRY_DIRTY : ENTRY_ACCESSED;
  if (updatesExit) {
    if (host5 && !(load<u64>(host5) & ENTRY_ACCESSED) && !mayUpdate(host5, gpa5, address, 8)) return 0;
    if (host4 && !(load<u64>(host4) & ENTRY_ACCESSED) && !mayUpdate(host4, gpa4, address, 8)) return 0;
    if (host3 && !(load<u64>(host3) & ENTRY_ACCESSED) && !mayUpdate(host3, gpa3, address, 8)) return 0;
    if (host2 && !(load<u64>(host2) & ENTRY_ACCESSED) && !mayUpdate(host2, gpa2, address, 8)) return 0;
    if ((entry & leafBits) != leafBits && !mayUpdate(host, entryGpa, address, 8)) return 0;
  }
  if (host5) update(host5, ENTRY_ACCESSED);
  if (host4) update(host4, ENTRY_ACCESSED);
  if (host3) update(host3, ENTRY_ACCESSED);
  if (host2) update(host2, ENTRY_ACCESSED);
  update(host, leafBits);
  return hostOfPage(gpa);
}
