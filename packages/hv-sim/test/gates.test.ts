import { ShutdownReason } from '@introd/abi';
import { expect, test } from 'vitest';
import { AT, descriptor, gate, ProtectedGuest, SELECTOR } from './protected-guest.js';

/** What {@link ProtectedGuest.outcome} gives when nothing has faulted. */
const ENDED = 0x77;
const SPARE = SELECTOR.spare;
const TS = 10;
const NP = 11;
const SS = 12;
const GP = 13;

/** Access bytes of gates: present, DPL 3. */
const CALL_32 = 0xec;
const CALL_16 = 0xe4;
const INTERRUPT = 0xee;
const TRAP = 0xef;

test('an exception pushes EFLAGS, CS, EIP and its error code, and no stack without a change of ring', () => {
  const guest = new ProtectedGuest();
  expect(guest.outcome('stc\nmov ecx, 0x12345\nfault: rdmsr')).toBe(GP);
  expect(guest.frame(4)).toEqual([0, guest.label('fault'), SELECTOR.code, 0x1_0003]);
  expect(guest.register('rsp')).toBe(AT.stack - 16);
});

test('from ring 3 the TSS gives the stack, and IRET goes back', () => {
  const guest = new ProtectedGuest();
  guest.gate(0x30, AT.code, TRAP);
  guest.code('mov ebx, esp\nmov ecx, [esp]\nmov edx, [esp + 12]\nmov esi, ss\niretd');
  guest.code('push 0x202\npopfd\nint 0x30\nafter: mov eax, cs\nmov edi, esp\nhere: int 0x31', AT.userCode);
  guest.gate(0x31, AT.stubs + 0x31 * 16, INTERRUPT);
  guest.enterUser();
  guest.machine.run(30);
  expect(guest.machine.powerOffCode).toBe(0x31);
  expect(guest.register('rbx')).toBe(AT.innerStack - 20);
  expect(guest.register('rcx')).toBe(guest.label('after'));
  expect([guest.register('rdx'), guest.register('rdi')]).toEqual([AT.userStack, AT.userStack]);
  expect(guest.register('rsi')).toBe(SELECTOR.data);
  expect(guest.frame(5).slice(1)).toEqual([SELECTOR.userCode, 2, AT.userStack, SELECTOR.userData]);
});

test('an interrupt gate clears IF and a trap gate does not; both clear TF and NT', () => {
  for (const [access, eflags] of [
    [0x8e, 2],
    [0x8f, 0x202],
  ] as const) {
    const guest = new ProtectedGuest();
    guest.gate(0x20, AT.stubs + 0x20 * 16, access);
    expect(guest.outcome('push 0x4202\npopfd\nint 0x20')).toBe(0x20);
    expect(Number(guest.record.get('rflags'))).toBe(eflags);
  }
});

test('a 16-bit gate pushes words and has a target of 16 bits', () => {
  const guest = new ProtectedGuest();
  guest.code('mov al, 0x55\nout 0xf4, al', 0x6000);
  guest.gate(0x20, 0xffff_6000, 0x86);
  expect(guest.outcome('int 0x20\nafter: nop')).toBe(0x55);
  expect(guest.frame(1)).toEqual([(SELECTOR.code << 16) | (guest.label('after') & 0xffff)]);
  expect(guest.register('rsp')).toBe(AT.stack - 6);
});

test.each([
  ['a gate behind the limit of the IDT', 0x40, 0x8e, SELECTOR.code, GP, 0x40 * 8 + 2],
  ['a gate that is not present', 0x20, 0x0e, SELECTOR.code, NP, 0x20 * 8 + 2],
  ['a descriptor that is no gate', 0x20, 0x92, SELECTOR.code, GP, 0x20 * 8 + 2],
  ['a gate with a null selector', 0x20, 0x8e, 0, GP, 0],
  ['a gate to data', 0x20, 0x8e, SELECTOR.data, GP, SELECTOR.data],
  ['a gate to an outer ring', 0x20, 0x8e, SELECTOR.userCode, GP, SELECTOR.userCode & 0xfffc],
] as const)('INT through %s faults', (_name, vector, access, selector, expected, error) => {
  const guest = new ProtectedGuest();
  if (vector < 0x40) guest.gate(vector, AT.stubs, access, selector);
  expect(guest.outcome(`int ${vector}`)).toBe(expected);
  expect(guest.frame(2)).toEqual([error, AT.code]);
});

test('INT from ring 3 needs a gate of its DPL', () => {
  const guest = new ProtectedGuest();
  guest.code('int 0x20', AT.userCode);
  guest.enterUser();
  guest.machine.run(5);
  expect(guest.machine.powerOffCode).toBe(GP);
  expect(guest.frame(1)).toEqual([0x20 * 8 + 2]);
});

test.each([
  ['a null SS', 0, TS, 0],
  ['an SS of another ring', SELECTOR.userData, TS, SELECTOR.userData & 0xfffc],
  ['an SS that is code', SELECTOR.code, TS, SELECTOR.code],
  ['an SS behind the limit of the GDT', 0x108, TS, 0x108],
  ['an SS that is not present', SPARE, SS, SPARE],
] as const)('a call gate finds %s in the TSS', (_name, selector, vector, error) => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(0, 0xf_ffff, 0x13));
  guest.write32(AT.tss + 8, selector);
  guest.describe(SPARE + 8, gate(SELECTOR.code, AT.stubs, CALL_32));
  // The fault itself is delivered in a conforming segment, which needs no other stack.
  guest.describe(SPARE + 16, descriptor(0, 0xf_ffff, 0x9f));
  guest.gate(vector, AT.code, 0x8e, SPARE + 16);
  guest.code('mov ebx, [esp]\nhlt');
  guest.code(`call ${SPARE + 8}:0`, AT.userCode);
  guest.enterUser();
  guest.machine.run(2);
  expect([guest.register('rbx'), guest.record.get('rip')]).toEqual([error, BigInt(AT.code + 3)]);
});

test('a call gate to ring 0 copies parameters to the stack of the TSS, and RETF drops them on both', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, gate(SELECTOR.code, AT.code, CALL_32, 2));
  guest.code('mov ebx, esp\nmov ecx, [esp + 8]\nmov edx, [esp + 12]\nmov esi, [esp + 16]\nretf 8');
  guest.code(`push 0x1111\npush 0x2222\ncall ${SPARE | 3}:0\nafter: mov edi, esp\nmov ebp, cs\nint 0x20`, AT.userCode);
  guest.gate(0x20, AT.stubs + 0x20 * 16, INTERRUPT);
  guest.enterUser();
  guest.machine.run(30);
  expect(guest.machine.powerOffCode).toBe(0x20);
  expect(guest.register('rbx')).toBe(AT.innerStack - 24);
  expect([guest.register('rcx'), guest.register('rdx')]).toEqual([0x2222, 0x1111]);
  expect(guest.register('rsi')).toBe(AT.userStack - 8);
  expect([guest.register('rdi'), guest.register('rbp')]).toEqual([AT.userStack, SELECTOR.userCode]);
});

test('a return to ring 3 empties data segments that ring 3 may not use', () => {
  const guest = new ProtectedGuest();
  guest.code(`mov eax, ${SELECTOR.data}
    mov fs, ax
    mov eax, ${SELECTOR.userData}
    mov gs, ax
    push ${SELECTOR.userData}
    push ${AT.userStack}
    push ${SELECTOR.userCode}
    push ${AT.userCode}
    retf`);
  guest.code('mov ebx, fs\nmov ecx, gs\nmov al, gs:[0x18000]\nmov al, fs:[0x18000]', AT.userCode);
  guest.machine.run(30);
  expect(guest.machine.powerOffCode).toBe(GP);
  expect([guest.register('rbx'), guest.register('rcx')]).toEqual([0, SELECTOR.userData]);
});

test('far CALL and RETF at one ring push and pop CS and EIP; a 16-bit gate does so with words', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, gate(SELECTOR.code, 0x6000, CALL_16));
  guest.code('mov ecx, esp\nmov ebp, [esp]\ndb 0x66\nretf', 0x6000);
  const end = guest.outcome(`
    call ${SELECTOR.code}:function
    mov edi, esp
    call ${SPARE}:0
    jmp done
    function: mov ebx, esp
    mov edx, [esp + 4]
    retf
    done: nop`);
  // The word return address leads to the low 64 KiB, where nothing is but zeros: ADD [EAX], AL.
  expect(end).not.toBe(ENDED);
  expect([guest.register('rbx'), guest.register('rdx')]).toEqual([AT.stack - 8, SELECTOR.code]);
  expect(guest.register('rdi')).toBe(AT.stack);
  expect(guest.register('rcx')).toBe(AT.stack - 4);
  expect(guest.register('rbp') >>> 16).toBe(SELECTOR.code);
});

test('far JMP goes through a pointer in memory and through a gate', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, gate(SELECTOR.code, AT.userCode, CALL_32));
  guest.code('mov ecx, cs\nmov al, 0x66\nout 0xf4, al', AT.userCode);
  // JMP FAR [data]: the encoder has no word for it.
  const end = guest.outcome(`
    mov eax, first
    mov [data], eax
    mov word ptr [data + 4], ${SELECTOR.code}
    db 0xff, 0x2d
    dd data
    ud2
    first: mov ebx, 1
    jmp ${SPARE}:0`);
  expect(end).toBe(0x66);
  expect([guest.register('rbx'), guest.register('rcx')]).toEqual([1, SELECTOR.code]);
});

test.each([
  ['a null selector', 0, undefined, GP, 0],
  ['data', SELECTOR.data, undefined, GP, SELECTOR.data],
  ['code of an outer ring', SELECTOR.userCode, undefined, GP, SELECTOR.userCode & 0xfffc],
  ['code that is not present', SPARE, descriptor(0, 0xf_ffff, 0x1b), NP, SPARE],
  ['an offset behind the limit', SPARE, descriptor(0, 0xff, 0x9b, 4), GP, 0],
  ['a gate that is not present', SPARE, gate(SELECTOR.code, AT.stubs, CALL_32 & 0x7f), NP, SPARE],
  ['a gate to data', SPARE, gate(SELECTOR.data, AT.stubs, CALL_32), GP, SELECTOR.data],
  ['a gate without a target', SPARE, gate(0, AT.stubs, CALL_32), GP, 0],
  ['a gate of too low a DPL for the selector', SPARE | 3, gate(SELECTOR.code, AT.stubs, 0x8c), GP, SPARE],
  ['an interrupt gate', SPARE, gate(SELECTOR.code, AT.stubs, INTERRUPT), GP, SPARE],
] as const)('far JMP and CALL to %s fault and push nothing', (_name, selector, value, vector, error) => {
  for (const transfer of ['jmp', 'call']) {
    const guest = new ProtectedGuest();
    if (value !== undefined) guest.describe(selector, value);
    expect(guest.outcome(`${transfer} ${selector}:0x10000`)).toBe(vector);
    expect(guest.frame(3)).toEqual([error, AT.code, SELECTOR.code]);
    expect(guest.register('rsp')).toBe(AT.stack - 16);
  }
});

test.each([
  ['a task gate in the IDT', 'int 0x20'],
  ['a jump to a TSS', `jmp ${SPARE}:0`],
  ['IRET with NT', 'push 0x4002\npopfd\niretd'],
])('a task switch stops the machine: %s', (_name, text) => {
  const guest = new ProtectedGuest();
  guest.gate(0x20, 0, 0x85, SELECTOR.tss);
  guest.describe(SPARE, descriptor(AT.tss, 0x67, 0x89, 0));
  guest.outcome(text);
  expect(guest.machine.shutdownReason).toBe(ShutdownReason.UNSUPPORTED);
});
