import { Access, createVcpuRecord, type VcpuRecord } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import {
  AccessList,
  accessedAddresses,
  DecodedInstruction,
  decodeInstruction,
  MAX_ACCESSES,
  OperandKind,
} from './index.js';

const scale = inject('scale');
const IP = 0xffff_8000_0001_0000n;
const R = Access.READ;
const W = Access.WRITE;
const RW = R | W;

function vcpu(): VcpuRecord {
  const record = createVcpuRecord(0);
  const values = {
    rax: 0x1000n,
    rcx: 3n,
    rdx: 0x8888_8888_8888_8888n,
    rbx: 0xffff_ffff_ffff_fff0n,
    rsp: 0xffff_8000_0003_0000n,
    rbp: 0xffff_8000_0003_1000n,
    rsi: 0x2000n,
    rdi: 0x3000n,
    r8: 0xffff_ffff_0000_0010n,
    r15: 0x7_0000_0000n,
    fsBase: 0x1_0000_0000n,
    gsBase: 0xffff_ffff_ffff_0000n,
    rflags: 2n,
  } as const;
  for (const [name, value] of Object.entries(values)) {
    record.set(name as keyof typeof values, value);
  }
  return record;
}

function decode(hex: string): DecodedInstruction {
  const instruction = decodeInstruction(Buffer.from(hex.replaceAll(' ', ''), 'hex'), IP);
  if (!(instruction instanceof DecodedInstruction)) {
    throw new Error(`${hex} is ${instruction}`);
  }
  return instruction;
}

type Item = readonly [address: bigint, size: number, access: Access];

function accesses(hex: string, record = vcpu()): Item[] {
  const list = new AccessList();
  accessedAddresses(decode(hex), record, list);
  return Array.from({ length: list.count }, (_, index) => [
    list.address(index),
    list.size[index]!,
    list.accessOf(index),
  ]);
}

const STACK_TOP = 0xffff_8000_0003_0000n;

// Checked by hand against the operand descriptions of SDM volume 2.
const CASES: readonly (readonly [text: string, hex: string, ...items: Item[]])[] = [
  ['mov [rax], ecx', '89 08', [0x1000n, 4, W]],
  ['mov rax, [rax+rcx*8+10h]', '48 8b 44 c8 10', [0x1028n, 8, R]],
  ['mov [r15+rbx*2-1], al: carry between the halves', '41 88 44 5f ff', [0x6_ffff_ffdfn, 1, W]],
  ['or [rbx+20h], eax: wraps at 64 bits', '09 43 20', [0x10n, 4, RW]],
  ['mov eax, [r8d+ecx]: 67h cuts to 32 bits', '67 41 8b 04 08', [0x13n, 4, R]],
  ['mov rax, [rip+10h]', '48 8b 05 10 00 00 00', [IP + 0x17n, 8, R]],
  ['mov rax, gs:[188h]', '65 48 8b 04 25 88 01 00 00', [0xffff_ffff_ffff_0188n, 8, R]],
  ['mov fs:[rcx], eax', '64 89 01', [0x1_0000_0003n, 4, W]],
  ['mov gs:[ecx*2-8], eax: cut before the base is added', '67 65 89 04 4d f8 ff ff ff', [0xfffe_fffen, 4, W]],
  ['cmpxchg [rax], rcx', '48 0f b1 08', [0x1000n, 8, RW]],
  ['cmpxchg8b [rax]', '0f c7 08', [0x1000n, 8, RW]],
  ['cmpxchg16b [rax]', '48 0f c7 08', [0x1000n, 16, RW]],
  ['xchg [rax], rcx', '48 87 08', [0x1000n, 8, RW]],
  ['cmp [rax], rcx', '48 39 08', [0x1000n, 8, R]],
  ['movups [rax], xmm0', '0f 11 00', [0x1000n, 16, W]],
  ['vmovdqu [rax], ymm1', 'c5 fe 7f 08', [0x1000n, 32, W]],
  ['push rax', '50', [STACK_TOP - 8n, 8, W]],
  ['push ax', '66 50', [STACK_TOP - 2n, 2, W]],
  ['push [rax]', 'ff 30', [0x1000n, 8, R], [STACK_TOP - 8n, 8, W]],
  ['pop [rsp+8]: the address uses RSP after the pop', '8f 44 24 08', [STACK_TOP + 16n, 8, W], [STACK_TOP, 8, R]],
  ['pop rax', '58', [STACK_TOP, 8, R]],
  ['pushfq', '9c', [STACK_TOP - 8n, 8, W]],
  ['call near', 'e8 00 00 00 00', [STACK_TOP - 8n, 8, W]],
  ['call [rax]', 'ff 10', [0x1000n, 8, R], [STACK_TOP - 8n, 8, W]],
  ['ret', 'c3', [STACK_TOP, 8, R]],
  ['leave', 'c9', [0xffff_8000_0003_1000n, 8, R]],
  ['enter 10h, 0', 'c8 10 00 00', [STACK_TOP - 8n, 8, W]],
  [
    'enter 10h, 2',
    'c8 10 00 02',
    [STACK_TOP - 8n, 8, W],
    [0xffff_8000_0003_1000n - 8n, 8, R],
    [STACK_TOP - 16n, 8, W],
    [STACK_TOP - 24n, 8, W],
  ],
  ['stosq', '48 ab', [0x3000n, 8, W]],
  ['rep stosd: one element', 'f3 ab', [0x3000n, 4, W]],
  ['rep movsb: one element', 'f3 a4', [0x3000n, 1, W], [0x2000n, 1, R]],
  ['cmpsw', '66 a7', [0x2000n, 2, R], [0x3000n, 2, R]],
  ['lodsb fs:', '64 ac', [0x1_0000_2000n, 1, R]],
  ['xlat: only AL is added', 'd7', [0xffff_ffff_ffff_fff0n, 1, R]],
  ['bts [rax], rcx', '48 0f ab 08', [0x1000n, 8, RW]],
  [
    'bts [rax], rdx: large negative offset',
    '48 0f ab 10',
    [BigInt.asUintN(64, 0x1000n + (BigInt.asIntN(64, 0x8888_8888_8888_8888n) >> 6n) * 8n), 8, RW],
  ],
  [
    'btr [rax], edx: 32-bit negative offset',
    '0f b3 10',
    [BigInt.asUintN(64, 0x1000n + (BigInt.asIntN(32, 0x8888_8888n) >> 5n) * 4n), 4, RW],
  ],
  [
    'btc [rax], dx: 16-bit negative offset',
    '66 0f bb 10',
    [BigInt.asUintN(64, 0x1000n + (BigInt.asIntN(16, 0x8888n) >> 4n) * 2n), 2, RW],
  ],
  ['bt [rax], 77: an immediate does not move the address', '48 0f ba 20 4d', [0x1000n, 8, R]],
  ['lgdt [rax]', '0f 01 10', [0x1000n, 10, R]],
  ['sgdt [rax]', '0f 01 00', [0x1000n, 10, W]],
  ['fxsave [rax]', '0f ae 00', [0x1000n, 512, W]],
  ['movnti [rax], rcx', '48 0f c3 08', [0x1000n, 8, W]],
  ['lea touches nothing', '48 8d 00'],
  ['invlpg touches nothing', '0f 01 38'],
  ['nop [rax] touches nothing', '0f 1f 00'],
  ['mov rax, rcx', '48 89 c8'],
];

describe('accessedAddresses', () => {
  it.each(CASES.map(([text, hex, ...items]) => ({ text, hex, items })))('$text', ({ hex, items }) => {
    expect(accesses(hex)).toEqual(items);
  });

  it('of a repeated instruction whose counter is zero is empty', () => {
    const record = vcpu();
    record.set('rcx', 0n);
    expect(accesses('f3 a4', record)).toEqual([]);
    expect(accesses('f3 48 ab', record)).toEqual([]);
    record.set('rcx', 1n << 32n);
    expect(accesses('f3 a4', record)).toHaveLength(2);
    // With a 67h prefix ECX counts.
    expect(accesses('67 f3 a4', record)).toEqual([]);
    expect(accesses('a4', record)).toHaveLength(2);
  });

  it('names the kind of each operand', () => {
    const kinds = (hex: string): OperandKind[] => decode(hex).memory.map((operand) => operand.kind);
    expect(kinds('ff 30')).toEqual([OperandKind.EXPLICIT, OperandKind.STACK_PUSH]);
    expect(kinds('8f 00')).toEqual([OperandKind.EXPLICIT, OperandKind.STACK_POP]);
    expect(kinds('a5')).toEqual([OperandKind.STRING_DESTINATION, OperandKind.STRING_SOURCE]);
    expect(kinds('48 0f ab 08')).toEqual([OperandKind.BIT_STRING]);
    expect(kinds('89 04 24')).toEqual([OperandKind.EXPLICIT]);
  });

  it('lists the 62 addresses of the instruction that touches most [P12.17]', () => {
    const record = vcpu();
    const list = new AccessList();
    accessedAddresses(decode('c8 10 00 1f'), record, list);
    expect([list.count, list.incomplete]).toEqual([62, false]);
    const at = (access: Access): bigint[] =>
      Array.from({ length: list.count }, (_, index) => index)
        .filter((index) => list.accessOf(index) === access)
        .map((index) => list.address(index));
    const down = (from: bigint, count: number): bigint[] =>
      Array.from({ length: count }, (_, step) => from - BigInt(step * 8));
    // RBP and 30 levels are pushed, with the new frame pointer behind them.
    expect(at(Access.WRITE)).toEqual(down(STACK_TOP - 8n, 32));
    expect(at(Access.READ)).toEqual(down(record.get('rbp') - 8n, 30));
  });

  it('aligns RSP before it goes down to the frame of an interrupt, across the halves of the register too', () => {
    const record = vcpu();
    for (let low = 0n; low <= 0x30n; low++) {
      const rsp = 0xffff_8000_0000_0000n + low;
      record.set('rsp', rsp);
      // int 80h
      expect(accesses('cd 80', record)).toEqual([[(rsp & ~15n) - 40n, 40, W]]);
    }
  });

  it('says when addresses depend on registers that are not in the record [P12.17]', () => {
    // vpgatherdd xmm1, [rax+xmm2], xmm3
    expect(decode('c4 e2 61 90 0c 10').incompleteOperands).toBe(true);
    expect(decode('48 8b 00').incompleteOperands).toBe(false);
  });
});

describe('decodeInstruction', () => {
  it('tells what is missing from what is wrong', () => {
    expect(decodeInstruction(new Uint8Array(0), IP)).toBe('incomplete');
    expect(decodeInstruction(Uint8Array.of(0x48, 0x8b), IP)).toBe('incomplete');
    expect(decodeInstruction(Uint8Array.of(0x06, 0), IP)).toBe('invalid');
    expect(decodeInstruction(new Uint8Array(20).fill(0x66), IP)).toBe('invalid');
  });

  it('gives the text, lazily and in Intel syntax', () => {
    expect(decode('48 83 0b 04').text).toBe('or qword ptr [rbx], 4');
    expect(decode('e8 00 00 00 00').text).toBe('call 0xffff800000010005');
  });

  it('makes of any bytes an instruction with a bounded list, or a reason', () => {
    const list = new AccessList();
    const record = vcpu();
    let decoded = 0;
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0, maxLength: 18 }), fc.constantFrom(16, 32, 64), (bytes, bitness) => {
        const result = decodeInstruction(bytes, IP, bitness as 16 | 32 | 64);
        if (!(result instanceof DecodedInstruction)) {
          expect(['invalid', 'incomplete']).toContain(result);
          return;
        }
        decoded++;
        expect(result.length).toBeGreaterThan(0);
        expect(result.length).toBeLessThanOrEqual(Math.min(bytes.length, 15));
        accessedAddresses(result, record, list);
        expect(list.count).toBeLessThanOrEqual(MAX_ACCESSES);
        expect(result.text).not.toBe('');
        // Every truncation of an instruction is incomplete: nothing of the next one was looked at.
        expect(decodeInstruction(bytes.subarray(0, result.length - 1), IP, bitness as 16 | 32 | 64)).not.toBeInstanceOf(
          DecodedInstruction,
        );
      }),
      { numRuns: 2000 * scale, seed: 7 },
    );
    expect(decoded).toBeGreaterThan(100);
  });
});
