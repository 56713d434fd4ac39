import { ShutdownReason } from '@introd/abi';
import { expect, test } from 'vitest';
import { AT, SELECTOR, TinyGuest } from './tiny-guest.js';

/** Sets up the local APIC with software enable, spurious vector 0xff. */
const ENABLE_APIC = 'mov ecx, 0x80f\nmov eax, 0x1ff\nxor edx, edx\nwrmsr';

function wrmsr(msr: number, low: string | number, high = 0): string {
  return `mov ecx, ${msr}\nmov ${typeof low === 'number' ? 'eax' : 'rax'}, ${low}\nmov edx, ${high}\nwrmsr`;
}

test('an exception pushes the whole frame, aligned, with its error code', () => {
  const guest = new TinyGuest();
  guest.code('mov rsp, 0x20ff3\nstc\nmov ecx, 0x12345\nfault: rdmsr').machine.run(10);
  const rsp = Number(guest.machine.vcpu(0).get('rsp'));
  expect(guest.machine.powerOffCode).toBe(13);
  expect(rsp).toBe(0x2_0ff0 - 48);
  const frame = [0, 8, 16, 24, 32, 40].map((offset) => guest.read64(rsp + offset));
  expect(frame).toEqual([0n, guest.label('fault'), BigInt(SELECTOR.code), 0x1_0003n, 0x2_0ff3n, BigInt(SELECTOR.data)]);
});

test('an exception without error code pushes none; IST and RSP0 choose the stack', () => {
  const kernel = new TinyGuest();
  kernel.gate(6, BigInt(AT.stubs + 96), { ist: 1 });
  kernel.code('ud2').machine.run(5);
  expect(kernel.machine.vcpu(0).get('rsp')).toBe(BigInt(AT.istStack - 40));

  const user = new TinyGuest();
  user.code('ud2', AT.userCode).enterUser();
  user.machine.run(5);
  const record = user.machine.vcpu(0);
  expect(record.get('rsp')).toBe(BigInt(AT.interruptStack - 40));
  expect(record.cpl).toBe(0);
  expect(record.get32('ssSelector')).toBe(0);
  expect(user.read64(AT.interruptStack - 8)).toBe(BigInt(SELECTOR.userData));
  expect(user.read64(AT.interruptStack - 32)).toBe(BigInt(SELECTOR.userCode));
});

test('INT n and INT3 need a gate that ring 3 may use', () => {
  for (const [text, vector] of [
    ['int 0x30', 0x30],
    ['int3', 3],
  ] as const) {
    const open = new TinyGuest();
    open.gate(vector, BigInt(AT.stubs + vector * 16), { dpl: 3 });
    open.code(`${text}\nafter:`, AT.userCode).enterUser();
    open.machine.run(5);
    expect(open.machine.powerOffCode).toBe(vector);
    // A trap: the saved RIP is behind the instruction.
    expect(open.read64(AT.interruptStack - 40)).toBe(open.label('after'));

    const shut = new TinyGuest();
    shut.code(text, AT.userCode).enterUser();
    shut.machine.run(5);
    expect(shut.machine.powerOffCode).toBe(13);
    // #GP names the gate: index, IDT bit.
    expect(shut.read64(AT.interruptStack - 48)).toBe(BigInt(vector * 8 + 2));
  }
});

test('IRETQ goes to ring 3 and SYSCALL comes back, SYSRET goes again', () => {
  const guest = new TinyGuest();
  guest.code(`
    ${wrmsr(0xc000_0081, 0, 0x20_0010)}
    ${wrmsr(0xc000_0082, 'entry')}
    ${wrmsr(0xc000_0084, 0x200)}
    push 0x2b
    mov rax, userStack
    push rax
    push 0x202
    push 0x33
    mov rax, userCode
    push rax
    iretq
    entry:
    cmp rbx, 1
    je second
    mov r8, rcx
    mov r9, r11
    mov rbx, 1
    sysretq
    second:
    out 0xf4, al`);
  guest.code('mov rax, 5\nsyscall\nback: mov rax, 6\nsyscall', AT.userCode);
  guest.machine.run(60);
  const record = guest.machine.vcpu(0);
  expect(guest.machine.powerOffCode).toBe(6);
  expect(record.get('r8')).toBe(guest.label('back'));
  expect(record.get('r9')).toBe(0x202n);
  expect(record.get('rflags') & 0x200n).toBe(0n);
});

test.each([
  ['a null CS', 'push 0x2b\npush rax\npush 2\npush 0\npush rax\niretq'],
  ['a data segment as CS', 'push 0x2b\npush rax\npush 2\npush 0x18\npush rax\niretq'],
  ['a ring-0 SS for ring 3', 'push 0x18\npush rax\npush 2\npush 0x33\npush rax\niretq'],
  ['a null SS for ring 3', 'push 0\npush rax\npush 2\npush 0x33\npush rax\niretq'],
  ['a non-canonical RIP', 'mov rbx, 0x800000000000\npush 0x18\npush rax\npush 2\npush 0x10\npush rbx\niretq'],
])('IRETQ refuses %s and changes nothing', (_name, text) => {
  const guest = new TinyGuest();
  guest.code(`mov rax, 0x18000\n${text}`).machine.run(12);
  expect(guest.machine.powerOffCode).toBe(13);
  expect(guest.machine.vcpu(0).get32('csSelector')).toBe(SELECTOR.code);
});

/** Fresh descriptors at 0x28 (data, ring 3) and 0x30 (code, ring 3), neither accessed yet. */
function freshUserSegments(guest: TinyGuest, code: bigint): void {
  guest.write64(AT.gdt + 0x28, 0x00cf_f200_0000_ffffn);
  guest.write64(AT.gdt + 0x30, code);
}

test.each([
  ['IRETQ', 'push 0x2b\npush rbx\npush 2\npush 0x33\npush rax\niretq'],
  ['RETF', 'push 0x2b\npush rbx\npush 0x33\npush rax\ndb 0x48, 0xcb'],
])('%s sets no accessed bit unless it returns', (_name, text) => {
  const program = `mov rax, userCode\nmov rbx, userStack\n${text}`;
  const refused = new TinyGuest();
  // The code segment is not present.
  freshUserSegments(refused, 0x00af_7a00_0000_ffffn);
  refused.code(program).machine.run(12);
  expect(refused.machine.powerOffCode).toBe(11);
  expect(refused.read64(AT.gdt + 0x28)).toBe(0x00cf_f200_0000_ffffn);
  expect(refused.read64(AT.gdt + 0x30)).toBe(0x00af_7a00_0000_ffffn);

  const done = new TinyGuest();
  freshUserSegments(done, 0x00af_fa00_0000_ffffn);
  done.code(program).code('ud2', AT.userCode).machine.run(12);
  expect(done.machine.powerOffCode).toBe(6);
  expect(done.read64(AT.gdt + 0x28)).toBe(0x00cf_f300_0000_ffffn);
  expect(done.read64(AT.gdt + 0x30)).toBe(0x00af_fb00_0000_ffffn);
});

test('the processor priority is that of the interrupt in service, or of the task when that is higher', () => {
  const priority = (task: number): bigint => {
    const guest = new TinyGuest();
    guest.code(`
      ${ENABLE_APIC}
      ${wrmsr(0x83f, 0x35)}
      sti
      nop
      nop
      handler:
      mov eax, ${task}
      mov cr8, rax
      mov ecx, 0x80a
      rdmsr
      out 0xf4, al`);
    guest.gate(0x35, guest.label('handler'));
    guest.machine.run(40);
    return guest.machine.vcpu(0).get('rax');
  };
  expect([priority(0), priority(2), priority(5)]).toEqual([0x30n, 0x30n, 0x50n]);
});

test('a fault in the delivery of a fault is a double fault, and one more shuts down', () => {
  const double = new TinyGuest();
  double.gate(13, BigInt(AT.stubs), { present: false });
  double.gate(8, BigInt(AT.stubs + 8 * 16), { ist: 1 });
  double.code('mov ecx, 0x12345\nrdmsr').machine.run(5);
  expect(double.machine.powerOffCode).toBe(8);
  expect(double.read64(AT.istStack - 48)).toBe(0n);

  const triple = new TinyGuest();
  triple.gate(13, BigInt(AT.stubs), { present: false });
  triple.gate(8, BigInt(AT.stubs), { present: false });
  expect(triple.code('mov ecx, 0x12345\nrdmsr').machine.run(5)).toBe('shutdown');
  expect(triple.machine.shutdownReason).toBe(ShutdownReason.TRIPLE_FAULT);
});

test('a page fault on the stack of a page fault is a double fault; on its own stack it is none', () => {
  const guest = new TinyGuest();
  guest.gate(8, BigInt(AT.stubs + 8 * 16), { ist: 1 });
  guest.map(0x40, 0n);
  guest.code('mov rsp, 0x40800\npush rax').machine.run(5);
  expect(guest.machine.powerOffCode).toBe(8);
  const twin = new TinyGuest();
  twin.gate(14, BigInt(AT.stubs + 14 * 16), { ist: 1 });
  twin.map(0x40, 0n);
  twin.code('mov rsp, 0x40800\npush rax').machine.run(5);
  expect(twin.machine.powerOffCode).toBe(14);
});

test('a frame that does not fit writes nothing of itself', () => {
  const guest = new TinyGuest();
  guest.gate(8, BigInt(AT.stubs + 8 * 16), { ist: 1 });
  guest.map(0x3f, 0n);
  // The frame would lie half in page 0x40 and half in the missing page below.
  guest.code('mov rsp, 0x40010\nud2').machine.run(5);
  expect(guest.machine.powerOffCode).toBe(8);
  expect([guest.read64(0x4_0000), guest.read64(0x4_0008)]).toEqual([0n, 0n]);
});

test('TF traps after each instruction, with DR6.BS', () => {
  const guest = new TinyGuest();
  guest.code('push 0x102\npopfq\nnop\nafter: nop').machine.run(10);
  expect(guest.machine.powerOffCode).toBe(1);
  expect(guest.read64(Number(guest.machine.vcpu(0).get('rsp')))).toBe(guest.label('after'));
  expect(guest.machine.vcpu(0).get('dr6') & 0x4000n).toBe(0x4000n);
});

test('the timer interrupts while IF is set and the priority allows it', () => {
  const program = (setUp: string): TinyGuest =>
    new TinyGuest().code(`
      ${ENABLE_APIC}
      ${setUp}
      ${wrmsr(0x832, 0x2_0025)}
      ${wrmsr(0x838, 50)}
      mov ecx, 200
      wait: dec ecx
      jne wait
      mov al, 0x7f
      out 0xf4, al`);
  const on = program('sti');
  on.machine.run(1000);
  expect(on.machine.powerOffCode).toBe(0x25);
  const off = program('cli');
  off.machine.run(1000);
  expect(off.machine.powerOffCode).toBe(0x7f);
  const masked = program('mov rax, 2\nmov cr8, rax\nsti');
  masked.machine.run(1000);
  expect(masked.machine.powerOffCode).toBe(0x7f);
});

test('HLT waits for the timer without spending instructions; a periodic timer needs its EOI', () => {
  const guest = new TinyGuest();
  guest.code(`
    ${ENABLE_APIC}
    ${wrmsr(0x832, 0x2_0025)}
    ${wrmsr(0x838, 1000)}
    xor ebx, ebx
    sti
    wait: hlt
    cmp ebx, 5
    jb wait
    mov al, bl
    out 0xf4, al
    handler:
    inc ebx
    ${wrmsr(0x80b, 0)}
    iretq`);
  guest.gate(0x25, guest.label('handler'));
  guest.machine.run(20_000);
  expect(guest.machine.powerOffCode).toBe(5);
  expect(guest.machine.time).toBeGreaterThan(5000);
  expect(guest.machine.instructions).toBeLessThan(100);
});

test('HLT with interrupts off, or without a source of them, ends the guest', () => {
  for (const text of ['cli\nhlt', 'sti\nhlt']) {
    const guest = new TinyGuest();
    expect(guest.code(text).machine.run(100)).toBe('shutdown');
    expect(guest.machine.shutdownReason).toBe(ShutdownReason.HALTED);
  }
});

test('the instruction after STI runs before an interrupt', () => {
  const guest = new TinyGuest();
  guest.code(`
    ${ENABLE_APIC}
    ${wrmsr(0x83f, 0x25)}
    sti
    mov bl, 1
    mov bl, 2
    out 0xf4, al`);
  guest.gate(0x25, BigInt(AT.stubs + 0x25 * 16));
  guest.machine.run(30);
  expect(guest.machine.powerOffCode).toBe(0x25);
  expect(guest.machine.vcpu(0).get('rbx')).toBe(1n);
});

test('a VCPU wakes another by an interrupt', () => {
  const guest = new TinyGuest({ vcpus: 3 });
  guest.code(`
    mov ecx, 0x802
    rdmsr
    mov rsi, rax
    ${ENABLE_APIC}
    cmp rsi, 2
    je sender
    sti
    sleep: hlt
    jmp sleep
    sender:
    mov ecx, 500
    wait: dec ecx
    jne wait
    mov ecx, 0x830
    mov eax, 0x25
    mov edx, 1
    wrmsr
    stop: jmp stop
    handler:
    mov eax, esi
    out 0xf4, al`);
  guest.gate(0x25, guest.label('handler'));
  for (const i of [1, 2]) guest.machine.setActive(i, true);
  guest.machine.run(10_000);
  expect(guest.machine.powerOffCode).toBe(1);
});

test('CPUID names the machine, offers what 64-bit mode requires and no extension that it lacks', () => {
  const guest = new TinyGuest();
  guest.code(
    'mov eax, 0x40000000\ncpuid\nmov r8, rbx\nmov r9, rcx\nmov r10, rdx\nmov eax, 1\ncpuid\nmov r11, rdx\nmov r12, rcx\nmov eax, 0\nout 0xf4, al',
  );
  guest.machine.run(20);
  const record = guest.machine.vcpu(0);
  const name = ['r8', 'r9', 'r10'].map((register) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(Number(record.get(register as 'r8')));
    return bytes.toString();
  });
  expect(name.join('')).toBe('introdSimHV ');
  const features = Number(record.get('r12'));
  // FPU, MMX, FXSR, SSE, SSE2: offered although their arithmetic is missing (the test of UNSUPPORTED below).
  const required = (1n << 0n) | (1n << 23n) | (1n << 24n) | (1n << 25n) | (1n << 26n);
  expect(record.get('r11') & required).toBe(required);
  const has = (bit: number): boolean => ((features >>> bit) & 1) === 1;
  expect({
    hypervisor: has(31),
    x2apic: has(21),
    pcid: has(17),
    xsave: has(26),
    avx: has(28),
    monitor: has(3),
  }).toEqual({
    hypervisor: true,
    x2apic: true,
    pcid: false,
    xsave: true,
    avx: false,
    monitor: false,
  });
});

test.each([
  ['CR0 without paging', 'mov rax, cr0\nbtr rax, 31\nmov cr0, rax'],
  ['CR0 bit 32', 'mov rax, 0x180010033\nmov cr0, rax'],
  ['CR3 bit 52', 'mov rax, 0x10000000001000\nmov cr3, rax'],
  ['CR4.PCIDE', 'mov rax, cr4\nbts rax, 17\nmov cr4, rax'],
  ['CR4 without PAE', 'mov rax, cr4\nbtr rax, 5\nmov cr4, rax'],
  ['CR8 above 15', 'mov rax, 16\nmov cr8, rax'],
  ['EFER without LME', 'mov ecx, 0xc0000080\nmov eax, 0xc01\nxor edx, edx\nwrmsr'],
  ['a non-canonical LSTAR', 'mov ecx, 0xc0000082\nxor eax, eax\nmov edx, 0x1000000\nwrmsr'],
  ['a reserved memory type in PAT', 'mov ecx, 0x277\nmov eax, 2\nxor edx, edx\nwrmsr'],
  ['an unknown MSR', 'mov ecx, 0x12345678\nwrmsr'],
  ['XCR0 without x87', 'mov rax, cr4\nbts rax, 18\nmov cr4, rax\nxor ecx, ecx\nmov eax, 2\nxor edx, edx\nxsetbv'],
])('%s is #GP(0)', (_name, text) => {
  const guest = new TinyGuest();
  guest.code(text).machine.run(10);
  expect(guest.machine.powerOffCode).toBe(13);
});

test.each([
  'cli',
  'hlt',
  'mov rax, cr0',
  'mov cr3, rax',
  'rdmsr',
  'wrmsr',
  'swapgs',
  'invlpg [rax]',
  'in al, dx',
  'lgdt [rax]',
])('ring 3 may not %s', (text) => {
  const guest = new TinyGuest();
  guest.code(text, AT.userCode).enterUser();
  guest.machine.run(5);
  expect(guest.machine.powerOffCode).toBe(13);
});

test.each([
  ['x87', 'Fld1', [0xd9, 0xe8]],
  ['MMX', 'Paddb_mm_mmm64', [0x0f, 0xfc, 0xc1]],
  ['SSE2 arithmetic', 'Addsd_xmm_xmmm64', [0xf2, 0x0f, 0x58, 0xc1]],
] as const)('%s, which CPUID must offer, stops the machine and it says what it was', (_name, form, code) => {
  const guest = new TinyGuest();
  guest.write(AT.code, Uint8Array.from(code));
  expect(guest.machine.run(5)).toBe('shutdown');
  expect(guest.machine.shutdownReason).toBe(ShutdownReason.UNSUPPORTED);
  expect(guest.machine.unsupported).toBe(
    `VCPU 0 in 64-bit mode: ${form} at RIP 0x10000: ${Buffer.from(code).toString('hex')}`,
  );
});

test('IRETQ and RETF from a stack at a non-canonical address are #SS(0)', () => {
  for (const text of ['iretq', 'db 0x48\nretf']) {
    const guest = new TinyGuest();
    guest.gate(12, BigInt(AT.stubs + 12 * 16), { ist: 1 });
    guest.code(`mov rsp, 0x900000000000\nfault: ${text}`).machine.run(10);
    expect(guest.machine.powerOffCode).toBe(12);
    expect([guest.read64(AT.istStack - 48), guest.read64(AT.istStack - 40)]).toEqual([0n, guest.label('fault')]);
  }
});
