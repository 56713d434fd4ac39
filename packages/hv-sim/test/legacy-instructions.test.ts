import { ShutdownReason } from '@introd/abi';
import { expect, test } from 'vitest';
import { AT, descriptor, ProtectedGuest, SELECTOR } from './protected-guest.js';

/** What {@link ProtectedGuest.outcome} gives when nothing has faulted. */
const ENDED = 0x77;
const SPARE = SELECTOR.spare;
const CF = 1;
const AF = 0x10;
const ZF = 0x40;
const SF = 0x80;

/** Runs text and gives EAX, then the flags in `mask`. */
function after(text: string, mask: number): [number, number] {
  const guest = new ProtectedGuest();
  guest.outcome(`${text}\nmov ebx, eax\npushfd\npop ecx`);
  expect(guest.machine.powerOffCode).toBe(ENDED);
  return [guest.register('rbx') >>> 0, guest.register('rcx') & mask];
}

/** Sets CF and AF as wanted. */
const FLAGS = (bits: number): string => `push ${bits | 2}\npopfd`;

test.each([
  ['AAA after 9 + 8', `mov eax, 0x0111\n${FLAGS(AF)}\ndb 0x37`, 0x207, CF | AF],
  ['AAA without carry', `mov eax, 0x0105\n${FLAGS(0)}\ndb 0x37`, 0x105, 0],
  ['AAA that carries out of AL', `mov eax, 0x00fa\n${FLAGS(0)}\ndb 0x37`, 0x200, CF | AF],
  ['AAS after 3 - 8', `mov eax, 0x01fb\n${FLAGS(AF | CF)}\ndb 0x3f`, 0x005, CF | AF],
  ['AAS without borrow', `mov eax, 0x0203\n${FLAGS(0)}\ndb 0x3f`, 0x203, 0],
  ['DAA of 79h + 35h', `mov eax, 0xae\n${FLAGS(0)}\ndb 0x27`, 0x14, CF | AF],
  ['DAA of 2Eh', `mov eax, 0x2e\n${FLAGS(0)}\ndb 0x27`, 0x34, AF],
  ['DAS of 35h - 47h', `mov eax, 0xee\n${FLAGS(AF | CF)}\ndb 0x2f`, 0x88, CF | AF],
  ['DAS of 05h with borrow', `mov eax, 0x05\n${FLAGS(AF)}\ndb 0x2f`, 0xff, CF | AF],
] as const)('%s', (_name, text, eax, flags) => {
  expect(after(text, CF | AF)).toEqual([eax, flags]);
});

test.each([
  ['AAM', 'mov eax, 0x5a\ndb 0xd4, 10', 0x900, ZF],
  ['AAM of base 16', 'mov eax, 0x5a\ndb 0xd4, 16', 0x50a, 0],
  ['AAD', 'mov eax, 0x0905\ndb 0xd5, 10', 0x5f, 0],
  ['AAD to a negative byte', 'mov eax, 0x0f0f\ndb 0xd5, 16', 0xff, SF],
] as const)('%s', (_name, text, eax, flags) => {
  expect(after(text, ZF | SF)).toEqual([eax, flags]);
});

test('AAM by 0 is #DE', () => {
  const guest = new ProtectedGuest();
  expect(guest.outcome('db 0xd4, 0')).toBe(0);
  expect(guest.frame(1)).toEqual([AT.code]);
});

test.each([
  [CF, 0xff],
  [0, 0],
])('SALC fills AL with CF = %i', (flags, al) => {
  expect(after(`mov eax, 0x11\n${FLAGS(flags)}\ndb 0xd6`, 0)[0]).toBe(al);
});

test('PUSHA stores the registers with the old stack pointer, and POPA leaves that one out', () => {
  const guest = new ProtectedGuest();
  expect(
    guest.outcome(`
    mov eax, 1
    mov ecx, 2
    mov edx, 3
    mov ebx, 4
    mov ebp, 5
    mov esi, 6
    mov edi, 7
    db 0x60
    mov dword ptr [esp + 12], 0xdead
    mov dword ptr [esp + 24], 0x22
    xor edi, edi
    db 0x61`),
  ).toBe(ENDED);
  const pushed = Array.from({ length: 8 }, (_, i) => guest.read32(AT.stack - 4 - i * 4));
  expect(pushed).toEqual([1, 0x22, 3, 4, 0xdead, 5, 6, 7]);
  expect(['rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'].map((name) => guest.register(name as 'rcx'))).toEqual([
    0x22,
    3,
    4,
    AT.stack,
    5,
    6,
    7,
  ]);
});

test.each([
  [4, ENDED],
  [-3, ENDED],
  [10, ENDED],
  [11, 5],
  [-4, 5],
])('BOUND of index %i in -3..10', (index, outcome) => {
  const guest = new ProtectedGuest();
  // BOUND EAX, [data]
  const text = `mov dword ptr [data], -3\nmov dword ptr [data + 4], 10\nmov eax, ${index}\nfault: db 0x62, 0x05\ndd data`;
  expect(guest.outcome(text)).toBe(outcome);
  if (outcome === 5) expect(guest.frame(1)).toEqual([guest.label('fault')]);
});

test('INTO traps with OF set only, to behind it', () => {
  const set = new ProtectedGuest();
  expect(set.outcome('mov eax, 0x7fffffff\nadd eax, 1\ndb 0xce\nafter: nop')).toBe(4);
  expect(set.frame(1)).toEqual([set.label('after')]);
  expect(new ProtectedGuest().outcome('mov eax, 1\nadd eax, 1\ndb 0xce')).toBe(ENDED);
});

test('ARPL raises the privilege level of a selector, never lowers it', () => {
  expect(after('mov eax, 0x10\nmov ecx, 0x2b\ndb 0x63, 0xc8', ZF)).toEqual([0x13, ZF]);
  expect(after('mov eax, 0x13\nmov ecx, 0x28\ndb 0x63, 0xc8', ZF)).toEqual([0x13, 0]);
});

test('LDS, LES and LSS load a far pointer', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(AT.data, 0xf_ffff, 0x93));
  guest.write32(AT.data + 0x100, 0x40);
  guest.write32(AT.data + 0x104, SPARE);
  guest.write32(AT.data + 0x40, 0x600d);
  // LES EDI, [data + 100h]; LDS ESI, [data + 100h]; LSS ESP, [data + 100h]
  const end = guest.outcome(`
    db 0xc4, 0x3d
    dd data + 0x100
    mov ebx, es:[edi]
    db 0x0f, 0xb2, 0x25
    dd data + 0x100
    pop ecx
    db 0xc5, 0x35
    dd data + 0x100
    lodsd
    mov edx, eax`);
  expect(end).toBe(ENDED);
  expect(['rbx', 'rcx', 'rdx', 'rdi'].map((name) => guest.register(name as 'rcx'))).toEqual([
    0x600d, 0x600d, 0x600d, 0x40,
  ]);
});

test('ENTER and LEAVE make frames, nested ones with the frames around them', () => {
  const guest = new ProtectedGuest();
  // ENTER 16, 0 ... ENTER 8, 2
  expect(
    guest.outcome(
      'mov ebp, 0x1111\ndb 0xc8, 16, 0, 0\nmov ebx, ebp\ndb 0xc8, 8, 0, 2\nmov ecx, ebp\nmov edx, esp\nleave\nmov esi, ebp\nleave',
    ),
  ).toBe(ENDED);
  const first = AT.stack - 4;
  const second = first - 16 - 4;
  expect(guest.register('rbx')).toBe(first);
  expect(guest.register('rcx')).toBe(second);
  expect(guest.register('rdx')).toBe(second - 8 - 8);
  expect([guest.read32(second), guest.read32(second - 4), guest.read32(second - 8)]).toEqual([
    first,
    guest.read32(first - 4),
    second,
  ]);
  expect([guest.register('rsi'), guest.register('rbp'), guest.register('rsp')]).toEqual([first, 0x1111, AT.stack]);
});

test('LOOP counts in ECX, with a 16-bit address size in CX', () => {
  for (const [bytes, ecx, left] of [
    ['0xe2, 0xfd', 0x1_0003, 0],
    ['0x67, 0xe2, 0xfc', 0x1_0003, 0x1_0000],
    ['0xe3, 0x02', 0x1_0000, 0x1_0000],
    ['0x67, 0xe3, 0x02', 0x1_0000, 0x1_0000],
  ] as const) {
    const guest = new ProtectedGuest();
    const jumps = bytes.includes('0xe3');
    const text = jumps
      ? `mov ecx, ${ecx}\nxor ebx, ebx\ndb ${bytes}\nmov bl, 1\nmov edx, ecx`
      : `mov ecx, ${ecx}\nxor ebx, ebx\ninc ebx\ndb ${bytes}\nmov edx, ecx`;
    expect(guest.outcome(text, 400_000)).toBe(ENDED);
    expect(guest.register('rdx')).toBe(left);
    // JCXZ skips the MOV; JECXZ of the same value does not.
    if (jumps) expect(guest.register('rbx')).toBe(bytes.includes('0x67') ? 0 : 1);
    else expect(guest.register('rbx')).toBe(bytes.includes('0x67') ? 3 : ecx);
  }
});

test('string instructions use SI, DI and CX with a 16-bit address size, and wrap there', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(AT.data, 0xf_ffff, 0x93));
  guest.write32(AT.data + 0xfffc, 0x4433_2211);
  guest.write32(AT.data, 0x8877_6655);
  const end = guest.outcome(`
    mov eax, ${SPARE}
    mov ds, ax
    mov es, ax
    mov esi, 0x1234fffc
    mov edi, 0x56780100
    mov ecx, 0x9abc0008
    db 0x67, 0xf3, 0xa4`);
  expect(end).toBe(ENDED);
  expect([guest.read32(AT.data + 0x100), guest.read32(AT.data + 0x104)]).toEqual([0x4433_2211, 0x8877_6655]);
  expect(['rsi', 'rdi', 'rcx'].map((name) => guest.register(name as 'rcx'))).toEqual([
    0x1234_0004, 0x5678_0108, 0x9abc_0000,
  ]);
});

test('16-bit addresses wrap at 64 KiB, and BP goes through SS', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(AT.data, 0xf_ffff, 0x93));
  guest.write32(AT.data + 0x10, 0xabcd);
  // MOV ECX, [BX + SI]; MOV EDX, [BP + 10h]
  const end = guest.outcome(`
    mov eax, ${SPARE}
    mov ds, ax
    mov ss, ax
    mov esp, 0x1000
    mov ebx, 0x7777fff0
    mov esi, 0x88880020
    db 0x67, 0x8b, 0x08
    mov ebp, 0x55550000
    mov eax, ${SELECTOR.data}
    mov ds, ax
    db 0x67, 0x8b, 0x56, 0x10`);
  expect(end).toBe(ENDED);
  expect([guest.register('rcx'), guest.register('rdx')]).toEqual([0xabcd, 0xabcd]);
});

test('a code segment of 16 bits has words for operands, addresses and targets', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(AT.userCode, 0xffff, 0x9b, 0));
  guest.code(
    `mov bx, 0x1122
    call function
    mov al, 0x33
    out 0xf4, al
    function: mov cx, sp
    mov dx, [esp]
    ret`,
    0x100,
    16,
  );
  guest.write(AT.userCode + 0x100, readCode(guest, 0x100, 32));
  guest.outcome(`mov ebx, 0x55660000\nmov ecx, 0\nmov edx, 0\njmp ${SPARE}:0x100`);
  expect(guest.machine.powerOffCode).toBe(0x33);
  expect(guest.register('rbx')).toBe(0x5566_1122);
  expect(guest.register('rcx')).toBe((AT.stack - 2) & 0xffff);
  expect(guest.register('rdx')).toBe(guest.label('function') - 4);
});

function readCode(guest: ProtectedGuest, at: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => guest.read32(at + i) & 0xff);
}

test('a 16-bit operand size cuts the target of a branch to 16 bits', () => {
  const guest = new ProtectedGuest();
  guest.code('mov al, 0x44\nout 0xf4, al', 0x5100);
  // JMP rel16: 0x15000 + 4 + 0xfc without its upper half.
  guest.code(`db 0x66, 0xe9, 0xfc, 0x00`, 0x1_5000);
  expect(guest.outcome('mov ebx, 0x15000\njmp ebx')).toBe(0x44);
});

test('segment registers are pushed and popped with the operand size; POP SS holds interrupts off', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(0, 0xf_ffff, 0x93));
  const end = guest.outcome(`
    push ${SPARE}
    db 0x07
    mov ebx, es
    db 0x0e
    pop ecx
    db 0x66, 0x1e
    mov edx, esp
    db 0x66, 0x07
    push ${SPARE}
    db 0x17
    mov esi, ss`);
  expect(end).toBe(ENDED);
  expect(['rbx', 'rcx', 'rdx', 'rsi', 'rsp'].map((name) => guest.register(name as 'rcx'))).toEqual([
    SPARE,
    SELECTOR.code,
    AT.stack - 2,
    SPARE,
    AT.stack,
  ]);
});

test('LGDT takes 6 bytes, SGDT gives them back', () => {
  const guest = new ProtectedGuest();
  const pseudo = ((AT.gdt << 16) | 0xff) >>> 0;
  guest.write32(AT.data, pseudo);
  guest.write32(AT.data + 4, 0xffff_0000);
  guest.write32(AT.data + 12, 0xeeee_eeee);
  expect(guest.outcome(`lgdt [data]\nsgdt [data + 8]`)).toBe(ENDED);
  expect([guest.read32(AT.data + 8), guest.read32(AT.data + 12)]).toEqual([pseudo, 0xeeee_0000]);
});

test('BT with a register reaches through the segment on both sides of its operand', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(AT.data, 0xfff, 0x93, 4));
  const end = guest.outcome(`
    mov eax, ${SPARE}
    mov fs, ax
    mov eax, -32
    bts fs:[0x10], eax
    mov eax, 0x8000
    fault: bt fs:[0x10], eax`);
  expect(end).toBe(13);
  expect(guest.frame(2)).toEqual([0, guest.label('fault')]);
  expect(guest.read32(AT.data + 12)).toBe(1);
});

test('MASKMOVDQU and XLAT go through DS', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(AT.data, 0xfff, 0x91, 4));
  guest.write32(AT.data + 0x20, 0x99);
  const end = guest.outcome(`
    mov eax, ${SPARE}
    mov ds, ax
    mov ebx, 0x10
    mov eax, 0x10
    db 0xd7
    mov ecx, eax
    pxor xmm0, xmm0
    db 0x66, 0x0f, 0x76, 0xc0
    fault: db 0x66, 0x0f, 0xf7, 0xc0`);
  expect(guest.register('rcx')).toBe(0x99);
  expect(end).toBe(13);
  expect(guest.frame(2)).toEqual([0, guest.label('fault')]);
});

test('an operand that wraps at 4 GiB has its rest at 0', () => {
  const guest = new ProtectedGuest('32-bit');
  // The last page of linear addresses is that of AT.data; the first one stays where it is.
  guest.write32(AT.directory32 + 0x3ff * 4, 0x7007);
  guest.write32(0x7000 + 0x3ff * 4, AT.data | 7);
  guest.write32(AT.data + 0xffc, 0x4433_2211);
  // LES EDI, [FFFFFFFCh] takes its selector from 0.
  guest.write32(0, SELECTOR.data);
  expect(guest.outcome('mov ebx, 0xfffffffe\nmov ecx, [ebx]\nmov ebx, 0xfffffffc\ndb 0xc4, 0x3b\nmov edx, es')).toBe(
    ENDED,
  );
  expect(['rcx', 'rdi', 'rdx'].map((name) => guest.register(name as 'rcx'))).toEqual([
    ((SELECTOR.data << 16) | 0x4433) >>> 0,
    0x4433_2211,
    SELECTOR.data,
  ]);
});

test('code runs on from the last byte of 4 GiB to the first', () => {
  const guest = new ProtectedGuest('32-bit');
  guest.write32(AT.directory32 + 0x3ff * 4, 0x7007);
  guest.write32(0x7000 + 0x3ff * 4, AT.data | 7);
  // MOV AL, 66h across the end; OUT F4h, AL.
  guest.write(AT.data + 0xfff, Uint8Array.of(0xb0));
  guest.write(0, Uint8Array.of(0x66, 0xe6, 0xf4));
  expect(guest.outcome('mov ebx, 0xffffffff\njmp ebx')).toBe(0x66);
  expect(guest.record.rip).toBe(3n);
});

test('a third fault while a double fault is delivered stops the machine', () => {
  const guest = new ProtectedGuest();
  guest.record.set32('idtLimit', 0);
  guest.outcome('ud2');
  expect(guest.machine.shutdownReason).toBe(ShutdownReason.TRIPLE_FAULT);
});

test('a #GP while #NP is delivered is a double fault', () => {
  const guest = new ProtectedGuest();
  guest.gate(11, AT.stubs, 0x8e, 0);
  guest.describe(SPARE, descriptor(0, 0xf_ffff, 0x13));
  expect(guest.outcome(`mov eax, ${SPARE}\nfault: mov ds, ax`)).toBe(8);
  expect(guest.frame(2)).toEqual([0, guest.label('fault')]);
});
