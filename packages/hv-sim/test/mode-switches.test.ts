import type { Gpa } from '@introd/abi';
import { expect, test } from 'vitest';
import { enterCompatibilityMode, enterLongMode, type MachineOptions } from '../src/index.js';
import { AT, descriptor, gate, ProtectedGuest, SELECTOR } from './protected-guest.js';

/** What {@link ProtectedGuest.outcome} gives when nothing has faulted. */
const ENDED = 0x77;
const SPARE = SELECTOR.spare;
const UD = 6;
const NP = 11;
const GP = 13;

/** Paging structures of long mode, identity-mapping the low 2 MiB. */
const PML5 = 0x5_0000;
const PML4 = 0x5_1000;
const PDPT = 0x5_2000;
const DIRECTORY = 0x5_3000;
const TABLE = 0x5_4000;
/** A long-mode IDT: vector n powers off with n. */
const IDT_64 = 0x5_8000;
const STUBS_64 = 0x5_a000;

const LOAD_MSR = (msr: number, low: number, high = 0): string =>
  `mov ecx, ${msr}\nmov eax, ${low}\nmov edx, ${high}\nwrmsr`;
const EFER = 0xc000_0080;
const SYSENTER_CS = 0x174;
const SYSENTER_ESP = 0x175;
const SYSENTER_EIP = 0x176;

/** A guest with the tables of every mode. */
class ModesGuest extends ProtectedGuest {
  constructor(options: Partial<MachineOptions> = {}) {
    super('none', options);
    this.write64(PML5, BigInt(PML4 | 7));
    this.write64(PML4, BigInt(PDPT | 7));
    this.write64(PDPT, BigInt(DIRECTORY | 7));
    this.write64(DIRECTORY, BigInt(TABLE | 7));
    for (let page = 0; page < 512; page++) this.write64(TABLE + page * 8, BigInt((page << 12) | 7));
    for (let vector = 0; vector < 64; vector++) {
      const stub = STUBS_64 + vector * 16;
      this.write(stub, Uint8Array.of(0xb0, vector, 0xe6, 0xf4));
      this.write64(IDT_64 + vector * 16, gate(SELECTOR.code64, stub, 0xee));
      this.write64(IDT_64 + vector * 16 + 8, 0n);
    }
  }

  /** At ring 0 of compatibility mode. */
  compatibility(): this {
    enterCompatibilityMode(this.record, {
      cr3: BigInt(PML4),
      eip: AT.code,
      esp: AT.stack,
      gdtBase: BigInt(AT.gdt),
      gdtLimit: 0xff,
      idtBase: BigInt(IDT_64),
      idtLimit: 64 * 16 - 1,
    });
    return this.longTask();
  }

  /** At ring 0 of 64-bit mode. */
  long(levels: 4 | 5 = 4): this {
    enterLongMode(this.record, {
      cr3: BigInt(levels === 5 ? PML5 : PML4),
      rip: BigInt(AT.code),
      rsp: BigInt(AT.stack),
      gdtBase: BigInt(AT.gdt),
      gdtLimit: 0xff,
      idtBase: BigInt(IDT_64),
      idtLimit: 64 * 16 - 1,
      levels,
    });
    return this.longTask();
  }

  longTask(): this {
    this.record.set32('trSelector', SELECTOR.tss);
    this.record.set('trBase', BigInt(AT.tss));
    this.write64(AT.tss + 4, BigInt(AT.innerStack));
    return this;
  }

  read64(address: number): bigint {
    const bytes = new Uint8Array(8);
    this.machine.readPhysical(address as Gpa, bytes);
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }
}

test('a kernel goes from flat protected mode to 64-bit mode and back, through compatibility mode', () => {
  const guest = new ModesGuest();
  guest.code(
    `mov rbx, 0x1122334455667788
    mov rsp, 0x20000
    push ${SELECTOR.code}
    mov eax, ${AT.userCode}
    push rax
    db 0x48
    retf`,
    0x1_1000,
    64,
  );
  guest.code(
    `mov eax, cr0
    btr eax, 31
    mov cr0, eax
    mov ecx, ${EFER}
    rdmsr
    mov esi, eax
    mov al, 0x55
    out 0xf4, al`,
    AT.userCode,
  );
  guest.code(`
    mov eax, cr4
    bts eax, 5
    mov cr4, eax
    mov eax, ${PML4}
    mov cr3, eax
    ${LOAD_MSR(EFER, 0x100)}
    mov eax, cr0
    bts eax, 31
    mov cr0, eax
    mov ecx, ${EFER}
    rdmsr
    mov edi, eax
    jmp ${SELECTOR.code64}:0x11000`);
  guest.machine.run(60);
  expect(guest.machine.powerOffCode).toBe(0x55);
  // LMA came with paging, and went with it.
  expect([guest.register('rdi'), guest.register('rsi')]).toEqual([0x500, 0x100]);
  expect(guest.record.get('rbx')).toBe(0x1122_3344_5566_7788n);
});

const CR = (register: string, bit: number, on: boolean): string =>
  `mov eax, ${register}\n${on ? 'bts' : 'btr'} eax, ${bit}\nmov ${register}, eax`;

test.each([
  ['paging with EFER.LME and without PAE', `${LOAD_MSR(EFER, 0x100)}\n${CR('cr0', 31, true)}`],
  ['paging without protection', 'mov eax, 0x80000010\nmov cr0, eax'],
  ['a reserved bit of CR4', 'mov eax, 0x1000690\nbts eax, 15\nmov cr4, eax'],
  ['a reserved bit of EFER', LOAD_MSR(EFER, 0x4000)],
])('protected mode refuses %s', (_name, text) => {
  const guest = new ModesGuest();
  expect(guest.outcome(text)).toBe(GP);
});

test.each([
  ['to clear CR4.PAE', CR('cr4', 5, false), GP],
  ['to change the number of levels', CR('cr4', 12, true), GP],
  ['to clear EFER.LME', LOAD_MSR(EFER, 0), GP],
  ['SYSCALL', 'db 0x0f, 0x05', UD],
  ['SYSRET', 'db 0x0f, 0x07', UD],
  ['SWAPGS', 'db 0x0f, 0x01, 0xf8', UD],
  ['a null SS', 'xor eax, eax\nmov ss, ax', GP],
  ['a far jump to code of both sizes', `jmp ${SPARE}:0`, GP],
  ['a far jump to a TSS', `jmp ${SELECTOR.tss}:0`, GP],
  ['a far jump to code that is not present', `jmp ${SPARE + 8}:0`, NP],
])('compatibility mode refuses %s', (_name, text, vector) => {
  const guest = new ModesGuest().compatibility();
  guest.describe(SPARE, 0x00ef_9b00_0000_ffffn);
  guest.describe(SPARE + 8, 0x00af_1b00_0000_ffffn);
  expect(guest.outcome(text)).toBe(vector);
});

test('64-bit code cannot leave paging, and compatibility mode leaves long mode with it', () => {
  const long = new ModesGuest().long();
  long.code('mov rax, cr0\nbtr rax, 31\nmov cr0, rax', AT.code, 64).machine.run(10);
  expect(long.machine.powerOffCode).toBe(GP);
  const compatibility = new ModesGuest().compatibility();
  expect(compatibility.outcome(CR('cr0', 31, false))).toBe(ENDED);
  expect(compatibility.record.get('efer') & 0x400n).toBe(0n);
});

test('the same bytes are what the mode takes them for, however often it changes', () => {
  const guest = new ModesGuest().compatibility();
  // 48 FF C3 is INC RBX in 64-bit code, DEC EAX and INC EBX in 32-bit code.
  guest.write(0x1_2000, Uint8Array.of(0x48, 0xff, 0xc3, 0xc3));
  guest.code(
    `mov edx, 0x12000
    call rdx
    push ${SELECTOR.code}
    mov edx, ${AT.userCode}
    push rdx
    db 0x48
    retf`,
    0x1_1000,
    64,
  );
  guest.code(`dec ebp\nje done\njmp 0x10100\ndone: out 0xf4, al`, AT.userCode);
  guest.code(`mov ebx, 0\nmov eax, 100\nmov ebp, 5\njmp 0x10100`);
  guest.code(`mov edx, 0x12000\ncall edx\njmp ${SELECTOR.code64}:0x11000`, 0x1_0100);
  guest.machine.run(200);
  expect(guest.machine.powerOffCode).toBe(95);
  expect(guest.register('rbx')).toBe(10);
});

test('two VCPUs of different modes run the same page, each its own instructions', () => {
  const guest = new ModesGuest({ vcpus: 2, quantum: 3 }).compatibility();
  const other = guest.machine.vcpu(1);
  enterLongMode(other, { cr3: BigInt(PML4), rip: 0x1_2000n, rsp: BigInt(AT.stack) });
  guest.machine.setActive(1, true);
  // INC RBX, or DEC EAX and INC EBX; JMP to the beginning.
  guest.write(0x1_2000, Uint8Array.of(0x48, 0xff, 0xc3, 0xeb, 0xfb));
  guest.record.set('rip', 0x1_2000n);
  guest.record.set('rax', 1000n);
  other.set('rax', 1000n);
  guest.machine.run(600);
  expect([guest.record.get('rax'), guest.record.get('rbx')]).toEqual([900n, 100n]);
  expect([other.get('rax'), other.get('rbx')]).toEqual([1000n, 150n]);
});

test('an interrupt of compatibility mode is delivered in 64-bit mode, and IRETQ goes back to it', () => {
  const guest = new ModesGuest().compatibility();
  guest.code('mov rbx, [rsp]\nmov rcx, [rsp + 8]\nmov rdx, [rsp + 24]\nmov rsi, [rsp + 32]\niretq', 0x1_1000, 64);
  guest.write64(IDT_64 + 0x30 * 16, gate(SELECTOR.code64, 0x1_1000, 0x8e));
  expect(guest.outcome('int 0x30\nafter: mov edi, cs')).toBe(ENDED);
  const frame = ['rbx', 'rcx', 'rdx', 'rsi', 'rdi'].map((name) => guest.register(name as 'rbx'));
  expect(frame).toEqual([guest.label('after'), SELECTOR.code, AT.stack, SELECTOR.data, SELECTOR.code]);
});

test('a call gate of long mode leads from compatibility mode of ring 3 to 64-bit code of ring 0', () => {
  const guest = new ModesGuest().compatibility();
  guest.write64(AT.gdt + SPARE + 6, 0n);
  guest.describe(SPARE, gate(SELECTOR.code64, 0x1_1000, 0xec));
  guest.describe(SPARE + 8, 0n);
  guest.code(
    'mov rbx, rsp\nmov rcx, [rsp]\nmov rdx, [rsp + 8]\nmov rsi, [rsp + 16]\nmov edi, ss\ndb 0x48\nretf',
    0x1_1000,
    64,
  );
  guest.code(`call ${SPARE}:0\nafter: mov ebp, cs\nint 0x20`, AT.userCode);
  guest.enterUser();
  guest.machine.run(30);
  expect(guest.machine.powerOffCode).toBe(0x20);
  expect(guest.register('rbx')).toBe(AT.innerStack - 32);
  expect([guest.register('rcx'), guest.register('rdx')]).toEqual([guest.label('after'), SELECTOR.userCode]);
  expect([guest.register('rsi'), guest.register('rdi')]).toEqual([AT.userStack, 0]);
  expect(guest.register('rbp')).toBe(SELECTOR.userCode);
});

test.each([
  ['32-bit code', gate(SELECTOR.code, 0, 0xec), 0n, GP, SELECTOR.code],
  ['an upper half with a type', gate(SELECTOR.code64, 0, 0xec), 0x0100_0000_0000n, GP, SPARE],
  ['a 16-bit gate', gate(SELECTOR.code64, 0, 0xe4), 0n, GP, SPARE],
] as const)('long mode refuses a call gate with %s', (_name, low, high, vector, error) => {
  const guest = new ModesGuest().compatibility();
  guest.describe(SPARE, low);
  guest.describe(SPARE + 8, high);
  expect(guest.outcome(`call ${SPARE}:0`)).toBe(vector);
  expect(guest.read64(guest.register('rsp'))).toBe(BigInt(error));
});

test.each(['protected', 'compatibility'] as const)('SYSENTER and SYSEXIT of %s mode', (mode) => {
  const guest = new ModesGuest();
  if (mode === 'compatibility') guest.compatibility();
  const long = mode === 'compatibility';
  // The selectors follow each other from SYSENTER_CS: kernel code and data, user code and data.
  guest.code(
    `mov ebx, esp\nmov esi, cs\nmov edi, ss\nmov edx, ${AT.userCode + 0x100}\nmov ecx, 0x1a800\ndb 0x0f, 0x35`,
    0x1_1000,
    long ? 64 : 32,
  );
  guest.code('db 0x0f, 0x34', AT.userCode);
  guest.code('mov ebp, cs\nmov eax, ss\nint 0x20', AT.userCode + 0x100);
  guest.gate(0x20, AT.stubs + 0x20 * 16, 0xee);
  guest.code(`
    ${LOAD_MSR(SYSENTER_CS, SPARE)}
    ${LOAD_MSR(SYSENTER_ESP, AT.innerStack)}
    ${LOAD_MSR(SYSENTER_EIP, 0x1_1000)}
    push ${SELECTOR.userData}
    push ${AT.userStack}
    push 0x202
    push ${SELECTOR.userCode}
    push ${AT.userCode}
    iretd`);
  guest.machine.run(60);
  expect(guest.machine.powerOffCode).toBe(0x20);
  expect(guest.register('rbx')).toBe(AT.innerStack);
  expect([guest.register('rsi'), guest.register('rdi')]).toEqual([SPARE, SPARE + 8]);
  expect(guest.register('rbp')).toBe(SPARE + 16 + 3);
  // RSP before the handler's own pushes.
  const saved = long ? guest.read64(AT.innerStack - 16) : BigInt(guest.read32(AT.innerStack - 8));
  expect(saved).toBe(0x1_a800n);
  const savedFlags = long ? guest.read64(AT.innerStack - 24) : BigInt(guest.read32(AT.innerStack - 12));
  expect(savedFlags & 0x200n).toBe(0n);
});

test('SYSEXIT with a 64-bit operand returns to 64-bit code', () => {
  const guest = new ModesGuest().long();
  guest.record.set('sysenterCs', BigInt(SPARE));
  guest.code(`mov rdx, ${AT.userCode}\nmov rcx, 0x1a800\ndb 0x48, 0x0f, 0x35`, AT.code, 64);
  guest.code('mov ebx, cs\nmov ecx, ss\nmov rdx, 0x1234567890abcdef\nint 0x20', AT.userCode, 64);
  guest.machine.run(20);
  expect(guest.machine.powerOffCode).toBe(0x20);
  expect([guest.register('rbx'), guest.register('rcx')]).toEqual([SPARE + 32 + 3, SPARE + 40 + 3]);
  expect(guest.record.get('rdx')).toBe(0x1234_5678_90ab_cdefn);
});

test.each([
  ['SYSENTER while its MSR is 0', '0x0f, 0x34'],
  ['SYSEXIT while its MSR is 0', '0x0f, 0x35'],
])('%s is #GP(0)', (_name, bytes) => {
  const guest = new ModesGuest();
  expect(guest.outcome(`db ${bytes}`)).toBe(GP);
  expect(guest.frame(2)).toEqual([0, AT.code]);
});

test('SYSEXIT of ring 3 is #GP(0)', () => {
  const guest = new ModesGuest();
  guest.record.set('sysenterCs', BigInt(SPARE));
  guest.code('db 0x0f, 0x35', AT.userCode);
  guest.enterUser();
  guest.machine.run(5);
  expect(guest.machine.powerOffCode).toBe(GP);
});

test('SYSRET with a 32-bit operand returns to compatibility mode', () => {
  const guest = new ModesGuest().long();
  guest.record.set('star', BigInt(SELECTOR.userCode & 0xfffc) << 48n);
  guest.code(
    `mov ecx, ${EFER}\nrdmsr\nmov rcx, ${AT.userCode}\nmov r11d, 0x2\nmov rsp, 0x1a800\ndb 0x0f, 0x07`,
    AT.code,
    64,
  );
  // 48 is DEC EAX in 32-bit code.
  guest.code('mov eax, 7\ndb 0x48\nmov ebx, cs\nmov esi, ss\nint 0x20', AT.userCode);
  guest.machine.run(20);
  expect(guest.machine.powerOffCode).toBe(0x20);
  expect(guest.register('rbx')).toBe(SELECTOR.userCode);
  expect(guest.register('rsi')).toBe((SELECTOR.userCode & 0xfffc) + 8 + 3);
});

test.each([
  [4, '47', 0x0000_8000_0000_0000n, GP],
  [5, '47', 0x0000_8000_0000_0000n, 14],
  [5, '56', 0x0100_0000_0000_0000n, GP],
  [5, '56 to 63', 0xff00_0000_0000_0000n, 14],
] as const)('with %i levels of paging, an address of bit %s alone', (levels, _bits, address, vector) => {
  const guest = new ModesGuest().long(levels);
  guest.code(`mov rbx, [rax]`, AT.code, 64);
  guest.record.set('rax', address);
  guest.machine.run(5);
  expect(guest.machine.powerOffCode).toBe(vector);
  expect(guest.record.get('cr2')).toBe(vector === 14 ? address : 0n);
});

test('code runs above 2^47 under five levels, and INVLPG forgets what was there', () => {
  const guest = new ModesGuest().long(5);
  // The entry of the fifth level that covers 2^48 leads to the same tables again.
  guest.write64(PML5 + 8, BigInt(PML4 | 7));
  const high = 1n << 48n;
  guest.code(
    `mov rbx, ${high + BigInt(AT.data)}
    mov al, [rbx]
    mov rcx, ${TABLE + (AT.data >> 12) * 8}
    mov rdx, ${AT.data + 0x1007}
    mov [rcx], rdx
    invlpg [rbx]
    mov ah, [rbx]
    lea rsi, [rip]
    out 0xf4, al`,
    AT.code,
    64,
  );
  guest.write(AT.data, Uint8Array.of(1));
  guest.write(AT.data + 0x1000, Uint8Array.of(2));
  guest.record.set('rip', high + BigInt(AT.code));
  guest.machine.run(20);
  expect(guest.machine.powerOffCode).toBe(1);
  expect(guest.register('rax') & 0xffff).toBe(0x201);
  expect(guest.record.get('rsi') >> 48n).toBe(1n);
});

test('registers take canonical addresses of 57 bits, with four levels too', () => {
  for (const [value, vector] of [
    [0x0080_0000_0000_0000n, ENDED],
    [0x0100_0000_0000_0000n, GP],
  ] as const) {
    const guest = new ModesGuest().long();
    guest.code(
      `mov ecx, 0xc0000102\nmov eax, 0\nmov edx, ${value >> 32n}\nwrmsr\nmov al, 0x77\nout 0xf4, al`,
      AT.code,
      64,
    );
    guest.machine.run(10);
    expect(guest.machine.powerOffCode).toBe(vector);
  }
});

test('the PDPTE registers are those of the last load of CR3, and a reserved bit in one is #GP', () => {
  const guest = new ProtectedGuest('pae');
  // The table changes in memory; what is mapped does so with the next load of CR3.
  const reload = 'mov eax, cr3\nmov cr3, eax';
  guest.write64(AT.directoryPae + 0x800, 0n);
  expect(
    guest.outcome(`
      mov dword ptr [${AT.pdptes + 8}], ${AT.directoryPae | 1}
      mov eax, ${AT.stubs}
      mov ebx, 0x40000000
      invlpg [ebx]
      ${reload}
      mov ecx, [ebx + ${AT.data}]`),
  ).toBe(ENDED);
  const stale = new ProtectedGuest('pae');
  expect(
    stale.outcome(`
      mov dword ptr [${AT.pdptes + 8}], ${AT.directoryPae | 1}
      mov ebx, 0x40000000
      invlpg [ebx]
      mov ecx, [ebx + ${AT.data}]`),
  ).toBe(14);
  const reserved = new ProtectedGuest('pae');
  expect(reserved.outcome(`mov dword ptr [${AT.pdptes + 8}], ${AT.directoryPae | 3}\n${reload}`)).toBe(GP);
  expect(reserved.frame(1)).toEqual([0]);
});

test.each([
  ['bit 52 of an entry of PAE paging', 'pae', AT.tablePae + (AT.data >> 12) * 8 + 4, 0x10_0000, 9],
  ['a bit of the address of a 2 MiB page', 'pae', AT.directoryPae + 8, 0x2083, 9],
  ['bit 21 of an entry of a 4 MiB page', '32-bit', AT.directory32 + 4, 0x60_0083, 9],
] as const)('a reserved bit faults with RSVD: %s', (_name, paging, at, value, error) => {
  const guest = new ProtectedGuest(paging);
  const address = value === 0x10_0000 ? AT.data : paging === 'pae' ? 0x20_0000 : 0x40_0000;
  expect(guest.outcome(`mov eax, ${value}\nmov [${at}], eax\nmov ebx, ${address}\ninvlpg [ebx]\nmov al, [ebx]`)).toBe(
    14,
  );
  expect(guest.frame(1)).toEqual([error]);
});

test('without CR4.PSE an entry with PS set leads to a table', () => {
  const guest = new ProtectedGuest('32-bit');
  guest.write32(AT.directory32 + 4, AT.table32 | 0x83);
  expect(
    guest.outcome(`${CR('cr4', 4, false)}\nmov ebx, 0x400000\nmov ecx, [ebx + ${AT.code}]\nmov edx, [${AT.code}]`),
  ).toBe(ENDED);
  expect(guest.register('rcx')).toBe(guest.register('rdx'));
});

test('real mode is not there: clearing CR0.PE stops the machine', () => {
  const guest = new ProtectedGuest();
  guest.describe(SPARE, descriptor(0, 0xf_ffff, 0x93));
  guest.outcome(CR('cr0', 0, false));
  expect(guest.machine.unsupported).toContain('RIP 0x1000a');
});
