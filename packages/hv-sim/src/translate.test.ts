import { VCPU_RECORD } from '@introd/abi';
import fc from 'fast-check';
import { describe, expect, inject, it } from 'vitest';
import { OP_NAMES } from './op-codes.js';
import { OP_RECORD, OpFlag } from './op-layout.js';
import { Translator, translatedForms } from './translate.js';

const scale = inject('scale');
const CODE = 0x1000;
const OUT = 0x4000;
const MAX = 64;

const memory = new ArrayBuffer(0x8000);
const bytes = new Uint8Array(memory);
const view = new DataView(memory);
const translator = new Translator(memory);

interface Op {
  name: string;
  length: number;
  size: number;
  dst: number;
  src: number;
  base: number;
  index: number;
  scale: number;
  segment: number;
  kind: number;
  flags: number;
  pageOffset: number;
  imm: bigint;
  disp: bigint;
  next: number;
}

function readOp(at: number): Op {
  const u16 = (field: 'code' | 'dst' | 'src' | 'base' | 'index' | 'segment' | 'flags' | 'pageOffset') =>
    view.getUint16(at + OP_RECORD.offset[field], true);
  const u8 = (field: 'length' | 'size' | 'scale' | 'kind') => view.getUint8(at + OP_RECORD.offset[field]);
  return {
    name: OP_NAMES[u16('code')]!,
    length: u8('length'),
    size: u8('size'),
    dst: u16('dst'),
    src: u16('src'),
    base: u16('base'),
    index: u16('index'),
    scale: u8('scale'),
    segment: u16('segment'),
    kind: u8('kind'),
    flags: u16('flags'),
    pageOffset: u16('pageOffset'),
    imm: view.getBigInt64(at + OP_RECORD.offset.imm, true),
    disp: view.getBigInt64(at + OP_RECORD.offset.disp, true),
    next: view.getUint32(at + OP_RECORD.offset.next, true),
  };
}

function translate(hex: string, pageOffset = 0, crossing = false): Op[] {
  const code = Uint8Array.from(Buffer.from(hex, 'hex'));
  bytes.set(code, CODE);
  const count = translator.translate(CODE, code.length, pageOffset, OUT, MAX, crossing);
  return Array.from({ length: count }, (_, index) => readOp(OUT + index * OP_RECORD.size));
}

const { offset } = VCPU_RECORD;

describe('Translator', () => {
  it('resolves registers to their places in the record', () => {
    const [add, mov] = translate('4801d888e7'); // add rax, rbx; mov bh, ah
    expect(add).toMatchObject({ name: 'ADD_RR_64', length: 3, size: 8, dst: offset.rax, src: offset.rbx });
    expect(mov).toMatchObject({ name: 'MOV_RR_8', size: 1, dst: offset.rbx + 1, src: offset.rax + 1 });
    const [rex] = translate('4088e7'); // mov dil, spl
    expect(rex).toMatchObject({ name: 'MOV_RR_8', dst: offset.rdi, src: offset.rsp });
  });

  it('resolves memory operands', () => {
    const [gs] = translate('65488b8c8b88010000'); // mov rcx, gs:[rbx+rcx*4+0x188]
    expect(gs).toMatchObject({
      name: 'MOV_RM_64',
      base: offset.rbx,
      index: offset.rcx,
      scale: 2,
      disp: 0x188n,
      segment: offset.gsBase,
    });
    const [relative] = translate('488b05f0ffffff', 0x100); // mov rax, [rip-0x10]
    expect(relative).toMatchObject({ base: offset.rip, disp: -0x10n + 7n });
    const [narrow] = translate('678b00'); // mov eax, [eax]
    expect(narrow!.flags & OpFlag.ADDRESS_32).toBe(OpFlag.ADDRESS_32);
    const [absolute] = translate('67a178563412'); // mov eax, [0x12345678] with 32-bit addresses
    expect(absolute).toMatchObject({ name: 'MOV_RM_32', disp: 0x12345678n });
  });

  it('sends RSP and RBP through SS whatever the prefix, other than FS and GS', () => {
    const [plain, overridden, gs] = translate('8b04243e8b0424658b0424');
    expect(plain!.flags & OpFlag.STACK).toBe(OpFlag.STACK);
    expect(overridden!.flags & OpFlag.STACK).toBe(OpFlag.STACK);
    expect(gs!.flags & OpFlag.STACK).toBe(0);
  });

  it('links straight-line code, and says which targets lie in the page', () => {
    const ops = translate('ffc075fc0f850010000090', 0x20); // inc eax; jne -4; jne +0x1000; nop
    expect(ops.map((op) => op.name)).toEqual(['INC_R_32', 'JNE', 'JNE', 'NOP']);
    expect(ops.map((op) => op.pageOffset)).toEqual([0x20, 0x22, 0x24, 0x2a]);
    expect(ops.map((op) => op.next)).toEqual([1, 2, 3, 0].map((n) => (n ? OUT + n * OP_RECORD.size : 0)));
    expect(ops[1]).toMatchObject({ imm: -4n });
    expect(ops[1]!.flags & OpFlag.TARGET_IN_PAGE).toBe(OpFlag.TARGET_IN_PAGE);
    expect(ops[2]!.flags & OpFlag.TARGET_IN_PAGE).toBe(0);
  });

  it('stops after jumps that do not return', () => {
    expect(translate('c39090')).toHaveLength(1);
    expect(translate('ebfe90')).toHaveLength(1);
    expect(translate('0f0b90')).toHaveLength(1);
    expect(translate('e80000000090').map((op) => op.name)).toEqual(['CALL', 'NOP']);
  });

  it('asks for more bytes only when the first instruction is cut, and marks crossing ones', () => {
    expect(translate('48', 0xfff)).toHaveLength(0);
    expect(translate('9048', 0xffe)).toHaveLength(1);
    const [op] = translate('4801d890', 0xfff, true);
    expect(op).toMatchObject({ name: 'ADD_RR_64', pageOffset: 0xfff });
    expect(op!.flags & OpFlag.UNLINKED).toBe(OpFlag.UNLINKED);
    expect(op!.flags & OpFlag.NEXT_IN_PAGE).toBe(0);
    expect(translate('90', 0xfff)[0]!.flags & OpFlag.NEXT_IN_PAGE).toBe(0);
    expect(translate('90', 0xffe)[0]!.flags & OpFlag.NEXT_IN_PAGE).toBe(OpFlag.NEXT_IN_PAGE);
  });

  it('tells what the processor lacks from what only the machine lacks', () => {
    expect(translate('c5f828c1')[0]!.name).toBe('INVALID'); // vmovaps: CPUID promises no AVX
    expect(translate('d9c0')[0]!.name).toBe('UNSUPPORTED'); // fld st(0)
    expect(translate('0600')[0]!.name).toBe('INVALID'); // push es does not exist in 64-bit mode
    expect(translate('f001c0')[0]!.name).toBe('INVALID'); // lock add eax, eax
    expect(translate('8ec8')[0]!.name).toBe('INVALID'); // mov cs, eax
    expect(translate('f00118')[0]!.name).toBe('ADD_MR_32'); // lock add [rax], ebx
  });

  it('makes more than 15 bytes #GP, not #UD', () => {
    const prefixes = '66'.repeat(13);
    expect(translate(`${prefixes}0f0b0000`)[0]).toMatchObject({ name: 'INVALID', kind: 0, length: 15 });
    expect(translate(`${prefixes}660f0b0000`)[0]).toMatchObject({ name: 'INVALID', kind: 1 });
  });

  it('knows the forms it lists', () => {
    const forms = new Set(translatedForms());
    for (const form of ['Add_rm32_r32', 'Cmpxchg16b_m128', 'VEX_Pdep_r64_r64_rm64', 'Movdqu_xmm_xmmm128', 'Iretq']) {
      expect(forms.has(form), form).toBe(true);
    }
    expect(forms.has('Fld_m32fp')).toBe(false);
  });

  it('makes records of any bytes, within its bounds', () => {
    const property = fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 64 }),
      fc.integer({ min: 0, max: 0xfff }),
      fc.boolean(),
      fc.integer({ min: 1, max: MAX }),
      (code, pageOffset, crossing, max) => {
        bytes.fill(0xa5, OUT);
        bytes.set(code, CODE);
        const count = translator.translate(CODE, code.length, pageOffset, OUT, max, crossing);
        expect(count).toBeLessThanOrEqual(crossing ? 1 : max);
        if (count === 0) expect(code.length).toBeLessThan(15);
        let at = pageOffset;
        for (let index = 0; index < count; index++) {
          const op = readOp(OUT + index * OP_RECORD.size);
          expect(op.name).toBeDefined();
          expect(op.length).toBeGreaterThanOrEqual(1);
          expect(op.length).toBeLessThanOrEqual(15);
          expect(op.pageOffset).toBe(at);
          at += op.length;
        }
        expect(at - pageOffset).toBeLessThanOrEqual(code.length);
        expect(bytes[OUT + count * OP_RECORD.size]).toBe(0xa5);
      },
    );
    fc.assert(property, { numRuns: 2000 * scale });
  });
});
