import fc from 'fast-check';
import { describe, expect, inject, test } from 'vitest';
import { U64_MASK } from './address.js';
import { ExitCause, ExitKind } from './exit.js';
import { fieldSize } from './record-layout.js';
import {
  createVcpuRecord,
  type Field32,
  type Field64,
  REPLY_DATA_SIZE,
  recordsSize,
  SEGMENT_NAMES,
  u32Index,
  VCPU_RECORD,
  VCPU_RECORD_VERSION,
  VcpuRecord,
} from './vcpu-record.js';

const scale = inject('scale');
const fields = Object.entries(VCPU_RECORD.fields);
const fields64 = fields.filter(([, type]) => type === 'u64').map(([name]) => name as Field64);
const fields32 = fields.filter(([, type]) => type === 'u32').map(([name]) => name as Field32);

describe('layout of the VCPU record', () => {
  test('every field is naturally aligned and none overlaps another', () => {
    const owner = new Map<number, string>();
    for (const [name, type] of fields) {
      const at = VCPU_RECORD.offset[name as keyof typeof VCPU_RECORD.offset];
      const size = fieldSize(type);
      expect(at % (type.startsWith('bytes:') ? 8 : size), name).toBe(0);
      for (let byte = at; byte < at + size; byte++) {
        expect(owner.get(byte), `${name} at byte ${byte}`).toBeUndefined();
        owner.set(byte, name);
      }
    }
    expect(VCPU_RECORD.size).toBeGreaterThanOrEqual(Math.max(...owner.keys()) + 1);
  });

  test('general registers lie in the order of their encoding', () => {
    // SDM vol. 2, table 2-2: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15.
    const order = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const;
    order.forEach((name, number) => {
      expect(VCPU_RECORD.offset[name]).toBe(VCPU_RECORD.offset.rax + 8 * number);
    });
    for (let number = 8; number < 16; number++) {
      expect(VCPU_RECORD.offset[`r${number}` as 'r8']).toBe(VCPU_RECORD.offset.rax + 8 * number);
    }
  });

  test('segment registers lie in the order of their encoding at equal distances', () => {
    const distance = VCPU_RECORD.offset.csBase - VCPU_RECORD.offset.esBase;
    SEGMENT_NAMES.forEach((name, number) => {
      for (const part of ['Base', 'Limit', 'Attributes', 'Selector'] as const) {
        expect(VCPU_RECORD.offset[`${name}${part}`]).toBe(VCPU_RECORD.offset[`es${part}`] + distance * number);
      }
    });
  });

  test('reply data is as long as it says', () => {
    expect(fieldSize(VCPU_RECORD.fields.replyData)).toBe(REPLY_DATA_SIZE);
    expect(createVcpuRecord(0).replyData).toHaveLength(REPLY_DATA_SIZE);
  });
});

describe('VcpuRecord', () => {
  test('a field that is set reads back, in both views, and changes no other', () => {
    fc.assert(
      fc.property(fc.constantFrom(...fields64), fc.bigInt({ min: 0n, max: U64_MASK }), (field, value) => {
        const record = createVcpuRecord(0);
        const before = record.u32.slice();
        record.set(field, value);
        expect(record.get(field)).toBe(value);
        const low = u32Index(field);
        expect(record.u32[low]).toBe(Number(value & 0xffff_ffffn));
        expect(record.u32[low + 1]).toBe(Number(value >> 32n));
        record.set(field, 0n);
        expect(record.u32).toEqual(before);
      }),
      { numRuns: 200 * scale },
    );
    fc.assert(
      fc.property(fc.constantFrom(...fields32), fc.nat(0xffff_ffff), (field, value) => {
        const record = createVcpuRecord(0);
        const before = record.u32.slice();
        record.set32(field, value);
        expect(record.get32(field)).toBe(value);
        expect(record.u32[u32Index(field)]).toBe(value);
        record.set32(field, before[u32Index(field)]!);
        expect(record.u32).toEqual(before);
      }),
      { numRuns: 200 * scale },
    );
  });

  test('exit properties read what a backend wrote as bytes', () => {
    const view = new DataView(new ArrayBuffer(recordsSize(2)));
    const base = recordsSize(1);
    view.setUint32(base + VCPU_RECORD.offset.exitKind, ExitKind.EPT_VIOLATION, true);
    view.setUint32(base + VCPU_RECORD.offset.exitCause, ExitCause.PAGE_WALK, true);
    view.setUint32(base + VCPU_RECORD.offset.exitAccess, 3, true);
    view.setBigUint64(base + VCPU_RECORD.offset.exitGpa, 0x000f_ffff_ffff_f123n, true);
    view.setBigUint64(base + VCPU_RECORD.offset.exitGla, 0xffff_f6fb_7dbe_d001n, true);
    view.setBigUint64(base + VCPU_RECORD.offset.exitTime, 0x1_0000_0002n, true);
    view.setBigUint64(base + VCPU_RECORD.offset.cr3, 0x8000_0000_001a_d002n, true);
    view.setBigUint64(base + VCPU_RECORD.offset.rip, 0xffff_f800_0000_1000n, true);
    const record = new VcpuRecord(view.buffer, base);
    expect(record.exitKind).toBe(ExitKind.EPT_VIOLATION);
    expect(record.exitCause).toBe(ExitCause.PAGE_WALK);
    expect(record.exitAccess).toBe(3);
    expect(record.exitGpa).toBe(0xf_ffff_ffff_f123);
    expect(record.exitGla).toBe(0xffff_f6fb_7dbe_d001n);
    expect(record.exitTime).toBe(0x1_0000_0002);
    expect(record.cr3).toBe(0x8000_0000_001a_d002n);
    expect(record.rip).toBe(0xffff_f800_0000_1000n);
  });

  test('records beside each other share no byte', () => {
    const buffer = new ArrayBuffer(recordsSize(3));
    const records = [0, 1, 2].map((index) => new VcpuRecord(buffer, recordsSize(index)));
    records[1]!.u32.fill(0xffff_ffff);
    expect(records[0]!.u32.every((word) => word === 0)).toBe(true);
    expect(records[2]!.u32.every((word) => word === 0)).toBe(true);
  });

  test('privilege level is the DPL of SS', () => {
    const record = createVcpuRecord(0);
    for (const dpl of [0, 1, 2, 3]) {
      // Present, S, data read/write, accessed: 0x93 with the DPL in bits 5..6; bit 14 (D/B) set beside it.
      record.set32('ssAttributes', 0x4093 | (dpl << 5));
      expect(record.cpl).toBe(dpl);
    }
  });

  test('a new record carries version and index', () => {
    const record = createVcpuRecord(5);
    expect(record.get32('version')).toBe(VCPU_RECORD_VERSION);
    expect(record.get32('index')).toBe(5);
    expect(record.exitKind).toBe(ExitKind.NONE);
  });
});
