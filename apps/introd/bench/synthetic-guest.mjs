import { createSyntheticPort } from '@introd/glue/testing';

/** First address of the kernel mapping; physical address `n` below {@link MAPPED} is mapped at `KERNEL + n`. */
export const KERNEL = 0xffff_8000_0000_0000n;
/** Physical addresses. */
export const PML4 = 0x1000;
const PDPT = 0x2000;
const PD = 0x3000;
const PT = 0x4000;
export const CODE = 0x1_0000;
export const DATA = 0x2_0000;
/** What the 4 KiB pages map: the first 2 MiB. The next 2 MiB are one large page. */
export const MAPPED = 0x20_0000;
/** Physical address of 2 MiB of RAM that lie above 4 GiB, as most of a guest's do. */
export const ABOVE_4_GIB = 0x2_0000_0000;
/** Virtual address where they are mapped. */
export const ABOVE_4_GIB_MAPPED = KERNEL + 0x40_0000n;

const PRESENT_WRITABLE = 3n;
const LARGE = 0x80n;
/** EFER with LME, LMA, NXE and SCE; attributes of a flat 64-bit ring-0 code segment. */
const EFER = 0xd01n;
const CODE_64 = 0xa09b;

/** Virtual address of a physical one. */
export function kernel(physical) {
  return KERNEL + BigInt(physical);
}

export function put64(port, gpa, value) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  port.writePhysical(gpa, bytes);
}

/** A synthetic port whose RAM holds kernel page tables, and whose VCPU 0 runs 64-bit kernel code at {@link CODE}. */
export function syntheticGuest(memoryMiB = 16) {
  const port = createSyntheticPort({
    memory: [
      { start: 0, size: memoryMiB * 1024 * 1024 },
      { start: ABOVE_4_GIB, size: MAPPED },
    ],
  });
  put64(port, PML4 + 256 * 8, BigInt(PDPT) | PRESENT_WRITABLE);
  put64(port, PDPT, BigInt(PD) | PRESENT_WRITABLE);
  put64(port, PD, BigInt(PT) | PRESENT_WRITABLE);
  put64(port, PD + 8, BigInt(MAPPED) | PRESENT_WRITABLE | LARGE);
  put64(port, PD + 16, BigInt(ABOVE_4_GIB) | PRESENT_WRITABLE | LARGE);
  for (let page = 0; page < 512; page++) put64(port, PT + page * 8, BigInt(page * 4096) | PRESENT_WRITABLE);
  const vcpu = port.vcpu(0);
  vcpu.set('cr3', BigInt(PML4));
  vcpu.set('efer', EFER);
  vcpu.set32('csAttributes', CODE_64);
  vcpu.set('rip', kernel(CODE));
  vcpu.set('rflags', 2n);
  return { port, vcpu };
}

/** Writes machine code, given in hex, at {@link CODE}. */
export function putCode(port, hex) {
  port.writePhysical(CODE, Uint8Array.from(hex.split(' ').map((byte) => Number.parseInt(byte, 16))));
}
