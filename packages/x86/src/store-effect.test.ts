import { createVcpuRecord, type VcpuRecord } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import {
  type Bitness,
  DecodedInstruction,
  decodeInstruction,
  StoreEffect,
  type VectorRegisters,
  writtenValue,
} from './index.js';

const scale = inject('scale');
const IP = 0x1_0000n;
const CF = 1n;
const PF = 4n;
const AF = 0x10n;
const ZF = 0x40n;
const SF = 0x80n;
const OF = 0x800n;

function decode(hex: string, bitness: Bitness = 64): DecodedInstruction {
  const instruction = decodeInstruction(Buffer.from(hex.replaceAll(' ', ''), 'hex'), IP, bitness);
  if (!(instruction instanceof DecodedInstruction)) {
    throw new Error(`${hex} is ${instruction}`);
  }
  return instruction;
}

interface Outcome {
  readonly value: bigint;
  readonly vcpu: VcpuRecord;
  readonly complete: boolean;
}

function run(
  hex: string,
  old: bigint,
  registers: Readonly<Record<string, bigint>> = {},
  source = 0n,
  bitness: Bitness = 64,
): Outcome | undefined {
  const vcpu = createVcpuRecord(0);
  vcpu.set('rflags', 2n);
  vcpu.set('rip', IP);
  for (const [name, value] of Object.entries(registers)) {
    vcpu.set(name as 'rax', BigInt.asUintN(64, value));
  }
  const effect = new StoreEffect();
  const half = (value: bigint, shift: bigint): number => Number(BigInt.asUintN(32, value >> shift));
  if (!effect.compute(decode(hex, bitness), vcpu, half(old, 0n), half(old, 32n), half(source, 0n), half(source, 32n))) {
    return undefined;
  }
  const value = (BigInt(effect.newHigh) << 32n) | BigInt(effect.newLow);
  effect.commit(vcpu);
  return { value, vcpu, complete: effect.complete };
}

/** Arithmetic written down from SDM volume 2, on integers of the language: nothing of it is shared with the code under test. */
function arithmetic(
  operation: 'add' | 'adc' | 'sub' | 'sbb' | 'and' | 'or' | 'xor',
  a: bigint,
  b: bigint,
  carry: bigint,
  bits: number,
): { value: bigint; flags: bigint } {
  const wide =
    operation === 'add'
      ? a + b
      : operation === 'adc'
        ? a + b + carry
        : operation === 'sub'
          ? a - b
          : operation === 'sbb'
            ? a - b - carry
            : operation === 'and'
              ? a & b
              : operation === 'or'
                ? a | b
                : a ^ b;
  const value = BigInt.asUintN(bits, wide);
  const logical = operation === 'and' || operation === 'or' || operation === 'xor';
  const signed = (n: bigint): bigint => BigInt.asIntN(bits, n);
  const minus = operation === 'sub' || operation === 'sbb';
  const c = operation === 'adc' || operation === 'sbb' ? carry : 0n;
  const signedWide = minus ? signed(a) - signed(b) - c : signed(a) + signed(b) + c;
  let ones = 0;
  for (let bit = 0n; bit < 8n; bit++) {
    ones += Number((value >> bit) & 1n);
  }
  let flags = 0n;
  flags |= !logical && wide !== value ? CF : 0n;
  flags |= ones % 2 === 0 ? PF : 0n;
  flags |= !logical && (minus ? (a & 15n) - (b & 15n) - c < 0n : (a & 15n) + (b & 15n) + c > 15n) ? AF : 0n;
  flags |= value === 0n ? ZF : 0n;
  flags |= signed(value) < 0n ? SF : 0n;
  flags |= !logical && signedWide !== signed(value) ? OF : 0n;
  return { value, flags };
}

/** The four sizes of `op [rbx], reg`: the opcode's low bit clear for bytes, prefixes for the others. */
function forms(opcode: number): readonly (readonly [bits: number, hex: string])[] {
  const hex = (n: number): string => n.toString(16).padStart(2, '0');
  return [
    [8, `${hex(opcode)}03`],
    [16, `66${hex(opcode + 1)}03`],
    [32, `${hex(opcode + 1)}03`],
    [64, `48${hex(opcode + 1)}03`],
  ];
}

const interesting = fc.oneof(
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  fc.constantFrom(
    0n,
    1n,
    0x7fn,
    0x80n,
    0xffn,
    0x7fffn,
    0x8000n,
    0x7fff_ffffn,
    0x8000_0000n,
    0xffff_ffffn,
    1n << 63n,
    (1n << 63n) - 1n,
    (1n << 64n) - 1n,
  ),
);

describe('StoreEffect', () => {
  for (const [operation, opcode] of [
    ['add', 0x00],
    ['or', 0x08],
    ['adc', 0x10],
    ['sbb', 0x18],
    ['and', 0x20],
    ['sub', 0x28],
    ['xor', 0x30],
  ] as const) {
    for (const [bits, hex] of forms(opcode)) {
      it(`${operation} [rbx], reg of ${bits} bits has the value and flags of the manual`, () => {
        fc.assert(
          fc.property(interesting, interesting, fc.boolean(), (a, b, carry) => {
            const old = BigInt.asUintN(bits, a);
            const outcome = run(hex, old, { rax: b, rflags: carry ? 3n : 2n })!;
            const expected = arithmetic(operation, old, BigInt.asUintN(bits, b), carry ? 1n : 0n, bits);
            expect(outcome.value).toBe(expected.value);
            expect(outcome.vcpu.get('rflags')).toBe(expected.flags | 2n);
            expect(outcome.vcpu.get('rip')).toBe(IP + BigInt(hex.length / 2));
            expect(outcome.complete).toBe(true);
          }),
          { numRuns: 100 * scale, seed: 3 },
        );
      });
    }
  }

  it('computes INC, DEC, NEG and NOT', () => {
    expect(run('48 ff 03', (1n << 64n) - 1n, { rflags: 3n })).toMatchObject({ value: 0n });
    expect(run('48 ff 03', (1n << 64n) - 1n, { rflags: 3n })!.vcpu.get('rflags')).toBe(2n | CF | ZF | PF | AF);
    expect(run('48 ff 0b', 0n)!.value).toBe((1n << 64n) - 1n);
    expect(run('fe 0b', 0x80n)!.value).toBe(0x7fn);
    expect(run('fe 0b', 0x80n)!.vcpu.get('rflags') & OF).toBe(OF);
    expect(run('f7 1b', 1n)!.value).toBe(0xffff_ffffn);
    expect(run('f7 1b', 1n)!.vcpu.get('rflags') & CF).toBe(CF);
    expect(run('48 f7 13', 0x0123_4567_89ab_cdefn)!.value).toBe(0xfedc_ba98_7654_3210n);
    expect(run('48 f7 13', 5n, { rflags: 0x8d7n })!.vcpu.get('rflags')).toBe(0x8d7n);
  });

  it('moves registers, immediates and parts of registers', () => {
    const rax = 0x1122_3344_5566_7788n;
    expect(run('48 89 03', 0n, { rax })!.value).toBe(rax);
    expect(run('88 23', 0n, { rax })!.value).toBe(0x77n);
    expect(run('40 88 23', 0n, { rsp: 0x99n })!.value).toBe(0x99n);
    expect(run('48 c7 03 fe ff ff ff', 0n)!.value).toBe(0xffff_ffff_ffff_fffen);
    expect(run('48 0f c3 03', 0n, { rax })!.value).toBe(rax);
    expect(run('48 0f 38 f1 03', 0n, { rax })!.value).toBe(0x8877_6655_4433_2211n);
    expect(run('66 0f 38 f1 03', 0n, { rax })!.value).toBe(0x8877n);
  });

  it('exchanges: XCHG, XADD by the rules for parts of registers', () => {
    const rax = 0x1122_3344_5566_7788n;
    expect(run('48 87 03', 5n, { rax })!.vcpu.get('rax')).toBe(5n);
    expect(run('87 03', 5n, { rax })!.vcpu.get('rax')).toBe(5n);
    expect(run('66 87 03', 5n, { rax })!.vcpu.get('rax')).toBe(0x1122_3344_5566_0005n);
    expect(run('86 03', 5n, { rax })!.vcpu.get('rax')).toBe(0x1122_3344_5566_7705n);
    expect(run('86 23', 5n, { rax })!.vcpu.get('rax')).toBe(0x1122_3344_5566_0588n);
    const added = run('48 0f c1 03', 7n, { rax: 3n })!;
    expect([added.value, added.vcpu.get('rax')]).toEqual([10n, 7n]);
  });

  it('compares and exchanges', () => {
    const hit = run('48 0f b1 0b', 7n, { rax: 7n, rcx: 9n })!;
    expect([hit.value, hit.vcpu.get('rax'), hit.vcpu.get('rflags') & ZF]).toEqual([9n, 7n, ZF]);
    const miss = run('0f b1 0b', 7n, { rax: 0xf_0000_0008n, rcx: 9n })!;
    expect([miss.value, miss.vcpu.get('rax'), miss.vcpu.get('rflags') & ZF]).toEqual([7n, 7n, 0n]);
    const pair = { rax: 1n, rdx: 2n, rbx: 3n, rcx: 4n };
    const hit8 = run('0f c7 0b', 0x2_0000_0001n, pair)!;
    expect([hit8.value, hit8.vcpu.get('rflags')]).toEqual([0x4_0000_0003n, 2n | ZF]);
    const miss8 = run('0f c7 0b', 0x2_0000_0005n, { ...pair, rflags: 2n | ZF | CF })!;
    expect([miss8.value, miss8.vcpu.get('rax'), miss8.vcpu.get('rdx'), miss8.vcpu.get('rflags')]).toEqual([
      0x2_0000_0005n,
      5n,
      2n,
      2n | CF,
    ]);
  });

  it('sets, clears and turns bits by register and immediate', () => {
    expect(run('48 0f ba 2b 3f', 0n)!.value).toBe(1n << 63n);
    expect(run('48 0f ba 33 02', 7n)!.value).toBe(3n);
    expect(run('48 0f ba 33 02', 7n)!.vcpu.get('rflags')).toBe(2n | CF);
    expect(run('48 0f ba 3b 42', 4n)!.value).toBe(0n);
    expect(run('48 0f ab 0b', 0n, { rcx: 64n + 33n })!.value).toBe(1n << 33n);
    expect(run('0f ab 0b', 0n, { rcx: -1n })!.value).toBe(1n << 31n);
  });

  it('advances string registers, up and down, once or with REP', () => {
    const once = run('48 ab', 0n, { rax: 9n, rdi: 0xffff_fff8n })!;
    expect([once.value, once.vcpu.get('rdi'), once.vcpu.get('rip')]).toEqual([9n, 0x1_0000_0000n, IP + 2n]);
    const down = run('f3 48 a5', 0n, { rdi: 0x1_0000_0000n, rsi: 4n, rcx: 2n, rflags: 0x402n }, 77n)!;
    expect([
      down.value,
      down.vcpu.get('rdi'),
      down.vcpu.get('rsi'),
      down.vcpu.get('rcx'),
      down.vcpu.get('rip'),
    ]).toEqual([77n, 0xffff_fff8n, (1n << 64n) - 4n, 1n, IP]);
    const last = run('f3 aa', 0n, { rax: 0x1ffn, rdi: 5n, rcx: 1n })!;
    expect([last.value, last.vcpu.get('rcx'), last.vcpu.get('rip')]).toEqual([0xffn, 0n, IP + 2n]);
  });

  it('pushes and pops', () => {
    const push = run('54', 0n, { rsp: 0x1000n })!;
    expect([push.value, push.vcpu.get('rsp')]).toEqual([0x1000n, 0xff8n]);
    expect(run('6a ff', 0n, { rsp: 0x1000n })!.value).toBe((1n << 64n) - 1n);
    const pop = run('8f 03', 0n, { rsp: 0x1000n }, 99n)!;
    expect([pop.value, pop.vcpu.get('rsp')]).toEqual([99n, 0x1008n]);
  });

  it('raises the level of a selector: ARPL', () => {
    // arpl [ebx], dx
    expect(run('63 13', 0x20n, { rdx: 3n }, 0n, 32)).toMatchObject({ value: 0x23n, complete: true });
    expect(run('63 13', 0x20n, { rdx: 3n }, 0n, 32)!.vcpu.get('rflags')).toBe(0x42n);
    const kept = run('63 13', 0x23n, { rdx: 1n, rflags: 0xd7n }, 0n, 32)!;
    expect([kept.value, kept.vcpu.get('rflags'), kept.vcpu.get('rip')]).toEqual([0x23n, 0x97n, IP + 2n]);
  });

  it('knows the value of a shift or a call, but leaves the instruction to the processor', () => {
    expect(run('48 d3 23', 3n, { rcx: 65n })).toMatchObject({ value: 6n, complete: false });
    expect(run('48 c1 3b 3f', 1n << 63n)).toMatchObject({ value: (1n << 64n) - 1n, complete: false });
    expect(run('c0 03 09', 0x81n)).toMatchObject({ value: 0x03n });
    expect(run('c0 13 09', 0x81n, { rflags: 3n })).toMatchObject({ value: 0x81n });
    expect(run('e8 00 00 00 00', 0n)).toMatchObject({ value: IP + 5n, complete: false });
  });

  it('does not complete an instruction that is single-stepped', () => {
    expect(run('48 89 03', 0n, { rflags: 0x102n })).toMatchObject({ complete: false });
  });

  it('does not know what it does not know', () => {
    for (const hex of [
      '0f ae 03',
      '48 0f c7 0b',
      '0f 11 03',
      '0f c7 23',
      'd9 1b',
      'df 33',
      'c8 10 00 01',
      '6d',
      '48 89 c8',
    ]) {
      expect(run(hex, 0n), hex).toBeUndefined();
    }
  });

  it('changes nothing but RIP when the store is denied', () => {
    const vcpu = createVcpuRecord(0);
    vcpu.set('rip', 0xffff_fffen);
    vcpu.set('rax', 1n);
    vcpu.set('rflags', 2n);
    const effect = new StoreEffect();
    effect.compute(decode('48 0f c1 03'), vcpu, 5, 0, 0, 0);
    effect.commitDenied(vcpu);
    expect([vcpu.get('rip'), vcpu.get('rax'), vcpu.get('rflags')]).toEqual([0x1_0000_0002n, 1n, 2n]);
  });
});

describe('writtenValue', () => {
  const vcpu = createVcpuRecord(0);
  vcpu.set('rflags', 2n);
  vcpu.set('rbx', 0x1111n);
  vcpu.set('rcx', 0x2222n);
  vcpu.set('rax', 0x0706_0504_0302_0100n);
  vcpu.set('rdx', 0x0f0e_0d0c_0b0a_0908n);
  const vectors: VectorRegisters = {
    readVector: (register, target) => {
      for (let at = 0; at < target.length; at++) {
        target[at] = register * 64 + at;
      }
      return true;
    },
  };

  function written(hex: string, old: Uint8Array): number[] | undefined {
    const instruction = decode(hex);
    const target = new Uint8Array(instruction.operandSize);
    return writtenValue(instruction, vcpu, old, target, undefined, vectors) ? [...target] : undefined;
  }

  it('of CMPXCHG16B is RCX:RBX when RDX:RAX is there, else what is there', () => {
    const same = Uint8Array.from({ length: 16 }, (_, at) => at);
    expect(written('48 0f c7 09', same)).toEqual([0x11, 0x11, 0, 0, 0, 0, 0, 0, 0x22, 0x22, 0, 0, 0, 0, 0, 0]);
    const other = Uint8Array.from({ length: 16 }, (_, at) => at + 1);
    expect(written('48 0f c7 09', other)).toEqual([...other]);
  });

  it('of vector stores is the register, or the half that is stored', () => {
    const range = (from: number, length: number): number[] => Array.from({ length }, (_, at) => (from + at) & 0xff);
    expect(written('0f 11 0b', new Uint8Array(16))).toEqual(range(64, 16));
    expect(written('0f 17 0b', new Uint8Array(8))).toEqual(range(72, 8));
    expect(written('f2 0f 11 0b', new Uint8Array(8))).toEqual(range(64, 8));
    expect(written('66 0f d6 0b', new Uint8Array(8))).toEqual(range(64, 8));
    expect(written('c5 fe 7f 0b', new Uint8Array(32))).toEqual(range(64, 32));
    expect(written('66 48 0f 7e 03', new Uint8Array(8))).toEqual(range(0, 8));
  });

  it('needs the source when it is in memory', () => {
    expect(written('48 a5', new Uint8Array(8))).toBeUndefined();
  });
});
