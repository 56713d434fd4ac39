import { Access, ExitCause, ExitKind, type Gfn, Reply, type VcpuRecord } from '@introd/abi';
import type { FullPort } from '@introd/glue';
import { describe, expect, test } from 'vitest';
import { enterCompatibilityMode, enterLongMode } from '../src/index.js';
import { AT, descriptor, gate, ProtectedGuest, SELECTOR } from './protected-guest.js';

/** Where the linear page of AT.data lies while there is paging. */
const FRAME = 0x4_0000;
/** Tables of long mode: one page for each level from PML5 on, then the table. */
const LONG = 0x5_0000;
const LONG_TABLE = LONG + 0x4000;
const IDT_64 = 0x5_8000;

interface Mode {
  readonly name: string;
  readonly bitness: 32 | 64;
  /** Guest-physical address of the entry that maps AT.data, its size, and where the data is. */
  readonly entryAt: number;
  readonly entrySize: 0 | 4 | 8;
  readonly dataAt: number;
  build(): ProtectedGuest;
}

function protectedMode(paging: 'none' | '32-bit' | 'pae'): ProtectedGuest {
  const guest = new ProtectedGuest(paging);
  guest.write32(AT.table32 + (AT.data >> 12) * 4, FRAME | 3);
  guest.write64(AT.tablePae + (AT.data >> 12) * 8, BigInt(FRAME | 3));
  return guest;
}

function longMode(bitness: 32 | 64, levels: 4 | 5): ProtectedGuest {
  const guest = new ProtectedGuest('none');
  for (let level = 0; level < 4; level++) guest.write64(LONG + level * 0x1000, BigInt(LONG + (level + 1) * 0x1000 + 7));
  for (let page = 0; page < 512; page++) guest.write64(LONG_TABLE + page * 8, BigInt((page << 12) | 7));
  guest.write64(LONG_TABLE + (AT.data >> 12) * 8, BigInt(FRAME | 7));
  for (let vector = 0; vector < 32; vector++) {
    guest.write64(IDT_64 + vector * 16, gate(SELECTOR.code64, AT.stubs + vector * 16, 0x8e));
  }
  const state = {
    cr3: BigInt(levels === 5 ? LONG : LONG + 0x1000),
    gdtBase: BigInt(AT.gdt),
    gdtLimit: 0xff,
    idtBase: BigInt(IDT_64),
    idtLimit: 32 * 16 - 1,
    levels,
  };
  if (bitness === 64) enterLongMode(guest.record, { ...state, rip: BigInt(AT.code), rsp: BigInt(AT.stack) });
  else enterCompatibilityMode(guest.record, { ...state, eip: AT.code, esp: AT.stack });
  return guest;
}

const modes: readonly Mode[] = [
  {
    name: 'protected mode without paging',
    bitness: 32,
    entryAt: 0,
    entrySize: 0,
    dataAt: AT.data,
    build: () => protectedMode('none'),
  },
  {
    name: '32-bit paging',
    bitness: 32,
    entryAt: AT.table32 + (AT.data >> 12) * 4,
    entrySize: 4,
    dataAt: FRAME,
    build: () => protectedMode('32-bit'),
  },
  {
    name: 'PAE paging',
    bitness: 32,
    entryAt: AT.tablePae + (AT.data >> 12) * 8,
    entrySize: 8,
    dataAt: FRAME,
    build: () => protectedMode('pae'),
  },
  {
    name: 'compatibility mode',
    bitness: 32,
    entryAt: LONG_TABLE + (AT.data >> 12) * 8,
    entrySize: 8,
    dataAt: FRAME,
    build: () => longMode(32, 4),
  },
  {
    name: 'compatibility mode under five levels',
    bitness: 32,
    entryAt: LONG_TABLE + (AT.data >> 12) * 8,
    entrySize: 8,
    dataAt: FRAME,
    build: () => longMode(32, 5),
  },
  {
    name: '64-bit mode under five levels',
    bitness: 64,
    entryAt: LONG_TABLE + (AT.data >> 12) * 8,
    entrySize: 8,
    dataAt: FRAME,
    build: () => longMode(64, 5),
  },
];

const frame = (address: number): Gfn => (address >> 12) as Gfn;

describe.each(modes)('violations in $name', (mode) => {
  function start(text: string): { guest: ProtectedGuest; port: FullPort; record: VcpuRecord } {
    const guest = mode.build().code(text, AT.code, mode.bitness);
    const port = guest.machine.openPort();
    return { guest, port, record: port.vcpu(0) };
  }

  /** Everything that the exit says about where it is. */
  function nextViolation(port: FullPort): Record<string, unknown> {
    expect(port.next(10)).toBe(0);
    const record = port.vcpu(0);
    expect(record.exitKind).toBe(ExitKind.EPT_VIOLATION);
    return {
      cause: record.exitCause,
      access: record.exitAccess,
      size: record.get32('exitSize'),
      gpa: record.exitGpa,
      gla: record.exitGla,
      length: record.get32('exitInstructionLength'),
      rip: record.rip,
    };
  }

  test('a write exits with its linear and physical address and size; each reply does what it says', () => {
    for (const [reply, stored] of [
      [Reply.ALLOW_ONCE, 0x55],
      [Reply.SKIP, 0],
    ] as const) {
      const { guest, port } = start(`mov ebx, ${AT.data + 0x10}\nmov eax, 0x55\nspot: mov [ebx], eax\nout 0xf4, al`);
      port.setPageAccess(frame(mode.dataAt), Access.READ);
      expect(nextViolation(port)).toEqual({
        cause: ExitCause.DATA,
        access: Access.WRITE,
        size: 4,
        gpa: mode.dataAt + 0x10,
        gla: BigInt(AT.data + 0x10),
        length: mode.bitness === 64 ? 3 : 2,
        rip: BigInt(guest.label('spot')),
      });
      port.reply(0, reply);
      expect(port.next(1)).toBe(port.vcpuCount);
      expect(guest.read32(mode.dataAt + 0x10)).toBe(stored);
      expect(guest.machine.powerOffCode).toBe(0x55);
    }
  });

  test('a read can be supplied', () => {
    const { guest, port, record } = start(
      `mov ebx, ${AT.data + 0x10}\nmov ecx, [ebx]\nmov edx, [ebx + 4]\nout 0xf4, al`,
    );
    guest.write32(mode.dataAt + 0x14, 0x600d);
    port.setPageAccess(frame(mode.dataAt), Access.EXECUTE);
    expect(nextViolation(port)).toMatchObject({ access: Access.READ, gpa: mode.dataAt + 0x10, size: 4 });
    record.replyData.set([1, 2, 3, 4]);
    record.set32('replyDataLength', 4);
    port.setPageAccess(frame(mode.dataAt), Access.ALL);
    port.reply(0, Reply.SUPPLY_READ);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect([guest.register('rcx'), guest.register('rdx')]).toEqual([0x0403_0201, 0x600d]);
  });

  test('a fetch exits before it, and once allowed it executes one instruction', () => {
    const { guest, port } = start(`mov ebx, ${AT.data}\njmp ${mode.bitness === 64 ? 'rbx' : 'ebx'}`);
    guest.write(mode.dataAt, Uint8Array.of(0x90, 0xb0, 7, 0xe6, 0xf4));
    port.setPageAccess(frame(mode.dataAt), Access.READ | Access.WRITE);
    for (const offset of [0, 1]) {
      expect(nextViolation(port)).toMatchObject({
        cause: ExitCause.FETCH,
        access: Access.EXECUTE,
        gpa: mode.dataAt + offset,
        gla: BigInt(AT.data + offset),
        rip: BigInt(AT.data + offset),
      });
      port.reply(0, Reply.ALLOW_ONCE);
    }
    port.setPageAccess(frame(mode.dataAt), Access.ALL);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.machine.powerOffCode).toBe(7);
  });

  test.skipIf(mode.entrySize === 0)('a page walk exits with the entry and its size (none without paging)', () => {
    const { guest, port } = start(`mov eax, 9\nmov ebx, ${AT.data}\nspot: mov [ebx], al\nout 0xf4, al`);
    // The entry's page is read for the code too; only its accessed and dirty bits are refused.
    port.setExit({ kind: 'page-walk-updates' }, true);
    guest.machine.run(2);
    port.setPageAccess(frame(mode.entryAt), Access.READ | Access.EXECUTE);
    const exits: unknown[] = [];
    while (port.next(1) === 0) {
      const record = port.vcpu(0);
      if (record.exitCause === ExitCause.PAGE_WALK && record.rip === BigInt(guest.label('spot'))) {
        exits.push([record.exitAccess, record.exitGpa, record.get32('exitSize'), record.exitGla]);
      }
      port.reply(0, Reply.ALLOW_ONCE);
    }
    expect(exits).toContainEqual([Access.WRITE, mode.entryAt, mode.entrySize, BigInt(AT.data)]);
    expect(guest.machine.powerOffCode).toBe(9);
    expect(guest.read32(mode.entryAt) & 0x60).toBe(0x60);
  });

  test('the delivery of an event exits where its stack is refused, and goes on when allowed', () => {
    const { guest, port } = start('mov eax, 1\nspot: ud2');
    port.setPageAccess(frame(AT.stack - 1), Access.READ);
    expect(nextViolation(port)).toMatchObject({
      cause: ExitCause.EVENT_DELIVERY,
      access: Access.WRITE,
      rip: BigInt(guest.label('spot')),
    });
    expect(port.vcpu(0).get32('exitVector')).toBe(6);
    port.reply(0, Reply.ALLOW_ONCE);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.machine.powerOffCode).toBe(6);
  });

  test('an injected exception is delivered', () => {
    const { guest, port } = start('again: jmp again');
    port.pause();
    port.inject(0, 14, 2, 0x1234n);
    port.resume();
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.machine.powerOffCode).toBe(14);
    expect(port.vcpu(0).get('cr2')).toBe(0x1234n);
    expect(guest.frame(1)).toEqual([2]);
  });
});

test('with a base of its segment an access has its linear address in the exit', () => {
  const guest = new ProtectedGuest('32-bit');
  guest.describe(SELECTOR.spare, descriptor(AT.data - 0x1000, 0xf_ffff, 0x93));
  guest.code(`mov eax, ${SELECTOR.spare}\nmov fs, ax\nmov fs:[0x1020], ax\nout 0xf4, al`);
  const port = guest.machine.openPort();
  port.setPageAccess(frame(AT.data), Access.READ);
  expect(port.next(1)).toBe(0);
  const record = port.vcpu(0);
  expect([record.exitGla, record.exitGpa, record.get32('exitSize')]).toEqual([
    BigInt(AT.data + 0x20),
    AT.data + 0x20,
    2,
  ]);
});

test('a refused table of PDPTEs exits without a linear address, and the load goes through when allowed', () => {
  const guest = new ProtectedGuest('pae');
  guest.code('mov eax, cr3\nspot: mov cr3, eax\nmov al, 3\nout 0xf4, al');
  const port = guest.machine.openPort();
  port.setPageAccess(frame(AT.pdptes), Access.NONE);
  expect(port.next(1)).toBe(0);
  const record = port.vcpu(0);
  expect([record.exitCause, record.exitAccess, record.exitGpa]).toEqual([ExitCause.PAGE_WALK, Access.READ, AT.pdptes]);
  expect([record.get32('exitGlaValid'), record.get32('exitSize'), record.get32('exitInstructionLength')]).toEqual([
    0, 32, 3,
  ]);
  expect(record.rip).toBe(BigInt(guest.label('spot')));
  port.reply(0, Reply.ALLOW_ONCE);
  expect(port.next(1)).toBe(port.vcpuCount);
  expect(guest.machine.powerOffCode).toBe(3);
});

test('a CR write of 32-bit code exits with the value of 32 bits, and commits the one of the reply', () => {
  const guest = new ProtectedGuest('none');
  guest.code('mov eax, 0x12345000\nmov cr3, eax\nmov ecx, cr3\nmov al, 3\nout 0xf4, al');
  guest.record.set('rax', 0xffff_ffff_0000_0000n);
  const port = guest.machine.openPort();
  port.setExit({ kind: 'cr-write', register: 3 }, true);
  expect(port.next(1)).toBe(0);
  const record = port.vcpu(0);
  expect([record.exitKind, record.get('exitNewValue')]).toEqual([ExitKind.CR_WRITE, 0x1234_5000n]);
  record.set('replyValue', 0x5000n);
  port.reply(0, Reply.ALLOW_ONCE);
  expect(port.next(1)).toBe(port.vcpuCount);
  expect(guest.register('rcx')).toBe(0x5000);
});
