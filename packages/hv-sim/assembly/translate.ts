// The page walker: 4-level paging with 4 KiB, 2 MiB and 1 GiB pages (SDM vol. 3A, 4.5 and 4.6).
import { invalidateFrame } from './code-cache';
import { fault, raisePageFault } from './fault';
import { EXIT_CAUSE_PAGE_WALK, VCPU_CR0, VCPU_CR3, VCPU_CR4, VCPU_EFER, VCPU_RFLAGS } from './generated/layout';
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

/** Bits 47..63 of an address are equal. */
// @ts-ignore: decorator
@inline
export function isCanonical(address: u64): bool {
  return u64((i64(address) << 16) >> 16) == address;
}

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
  if (access & ACCESS_EXECUTE && (load<u64>(cpu + VCPU_EFER) & EFER_NXE || load<u64>(cpu + VCPU_CR4) & CR4_SMEP)) {
    error |= ERROR_FETCH;
  }
  raisePageFault(address, error);
  return 0;
}

/** Reserved bits of an entry at a level (4..1); with 52 physical address bits none are left in the address. */
// @ts-ignore: decorator
@inline
function hasReserved(entry: u64, level: u32, noExecute: bool): bool {
  if (!noExecute && entry >> 63) return true;
  if (!(entry & ENTRY_LARGE)) return false;
  if (level == 4) return true;
  if (level == 3) return (entry & 0x3fff_e000) != 0;
  if (level == 2) return (entry & 0x1f_e000) != 0;
  return false;
}

/** Whether the walker may set bits in the entry at `host`; refuses it when such updates exit. */
function mayUpdate(host: usize, gpa: u64, address: u64): bool {
  if (!updatesExit || host < ram) return true;
  return isGranted(i32((host - ram) >> 12), gpa, address, ACCESS_WRITE, 8, EXIT_CAUSE_PAGE_WALK);
}

function update(host: usize, bits: u64): void {
  const entry = load<u64>(host);
  if ((entry & bits) == bits || host < ram) return;
  const frame = i32((host - ram) >> 12);
  if (load<u8>(frameFlags + frame) & FRAME_CODE) invalidateFrame(frame);
  store<u64>(host, entry | bits);
}

/**
 * Address in linear memory of a guest-linear byte, 0 with `fault` set. Accessed and dirty bits are set only when the
 * guest's tables and the second-level rights permit the access.
 */
function walk(address: u64, access: u32, size: u32, cause: u32, user: bool, smapOpen: bool): usize {
  clearBypassed();
  const cr4 = load<u64>(cpu + VCPU_CR4);
  const noExecute = (load<u64>(cpu + VCPU_EFER) & EFER_NXE) != 0;
  let table = load<u64>(cpu + VCPU_CR3) & ENTRY_ADDRESS;
  let permitted: u64 = ENTRY_WRITABLE | ENTRY_USER;
  let forbidExecute = false;
  let shift: u64 = 39;
  let host4: usize = 0;
  let host3: usize = 0;
  let host2: usize = 0;
  let host: usize = 0;
  let gpa4: u64 = 0;
  let gpa3: u64 = 0;
  let gpa2: u64 = 0;
  let entryGpa: u64 = 0;
  let entry: u64 = 0;
  let level: u32 = 4;
  while (true) {
    entryGpa = table + (((address >> shift) & 0x1ff) << 3);
    const entryFrame = frameOf(entryGpa);
    if (entryFrame < 0) {
      host = voidPage(entryGpa);
    } else {
      if (load<u8>(frameRights + entryFrame) != 7) {
        if (!isGranted(entryFrame, entryGpa, address, ACCESS_READ, 8, EXIT_CAUSE_PAGE_WALK)) return 0;
      }
      host = hostOf(entryFrame, entryGpa);
    }
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
    } else {
      host2 = host;
      gpa2 = entryGpa;
    }
    table = entry & ENTRY_ADDRESS;
    level--;
    shift -= 9;
  }
  const userPage = (permitted & ENTRY_USER) != 0;
  let denied = false;
  if (user) {
    denied = !userPage || (access & ACCESS_WRITE && !(permitted & ENTRY_WRITABLE));
  } else {
    if (access & ACCESS_WRITE && !(permitted & ENTRY_WRITABLE) && load<u64>(cpu + VCPU_CR0) & CR0_WP) denied = true;
    if (userPage) {
      if (access & ACCESS_EXECUTE) {
        if (cr4 & CR4_SMEP) denied = true;
      } else if (cr4 & CR4_SMAP && !smapOpen) {
        denied = true;
      }
    }
  }
  if (access & ACCESS_EXECUTE && forbidExecute) denied = true;
  if (denied) return fail(address, access, user, ERROR_PRESENT);

  const offsetMask: u64 = (u64(1) << shift) - 1;
  const gpa = (entry & ENTRY_ADDRESS & ~offsetMask) | (address & offsetMask);
  const frame = frameOf(gpa);
  translatedFrame = frame;
  if (frame >= 0 && load<u8>(frameRights + frame) != 7) {
    if (!isGranted(frame, gpa, address, access, size, cause)) return 0;
  }
  const leafBits = access & ACCESS_WRITE ? ENTRY_ACCESSED | ENTRY_DIRTY : ENTRY_ACCESSED;
  if (updatesExit) {
    if (host4 && !(load<u64>(host4) & ENTRY_ACCESSED) && !mayUpdate(host4, gpa4, address)) return 0;
    if (host3 && !(load<u64>(host3) & ENTRY_ACCESSED) && !mayUpdate(host3, gpa3, address)) return 0;
    if (host2 && !(load<u64>(host2) & ENTRY_ACCESSED) && !mayUpdate(host2, gpa2, address)) return 0;
    if ((entry & leafBits) != leafBits && !mayUpdate(host, entryGpa, address)) return 0;
  }
  if (host4) update(host4, ENTRY_ACCESSED);
  if (host3) update(host3, ENTRY_ACCESSED);
  if (host2) update(host2, ENTRY_ACCESSED);
  update(host, leafBits);
  return frame < 0 ? voidPage(gpa) : hostOf(frame, gpa);
}
