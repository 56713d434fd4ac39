import type { Cr3, Gva } from '@introd/abi';
import type { GuestMemory } from '@introd/core-hooks';

/** Reading one address space of the guest. Whatever is read is hostile. */
export interface VirtualMemory {
  /** Fills `target` with the bytes at `address`; false, and `target` is unspecified, when some byte is not there. */
  read(address: Gva, target: Uint8Array): boolean;
}

/** The address space that a CR3 names, read from the guest as it is now. */
export function addressSpace(memory: GuestMemory, cr3: Cr3): VirtualMemory {
  return { read: (address, target) => memory.readVirtual(cr3, address, target).status === 'ok' };
}

const scratch = new Uint8Array(8);
const scratchView = new DataView(scratch.buffer);

/** The 64-bit value at an address; `undefined` when it is not there. */
export function readU64(memory: VirtualMemory, address: Gva): bigint | undefined {
  return memory.read(address, scratch) ? scratchView.getBigUint64(0, true) : undefined;
}

const word = scratch.subarray(0, 4);

/** The 32-bit value at an address; `undefined` when it is not there. */
export function readU32(memory: VirtualMemory, address: Gva): number | undefined {
  return memory.read(address, word) ? scratchView.getUint32(0, true) : undefined;
}

/**
 * Whether an address can be one of the kernel: bits 47..63 all set, as every canonical address of the upper half has them
 * (windows.md, "kernel pointer").
 */
export function isKernelPointer(address: bigint): boolean {
  return BigInt.asUintN(64, address) >> 47n === 0x1ffffn;
}
