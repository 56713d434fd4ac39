import { createVcpuRecord, type Field64, u32Index, type VcpuRecord } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { type Bitness, DecodedInstruction, decodeInstruction, writtenValue } from './index.js';

const scale = inject('scale');
const IP = 0xffff_8000_1234_5678n;
const NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'] as const;
type Registers = Readonly<Record<(typeof NAMES)[number] | 'rflags', bigint>>;

const bits64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const registers: fc.Arbitrary<Registers> = fc.record({
  rax: bits64,
  rcx: bits64,
  rdx: bits64,
  rbx: bits64,
  rsp: bits64,
  rbp: bits64,
  rsi: bits64,
  rdi: bits64,
  rflags: bits64.map((value) => (value & 0x3f_7fd5n) | 2n),
});
const bytes64 = fc.uint8Array({ minLength: 64, maxLength: 64 });

function decode(hex: string, bitness: Bitness = 64): DecodedInstruction {
  const bytes = Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
  const instruction = decodeInstruction(bytes, IP, bitness);
  if (!(instruction instanceof DecodedInstruction)) {
    throw new Error(`${hex} is ${instruction}`);
  }
  return instruction;
}

function vcpuOf(values: Registers): VcpuRecord {
  const vcpu = createVcpuRecord(0);
  for (const [name, value] of Object.entries(values)) {
    vcpu.set(name as Field64, value);
  }
  vcpu.set('rip', IP);
  vcpu.set('cr0', 0x8005_0033n);
  vcpu.set('gdtBase', 0xffff_8000_0000_1000n);
  vcpu.set('idtBase', 0xffff_8000_0000_2000n);
  vcpu.set32('gdtLimit', 0x57);
  vcpu.set32('idtLimit', 0xfff);
  vcpu.u32[u32Index('csSelector')] = 0x10;
  vcpu.u32[u32Index('dsSelector')] = 0x2b;
  vcpu.u32[u32Index('fsSelector')] = 0x53;
  vcpu.u32[u32Index('ldtrSelector')] = 0x68;
  vcpu.u32[u32Index('trSelector')] = 0x40;
  return vcpu;
}

function toNumber(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}

/** What the package says is stored, as a number; undefined when it does not know. */
function stored(
  instruction: DecodedInstruction,
  values: Registers,
  old: Uint8Array = new Uint8Array(64),
  source?: Uint8Array,
  vector?: (register: number) => Uint8Array,
): bigint | undefined {
  const target = new Uint8Array(instruction.operandSize);
  const known = writtenValue(
    instruction,
    vcpuOf(values),
    old.subarray(0, instruction.operandSize),
    target,
    source,
    vector && {
      readVector(register, into) {
        into.set(vector(register).subarray(0, into.length));
        return true;
      },
    },
  );
  return known ? toNumber(target) : undefined;
}

/** The value by the SDM's words, on numbers without a size. */
type Oracle = (r: Registers, old: bigint) => bigint;

const low = (value: bigint, bits: number): bigint => BigInt.asUintN(bits, value);
const flag = (r: Registers, bit: number): boolean => ((r.rflags >> BigInt(bit)) & 1n) === 1n;

/** SHLD bit by bit, as SDM vol. 2B, SHLD does it. */
function shld(old: bigint, source: bigint, count: number, size: number): bigint {
  let value = old;
  for (let step = 0; step < count; step++) {
    const next = (source >> BigInt(size - 1 - step)) & 1n;
    value = low((value << 1n) | next, size);
  }
  return value;
}

function shrd(old: bigint, source: bigint, count: number, size: number): bigint {
  let value = old;
  for (let step = 0; step < count; step++) {
    const next = (source >> BigInt(step)) & 1n;
    value = (value >> 1n) | (next << BigInt(size - 1));
  }
  return value;
}

const CONDITIONS: readonly ((r: Registers) => boolean)[] = [
  (r) => flag(r, 11),
  (r) => !flag(r, 11),
  (r) => flag(r, 0),
  (r) => !flag(r, 0),
  (r) => flag(r, 6),
  (r) => !flag(r, 6),
  (r) => flag(r, 0) || flag(r, 6),
  (r) => !flag(r, 0) && !flag(r, 6),
  (r) => flag(r, 7),
  (r) => !flag(r, 7),
  (r) => flag(r, 2),
  (r) => !flag(r, 2),
  (r) => flag(r, 7) !== flag(r, 11),
  (r) => flag(r, 7) === flag(r, 11),
  (r) => flag(r, 6) || flag(r, 7) !== flag(r, 11),
  (r) => !flag(r, 6) && flag(r, 7) === flag(r, 11),
];

const FORMS: readonly (readonly [name: string, hex: string, size: number, bitness: Bitness, oracle: Oracle])[] = [
  ['shld [rbx], rdx, 37', '48 0f a4 13 25', 8, 64, (r, old) => shld(old, r.rdx, 37, 64)],
  ['shrd [rbx], rdx, cl', '48 0f ad 13', 8, 64, (r, old) => shrd(old, r.rdx, Number(r.rcx & 63n), 64)],
  ['shld [rbx], edx, cl', '0f a5 13', 4, 64, (r, old) => shld(old, low(r.rdx, 32), Number(r.rcx & 31n), 32)],
  ['shrd [rbx], dx, 11', '66 0f ac 13 0b', 2, 64, (r, old) => shrd(old, low(r.rdx, 16), 11, 16)],
  ['shrd [ebx], edx, 3', '0f ac 13 03', 4, 32, (r, old) => shrd(old, low(r.rdx, 32), 3, 32)],
  ...CONDITIONS.map(
    (condition, at) =>
      [
        `setcc ${at} [rbx]`,
        `0f ${(0x90 + at).toString(16)} 03`,
        1,
        64,
        (r: Registers) => (condition(r) ? 1n : 0n),
      ] as const,
  ),
  ['pushfq', '9c', 8, 64, (r) => r.rflags & ~0x3_0000n],
  ['pushfd', '9c', 4, 32, (r) => r.rflags & ~0x3_0000n],
  ['pushfw', '66 9c', 2, 32, (r) => low(r.rflags, 16)],
  ['push eax', '50', 4, 32, (r) => low(r.rax, 32)],
  ['push -2', '6a fe', 4, 32, () => 0xffff_fffen],
  ['push -2', '6a fe', 8, 64, () => 0xffff_ffff_ffff_fffen],
  ['push fs', '0f a0', 8, 64, () => 0x53n],
  ['mov [rbx], ds', '8c 1b', 2, 64, () => 0x2bn],
  ['sldt [rbx]', '0f 00 03', 2, 64, () => 0x68n],
  ['str [rbx]', '0f 00 0b', 2, 64, () => 0x40n],
  ['smsw [rbx]', '0f 01 23', 2, 64, () => 0x33n],
  ['sgdt [rbx]', '0f 01 03', 10, 64, () => (0xffff_8000_0000_1000n << 16n) | 0x57n],
  ['sidt [rbx]', '0f 01 0b', 10, 64, () => (0xffff_8000_0000_2000n << 16n) | 0xfffn],
  ['sidt [ebx]', '0f 01 0b', 6, 32, () => (0x2000n << 16n) | 0xfffn],
  ['call near', 'e8 00 00 00 00', 8, 64, () => IP + 5n],
  ['call near', 'e8 00 00 00 00', 4, 32, () => low(IP + 5n, 32)],
  ['call far [rbx]', '48 ff 1b', 16, 64, () => (0x10n << 64n) | (IP + 3n)],
  ['call far 8:0', '9a 00 00 00 00 08 00', 8, 32, () => (0x10n << 32n) | low(IP + 7n, 32)],
  ['enter 16, 0', 'c8 10 00 00', 8, 64, (r) => r.rbp],
  [
    'pushad',
    '60',
    32,
    32,
    (r) => NAMES.reduce((sum, name, at) => sum | (low(r[name], 32) << BigInt((7 - at) * 32)), 0n),
  ],
  [
    'pushaw',
    '66 60',
    16,
    32,
    (r) => NAMES.reduce((sum, name, at) => sum | (low(r[name], 16) << BigInt((7 - at) * 16)), 0n),
  ],
  // Bytes of registers with and without REX (SDM vol. 2A, table 3-1).
  ['mov [rbx], ah', '88 23', 1, 64, (r) => (r.rax >> 8n) & 0xffn],
  ['mov [rbx], bh', '88 3b', 1, 64, (r) => (r.rbx >> 8n) & 0xffn],
  ['mov [rbx], spl', '40 88 23', 1, 64, (r) => r.rsp & 0xffn],
  ['mov [rbx], dil', '40 88 3b', 1, 64, (r) => r.rdi & 0xffn],
  ['mov [ebx], ch', '88 2b', 1, 32, (r) => (r.rcx >> 8n) & 0xffn],
  ['add [rbx], dh', '00 33', 1, 64, (r, old) => low(old + (r.rdx >> 8n), 8)],
  ['add [rbx], sil', '40 00 33', 1, 64, (r, old) => low(old + r.rsi, 8)],
  [
    'movbe [ebx], edx',
    '0f 38 f1 13',
    4,
    32,
    (r) => [0n, 8n, 16n, 24n].reduce((sum, at) => (sum << 8n) | ((r.rdx >> at) & 0xffn), 0n),
  ],
  ...([16, 32] as const).map(
    (bitness) =>
      [
        `arpl [${bitness === 16 ? 'bx' : 'ebx'}], dx`,
        bitness === 16 ? '63 17' : '63 13',
        2,
        bitness,
        (r: Registers, old: bigint) => ((old & 3n) < (r.rdx & 3n) ? (old & ~3n) | (r.rdx & 3n) : old),
      ] as const,
  ),
  ['movdiri [rbx], rdx', '48 0f 38 f9 13', 8, 64, (r) => r.rdx],
];

describe('writtenValue', () => {
  it.each(FORMS)('of %s (%s) is what the manual says [P12.9] [P12.10]', (_name, hex, size, bitness, oracle) => {
    const instruction = decode(hex, bitness);
    expect(instruction.operandSize).toBe(size);
    fc.assert(
      fc.property(registers, bytes64, (r, old) => {
        expect(stored(instruction, r, old)).toBe(oracle(r, toNumber(old.subarray(0, size))));
      }),
      { numRuns: 20 * scale },
    );
  });

  it('of CMPXCHG8B and CMPXCHG16B is the source when equal, else what was there [P12.11] [P12.18]', () => {
    fc.assert(
      fc.property(registers, bytes64, fc.boolean(), fc.boolean(), (r, old, equal, wide) => {
        const instruction = decode(wide ? '48 0f c7 0b' : '0f c7 0b');
        const half = wide ? 64 : 32;
        const memory = toNumber(old.subarray(0, wide ? 16 : 8));
        const values = equal ? { ...r, rax: low(memory, half), rdx: memory >> BigInt(half) } : r;
        const compared = (low(values.rdx, half) << BigInt(half)) | low(values.rax, half);
        const source = (low(values.rcx, half) << BigInt(half)) | low(values.rbx, half);
        expect(stored(instruction, values, old)).toBe(compared === memory ? source : memory);
      }),
      { numRuns: 50 * scale },
    );
  });

  // Register 7 holds the bytes; from which of them the instruction takes how many.
  it.each<[name: string, hex: string, from: number, size: number]>([
    ['movups', '0f 11 3b', 0, 16],
    ['movntdq', '66 0f e7 3b', 0, 16],
    ['movlps', '0f 13 3b', 0, 8],
    ['movhps', '0f 17 3b', 8, 8],
    ['movhpd', '66 0f 17 3b', 8, 8],
    ['movq', '66 0f d6 3b', 0, 8],
    ['movd', '66 0f 7e 3b', 0, 4],
    ['movss', 'f3 0f 11 3b', 0, 4],
    ['movsd', 'f2 0f 11 3b', 0, 8],
    ['pextrb 9', '66 0f 3a 14 3b 09', 9, 1],
    ['pextrw 19: modulo 8', '66 0f 3a 15 3b 13', 6, 2],
    ['pextrd 3', '66 0f 3a 16 3b 03', 12, 4],
    ['pextrq 1', '66 48 0f 3a 16 3b 01', 8, 8],
    ['extractps 2', '66 0f 3a 17 3b 02', 8, 4],
    ['vmovdqu ymm', 'c5 fe 7f 3b', 0, 32],
    ['vmovntdq xmm', 'c5 f9 e7 3b', 0, 16],
    ['vmovhpd', 'c5 f9 17 3b', 8, 8],
    ['vmovlps', 'c5 f8 13 3b', 0, 8],
    ['vmovsd', 'c5 fb 11 3b', 0, 8],
    ['vmovq', 'c5 f9 d6 3b', 0, 8],
    ['vextractf128 1', 'c4 e3 7d 19 3b 01', 16, 16],
    ['vextracti64x4 1', '62 f3 fd 48 3b 3b 01', 32, 32],
    ['vextracti32x4 3', '62 f3 7d 48 39 3b 03', 48, 16],
    ['vmovdqu64 zmm', '62 f1 fe 48 7f 3b', 0, 64],
  ])('of %s is the part of the register that it names [P12.9]', (_name, hex, from, size) => {
    const instruction = decode(hex);
    fc.assert(
      fc.property(registers, bytes64, (r, vector) => {
        expect(
          stored(instruction, r, undefined, undefined, (register) => (register === 7 ? vector : new Uint8Array(64))),
        ).toBe(toNumber(vector.subarray(from, from + size)));
      }),
      { numRuns: 10 * scale },
    );
    expect(stored(instruction, NOTHING)).toBeUndefined();
  });

  it('of MASKMOVDQU keeps the bytes whose mask byte is not negative [P12.9]', () => {
    fc.assert(
      fc.property(bytes64, bytes64, bytes64, fc.constantFrom('66 0f f7 c8', 'c5 f9 f7 c8'), (old, data, mask, hex) => {
        const expected = old.slice(0, 16).map((byte, at) => (mask[at]! >= 0x80 ? data[at]! : byte));
        const value = stored(decode(hex), NOTHING, old, undefined, (register) => (register === 1 ? data : mask));
        expect(value).toBe(toNumber(expected));
      }),
      { numRuns: 50 * scale },
    );
  });

  it('of MOVDIR64B, MOVS and PUSH from memory is what is there [P12.9]', () => {
    for (const [hex, size] of [
      ['66 0f 38 f8 13', 64],
      ['48 a5', 8],
      ['ff 33', 8],
    ] as const) {
      const source = Uint8Array.from({ length: 64 }, (_, at) => at * 3 + 1);
      expect(stored(decode(hex), NOTHING, undefined, source), hex).toBe(toNumber(source.subarray(0, size)));
      expect(stored(decode(hex), NOTHING), hex).toBeUndefined();
    }
  });

  it.each([
    ['fxsave', '0f ae 03'],
    ['xsave', '0f ae 23'],
    ['xsaves', '0f c7 2b'],
    ['vmovdqu32 under a mask', '62 f1 7e 49 7f 3b'],
    ['vpscatterdd', '62 f2 7d 49 a0 54 fb 04'],
    ['fstp', 'dd 1b'],
    ['insd', '6d'],
    ['enter with levels', 'c8 10 00 02'],
    ['int3', 'cc'],
    ['a load', '48 8b 03'],
  ])('of %s is not known, and says so [P12.9]', (_name, hex) => {
    expect(stored(decode(hex), NOTHING, undefined, undefined, () => new Uint8Array(64))).toBeUndefined();
  });
});

describe('DecodedInstruction', () => {
  it('names the instructions on descriptor tables', () => {
    const names = ['0f 00 03', '0f 00 0b', '0f 00 13', '0f 00 1b', '0f 01 03', '0f 01 0b', '0f 01 13', '0f 01 1b'].map(
      (hex) => decode(hex).descriptorInstruction,
    );
    expect(names).toEqual(['sldt', 'str', 'lldt', 'ltr', 'sgdt', 'sidt', 'lgdt', 'lidt']);
    expect(decode('0f 01 23').descriptorInstruction).toBeUndefined();
  });

  it('tells INT3 from INT 3', () => {
    expect([decode('cc').isBreakpoint, decode('cd 03').isBreakpoint, decode('90').isBreakpoint]).toEqual([
      true,
      false,
      false,
    ]);
  });

  it('tells what can write one half of a PAE entry', () => {
    const answers = ['89 03', 'c7 03 01 00 00 00', '87 03', '0f b1 0b', '66 89 03', '01 03', '8b 03', '0f c7 0b'].map(
      (hex) => decode(hex, 32).storesEntryHalf,
    );
    expect(answers).toEqual([true, true, true, true, false, false, false, false]);
  });
});

const NOTHING: Registers = { rax: 0n, rcx: 0n, rdx: 0n, rbx: 0n, rsp: 0n, rbp: 0n, rsi: 0n, rdi: 0n, rflags: 2n };
