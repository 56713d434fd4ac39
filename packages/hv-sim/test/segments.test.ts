import { expect, test } from 'vitest';
import { AT, descriptor, ProtectedGuest, SELECTOR } from './protected-guest.js';

/** What {@link ProtectedGuest.outcome} gives when nothing has faulted. */
const ENDED = 0x77;
const SPARE = SELECTOR.spare;
const GP = 13;
const SS = 12;
const NP = 11;

/** Access bytes: present, ring 0. */
const DATA = 0x93;
const READ_ONLY = 0x91;
const EXPAND_DOWN = 0x97;
const CODE = 0x9b;
const EXECUTE_ONLY = 0x99;
/** Flags of a descriptor: limit in bytes or pages, 32 bits. */
const BYTES = 4;
const PAGES = 0xc;

/** Loads FS with a descriptor of its own, then runs the text. */
function through(value: bigint, text: string): ProtectedGuest {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, value);
  guest.code(`mov eax, ${SPARE}\nmov fs, ax\nmov ebx, 0\n${text}\nmov al, 0x77\nout 0xf4, al`).machine.run(100);
  return guest;
}

test.each([
  ['the last bytes of a segment', descriptor(0x3_0000, 0xfff, DATA, BYTES), 'mov eax, fs:[0xffc]', ENDED],
  ['one byte past them', descriptor(0x3_0000, 0xfff, DATA, BYTES), 'mov eax, fs:[0xffd]', GP],
  ['a byte just behind', descriptor(0x3_0000, 0xfff, DATA, BYTES), 'mov al, fs:[ebx + 0x1000]', GP],
  ['a limit in pages', descriptor(0x3_0000, 0, DATA, PAGES), 'mov eax, fs:[0xffc]', ENDED],
  ['a write to read-only data', descriptor(0, 0xf_ffff, READ_ONLY), 'mov fs:[0x30000], eax', GP],
  ['a read of read-only data', descriptor(0, 0xf_ffff, READ_ONLY), 'mov eax, fs:[0x30000]', ENDED],
  ['an update of read-only data', descriptor(0, 0xf_ffff, READ_ONLY), 'add fs:[0x30000], eax', GP],
  ['a comparison with read-only data', descriptor(0, 0xf_ffff, READ_ONLY), 'cmp fs:[0x30000], eax', ENDED],
  ['a read of readable code', descriptor(0, 0xf_ffff, CODE), 'mov eax, fs:[0x30000]', ENDED],
  ['a write to code', descriptor(0, 0xf_ffff, CODE), 'mov fs:[0x30000], eax', GP],
  ['expand-down data above its limit', descriptor(0x3_0000, 0xfff, EXPAND_DOWN, BYTES), 'mov eax, fs:[0x1000]', ENDED],
  ['expand-down data at its limit', descriptor(0x3_0000, 0xfff, EXPAND_DOWN, BYTES), 'mov al, fs:[0xfff]', GP],
  ['16-bit expand-down data', descriptor(0x3_0000, 0xfff, EXPAND_DOWN, 0), 'mov eax, fs:[0xfffc]', ENDED],
  ['16-bit expand-down data past 64 KiB', descriptor(0x3_0000, 0xfff, EXPAND_DOWN, 0), 'mov eax, fs:[0xfffd]', GP],
  ['an instruction without access', descriptor(0, 0, DATA, BYTES), 'lea eax, fs:[0x30000]', ENDED],
] as const)('%s', (_name, value, text, outcome) => {
  const guest = through(value, text);
  expect(guest.machine.powerOffCode).toBe(outcome);
  if (outcome === GP) expect(guest.frame(1)).toEqual([0]);
});

test('a null segment register is for no access', () => {
  const guest = new ProtectedGuest();
  expect(guest.outcome('xor eax, eax\nmov fs, ax\nmov al, fs:[0x30000]')).toBe(GP);
  expect(guest.frame(1)).toEqual([0]);
});

test('addresses are offsets from the base of their segment, and wrap at 4 GiB', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(0x2_f000, 0xf_ffff, DATA));
  guest.describe(SPARE + 8, descriptor(0xffff_0000, 0xf_ffff, DATA));
  guest.write32(AT.data + 4, 0x1234_5678);
  const end = guest.outcome(`
    mov eax, ${SPARE}
    mov fs, ax
    mov eax, ${SPARE + 8}
    mov gs, ax
    mov ecx, fs:[0x1004]
    mov edx, gs:[0x40004]
    mov ebx, 0xfffffff0
    mov esi, [ebx + 0x30014]`);
  expect(end).toBe(ENDED);
  const value = 0x1234_5678;
  expect([guest.register('rcx'), guest.register('rdx'), guest.register('rsi')]).toEqual([value, value, value]);
});

test('DS, ES, SS and CS count, by default and as overrides', () => {
  const guest = new ProtectedGuest();
  const values = [0x11, 0x22, 0x33, 0x44];
  values.forEach((value, i) => {
    guest.describe(SPARE + i * 8, descriptor(AT.data + i * 0x1000, 0xf_ffff, DATA));
    guest.write32(AT.data + i * 0x1000 + 0x80, value);
  });
  const end = guest.outcome(`
    mov eax, ${SPARE}
    mov ds, ax
    mov eax, ${SPARE + 8}
    mov es, ax
    mov eax, ${SPARE + 16}
    mov ss, ax
    mov esp, 0x800
    mov ebp, 0x80
    mov ebx, 0x80
    mov ecx, [ebx]
    mov edx, es:[ebx]
    mov esi, [ebp]
    mov edi, cs:[data + 0x80]
    mov ebx, ds:[ebp]
    push 0x55
    mov eax, 0x18
    mov ds, ax`);
  expect(end).toBe(ENDED);
  expect(['rcx', 'rdx', 'rsi', 'rdi', 'rbx'].map((name) => guest.register(name as 'rcx'))).toEqual([
    0x11, 0x22, 0x33, 0x11, 0x11,
  ]);
  expect(guest.read32(AT.data + 0x2000 + 0x7fc)).toBe(0x55);
});

test.each([
  ['push', 'mov esp, 3\npush eax', SS],
  ['a read through EBP', 'mov ebp, 0x20000\nmov eax, [ebp]', SS],
  ['a read with an override', 'mov eax, ss:[0x20000]', SS],
  ['pop', 'mov esp, 0xffe\npop eax', SS],
  ['call', 'mov esp, 2\ncall 0x10000', SS],
  ['a push inside', 'mov esp, 0x800\npush eax', ENDED],
] as const)('a stack segment with a limit: %s', (_name, text, vector) => {
  const guest = new ProtectedGuest();
  // The fault needs a stack that it can be delivered on: ring 3 has one in the TSS.
  guest.describe(SPARE, descriptor(AT.data, 0xfff, 0xf3, BYTES));
  guest.code(`mov eax, ${SPARE | 3}\nmov ss, ax\n${text}\nint 0x20`, AT.userCode);
  guest.gate(0x20, AT.stubs + 0x20 * 16, 0xee);
  guest.enterUser();
  guest.machine.run(20);
  expect(guest.machine.powerOffCode).toBe(vector === ENDED ? 0x20 : vector);
  if (vector === SS) expect(guest.frame(1)).toEqual([0]);
});

test.each([
  ['ds', 'a selector behind the limit', undefined, 0x108, GP, 0x108],
  ['ds', 'execute-only code', descriptor(0, 0xf_ffff, EXECUTE_ONLY), SPARE, GP, SPARE],
  ['ds', 'a segment that is not present', descriptor(0, 0xf_ffff, DATA & 0x7f), SPARE, NP, SPARE],
  ['ds', 'a system descriptor', descriptor(0, 0xf_ffff, 0x82), SPARE, GP, SPARE],
  ['ds', 'the LDT while there is none', undefined, 0x54, GP, 0x54],
  ['ds', 'a selector of a lesser privilege than the segment', descriptor(0, 0xf_ffff, DATA), SPARE | 3, GP, SPARE],
  ['ss', 'null', undefined, 0, GP, 0],
  ['ss', 'read-only data', descriptor(0, 0xf_ffff, READ_ONLY), SPARE, GP, SPARE],
  ['ss', 'code', descriptor(0, 0xf_ffff, CODE), SPARE, GP, SPARE],
  ['ss', 'a segment that is not present', descriptor(0, 0xf_ffff, DATA & 0x7f), SPARE, SS, SPARE],
  ['ss', 'another privilege', descriptor(0, 0xf_ffff, 0xf3), SPARE | 3, GP, SPARE],
] as const)('a load of %s refuses %s', (register, _what, value, selector, vector, error) => {
  const guest = new ProtectedGuest();
  if (value !== undefined) guest.describe(SPARE, value);
  expect(guest.outcome(`mov eax, ${selector}\nmov ${register}, ax`)).toBe(vector);
  expect(guest.frame(2)).toEqual([error, AT.code + 5]);
});

test('a load sets the accessed bit of the descriptor, and CS of a far jump too', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(0, 0xf_ffff, 0x92));
  guest.describe(SPARE + 8, descriptor(0, 0xf_ffff, 0x9a));
  expect(guest.outcome(`mov eax, ${SPARE}\nmov ds, ax\njmp ${SPARE + 8}:next\nnext: nop`)).toBe(ENDED);
  expect([guest.read32(AT.gdt + SPARE + 4) >> 8, guest.read32(AT.gdt + SPARE + 12) >> 8].map((x) => x & 0xff)).toEqual([
    0x93, 0x9b,
  ]);
});

test('code ends with the limit of CS: also in the middle of an instruction, and for a jump behind it', () => {
  for (const [limit, text] of [
    [AT.code + 0x10, 'jmp next\nnext: nop\nnop\nfault: mov eax, 1'],
    [AT.code + 0x20, 'jmp fault\nfault: jmp 0x10030'],
  ] as const) {
    const guest = new ProtectedGuest();
    guest.describe(SPARE, descriptor(0, limit, CODE, BYTES));
    guest.code(`jmp ${SPARE}:0x10007\n${text}`);
    guest.machine.run(20);
    expect(guest.machine.powerOffCode).toBe(GP);
    expect(guest.frame(3)).toEqual([0, guest.label('fault'), SPARE]);
  }
});

test('a stack of 16 bits leaves the upper half of ESP alone', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(AT.data, 0xffff, DATA, 0));
  const end = guest.outcome(`
    mov eax, ${SPARE}
    mov ss, ax
    mov esp, 0xabcd0004
    push 0x11223344
    push 0x55667788
    mov ebx, esp
    pop ecx
    mov edx, esp`);
  expect(end).toBe(ENDED);
  expect([guest.register('rbx'), guest.register('rcx'), guest.register('rdx')]).toEqual([
    0xabcd_fffc, 0x5566_7788, 0xabcd_0000,
  ]);
  expect([guest.read32(AT.data), guest.read32(AT.data + 0xfffc)]).toEqual([0x1122_3344, 0x5566_7788]);
});

test('a code segment that begins inside of a page is as good as one at 0', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(0x801, 0xf_ffff, CODE));
  guest.code(`mov ecx, 50
    xor eax, eax
    again: add eax, ecx
    dec ecx
    jne again
    call function
    out 0xf4, al
    function: mov al, 0x66
    ret`);
  guest.record.set32('csSelector', SPARE);
  guest.record.set('csBase', 0x801n);
  guest.record.set('rip', BigInt(AT.code - 0x801));
  guest.machine.run(300);
  expect(guest.machine.powerOffCode).toBe(0x66);
  expect(guest.record.rip).toBe(BigInt(guest.label('function') - 0x801));
});
