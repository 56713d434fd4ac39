import { Access, createVcpuRecord, type Field64, u32Index, type VcpuRecord } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { Assembler } from './encoder.js';
import {
  AccessList,
  accessedAddresses,
  type Bitness,
  DecodedInstruction,
  decodeInstruction,
  type OperandContext,
} from './index.js';

const scale = inject('scale');
const R = Access.READ;
const W = Access.WRITE;
const RW = R | W;
const IP = 0x40_1000n;
/** D/B bit of a segment's access rights. */
const WIDE = 0x4000;

type Item = readonly [address: bigint, size: number, access: Access];

function decodeBytes(bytes: Uint8Array, bitness: Bitness): DecodedInstruction {
  const instruction = decodeInstruction(bytes, IP, bitness);
  if (!(instruction instanceof DecodedInstruction)) {
    throw new Error(`${Buffer.from(bytes).toString('hex')} is ${instruction}`);
  }
  return instruction;
}

function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
}

function assemble(text: string, bitness: Bitness): Uint8Array {
  return new Assembler({ bitness }).section('text', IP).assemble(text).link().sections.get('text')!.bytes;
}

/** Flat segments but for the bases of FS and GS, as 32-bit Windows has them. */
function flat(values: Readonly<Record<string, bigint>> = {}, stack = WIDE): VcpuRecord {
  const vcpu = createVcpuRecord(0);
  const all: Record<string, bigint> = {
    rax: 0x1000n,
    rcx: 3n,
    rdx: 0xffff_fff0n,
    rbx: 0x5000n,
    rsp: 0x8_0000n,
    rbp: 0x9_0000n,
    rsi: 0xa_0000n,
    rdi: 0xb_0000n,
    fsBase: 0x7ffd_e000n,
    gsBase: 0xffff_ff00n,
    ...values,
  };
  for (const [name, value] of Object.entries(all)) {
    vcpu.set(name as Field64, value);
  }
  vcpu.u32[u32Index('ssAttributes')] = stack;
  return vcpu;
}

function list(instruction: DecodedInstruction, vcpu: VcpuRecord, context?: OperandContext): Item[] {
  const out = new AccessList();
  accessedAddresses(instruction, vcpu, out, context);
  return Array.from({ length: out.count }, (_, at) => [out.address(at), out.size[at]!, out.accessOf(at)]);
}

const STACK = 0x8_0000n;

describe('accessedAddresses of 32-bit code', () => {
  // Checked by hand against SDM volume 2.
  it.each<[text: string, ...items: Item[]]>([
    ['mov [eax], ecx', [0x1000n, 4, W]],
    ['mov eax, [ebx+edx]', [0x4ff0n, 4, R]],
    ['mov eax, [edx+0x20]', [0x10n, 4, R]],
    ['mov eax, fs:[0x18]', [0x7ffd_e018n, 4, R]],
    ['mov eax, gs:[ebx]', [0x4f00n, 4, R]],
    ['mov ax, [bx+si]', [0x5000n, 2, R]],
    ['push eax', [STACK - 4n, 4, W]],
    ['push dword [eax]', [0x1000n, 4, R], [STACK - 4n, 4, W]],
    ['pop dword [esp+4]', [STACK + 8n, 4, W], [STACK, 4, R]],
    ['pushad', [STACK - 32n, 32, W]],
    ['popad', [STACK, 32, R]],
    ['pushfd', [STACK - 4n, 4, W]],
    ['call dword [eax]', [0x1000n, 4, R], [STACK - 4n, 4, W]],
    ['call fword [eax]', [0x1000n, 6, R], [STACK - 8n, 8, W]],
    ['call 8:0x1000', [STACK - 8n, 8, W]],
    ['retf', [STACK, 8, R]],
    ['ret 8', [STACK, 4, R]],
    ['iretd', [STACK, 12, R]],
    ['int3', [STACK - 12n, 12, W]],
    ['int 0x2e', [STACK - 12n, 12, W]],
    ['leave', [0x9_0000n, 4, R]],
    ['lgdt [eax]', [0x1000n, 6, R]],
    ['sidt [eax]', [0x1000n, 6, W]],
    ['les eax, [ebx]', [0x5000n, 6, R]],
    ['cmpxchg8b [eax]', [0x1000n, 8, RW]],
    ['movsd', [0xb_0000n, 4, W], [0xa_0000n, 4, R]],
    ['insb', [0xb_0000n, 1, W]],
    ['outsd', [0xa_0000n, 4, R]],
    ['db 0xd7 ; xlat', [0x5000n, 1, R]],
    ['bts [eax], edx', [0x0ffcn, 4, RW]],
    ['lea eax, [ebx]'],
    ['db 0xdd, 0x30 ; fnsave [eax]', [0x1000n, 108, W]],
    ['db 0xd9, 0x20 ; fldenv [eax]', [0x1000n, 28, R]],
  ])('%s [P12.2] [P12.3] [P12.5]', (text, ...items) => {
    expect(list(decodeBytes(assemble(text, 32), 32), flat())).toEqual(items);
  });

  it('adds the base of every segment and wraps at 4 GiB [P12.5]', () => {
    const vcpu = flat({
      dsBase: 0xffff_f000n,
      esBase: 0x10_0000n,
      ssBase: 0x20_0000n,
      csBase: 0x30_0000n,
    });
    const at = (text: string): bigint => list(decodeBytes(assemble(text, 32), 32), vcpu)[0]![0];
    expect(at('mov eax, [ebx]')).toBe(0x4000n);
    expect(at('mov eax, cs:[ebx]')).toBe(0x30_5000n);
    expect(at('mov eax, [ebp]')).toBe(0x29_0000n);
    expect(at('mov eax, es:[ebp]')).toBe(0x19_0000n);
    expect(at('push eax')).toBe(0x27_fffcn);
    expect(at('stosb')).toBe(0x1b_0000n);
    expect(at('lodsb')).toBe(0x9_f000n);
  });

  it('takes 16 bits of the stack pointer when the stack segment is small [P12.2]', () => {
    const vcpu = flat({ rsp: 0x1_0002n }, 0);
    expect(list(decodeBytes(assemble('push eax', 32), 32), vcpu)).toEqual([[0xfffen, 4, W]]);
    expect(list(decodeBytes(assemble('pop eax', 32), 32), vcpu)).toEqual([[2n, 4, R]]);
  });

  it('counts a repetition in CX, ECX or RCX by the address size [P12.3]', () => {
    const vcpu = flat({ rcx: 0x1_0000n });
    expect(list(decodeBytes(fromHex('f3 aa'), 32), vcpu)).toHaveLength(1);
    expect(list(decodeBytes(fromHex('67 f3 aa'), 32), vcpu)).toEqual([]);
    const long = flat({ rcx: 0x1_0000_0000n });
    expect(list(decodeBytes(fromHex('67 f3 aa'), 64), long)).toEqual([]);
    expect(list(decodeBytes(fromHex('f3 aa'), 64), long)).toHaveLength(1);
  });
});

describe('accessedAddresses of 64-bit code', () => {
  it.each<[name: string, hex: string, ...items: Item[]]>([
    ['call far m16:64', '48 ff 18', [0x1000n, 10, R], [STACK - 16n, 16, W]],
    ['call far m16:32', 'ff 18', [0x1000n, 6, R], [STACK - 8n, 8, W]],
    ['call far m16:16', '66 ff 18', [0x1000n, 4, R], [STACK - 4n, 4, W]],
    ['retfq', '48 cb', [STACK, 16, R]],
    ['iretq', '48 cf', [STACK, 40, R]],
    ['int3 on an aligned frame', 'cc', [STACK - 0x28n, 40, W]],
    ['clzero', '0f 01 fc', [0x1000n, 64, W]],
    ['clflush', '0f ae 38', [0x1000n, 64, R]],
    ['fxsave', '0f ae 00', [0x1000n, 512, W]],
    ['fxrstor', '0f ae 08', [0x1000n, 512, R]],
    ['movdir64b eax-sized register', '67 66 0f 38 f8 03', [0x1000n, 64, W], [0x5000n, 64, R]],
    ['maskmovdqu', '66 0f f7 c8', [0xb_0000n, 16, W]],
    ['maskmovdqu gs:', '65 66 0f f7 c8', [0x1_000a_ff00n, 16, W]],
    ['vbroadcast of one dword', '62 f1 7c 58 58 00', [0x1000n, 4, R]],
    ['vaddps zmm with disp8*64', '62 f1 7c 48 58 40 01', [0x1040n, 64, R]],
    ['tileloadd', 'c4 e2 7b 4b 04 08', [0x1003n, 1024, R]],
    ['bndmov', '66 0f 1a 00', [0x1000n, 16, R]],
    ['wrssd is not listed: shadow stack', '0f 38 f6 00'],
    ['rstorssp is not listed: shadow stack', 'f3 0f 01 28'],
    ['incsspd touches no memory that is listed', 'f3 0f ae e8'],
  ])('%s [P12.2] [P12.7] [P12.8]', (_name, hex, ...items) => {
    expect(list(decodeBytes(fromHex(hex), 64), flat())).toEqual(items);
  });

  it('asks the context for the size of XSAVE areas, and says 0 without one [P12.8]', () => {
    const context: OperandContext = { xsave: { readVector: () => false, areaSize: () => 832 } };
    for (const hex of ['0f ae 20', '0f c7 20', '0f ae 30', '0f c7 28', '0f ae 28', '0f c7 18']) {
      const instruction = decodeBytes(fromHex(hex), 64);
      expect(list(instruction, flat(), context).map(([, size]) => size)).toEqual([832]);
      expect(list(instruction, flat()).map(([, size]) => size)).toEqual([0]);
    }
  });
});

/** Vector registers in which element n of register r is `values[r][n]`. */
function vectors(values: Readonly<Record<number, DataView>>, opmask?: bigint): OperandContext {
  return {
    xsave: {
      readVector(register, target) {
        const from = values[register];
        if (from === undefined) return false;
        target.set(new Uint8Array(from.buffer, 0, target.length));
        return true;
      },
      areaSize: () => 0,
      readOpmask(_register, target) {
        if (opmask === undefined) return false;
        new DataView(target.buffer, target.byteOffset).setBigUint64(0, opmask, true);
        return true;
      },
    },
  };
}

function elements(values: readonly bigint[], size: 4 | 8): DataView {
  const view = new DataView(new ArrayBuffer(128));
  values.forEach((value, at) => {
    if (size === 4) view.setInt32(at * 4, Number(BigInt.asIntN(32, value)), true);
    else view.setBigInt64(at * 8, BigInt.asIntN(64, value), true);
  });
  return view;
}

describe('accessedAddresses of gathers and scatters', () => {
  const indices = fc.array(fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }), { minLength: 16, maxLength: 16 });
  const mask = fc.array(fc.boolean(), { minLength: 16, maxLength: 16 });

  it.each<[name: string, hex: string, index: 4 | 8, element: number, count: number, kind: 'vector' | 'opmask', Access]>(
    [
      // [rbx+(x|y|z)mm7*8+10h]; masks in xmm5 or k1.
      ['vpgatherdd xmm', 'c4 e2 51 90 54 fb 10', 4, 4, 4, 'vector', R],
      ['vpgatherdd ymm', 'c4 e2 55 90 54 fb 10', 4, 4, 8, 'vector', R],
      ['vpgatherdq ymm', 'c4 e2 d5 90 54 fb 10', 4, 8, 4, 'vector', R],
      ['vpgatherqd xmm', 'c4 e2 51 91 54 fb 10', 8, 4, 2, 'vector', R],
      ['vpgatherqq ymm', 'c4 e2 d5 91 54 fb 10', 8, 8, 4, 'vector', R],
      ['vpgatherdd zmm', '62 f2 7d 49 90 54 fb 04', 4, 4, 16, 'opmask', R],
      ['vpscatterdd zmm', '62 f2 7d 49 a0 54 fb 04', 4, 4, 16, 'opmask', W],
      ['vpscatterqq zmm', '62 f2 fd 49 a1 54 fb 02', 8, 8, 8, 'opmask', W],
    ],
  )(
    '%s: every selected element, indices with their sign [P12.6]',
    (_name, hex, index, element, count, kind, access) => {
      const instruction = decodeBytes(fromHex(hex), 64);
      fc.assert(
        fc.property(indices, mask, (values, selected) => {
          const masks = elements(
            selected.map((one) => (one ? -1n : 0n)),
            element as 4 | 8,
          );
          const opmask = selected.reduce((bits, one, at) => bits | (one ? 1n << BigInt(at) : 0n), 0n);
          const context = vectors({ 7: elements(values, index), 5: masks }, kind === 'opmask' ? opmask : undefined);
          const expected = values.slice(0, count).flatMap((value, at): Item[] => {
            const signed = BigInt.asIntN(index * 8, value);
            return selected[at] ? [[BigInt.asUintN(64, 0x5010n + signed * 8n), element, access]] : [];
          });
          expect(list(instruction, flat(), context)).toEqual(expected);
        }),
        { numRuns: 20 * scale },
      );
    },
  );

  it('says that addresses are missing without the registers [P12.6]', () => {
    const instruction = decodeBytes(fromHex('c4 e2 51 90 54 fb 10'), 64);
    const out = new AccessList();
    accessedAddresses(instruction, flat(), out);
    expect([out.count, out.incomplete, instruction.incompleteOperands]).toEqual([0, true, true]);
    accessedAddresses(decodeBytes(fromHex('50'), 64), flat(), out);
    expect([out.count, out.incomplete]).toEqual([1, false]);
  });

  it('cuts to 32 bits before the segment base with a 67h prefix [P12.5] [P12.6]', () => {
    const instruction = decodeBytes(fromHex('65 67 c4 e2 51 90 54 fb 10'), 64);
    const context = vectors({ 7: elements([-0xa03n, 0n, 1n, 2n], 4), 5: elements([-1n, -1n, -1n, 0n], 4) });
    // 5010h - 5018h = -8, cut to 32 bits.
    expect(list(instruction, flat(), context).map(([address]) => address)).toEqual([
      0xffff_fff8n + 0xffff_ff00n,
      0x5010n + 0xffff_ff00n,
      0x5018n + 0xffff_ff00n,
    ]);
  });
});

describe('accessedAddresses against a second computation', () => {
  const bits32 = fc.bigInt({ min: 0n, max: 0xffff_ffffn });
  const names = ['eax', 'ecx', 'edx', 'ebx', 'ebp', 'esi', 'edi'] as const;
  const wide = { eax: 'rax', ecx: 'rcx', edx: 'rdx', ebx: 'rbx', ebp: 'rbp', esi: 'rsi', edi: 'rdi' } as const;

  it('of every 32-bit base, index, scale, displacement and segment [P12.5]', () => {
    const segments = ['', 'es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const;
    fc.assert(
      fc.property(
        fc.constantFrom(...names),
        fc.constantFrom(...names),
        fc.constantFrom(1, 2, 4, 8),
        bits32,
        fc.constantFrom(...segments),
        fc.array(bits32, { minLength: 13, maxLength: 13 }),
        (base, index, factor, displacement, segment, values) => {
          const vcpu = createVcpuRecord(0);
          const of: Record<string, bigint> = {};
          names.forEach((name, at) => {
            of[name] = values[at]!;
            vcpu.set(wide[name], values[at]!);
          });
          segments.slice(1).forEach((name, at) => {
            of[name] = values[7 + at]!;
            vcpu.set(`${name}Base` as Field64, values[7 + at]!);
          });
          const text = `mov al, ${segment === '' ? '' : `${segment}:`}[${base}+${index}*${factor}+0x${displacement.toString(16)}]`;
          // With factor 1 the assembler may take either register for the base; EBP makes SS the default.
          const swapped = factor === 1 && index === 'ebp' && base !== 'ebp';
          fc.pre(!swapped);
          const effective = of[base]! + of[index]! * BigInt(factor) + displacement;
          const from = segment === '' ? (base === 'ebp' ? 'ss' : 'ds') : segment;
          expect(list(decodeBytes(assemble(text, 32), 32), vcpu)).toEqual([
            [BigInt.asUintN(32, BigInt.asUintN(32, effective) + of[from]!), 1, R],
          ]);
        },
      ),
      { numRuns: 100 * scale },
    );
  });

  it('of bit strings with 16-, 32- and 64-bit offsets [P12.4]', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(2, 4, 8),
        fc.constantFrom('a3', 'ab', 'b3', 'bb'),
        fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        (size, opcode, offset) => {
          const prefix = size === 2 ? '66' : size === 8 ? '48' : '';
          const instruction = decodeBytes(fromHex(`${prefix} 0f ${opcode} 0b`), 64);
          const bits = BigInt(size * 8);
          const signed = BigInt.asIntN(size * 8, offset);
          const element = signed >= 0n ? signed / bits : -((-signed + bits - 1n) / bits);
          const vcpu = flat({ rcx: offset });
          const address = BigInt.asUintN(64, 0x5000n + element * BigInt(size));
          expect(list(instruction, vcpu)).toEqual([[address, size, opcode === 'a3' ? R : RW]]);
        },
      ),
      { numRuns: 100 * scale },
    );
  });
});
