import { Access, type Gfn, type Gpa, Reply } from '@introd/abi';
import { NO_EXIT } from '@introd/glue';
import { describe, expect, it } from 'vitest';
import { enterLongMode, Machine } from './index.js';

const CODE = 0x1_0000;
const SOURCE = 0x2_0000;
const TARGET = 0x3_0000;
const STACK = 0x4_0000;
const STACK_TOP = STACK + 0x1808;
const RAM = 0x20_0000;
const PAGE = 0x1000;
/** JMP to itself: where every piece of test code ends. */
const REST = 'ebfe';

const CF = 1n;
const PF = 4n;
const AF = 0x10n;
const ZF = 0x40n;
const SF = 0x80n;
const OF = 0x800n;
const STATUS = CF | PF | AF | ZF | SF | OF;

type Registers = Partial<
  Record<'rax' | 'rcx' | 'rdx' | 'rbx' | 'rsp' | 'rbp' | 'rsi' | 'rdi' | 'r8' | 'rip' | 'rflags', bigint>
>;
const NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'rip', 'rflags'] as const;

const machine = new Machine({ memory: [{ start: 0 as Gpa, size: RAM }] });

/** Ring 0, the first 2 MiB mapped to themselves, `hex` at CODE followed by a jump to itself. */
function prepare(hex: string, registers: Registers): void {
  machine.reset();
  const write64 = (at: number, value: bigint) =>
    machine.writePhysical(at as Gpa, new Uint8Array(BigUint64Array.of(value).buffer));
  write64(0x1000, 0x2003n);
  write64(0x2000, 0x3003n);
  write64(0x3000, 0x4003n);
  for (let page = 0; page < 512; page++) write64(0x4000 + page * 8, BigInt(page * PAGE) | 0x63n);
  machine.writePhysical(CODE as Gpa, Uint8Array.from(Buffer.from(hex + REST, 'hex')));
  const data = new Uint8Array(STACK + 4 * PAGE - SOURCE);
  for (let i = 0; i < data.length; i++) data[i] = (i * 37 + (i >> 8)) & 0xff;
  machine.writePhysical(SOURCE as Gpa, data);
  const record = machine.vcpu(0);
  enterLongMode(record, { cr3: 0x1000n, rip: BigInt(CODE), rsp: BigInt(STACK_TOP) });
  record.set('rsi', BigInt(SOURCE));
  record.set('rdi', BigInt(TARGET));
  record.set('rbp', BigInt(STACK + 0x1900));
  for (const name of NAMES) {
    const value = registers[name];
    if (value !== undefined) record.set(name, name === 'rflags' ? value | 2n : value);
  }
}

function registers(): Required<Registers> {
  return Object.fromEntries(NAMES.map((name) => [name, machine.vcpu(0).get(name)])) as Required<Registers>;
}

/** Runs one instruction. */
function step(hex: string, before: Registers): Required<Registers> {
  prepare(hex, before);
  expect(machine.run(1)).toBe('budget');
  return registers();
}

function memory(at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  expect(machine.readPhysical(at as Gpa, bytes)).toBe(true);
  return bytes;
}

function word(at: number): bigint {
  return new BigUint64Array(memory(at, 8).buffer)[0]!;
}

describe('flags by the tables of the SDM', () => {
  it.each<[name: string, hex: string, before: Registers, rax: bigint, flags: bigint, undefinedFlags?: bigint]>([
    ['add al, bl: signed overflow', '00d8', { rax: 0x7fn, rbx: 1n, rflags: 0n }, 0x80n, OF | SF | AF],
    ['add eax, ebx: carry', '01d8', { rax: 0xffff_ffffn, rbx: 1n, rflags: 0n }, 0n, CF | ZF | AF | PF],
    ['sub rax, rbx: borrow', '4829d8', { rax: 0n, rbx: 1n, rflags: 0n }, 2n ** 64n - 1n, CF | SF | AF | PF],
    ['cmp al, bl: equal', '38d8', { rax: 5n, rbx: 5n, rflags: OF | CF }, 5n, ZF | PF],
    ['adc al, bl: with carry in', '10d8', { rax: 0xffn, rbx: 0n, rflags: CF }, 0n, CF | ZF | AF | PF],
    ['sbb al, bl: equal with borrow in', '18d8', { rax: 5n, rbx: 5n, rflags: CF }, 0xffn, CF | SF | AF | PF],
    ['and rax, rbx: clears CF and OF', '4821d8', { rax: 6n, rbx: 3n, rflags: CF | OF }, 2n, 0n, AF],
    ['inc eax: keeps CF', 'ffc0', { rax: 0x7fff_ffffn, rflags: CF }, 0x8000_0000n, CF | OF | SF | AF | PF],
    ['dec eax: keeps CF', 'ffc8', { rax: 1n, rflags: CF }, 0n, CF | ZF | PF],
    ['neg al: of the smallest number', 'f6d8', { rax: 0x80n, rflags: 0n }, 0x80n, CF | OF | SF],
    ['neg rax: of zero', '48f7d8', { rax: 0n, rflags: CF }, 0n, ZF | PF],
    ['not eax: touches no flag', 'f7d0', { rax: 0n, rflags: STATUS }, 0xffff_ffffn, STATUS],
    ['shl eax, 0: touches no flag', 'c1e000', { rax: 1n, rflags: STATUS }, 1n, STATUS],
    ['shl al, 1', 'd0e0', { rax: 0xc1n, rflags: 0n }, 0x82n, CF | SF | PF, AF],
    ['shr eax, 1', 'd1e8', { rax: 0x8000_0001n, rflags: 0n }, 0x4000_0000n, CF | OF | PF, AF],
    ['sar al, 1', 'd0f8', { rax: 0x81n, rflags: OF }, 0xc0n, CF | SF | PF, AF],
    ['rcl al, 9: comes round', 'c0d009', { rax: 0x5an, rflags: CF }, 0x5an, CF, OF],
    ['rcr eax, 1', 'd1d8', { rax: 2n, rflags: CF }, 0x8000_0001n, OF],
    ['rol ax, 1', '66d1c0', { rax: 0x8000n, rflags: 0n }, 1n, CF | OF],
    [
      'imul eax, ebx: does not fit',
      '0fafc3',
      { rax: 0x1_0000n, rbx: 0x1_0000n, rflags: 0n },
      0n,
      CF | OF,
      SF | ZF | AF | PF,
    ],
    ['cmc', 'f5', { rax: 0n, rflags: STATUS & ~CF }, 0n, STATUS],
    ['bt eax, 33: counts modulo the size', '0fbae021', { rax: 2n, rflags: 0n }, 2n, CF],
  ])('%s', (_name, hex, before, rax, flags, undefinedFlags = 0n) => {
    const after = step(hex, before);
    expect(after.rax).toBe(rax);
    expect(after.rflags & STATUS & ~undefinedFlags).toBe(flags);
  });
});

describe('results that are easily wrong', () => {
  const ones = 2n ** 64n - 1n;
  it.each<[string, string, Registers, Registers]>([
    ['a 32-bit write clears the upper half', '89d8', { rax: ones, rbx: 5n }, { rax: 5n }],
    ['a 16-bit write keeps the rest', '6689d8', { rax: ones, rbx: 5n }, { rax: ones - 0xfffan }],
    ['AH is the second byte', '88e0', { rax: 0x1234n }, { rax: 0x1212n }],
    ['a false 32-bit CMOV clears the upper half', '0f44c3', { rax: ones, rbx: 5n, rflags: 0n }, { rax: 0xffff_ffffn }],
    ['BSF of 0 keeps the destination', '480fbcc3', { rax: 7n, rbx: 0n }, { rax: 7n }],
    ['XADD of one register doubles it', '480fc1c0', { rax: 21n }, { rax: 42n }],
    ['a failing CMPXCHG loads the accumulator', '480fb1cb', { rax: 1n, rbx: 2n, rcx: 3n }, { rax: 2n, rbx: 2n }],
    ['a fitting CMPXCHG keeps it', '480fb1cb', { rax: 2n, rbx: 2n, rcx: 3n }, { rax: 2n, rbx: 3n }],
    ['MULX to one register keeps the high half', 'c4e2fbf6c3', { rdx: ones, rbx: ones }, { rax: ones - 1n }],
    ['PDEP', 'c4e2f3f5c3', { rcx: 0b1011n, rbx: 0xf0f0n }, { rax: 0xb0n }],
    ['PEXT', 'c4e2f2f5c3', { rcx: 0xa0b0n, rbx: 0xf0f0n }, { rax: 0xabn }],
    ['DIV of 128 bits', '48f7f3', { rdx: 1n, rax: 0n, rbx: 3n }, { rax: 0x5555_5555_5555_5555n, rdx: 1n }],
    [
      'IDIV cuts towards zero',
      'f7fb',
      { rdx: 0xffff_ffffn, rax: 0xffff_fff9n, rbx: 2n },
      { rax: 0xffff_fffdn, rdx: 0xffff_ffffn },
    ],
    ['IMUL of 128 bits', '48f7eb', { rax: ones, rbx: 2n }, { rax: ones - 1n, rdx: ones }],
    ['LOOP with ECX', '67e200', { rcx: 0x1_0000_0000n }, { rcx: 0xffff_ffffn }],
    ['LEA with 32-bit addresses', '67488d041b', { rbx: 0x1_8000_0001n }, { rax: 2n }],
    ['MOVSXD', '4863c3', { rbx: 0x8000_0000n }, { rax: 0xffff_ffff_8000_0000n }],
    ['BSWAP of 32 bits', '0fc8', { rax: 0xffff_ffff_1234_5678n }, { rax: 0x7856_3412n }],
    ['LAHF', '9f', { rax: 0n, rflags: STATUS }, { rax: 0xd700n }],
  ])('%s', (_name, hex, before, after) => {
    expect(step(hex, before)).toMatchObject(after);
  });

  it('pushes the old RSP', () => {
    const after = step('54', {});
    expect(after.rsp).toBe(BigInt(STACK_TOP - 8));
    expect(word(STACK_TOP - 8)).toBe(BigInt(STACK_TOP));
  });

  it('pops RSP itself', () => {
    prepare('5c', {});
    const top = word(STACK_TOP);
    expect(machine.run(1)).toBe('budget');
    expect(registers().rsp).toBe(top);
  });

  it('reaches backwards with a bit string', () => {
    prepare('480fab07', { rax: -3n & (2n ** 64n - 1n) }); // bts [rdi], rax
    const before = word(TARGET - 8);
    expect(machine.run(1)).toBe('budget');
    expect(word(TARGET - 8)).toBe(before | (1n << 61n));
  });

  it('computes the check value of CRC-32C', () => {
    let crc = 0xffff_ffffn;
    for (const byte of Buffer.from('123456789')) {
      crc = step('f20f38f0c3', { rax: crc, rbx: BigInt(byte) }).rax; // crc32 eax, bl
    }
    expect(crc ^ 0xffff_ffffn).toBe(0xe306_9283n);
  });

  it('ends a repeated comparison at the first difference', () => {
    const after = step('f3a6', { rcx: 100n, rdi: BigInt(SOURCE) + 1n }); // repe cmpsb
    expect(after.rcx).toBe(99n);
    expect(after.rip).toBe(BigInt(CODE + 2));
  });

  it('retires long repetitions in steps that leave RIP', () => {
    prepare('f3aa', { rcx: 10_000n, rax: 0x5an }); // rep stosb
    expect(machine.run(1)).toBe('budget');
    expect(machine.vcpu(0).rip).toBe(BigInt(CODE));
    expect(machine.vcpu(0).get('rcx')).toBeGreaterThan(0n);
    expect(machine.run(3)).toBe('budget');
    expect(registers()).toMatchObject({ rcx: 0n, rip: BigInt(CODE + 2), rdi: BigInt(TARGET + 10_000) });
    expect(memory(TARGET, 10_000).every((byte) => byte === 0x5a)).toBe(true);
  });
});

/** Everything that an instruction may change. */
function state(): { registers: Required<Registers>; memory: string } {
  return { registers: registers(), memory: Buffer.from(memory(SOURCE, STACK + 4 * PAGE - SOURCE)).toString('latin1') };
}

describe('an access that is refused leaves no trace', () => {
  const near = BigInt(TARGET + PAGE - 4);
  it.each<[string, string, Registers]>([
    ['push [rsi]', 'ff36', {}],
    ['pop [rdi]', '8f07', {}],
    ['pop [rsp+8]', '8f442408', {}],
    ['push rax across pages', '50', { rsp: BigInt(STACK + PAGE + 4) }],
    ['mov [rdi], rax across pages', '488907', { rdi: near, rax: 0x1122_3344_5566_7788n }],
    ['mov rax, [rdi] across pages', '488b07', { rdi: near }],
    ['xchg [rdi], rax across pages', '488707', { rdi: near, rax: 0x1122_3344_5566_7788n }],
    ['lock xadd [rdi], rax', 'f0480fc107', { rax: 3n }],
    ['lock cmpxchg [rdi], rcx, not equal', 'f0480fb10f', { rax: 3n }],
    ['lock cmpxchg8b [rdi]', 'f00fc70f', { rax: 3n }],
    ['lock cmpxchg16b [rdi]', 'f0480fc70f', { rax: 3n }],
    ['add [rdi], rax across pages', '480107', { rdi: near, rax: 0x1122_3344_5566_7788n }],
    ['or byte [rdi], 4', '800f04', {}],
    ['rcl qword [rdi], 1', '48d117', {}],
    ['shld [rdi], rax, 5', '480fa40705', { rax: 0x1122_3344_5566_7788n }],
    ['bts [rdi], rax', '480fab07', { rax: 0x8003n }],
    ['neg dword [rdi]', 'f71f', {}],
    ['setne [rdi]', '0f9507', {}],
    ['call [rsi]', 'ff16', {}],
    ['call', 'e800000000', {}],
    ['enter 32, 3', 'c8200003', {}],
    ['leave', 'c9', {}],
    ['pushfq', '9c', {}],
    ['movsq', '48a5', {}],
    ['cmpsd', 'a7', {}],
    ['stosw', '66ab', {}],
    ['scasb', 'ae', {}],
    ['div [rdi]', '48f737', { rdx: 1n, rax: 5n }],
    ['movdqu [rdi], xmm0 across pages', 'f30f7f07', { rdi: near }],
    ['movbe [rdi], rax', '480f38f107', { rax: 0x1122_3344_5566_7788n }],
  ])('%s', (_name, hex, before) => {
    const setUp = () => {
      prepare(hex, before);
      // Where CALL [rsi] goes: to the jump to itself behind the code.
      machine.writePhysical(SOURCE as Gpa, new Uint8Array(BigUint64Array.of(BigInt(CODE + hex.length / 2)).buffer));
    };
    setUp();
    expect(machine.run(5)).toBe('budget');
    const undisturbed = state();
    expect(undisturbed.registers.rip).toBe(BigInt(CODE + hex.length / 2));

    let refusals = 0;
    for (const page of [SOURCE, TARGET, TARGET + PAGE, STACK, STACK + PAGE]) {
      for (const rights of [Access.NONE, Access.READ]) {
        setUp();
        const port = machine.openPort();
        const initial = state();
        port.setPageAccess((page / PAGE) as Gfn, rights);
        port.flushPageAccess();
        for (let exits = 0; port.next(1) !== NO_EXIT; exits++) {
          expect(exits).toBeLessThan(20);
          expect(Math.floor(port.vcpu(0).exitGpa / PAGE) * PAGE).toBe(page);
          expect(state()).toEqual(initial);
          refusals++;
          port.reply(0, Reply.ALLOW_ONCE);
        }
        expect(state()).toEqual(undisturbed);
        port.close();
      }
    }
    expect(refusals).toBeGreaterThan(0);
  });

  it('a repeated MOVS goes on where it was refused', () => {
    prepare('f3a4', { rcx: 64n, rdi: BigInt(TARGET + PAGE - 16) }); // rep movsb
    expect(machine.run(5)).toBe('budget');
    const undisturbed = state();
    prepare('f3a4', { rcx: 64n, rdi: BigInt(TARGET + PAGE - 16) });
    const port = machine.openPort();
    port.setPageAccess(((TARGET + PAGE) / PAGE) as Gfn, Access.READ);
    port.flushPageAccess();
    expect(port.next(1)).toBe(0);
    expect(registers()).toMatchObject({
      rip: BigInt(CODE),
      rcx: 48n,
      rsi: BigInt(SOURCE + 16),
      rdi: BigInt(TARGET + PAGE),
    });
    port.setPageAccess(((TARGET + PAGE) / PAGE) as Gfn, Access.ALL);
    port.flushPageAccess();
    port.reply(0, Reply.RETRY);
    expect(port.next(1)).toBe(NO_EXIT);
    expect(state()).toEqual(undisturbed);
    port.close();
  });
});
