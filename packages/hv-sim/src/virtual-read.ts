import { PAGE_SIZE, type VcpuRecord } from '@introd/abi';
import type { MachineCore } from './machine-core.js';

/** Bits 12..51 of a page-table entry. */
const FRAME = 0x000f_ffff_ffff_f000n;
const PRESENT = 1n;
const LARGE = 0x80n;

function entryAt(core: MachineCore, address: bigint, size: 4 | 8): bigint | undefined {
  const bytes = new Uint8Array(8);
  if (!core.read(Number(address), bytes.subarray(0, size))) return undefined;
  const entry = new DataView(bytes.buffer).getBigUint64(0, true);
  return (entry & PRESENT) === 0n ? undefined : entry;
}

/** 32-bit paging with pages of 4 MiB (SDM vol. 3A, 4.3). */
function translate32(core: MachineCore, cr3: bigint, address: bigint): number | undefined {
  const upper = entryAt(core, (cr3 & 0xffff_f000n) + ((address >> 22n) << 2n), 4);
  if (upper === undefined) return undefined;
  if ((upper & LARGE) !== 0n) {
    return Number((((upper >> 13n) & 0xffn) << 32n) | (upper & 0xffc0_0000n) | (address & 0x3f_ffffn));
  }
  const lower = entryAt(core, (upper & 0xffff_f000n) + (((address >> 12n) & 0x3ffn) << 2n), 4);
  return lower === undefined ? undefined : Number((lower & 0xffff_f000n) | (address & 0xfffn));
}

/** Guest-physical address of a virtual one by the VCPU's tables, without looking at rights; undefined when unmapped. */
function translate(core: MachineCore, record: VcpuRecord, address: bigint): number | undefined {
  const cr3 = record.get('cr3');
  const cr4 = record.get('cr4');
  const long = (record.get('efer') & 0x400n) !== 0n;
  if ((record.get('cr0') & 0x8000_0000n) === 0n) return Number(address);
  if ((cr4 & 0x20n) === 0n) return translate32(core, cr3, address);
  let table = cr3 & FRAME;
  let shift = (cr4 & 0x1000n) !== 0n ? 48n : 39n;
  if (!long) {
    const root = entryAt(core, (cr3 & 0xffff_ffe0n) + ((address >> 30n) << 3n), 8);
    if (root === undefined) return undefined;
    table = root & FRAME;
    shift = 21n;
  }
  for (; ; shift -= 9n) {
    const entry = entryAt(core, table + (((address >> shift) & 0x1ffn) << 3n), 8);
    if (entry === undefined) return undefined;
    const offset = (1n << shift) - 1n;
    if (shift === 12n || (shift < 39n && (entry & LARGE) !== 0n)) {
      return Number((entry & FRAME & ~offset) | (address & offset));
    }
    table = entry & FRAME;
  }
}

/** Up to `length` bytes at a virtual address, as many as are mapped; undefined when the first is not. */
export function readVirtual(
  core: MachineCore,
  record: VcpuRecord,
  address: bigint,
  length: number,
): Uint8Array | undefined {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const at = address + BigInt(done);
    const physical = translate(core, record, at);
    const part = Math.min(length - done, PAGE_SIZE - Number(at & 0xfffn));
    if (physical === undefined || !core.read(physical, bytes.subarray(done, done + part))) break;
    done += part;
  }
  return done === 0 ? undefined : bytes.subarray(0, done);
}
