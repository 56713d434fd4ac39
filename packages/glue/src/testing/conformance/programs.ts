import { type Gpa, gpa } from '@introd/abi';
import { type ConformanceInstruction, code, labelled, le32, load, store32, storeRax } from './instruction.js';
import * as at from './layout.js';

const END = [store32(at.Mailbox.DONE, 1), code('jmp $', 'eb fe')];
const SECOND_END = [store32(at.Mailbox.SECOND_DONE, 1), code('jmp $', 'eb fe')];

/** `mov reg, address of a data byte`. */
const point = (register: 'rbx' | 'rsi' | 'rdi', address: number) => load(register, at.windowOf(gpa(address)));
/** `op [address]` with a two-byte opcode and an absolute operand. */
const table = (text: string, opcode: string, operand: number) =>
  code(`${text} [0x${operand.toString(16)}]`, opcode, le32(operand));

/** What `write` stores; the halves differ so that a torn write shows. */
export const WRITTEN = 0x1122_3344_5566_7788n;
/** What the read programs preload RAX with. */
export const PRELOAD = 0x5555_5555_5555_5555n;
/** Offset of the accesses in the data page. */
export const OFFSET = 0x10;
/** How often `write-loop` writes: more instructions than a backend runs of one VCPU before it turns to the next. */
export const LOOP_COUNT = 200;
/** Bytes of `copy` before and after the page boundary. */
export const COPY_HALF = 8;
/** Offset in the data page of what `copy` copies. */
export const COPY_SOURCE = 0x200;
/** Limit of the GDTR that `load-gdt` loads; the entry state has a smaller one. */
export const LOADED_GDT_LIMIT = 0x27;
/** CR4.DE: without effect on what the programs do. */
export const CR4_DE = 0x8n;
/** CR0.TS */
export const CR0_TS = 0x8n;
/** IA32_LSTAR, IA32_STAR and IA32_CSTAR (SDM vol. 4, table 2-2). */
export const MSR_LSTAR = 0xc000_0082;
export const MSR_STAR = 0xc000_0081;
/** What `msr` writes, the high half in EDX. */
export const MSR_VALUE = 0xffff_f800_1234_5678n;

/** The function at {@link at.FAR_CODE}: two instructions that each show whether they ran. */
export const FAR_FUNCTION: readonly ConformanceInstruction[] = [
  labelled('far first', code('mov eax, 0x1234', 'b8', le32(0x1234))),
  labelled('far second', code('add eax, 1', '83 c0 01')),
  code('ret', 'c3'),
];

/** Every program, by name. Hand-encoded; hv-sim's tests check bytes against text with a decoder. */
export const PROGRAMS = {
  spin: [code('jmp $', 'eb fe')],
  count: [
    labelled(
      'count',
      code(`inc qword ptr [0x${at.Mailbox.RESULT.toString(16)}]`, '48 ff 04 25', le32(at.Mailbox.RESULT)),
    ),
    code('jmp count', 'eb f6'),
  ],
  write: [
    point('rbx', at.DATA + OFFSET),
    load('rax', WRITTEN),
    labelled('access', code('mov [rbx], rax', '48 89 03')),
    labelled('after', storeRax(at.Mailbox.RESULT)),
    ...END,
  ],
  'write-twice': [
    point('rbx', at.DATA + OFFSET),
    load('rax', WRITTEN),
    labelled('access', code('mov [rbx], rax', '48 89 03')),
    labelled('again', code('mov [rbx+8], rax', '48 89 43 08')),
    ...END,
  ],
  'write-loop': [
    point('rbx', at.DATA + OFFSET),
    load('rcx', BigInt(LOOP_COUNT)),
    labelled('access', code('mov [rbx], rcx', '48 89 0b')),
    code('dec rcx', '48 ff c9'),
    code('jnz access', '75 f8'),
    ...END,
  ],
  'second-write': [
    point('rbx', at.DATA + 0x100),
    load('rax', WRITTEN),
    labelled('second access', code('mov [rbx], rax', '48 89 03')),
    ...SECOND_END,
  ],
  read: [
    point('rbx', at.DATA + OFFSET),
    load('rax', PRELOAD),
    labelled('access', code('mov rax, [rbx]', '48 8b 03')),
    labelled('after', storeRax(at.Mailbox.RESULT)),
    ...END,
  ],
  'read-add': [
    point('rbx', at.DATA + OFFSET),
    load('rax', 1n),
    labelled('access', code('add eax, dword ptr [rbx]', '03 03')),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  'locked-add': [
    point('rbx', at.DATA + OFFSET),
    labelled('access', code('lock add qword ptr [rbx], 1', 'f0 48 83 03 01')),
    ...END,
  ],
  'write-across': [
    point('rbx', at.NEXT_DATA - 4),
    load('rax', WRITTEN),
    labelled('access', code('mov [rbx], rax', '48 89 03')),
    ...END,
  ],
  copy: [
    point('rsi', at.DATA + COPY_SOURCE),
    point('rdi', at.NEXT_DATA - COPY_HALF),
    load('rcx', BigInt(2 * COPY_HALF)),
    labelled('access', code('rep movsb', 'f3 a4')),
    ...END,
  ],
  'copy-down': [
    point('rsi', at.DATA + COPY_SOURCE + 2 * COPY_HALF - 1),
    point('rdi', at.NEXT_DATA + COPY_HALF - 1),
    load('rcx', BigInt(2 * COPY_HALF)),
    code('std', 'fd'),
    labelled('access', code('rep movsb', 'f3 a4')),
    code('cld', 'fc'),
    ...END,
  ],
  'copy-page-to-page': [
    point('rsi', at.DATA + COPY_SOURCE),
    point('rdi', at.NEXT_DATA + OFFSET),
    load('rcx', BigInt(2 * COPY_HALF)),
    labelled('access', code('rep movsb', 'f3 a4')),
    ...END,
  ],
  call: [
    load('rax', BigInt(at.FAR_CODE)),
    labelled('call', code('call rax', 'ff d0')),
    labelled('after', storeRax(at.Mailbox.RESULT)),
    ...END,
  ],
  'touch-fresh': [point('rbx', at.FRESH_DATA), labelled('access', code('mov [rbx], rbx', '48 89 1b')), ...END],
  push: [
    load('rax', WRITTEN),
    labelled('access', code('push rax', '50')),
    code('pop rcx', '59'),
    code('mov rax, rcx', '48 89 c8'),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  cr0: [
    code('mov rax, cr0', '0f 20 c0'),
    code('xor rax, 8', '48 83 f0 08'),
    labelled('access', code('mov cr0, rax', '0f 22 c0')),
    labelled('after', code('mov rax, cr0', '0f 20 c0')),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  cr3: [
    load('rax', BigInt(at.OTHER_PML4)),
    labelled('access', code('mov cr3, rax', '0f 22 d8')),
    labelled('after', code('mov rax, cr3', '0f 20 d8')),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  cr4: [
    code('mov rax, cr4', '0f 20 e0'),
    code('xor rax, 8', '48 83 f0 08'),
    labelled('access', code('mov cr4, rax', '0f 22 e0')),
    labelled('after', code('mov rax, cr4', '0f 20 e0')),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  cr8: [
    load('rax', 5n),
    labelled('access', code('mov cr8, rax', '44 0f 22 c0')),
    labelled('after', code('mov rax, cr8', '44 0f 20 c0')),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  msr: [
    code('mov ecx, 0xc0000082', 'b9', le32(MSR_LSTAR)),
    code('mov eax, 0x12345678', 'b8', le32(0x1234_5678)),
    code('mov edx, 0xfffff800', 'ba', le32(0xffff_f800)),
    labelled('access', code('wrmsr', '0f 30')),
    labelled('after', code('rdmsr', '0f 32')),
    code('shl rdx, 32', '48 c1 e2 20'),
    code('or rax, rdx', '48 09 d0'),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  xcr: [
    code('mov rax, cr4', '0f 20 e0'),
    code('or rax, 0x40000', '48 0d', le32(0x4_0000)), // CR4.OSXSAVE
    code('mov cr4, rax', '0f 22 e0'),
    code('xor ecx, ecx', '31 c9'),
    code('xor edx, edx', '31 d2'),
    code('mov eax, 3', 'b8', le32(3)),
    labelled('access', code('xsetbv', '0f 01 d1')),
    labelled('after', code('xgetbv', '0f 01 d0')),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  vectors: [
    code('mov rax, cr4', '0f 20 e0'),
    code('or rax, 0x200', '48 0d', le32(0x200)), // CR4.OSFXSR
    code('mov cr4, rax', '0f 22 e0'),
    load('rax', WRITTEN),
    code('movq xmm3, rax', '66 48 0f 6e d8'),
    load('rax', PRELOAD),
    code('movq xmm12, rax', '66 4c 0f 6e e0'),
    code('movlhps xmm3, xmm12', '41 0f 16 dc'),
    labelled('access', code('vmcall', '0f 01 c1')),
    labelled('after', code('movups [rsp-16], xmm3', '0f 11 5c 24 f0')),
    code('mov rax, [rsp-16]', '48 8b 44 24 f0'),
    storeRax(at.Mailbox.RESULT),
    code('mov rax, [rsp-8]', '48 8b 44 24 f8'),
    storeRax(at.Mailbox.SECOND_RESULT),
    ...END,
  ],
  'xsave-size': [
    code('mov rax, cr4', '0f 20 e0'),
    code('or rax, 0x40000', '48 0d', le32(0x4_0000)), // CR4.OSXSAVE
    code('mov cr4, rax', '0f 22 e0'),
    code('mov eax, 0xd', 'b8', le32(0xd)),
    code('xor ecx, ecx', '31 c9'),
    code('cpuid', '0f a2'),
    code('and eax, 7', '83 e0 07'), // x87, SSE, and AVX where there is one
    code('xor ecx, ecx', '31 c9'),
    code('xor edx, edx', '31 d2'),
    code('xsetbv', '0f 01 d1'),
    code('mov eax, 0xd', 'b8', le32(0xd)),
    code('cpuid', '0f a2'),
    code('mov rax, rbx', '48 89 d8'),
    storeRax(at.Mailbox.RESULT),
    labelled('access', code('vmcall', '0f 01 c1')),
    ...END,
  ],
  'load-gdt': [
    labelled('access', table('lgdt', '0f 01 14 25', at.TABLE_OPERANDS + 0x10)),
    labelled('after', table('sgdt', '0f 01 04 25', at.Mailbox.RESULT)),
    ...END,
  ],
  'store-idt': [labelled('access', table('sidt', '0f 01 0c 25', at.Mailbox.RESULT)), ...END],
  breakpoint: [labelled('access', code('int3', 'cc')), labelled('after', store32(at.Mailbox.RESULT, 7)), ...END],
  vmcall: [
    load('rax', PRELOAD),
    labelled('access', code('vmcall', '0f 01 c1')),
    labelled('after', storeRax(at.Mailbox.RESULT)),
    ...END,
    labelled('elsewhere', store32(at.Mailbox.SECOND_RESULT, 9)),
    ...END,
  ],
  'vmcall-fs': [
    labelled('access', code('vmcall', '0f 01 c1')),
    labelled('after', code('mov rax, fs:[0x10]', '64 48 8b 04 25', le32(0x10))),
    storeRax(at.Mailbox.RESULT),
    ...END,
  ],
  'triple-fault': [table('lidt', '0f 01 1c 25', at.TABLE_OPERANDS), code('ud2', '0f 0b')],
} as const satisfies Record<string, readonly ConformanceInstruction[]>;

/** Name of a program of the conformance guest. */
export type ProgramName = keyof typeof PROGRAMS;

/** Every instruction that the guest may run outside the handlers, for tools that check the encodings. */
export function conformanceInstructions(): { program: string; text: string; bytes: Uint8Array; gpa: Gpa }[] {
  const programs: [string, Gpa, readonly ConformanceInstruction[]][] = [
    ...Object.entries(PROGRAMS).map(([name, list]): [string, Gpa, readonly ConformanceInstruction[]] => [
      name,
      at.CODE,
      list,
    ]),
    ['far function', at.FAR_CODE, FAR_FUNCTION],
  ];
  return programs.flatMap(([program, start, list]) => {
    let address: number = start;
    return list.map(({ text, bytes }) => {
      const here = gpa(address);
      address += bytes.length;
      return { program, text, bytes, gpa: here };
    });
  });
}
