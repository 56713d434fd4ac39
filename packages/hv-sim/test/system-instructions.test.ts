import { expect, test } from 'vitest';
import { AT, SELECTOR, TinyGuest } from './tiny-guest.js';

/** Runs kernel code to its end, which powers the machine off, and returns the guest. */
function ran(text: string, prepare?: (guest: TinyGuest) => void): TinyGuest {
  const guest = new TinyGuest();
  guest.code(`${text}\nmov al, 0x77\nout 0xf4, al`);
  prepare?.(guest);
  guest.machine.run(200);
  return guest;
}

/** What {@link ran} powers off with when nothing has faulted. */
const ENDED = 0x77;

const ON = (bit: number): string => `mov rax, cr4\nbts rax, ${bit}\nmov cr4, rax`;
const FSGSBASE = 16;
const OSXSAVE = 18;

test('RDTSC counts 1000 per microsecond, one instruction being one', () => {
  const guest = ran(`
    rdtsc
    mov r8, rax
    nop
    nop
    rdtsc
    mov r9, rax
    rdtsc
    mov r10, rax`);
  const record = guest.machine.vcpu(0);
  expect(guest.machine.powerOffCode).toBe(ENDED);
  const [first, second, third] = [record.get('r8'), record.get('r9'), record.get('r10')];
  expect([second - first, third - second]).toEqual([4000n, 2000n]);
});

test('a write to its MSR moves the TSC, which goes on from there', () => {
  const guest = ran(`
    mov ecx, 0x10
    xor eax, eax
    mov edx, 5
    wrmsr
    rdtsc
    mov r8, rax
    mov r9, rdx`);
  expect(guest.machine.vcpu(0).get('r9')).toBe(5n);
  expect(guest.machine.vcpu(0).get('r8')).toBe(1000n);
});

test('RDTSCP gives TSC_AUX too; CR4.TSD keeps both from ring 3 only', () => {
  const guest = ran(`
    mov ecx, 0xc0000103
    mov eax, 0x1234
    xor edx, edx
    wrmsr
    rdtsc
    mov r8, rax
    rdtscp
    sub rax, r8`);
  expect(guest.machine.powerOffCode).toBe(ENDED);
  expect(guest.machine.vcpu(0).get('rcx')).toBe(0x1234n);
  for (const text of ['rdtsc', 'rdtscp']) {
    const results = [false, true].map((forbidden) => {
      const user = new TinyGuest().code(`${text}\nud2`, AT.userCode);
      user.enterUser();
      const record = user.machine.vcpu(0);
      if (forbidden) record.set('cr4', record.get('cr4') | 4n);
      user.machine.run(5);
      return user.machine.powerOffCode;
    });
    expect(results).toEqual([6, 13]);
  }
});

test('FXSAVE writes MXCSR and the XMM registers, and FXRSTOR brings them back', () => {
  const guest = ran(`
    mov rbx, data
    mov rax, 0x1122334455667788
    movq xmm3, rax
    movq xmm15, rax
    mov dword ptr [rbx + 0x800], 0x1fa0
    ldmxcsr [rbx + 0x800]
    fxsave [rbx]
    mov dword ptr [rbx + 0x800], 0x1f80
    ldmxcsr [rbx + 0x800]
    pxor xmm3, xmm3
    pxor xmm15, xmm15
    fxrstor [rbx]
    movq r8, xmm3
    movq r9, xmm15
    stmxcsr [rbx + 0x800]`);
  const record = guest.machine.vcpu(0);
  expect(guest.machine.powerOffCode).toBe(ENDED);
  expect([record.get('r8'), record.get('r9')]).toEqual([0x1122_3344_5566_7788n, 0x1122_3344_5566_7788n]);
  expect(guest.read64(AT.data + 0x800) & 0xffff_ffffn).toBe(0x1fa0n);
  expect(guest.read64(AT.data + 24)).toBe(0xffff_0000_1fa0n);
  expect(guest.read64(AT.data + 160 + 3 * 16)).toBe(0x1122_3344_5566_7788n);
  expect(guest.read64(AT.data) & 0xffffn).toBe(0x37fn);
});

test.each([
  ['FXSAVE at a misaligned address', 'mov rbx, 0x30008\nfxsave [rbx]'],
  ['FXRSTOR at a misaligned address', 'mov rbx, 0x30008\nfxrstor [rbx]'],
  ['FXRSTOR of reserved MXCSR bits', 'mov rbx, data\nmov dword ptr [rbx + 24], 0x10000\nfxrstor [rbx]'],
])('%s is #GP(0)', (_name, text) => {
  expect(ran(text).machine.powerOffCode).toBe(13);
});

test.each(['fs', 'gs'] as const)('WR%sBASE and RD%sBASE move the base that addresses use', (name) => {
  const guest = ran(`
    ${ON(FSGSBASE)}
    mov rcx, 0x123456789abc
    wr${name}base rcx
    rd${name}base r8
    rd${name}base r9d
    mov rcx, data
    wr${name}base rcx
    xor ebx, ebx
    mov byte ptr ${name}:[rbx + 0x10], 0x5a`);
  const record = guest.machine.vcpu(0);
  expect(record.get('r8')).toBe(0x1234_5678_9abcn);
  expect(record.get('r9')).toBe(0x5678_9abcn);
  expect(record.get(`${name}Base`)).toBe(BigInt(AT.data));
  expect(guest.read64(AT.data + 0x10)).toBe(0x5an);
});

test.each([
  ['without CR4.FSGSBASE', 'rdfsbase rax', 6],
  ['of a non-canonical address', `${ON(FSGSBASE)}\nmov rcx, 0x100000000000000\nwrgsbase rcx`, 13],
] as const)('FS and GS bases %s fault', (_name, text, vector) => {
  expect(ran(text).machine.powerOffCode).toBe(vector);
});

test('LTR loads an available TSS and marks it busy', () => {
  const available = 0x0000_8900_0000_0067n | (0x3_0000n << 16n);
  const guest = ran('mov ax, 0x40\nltr ax\nstr r8d', (prepared) => {
    prepared.write64(AT.gdt + SELECTOR.tss, available);
    prepared.machine.vcpu(0).set32('trSelector', 0);
  });
  const record = guest.machine.vcpu(0);
  expect(guest.machine.powerOffCode).toBe(ENDED);
  expect(record.get('r8')).toBe(BigInt(SELECTOR.tss));
  expect([record.get('trBase'), record.get32('trLimit'), record.get32('trAttributes')]).toEqual([
    0x3_0000n,
    0x67,
    0x8b,
  ]);
  expect(guest.read64(AT.gdt + SELECTOR.tss)).toBe(available | (2n << 40n));
});

test.each([
  ['a null selector', 'xor eax, eax\nltr ax', undefined, 13],
  ['a TSS that is busy already', 'mov ax, 0x40\nltr ax', undefined, 13],
  ['a data segment', 'mov ax, 0x18\nltr ax', undefined, 13],
  ['a selector of the LDT', 'mov ax, 0x44\nltr ax', undefined, 13],
  ['a descriptor behind the limit', 'mov ax, 0x48\nltr ax', undefined, 13],
  ['a TSS that is not present', 'mov ax, 0x40\nltr ax', 0x0000_0900_0000_0067n, 11],
] as const)('LTR refuses %s', (_name, text, descriptor, vector) => {
  const guest = ran(text, (prepared) => {
    if (descriptor !== undefined) prepared.write64(AT.gdt + SELECTOR.tss, descriptor);
  });
  expect(guest.machine.powerOffCode).toBe(vector);
  if (descriptor !== undefined) expect(guest.read64(AT.gdt + SELECTOR.tss)).toBe(descriptor);
});

test('XSETBV writes XCR0 and XGETBV reads it', () => {
  const guest = ran(`
    ${ON(OSXSAVE)}
    xor ecx, ecx
    xgetbv
    mov r8, rax
    mov eax, 3
    xor edx, edx
    xsetbv
    xor eax, eax
    xgetbv
    mov r9, rax`);
  const record = guest.machine.vcpu(0);
  expect(guest.machine.powerOffCode).toBe(ENDED);
  expect([record.get('r8'), record.get('r9'), record.get('xcr0')]).toEqual([1n, 3n, 3n]);
});

test.each([
  ['XGETBV without CR4.OSXSAVE', 'xor ecx, ecx\nxgetbv', 6],
  ['XSETBV without CR4.OSXSAVE', 'xor ecx, ecx\nmov eax, 1\nxor edx, edx\nxsetbv', 6],
  ['XGETBV of another register', `${ON(OSXSAVE)}\nmov ecx, 2\nxgetbv`, 13],
  ['XSETBV without x87', `${ON(OSXSAVE)}\nxor ecx, ecx\nmov eax, 6\nxor edx, edx\nxsetbv`, 13],
  ['XSETBV of AVX without SSE', `${ON(OSXSAVE)}\nxor ecx, ecx\nmov eax, 5\nxor edx, edx\nxsetbv`, 13],
  ['XSETBV of a component that is not offered', `${ON(OSXSAVE)}\nxor ecx, ecx\nmov eax, 0xf\nxor edx, edx\nxsetbv`, 13],
] as const)('%s faults', (_name, text, vector) => {
  const guest = ran(text);
  expect(guest.machine.powerOffCode).toBe(vector);
  expect(guest.machine.vcpu(0).get('xcr0')).toBe(1n);
});
