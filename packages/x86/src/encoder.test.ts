import * as fc from 'fast-check';
import { Decoder, DecoderOptions, Formatter, FormatterSyntax, MemorySizeOptions } from 'iced-x86';
import { describe, expect, inject, it } from 'vitest';
import type { Bitness } from './decoder.js';
import { Assembler, X86Error } from './encoder.js';

const scale = inject('scale');
const BASE = 0xfffff800_12340000n;

function bytesOf(source: string, base = BASE, bitness: Bitness = 64): Uint8Array {
  return new Assembler({ bitness }).section('text', base).assemble(source).link().sections.get('text')!.bytes;
}

function hex(source: string, base = BASE, bitness: Bitness = 64): string {
  return Buffer.from(bytesOf(source, base, bitness)).toString('hex');
}

/** Disassembles with the notation that the assembler reads. */
function disassemble(bytes: Uint8Array, base = BASE, bitness: Bitness = 64): string[] {
  const decoder = new Decoder(bitness, bytes, DecoderOptions.None);
  const formatter = new Formatter(FormatterSyntax.Intel);
  formatter.hexPrefix = '0x';
  formatter.hexSuffix = '';
  formatter.uppercaseHex = false;
  formatter.smallHexNumbersInDecimal = false;
  formatter.spaceAfterOperandSeparator = true;
  formatter.memorySizeOptions = MemorySizeOptions.Always;
  decoder.ip = base;
  const lines: string[] = [];
  while (decoder.canDecode) {
    const instruction = decoder.decode();
    lines.push(formatter.format(instruction));
    instruction.free();
  }
  formatter.free();
  decoder.free();
  return lines;
}

describe('Assembler', () => {
  it.each([
    // The bytes of the SDM's encodings (vol. 2), as any assembler gives them.
    ['mov rax, cr3', '0f20d8'],
    ['mov cr8, rax', '440f22c0'],
    ['mov gs:[0x10], rsp', '65488924251000 0000'.replace(' ', '')],
    ['mov rax, -1', '48c7c0ffffffff'],
    ['mov eax, 0xffffffff', 'b8ffffffff'],
    ['mov rax, 0xfffff80012345678', '48b87856341200f8ffff'],
    ['push 0x1000', '6800100000'],
    ['push -1', '6aff'],
    ['or qword [rbx+8], 4', '48834b0804'],
    ['lock cmpxchg [rdi], rcx', 'f0480fb10f'],
    ['bts qword ptr [rdi], 2', '480fba2f02'],
    ['xchg [rdi], rax', '488707'],
    ['rep movsq', 'f348a5'],
    ['stosd', 'ab'],
    ['iretq', '48cf'],
    ['sysretq', '480f07'],
    ['swapgs', '0f01f8'],
    ['retfq', '48cb'],
    ['invlpg [rax]', '0f0138'],
    ['lgdt [rsp]', '0f011424'],
    ['ltr ax', '660f00d8'],
    ['out 0xe9, al', 'e6e9'],
    ["cmp al, 'a'", '3c61'],
    ['movups [rdi+16], xmm1', '0f114f10'],
    ['mov rax, [rsp+rbp]', '488b042c'],
    ['mov rax, [rbp]', '488b4500'],
    ['mov r9b, [r13+r12*8-0x80]', '478a4ce580'],
    ['mov rax, [eax-4]', '67488b40fc'],
    ['mov rax, [esp+ebp]', '67488b042c'],
    ['db "lab", 10, 0', '6c61620a00'],
    ['dw 0x1234, -1', '3412ffff'],
    ['dq 1 ; a comment', '0100000000000000'],
  ])('encodes %s', (source, expected) => {
    expect(hex(source)).toBe(expected);
  });

  it('resolves labels in both directions, locals by their outer label', () => {
    const source = `
      first:  jmp .end
      .loop:  jne short .loop
      .end:   call second
              lea rax, [text+1]
              mov rbx, first
              ret
      second: jmp short .end
              align 16
      .end:   ret
      text:   db "x"
              dq second, outside+8
    `;
    const program = new Assembler().section('code', BASE).define('outside', 0x1000n).assemble(source).link();
    const { bytes } = program.sections.get('code')!;
    const at = (label: string): bigint => program.labels.get(label)!;
    const text = at('text');
    expect(disassemble(bytes.subarray(0, Number(at('second') - BASE)))).toEqual([
      `jmp 0x${at('first.end').toString(16)}`,
      `jne short 0x${at('first.loop').toString(16)}`,
      `call 0x${at('second').toString(16)}`,
      `lea rax, [0x${(text + 1n).toString(16)}]`,
      `mov rbx, 0x${BASE.toString(16)}`,
      'ret',
    ]);
    expect(at('second.end') % 16n).toBe(0n);
    const view = new DataView(bytes.buffer, Number(text - BASE) + 1);
    expect(view.getBigUint64(0, true)).toBe(at('second'));
    expect(view.getBigUint64(8, true)).toBe(0x1008n);
  });

  it('links sections that refer to each other', () => {
    const program = new Assembler()
      .section('code', 0x1000n)
      .assemble('start: mov rax, [counter]\n jmp start')
      .section('data', 0x5000n, { pad: 0 })
      .assemble('db 1\n align 8\n counter: dq start')
      .section('code', 0x1000n)
      .assemble('ret')
      .link();
    expect(program.labels.get('counter')).toBe(0x5008n);
    expect(disassemble(program.sections.get('code')!.bytes, 0x1000n)[0]).toBe('mov rax, qword ptr [0x5008]');
    expect(program.sections.get('data')!.bytes).toEqual(
      Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0),
    );
  });

  it.each([
    ['mov [rax], 1', 'size of the memory operand'],
    ['movzx eax, [rax]', 'size of the memory operand'],
    ['mov eax, rbx', 'no form of mov'],
    ['add rax, 0x123456789', 'no form of add'],
    ['frobnicate rax', 'no such instruction'],
    ['mov rax, [rbx+rcx+rdx]', 'no such address'],
    ['mov rax, [eax+rbx]', 'registers of one size'],
    ['mov rax, [al]', 'registers of one size'],
    ['mov ax, [bx]', 'no 16-bit addresses'],
    ['jmp 8:0x1000', 'no form of jmp'],
    ['mov rax, [rbx+0x123456789]', 'does not fit'],
    ['lock rep movsb', 'no such instruction: rep'],
    ['rep mov rax, rbx', 'no meaning'],
    ['a: nop\na: nop', 'defined twice'],
    ['jmp nowhere', 'no such label'],
    ['jmp short far\nzero 300\nfar: ret', 'out of reach'],
    ['dd a\na: ret', 'needs dq'],
    ['mov rax, 5 +', 'incomplete'],
    ['align 0', 'not a size'],
  ])('refuses %s', (source, message) => {
    expect(() => bytesOf(source)).toThrow(X86Error);
    expect(() => bytesOf(source)).toThrow(message);
  });

  it.each([
    ['mov eax, cr3', '0f20d8'],
    ['mov eax, 5', 'b805000000'],
    ['mov ax, 5', '66b80500'],
    ['inc eax', '40'],
    ['push 0x1000', '6800100000'],
    ['push -1', '6aff'],
    ['push es', '06'],
    ['push fs', '0fa0'],
    ['pushad', '60'],
    ['pushfd', '9c'],
    ['iretd', 'cf'],
    ['retf', 'cb'],
    ['ret', 'c3'],
    ['call [eax]', undefined],
    ['call dword [eax]', 'ff10'],
    ['call fword [eax]', 'ff18'],
    ['sysexit', '0f35'],
    ['lgdt [eax]', '0f0110'],
    ['mov fs:[0x10], esp', '64892510000000'],
    ['mov es:[edi+0x1000], al', '26888700100000'],
    ['mov eax, [esp+4]', '8b442404'],
    ['mov eax, [ebx+ecx*4-0x80]', '8b448b80'],
    ['mov eax, [ecx*8]', '8b04cd00000000'],
    ['mov eax, [bx+si+0x10]', '678b4010'],
    ['mov eax, [si+bx]', '678b00'],
    ['cmpxchg8b [esi]', '0fc70e'],
    ['rep movsd', 'f3a5'],
    ['stosw', '66ab'],
    ['jmp 8:0x12345678', 'ea785634120800'],
    ['call 0x23:0x1000', '9a001000002300'],
    ['movq [edi], mm3', '0f7f1f'],
    ['enter 16, 1', 'c8100001'],
  ])('encodes 32-bit %s', (source, expected) => {
    if (expected === undefined) {
      expect(() => hex(source, 0x40_1000n, 32)).toThrow('size of the memory operand');
    } else {
      expect(hex(source, 0x40_1000n, 32)).toBe(expected);
    }
  });

  it.each([
    ['mov ax, 5', 'b80500'],
    ['mov eax, 5', '66b805000000'],
    ['mov ax, [bx+si-2]', '8b40fe'],
    ['mov ax, [bp]', '8b4600'],
    ['mov ax, [0x1234]', '8b063412'],
    ['mov eax, [ebx]', '66678b03'],
    ['push 0x1234', '683412'],
    ['jmp 8:0x1234', 'ea34120800'],
    ['movsd', '66a5'],
    ['lidt [bx]', '0f011f'],
  ])('encodes 16-bit %s', (source, expected) => {
    expect(hex(source, 0x1000n, 16)).toBe(expected);
  });

  it('gives labels of 32-bit code absolute addresses in operands and relative ones in branches', () => {
    const source = `
      start: mov eax, table
             mov ecx, [table+4]
             mov edx, [table+eax*4-4]
             push table
             jmp 8:.far
      .far:  jne short start
             call start
      table: dd start, 5
             dq table
             dw 7
    `;
    const program = new Assembler({ bitness: 32 }).section('code', 0x8040_1000n).assemble(source).link();
    const { bytes } = program.sections.get('code')!;
    const at = (label: string): number => Number(program.labels.get(label)! - 0x8040_1000n);
    const table = 0x8040_1000 + at('table');
    expect(disassemble(bytes.subarray(0, at('table')), 0x8040_1000n, 32)).toEqual([
      `mov eax, 0x${table.toString(16)}`,
      `mov ecx, dword ptr [0x${(table + 4).toString(16)}]`,
      `mov edx, dword ptr [eax*4-0x${(0x1_0000_0000 - table + 4).toString(16)}]`,
      `push 0x${table.toString(16)}`,
      `jmp far 0x${(0x8040_1000 + at('start.far')).toString(16)}, 0x0008`,
      'jne short 0x80401000',
      'call 0x80401000',
    ]);
    const view = new DataView(bytes.buffer, at('table'));
    expect(view.getUint32(0, true)).toBe(0x8040_1000);
    expect(view.getBigUint64(8, true)).toBe(BigInt(table));
    expect(view.getUint16(16, true)).toBe(7);
  });

  it.each([
    ['mov rax, 5', 'no form of mov'],
    ['mov eax, [rax]', 'no 64-bit addresses'],
    ['swapgs', 'no such instruction'],
    ['movsq', 'no such instruction'],
    ['mov eax, [eax+0x123456789]', 'does not fit'],
    ['mov eax, [esp*2]', 'cannot be an index'],
    ['mov eax, [rip+8]', 'no 64-bit addresses'],
    ['a: dw a', 'needs dd'],
    ['jmp 0x12345:8', 'not a selector'],
    ['a: mov ax, [a+bx]', 'address does not fit'],
  ])('refuses 32-bit %s', (source, message) => {
    expect(() => bytesOf(source, 0x40_1000n, 32)).toThrow(X86Error);
    expect(() => bytesOf(source, 0x40_1000n, 32)).toThrow(message);
  });

  it('gives the text back that it was given', () => {
    const registers = [
      'rax',
      'rcx',
      'rdx',
      'rbx',
      'rbp',
      'rsi',
      'rdi',
      ...Array.from({ length: 8 }, (_, i) => `r${i + 8}`),
    ];
    const register = fc.constantFrom(...registers);
    const number = fc.integer({ min: 0, max: 0x7fff_ffff }).map((n) => `0x${n.toString(16)}`);
    const displacement = fc
      .integer({ min: -0x8000_0000, max: 0x7fff_ffff })
      .map((n) => (n === 0 ? '' : `${n < 0 ? '-' : '+'}0x${Math.abs(n).toString(16)}`));
    const memory = fc
      .tuple(
        fc.constantFrom('', 'gs:', 'fs:'),
        register,
        fc.option(fc.tuple(register, fc.constantFrom(2, 4, 8))),
        displacement,
      )
      .map(
        ([segment, base, index, offset]) =>
          `qword ptr ${segment}[${base}${index === null ? '' : `+${index[0]}*${index[1]}`}${offset}]`,
      );
    const two = fc.constantFrom('mov', 'add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp');
    const line = fc.oneof(
      fc.tuple(two, register, register).map(([m, a, b]) => `${m} ${a}, ${b}`),
      fc.tuple(two, register, memory).map(([m, a, b]) => `${m} ${a}, ${b}`),
      fc.tuple(two, memory, register).map(([m, a, b]) => `${m} ${a}, ${b}`),
      fc.tuple(two, memory, number).map(([m, a, b]) => `${m} ${a}, ${b}`),
      fc
        .tuple(fc.constantFrom('not', 'neg', 'inc', 'dec', 'push', 'pop', 'mul', 'call'), memory)
        .map(([m, a]) => `${m} ${a}`),
      fc.tuple(fc.constantFrom('xadd', 'cmpxchg'), memory, register).map(([m, a, b]) => `lock ${m} ${a}, ${b}`),
      fc.tuple(fc.constantFrom('bt', 'bts', 'btr', 'btc'), memory, register).map(([m, a, b]) => `${m} ${a}, ${b}`),
      fc.constantFrom(
        'rep movsq',
        'repe cmpsb',
        'stosq',
        'cli',
        'sti',
        'hlt',
        'cpuid',
        'wrmsr',
        'syscall',
        'leave',
        'cqo',
      ),
    );
    fc.assert(
      fc.property(fc.array(line, { minLength: 1, maxLength: 20 }), (lines) => {
        // String instructions are written without their implied operands.
        const text = disassemble(bytesOf(lines.join('\n'))).map((l) => l.replace(/((?:movs|cmps|stos)[bq]).*$/, '$1'));
        expect(text).toEqual(lines);
      }),
      { numRuns: 100 * scale },
    );
  });

  it.each([16, 32] as const)('gives the text of %i-bit code back that it was given', (bitness) => {
    const register = fc.constantFrom('eax', 'ecx', 'edx', 'ebx', 'ebp', 'esi', 'edi');
    const displacement = fc
      .integer({ min: -0x8000_0000, max: 0x7fff_ffff })
      .map((n) => (n === 0 ? '' : `${n < 0 ? '-' : '+'}0x${Math.abs(n).toString(16)}`));
    const segment = fc.constantFrom('', 'gs:', 'fs:', 'es:', 'cs:');
    const memory = fc
      .tuple(segment, register, fc.option(fc.tuple(register, fc.constantFrom(2, 4, 8))), displacement)
      .map(
        ([prefix, base, index, offset]) =>
          `dword ptr ${prefix}[${base}${index === null ? '' : `+${index[0]}*${index[1]}`}${offset}]`,
      );
    const line = fc.oneof(
      fc.tuple(fc.constantFrom('mov', 'add', 'xor', 'cmp'), register, register).map(([m, a, b]) => `${m} ${a}, ${b}`),
      fc.tuple(fc.constantFrom('mov', 'or', 'adc'), register, memory).map(([m, a, b]) => `${m} ${a}, ${b}`),
      fc.tuple(fc.constantFrom('mov', 'and', 'xchg'), memory, register).map(([m, a, b]) => `${m} ${a}, ${b}`),
      fc.tuple(fc.constantFrom('inc', 'neg', 'push', 'pop', 'mul'), memory).map(([m, a]) => `${m} ${a}`),
      fc.constantFrom('cli', 'hlt', 'wrmsr', 'sysenter', 'daa', 'leave'),
    );
    fc.assert(
      fc.property(fc.array(line, { minLength: 1, maxLength: 20 }), (lines) => {
        expect(disassemble(bytesOf(lines.join('\n'), 0x40_1000n, bitness), 0x40_1000n, bitness)).toEqual(lines);
      }),
      { numRuns: 50 * scale },
    );
  });

  it.each(['__proto__', 'constructor', 'toString', 'mov rax, __proto__ ptr [rax]', 'rep __proto__'])(
    'does not take what every JavaScript object has for an instruction: %s',
    (source) => {
      expect(() => bytesOf(source)).toThrow(X86Error);
    },
  );

  it('refuses garbage without any other error', () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.constantFrom('', 'mov rax, ', 'db ', 'jmp '),
        fc.constantFrom(16, 32, 64),
        (text, start, bitness) => {
          try {
            bytesOf(start + text, BASE, bitness);
          } catch (error) {
            expect(error).toBeInstanceOf(X86Error);
          }
        },
      ),
      { numRuns: 300 * scale },
    );
  });
});
