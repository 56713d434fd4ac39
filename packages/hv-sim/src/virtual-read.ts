import { PAGE_SIZE } from '@introd/abi';
import type { MachineCore } from './machine-core.js';

/** Bits 12..51 of a page-table entry. */
const FRAME = 0x000f_ffff_ffff_f000n;

/** Guest-physical address of a virtual one by the guest's tables, without looking at rights; undefined when unmapped. */
function translate(core: MachineCore, cr3: bigint, address: bigint): number | undefined {
  const entryBytes = new Uint8Array(8);
  let table = cr3 & FRAME;
  for (let shift = 39n; ; shift -= 9n) {
    if (!core.read(Number(table + (((address >> shift) & 0x1ffn) << 3n)), entryBytes)) return undefined;
    const entry = new DataView(entryBytes.buffer).getBigUint64(0, true);
    if ((entry & 1n) === 0n) return undefined;
    const offset = (1n << shift) - 1n;
    if (shift === 12n || (shift < 39n && (entry & 0x80n) !== 0n)) {
      return Number((entry & FRAME & ~offset) | (address & offset));
    }
    table = entry & FRAME;
  }
}

/** Up to `length` bytes at a virtual address, as many as are mapped; undefined when the first is not. */
export function readVirtual(core: MachineCore, cr3: bigint, address: bigint, length: number): Uint8Array | undefined {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const at = address + BigInt(done);
    const physical = translate(core, cr3, at);
    const part = Math.min(length - done, PAGE_SIZE - Number(at & 0xfffn));
    if (physical === undefined || !core.read(physical, bytes.subarray(done, done + part))) break;
    done += part;
  }
  return done === 0 ? undefined : bytes.subarray(0, done);
}
