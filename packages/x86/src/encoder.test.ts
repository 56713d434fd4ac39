import * as fc from 'fast-check';
import { Decoder, DecoderOptions, Formatter, FormatterSyntax, MemorySizeOptions } from 'iced-x86';
import { describe, expect, inject, it } from 'vitest';
import { Assembler, AssemblyError } from './encoder.js';

const scale = inject('scale');
const BASE = 0xfffff800_12340000n;

function bytesOf(source: string, base = BASE): Uint8Array {
  return new Assembler().section('text', base).assemble(source).link().sections.get('text')!.bytes;
}

function hex(source: string): string {
  return Buffer.from(bytesOf(source)).toString('hex');
}

/** Disassembles with the notation that the assembler reads. */
function disassemble(bytes: Uint8Array, base = BASE): string[] {
  const decoder = new Decoder(64, bytes, DecoderOptions.None);
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
    ['mov rax, [eax]', '64-bit registers'],
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
    expect(() => bytesOf(source)).toThrow(AssemblyError);
    expect(() => bytesOf(source)).toThrow(message);
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

  it.each(['__proto__', 'constructor', 'toString', 'mov rax, __proto__ ptr [rax]', 'rep __proto__'])(
    'does not take what every JavaScript object has for an instruction: %s',
    (source) => {
      expect(() => bytesOf(source)).toThrow(AssemblyError);
    },
  );

  it('refuses garbage without any other error', () => {
    fc.assert(
      fc.property(fc.string(), fc.constantFrom('', 'mov rax, ', 'db ', 'jmp '), (text, start) => {
        try {
          bytesOf(start + text);
        } catch (error) {
          expect(error).toBeInstanceOf(AssemblyError);
        }
      }),
      { numRuns: 300 * scale },
    );
  });
});
