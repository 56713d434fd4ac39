import { Access, type Field64, type Gpa, Verdict } from '@introd/abi';
import fc from 'fast-check';
import { afterAll, describe, expect, inject, it } from 'vitest';
import type { AccessEvent } from '../src/index.js';
import { CODE, DATA, kernel, STACK } from './guest-layout.js';
import { code, get64, microMachine, prepare, put64, SimGuest } from './sim-guest.js';

const scale = inject('scale');

/** The entry that every instruction stores to; what lies around it shows stray writes. */
const ENTRY = DATA + 0x100;
const SOURCE = DATA + 0x800;
const HLT = 'f4';

interface Form {
  readonly name: string;
  readonly hex: string;
  /** Bytes stored by one element. */
  readonly size: number;
  readonly repeated?: boolean;
  /** The engine asks, and leaves the instruction to the processor. */
  readonly native?: boolean;
}

/** `op [rbx], reg` in the sizes that an opcode has: its low bit clear for bytes, prefixes for words and quadwords. */
function sized(name: string, hex: (prefix: string, wide: number) => string, sizes = [1, 2, 4, 8]): Form[] {
  return sizes.map((size) => ({
    name: `${name} of ${size} bytes`,
    hex: hex(size === 2 ? '66' : size === 8 ? '48' : '', size === 1 ? 0 : 1),
    size,
  }));
}

const byte = (value: number): string => value.toString(16).padStart(2, '0');

const FORMS: readonly Form[] = [
  ...(
    [
      ['add', 0x00],
      ['or', 0x08],
      ['adc', 0x10],
      ['sbb', 0x18],
      ['and', 0x20],
      ['sub', 0x28],
      ['xor', 0x30],
      ['xchg', 0x86],
      ['mov', 0x88],
    ] as const
  ).flatMap(([name, opcode]) => sized(`${name} [rbx], reg`, (prefix, wide) => `${prefix}${byte(opcode + wide)}0b`)),
  ...sized('xchg [rbx], ah', (prefix, wide) => `${prefix}${byte(0x86 + wide)}23`, [1]),
  ...sized('xadd [rbx], reg', (prefix, wide) => `${prefix}0f${byte(0xc0 + wide)}0b`),
  ...sized('lock xadd [rbx], ch', (prefix, wide) => `f0${prefix}0f${byte(0xc0 + wide)}2b`, [1]),
  ...sized('cmpxchg [rbx], reg', (prefix, wide) => `${prefix}0f${byte(0xb0 + wide)}0b`),
  ...sized('lock cmpxchg [rbx], reg', (prefix, wide) => `f0${prefix}0f${byte(0xb0 + wide)}0b`),
  ...sized('inc [rbx]', (prefix, wide) => `${prefix}${byte(0xfe + wide)}03`),
  ...sized('dec [rbx]', (prefix, wide) => `${prefix}${byte(0xfe + wide)}0b`),
  ...sized('not [rbx]', (prefix, wide) => `${prefix}${byte(0xf6 + wide)}13`),
  ...sized('neg [rbx]', (prefix, wide) => `${prefix}${byte(0xf6 + wide)}1b`),
  ...sized('or [rbx], imm8', (prefix) => `${prefix}830b84`, [2, 4, 8]),
  ...sized('lock and [rbx], imm8', (prefix) => `f0${prefix}8323fb`, [2, 4, 8]),
  { name: 'mov qword [rbx], imm32', hex: '48c70378563492', size: 8 },
  { name: 'mov byte [rbx], imm8', hex: 'c60305', size: 1 },
  ...sized('bts [rbx], imm', (prefix) => `${prefix}0fba2b27`, [2, 4, 8]),
  ...sized('btr [rbx], imm', (prefix) => `${prefix}0fba3302`, [2, 4, 8]),
  ...sized('lock btc [rbx], imm', (prefix) => `f0${prefix}0fba3b0d`, [2, 4, 8]),
  { name: 'cmpxchg8b [rbx]', hex: '0fc70b', size: 8 },
  { name: 'lock cmpxchg8b [rbx]', hex: 'f00fc70b', size: 8 },
  ...sized('movnti [rbx], reg', (prefix) => `${prefix}0fc30b`, [4, 8]),
  ...sized('stos', (prefix, wide) => `${prefix}${byte(0xaa + wide)}`),
  ...sized('movs', (prefix, wide) => `${prefix}${byte(0xa4 + wide)}`),
  ...sized('rep stos', (prefix, wide) => `f3${prefix}${byte(0xaa + wide)}`).map((form) => ({
    ...form,
    repeated: true,
  })),
  ...sized('rep movs', (prefix, wide) => `f3${prefix}${byte(0xa4 + wide)}`).map((form) => ({
    ...form,
    repeated: true,
  })),
  // XMM1 gets what RDX holds, in both halves.
  ...(
    [
      ['movd [rbx], xmm1', '660f7e0b', 4],
      ['movss [rbx], xmm1', 'f30f110b', 4],
      ['movq [rbx], xmm1', '660fd60b', 8],
      ['movq [rbx], xmm1 with REX.W', '66480f7e0b', 8],
      ['movsd [rbx], xmm1', 'f20f110b', 8],
      ['movlps [rbx], xmm1', '0f130b', 8],
      ['movhpd [rbx], xmm1', '660f170b', 8],
    ] as const
  ).map(([name, hex, size]) => ({ name, hex: `66480f6eca660f6cc9${hex}`, size })),
  ...(
    [
      ['rol', 0],
      ['ror', 1],
      ['rcl', 2],
      ['rcr', 3],
      ['shl', 4],
      ['shr', 5],
      ['sar', 7],
    ] as const
  ).flatMap(([name, extension]) =>
    sized(`${name} [rbx], cl`, (prefix, wide) => `${prefix}${byte(0xd2 + wide)}${byte(0x03 | (extension << 3))}`).map(
      (form) => ({ ...form, native: true }),
    ),
  ),
];

/** Stores of 16 bytes of XMM1 to [RBX]; the engine asks about their value and leaves them to the processor. */
const VECTOR_STORES = [
  ['movups', '0f110b'],
  ['movupd', '660f110b'],
  ['movdqu', 'f30f7f0b'],
  ['movaps', '0f290b'],
  ['movdqa', '660f7f0b'],
  ['movntdq', '660fe70b'],
  ['movntps', '0f2b0b'],
] as const;

const REGISTERS = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r15', 'rip', 'rflags'] as const;
const STATUS = 0x8d5n;

interface Case {
  readonly rax: bigint;
  readonly rcx: bigint;
  readonly rdx: bigint;
  readonly flags: bigint;
  readonly old: bigint;
  readonly slot: number;
  readonly equal: boolean;
}

const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const cases: fc.Arbitrary<Case> = fc.record({
  rax: word,
  rcx: word,
  rdx: word,
  flags: word,
  // Mostly present entries: what is never present is nobody's business.
  old: word.map((value) => value | 1n),
  slot: fc.nat(7),
  equal: fc.boolean(),
});

const machine = microMachine();

/** Brings the machine into the state before the instruction. */
function setUp(form: Form, one: Case): void {
  machine.reset();
  prepare(machine);
  machine.writePhysical(CODE as Gpa, code(form.hex + HLT));
  for (let at = -2; at <= 8; at++) {
    put64(machine, ENTRY + at * 8, at === 0 ? one.old : BigInt.asUintN(64, one.old * BigInt(at + 3)) | 1n);
    put64(machine, SOURCE + at * 8, BigInt.asUintN(64, one.rdx * BigInt(at + 3)) | 1n);
  }
  const offset = (one.slot % (8 / form.size)) * form.size;
  const vcpu = machine.vcpu(0);
  const element = BigInt.asUintN(form.size * 8, one.old >> BigInt(offset * 8));
  vcpu.set('rax', one.equal ? element : one.rax);
  vcpu.set('rdx', one.equal && form.size === 8 ? element >> 32n : one.rdx);
  vcpu.set('rcx', form.repeated ? 3n : one.rcx);
  vcpu.set('rbx', kernel(ENTRY + offset));
  vcpu.set('rdi', kernel(ENTRY + offset));
  vcpu.set('rsi', kernel(SOURCE + offset));
  // Arithmetic flags at random, and the direction of strings.
  vcpu.set('rflags', 2n | (one.flags & (STATUS | 0x400n)));
}

interface State {
  readonly registers: Record<(typeof REGISTERS)[number], string>;
  readonly memory: string;
  readonly tables: string;
}

function state(): State {
  const vcpu = machine.vcpu(0);
  const registers = Object.fromEntries(REGISTERS.map((name) => [name, vcpu.get(name as Field64).toString(16)]));
  return {
    registers: registers as Record<(typeof REGISTERS)[number], string>,
    memory: Buffer.from(machine.mapPage((DATA >> 12) as never)!).toString('hex'),
    tables: Buffer.from(machine.mapPage(4 as never)!).toString('hex'),
  };
}

/** What the processor makes of the instruction when nobody watches. */
function native(form: Form, one: Case): State {
  setUp(form, one);
  expect(machine.run(100)).toBe('shutdown');
  return state();
}

/** The same with a hook on the entry. */
function watched(form: Form, one: Case, callback: (event: AccessEvent) => void): { state: State; guest: SimGuest } {
  setUp(form, one);
  const guest = new SimGuest(machine);
  guest.engine.hooks.page.set({
    gpa: ENTRY as Gpa,
    length: 8,
    access: Access.WRITE,
    pagingStructure: true,
    callback,
  });
  guest.run(100);
  return { state: state(), guest };
}

/** Entry bits that are watched. */
const MONITORED = 0x000f_ffff_ffff_f087n;

/** The properties that a form shows. */
function shows({ name }: Form): string {
  const own = name.includes('cmpxchg') ? ' [P12.11]' : name.includes('stos') ? ' [P12.13]' : '';
  return `[1.2.6] [P12.9] [P12.12]${own}`;
}

afterAll(() => machine.reset());

describe('a page-table write by', () => {
  for (const form of FORMS) {
    it(`${form.name}: allowed it is what the processor does, denied nothing, replaced the replacement ${shows(form)}`, () => {
      let asked = 0;
      fc.assert(
        fc.property(cases, (one) => {
          const expected = native(form, one);
          const values: bigint[] = [];
          const allowed = watched(form, one, (event) => {
            const write = event.pageTableWrite!;
            expect(write.gpa).toBe(ENTRY);
            expect(write.old).toBe(get64(machine, ENTRY));
            expect((write.old ^ write.new) & MONITORED).not.toBe(0n);
            values.push(write.new);
            asked++;
          });
          expect(allowed.state).toEqual(expected);
          expect(allowed.guest.problems).toEqual([]);
          expect(allowed.guest.engine.counters.emulatedWrites > 0).toBe(form.native !== true);
          // Later elements of a repeated one may change an absent entry without asking.
          if (values.length > 0 && form.repeated !== true) {
            expect(get64(machine, ENTRY) & MONITORED).toBe(values.at(-1)! & MONITORED);
          }
          allowed.guest.close();

          // Never a moment in which the entry holds anything but what it held, or what was put in place of the write.
          setUp(form, one);
          const before = state();
          const seen = new Set<bigint>();
          machine.observe(() => void seen.add(get64(machine, ENTRY)));
          const denied = watched(form, one, (event) => {
            event.verdict = Verdict.NOT_ALLOWED;
          });
          machine.observe(undefined);
          denied.guest.close();
          if (values.length > 0) {
            for (const value of seen) {
              expect(value & MONITORED).toBe(one.old & MONITORED);
            }
            if (form.repeated !== true) {
              for (const name of ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rflags'] as const) {
                expect(denied.state.registers[name], name).toBe(before.registers[name]);
              }
            }
            expect(denied.state.registers.rip).toBe(expected.registers.rip);
          } else {
            expect(denied.state).toEqual(expected);
          }

          const replacement = one.rax | 1n;
          seen.clear();
          machine.observe(() => void seen.add(get64(machine, ENTRY)));
          const replaced = watched(form, one, (event) => event.pageTableWrite!.replace(replacement));
          machine.observe(undefined);
          replaced.guest.close();
          if (values.length > 0 && form.native !== true) {
            expect(replaced.state.registers.rip).toBe(expected.registers.rip);
            if (form.repeated !== true) {
              expect(get64(machine, ENTRY)).toBe(replacement);
              expect(replaced.state.registers).toEqual(expected.registers);
              for (const value of seen) {
                expect([one.old, replacement]).toContain(value);
              }
            }
          }
        }),
        { numRuns: 12 * scale, seed: 1 },
      );
      expect(asked).toBeGreaterThan(0);
    });
  }

  it('push of memory and pop into memory', () => {
    for (const [hex, rsp, expected] of [
      ['ff32', ENTRY + 8, 0x7777_7777n],
      ['8f03', SOURCE, 0x7777_7777n],
      ['6a85', ENTRY + 8, 0xffff_ffff_ffff_ff85n],
    ] as const) {
      machine.reset();
      prepare(machine);
      machine.writePhysical(CODE as Gpa, code(hex + HLT));
      put64(machine, ENTRY, 0x1003n);
      put64(machine, SOURCE, 0x7777_7777n);
      const guest = new SimGuest(machine);
      guest.vcpu.set('rdx', kernel(SOURCE));
      guest.vcpu.set('rbx', kernel(ENTRY));
      guest.vcpu.set('rsp', kernel(rsp));
      const seen: bigint[] = [];
      guest.engine.hooks.page.set({
        gpa: ENTRY as Gpa,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        callback: (event) => seen.push(event.pageTableWrite!.new),
      });
      guest.run(20);
      expect(seen).toEqual([expected]);
      expect(get64(machine, ENTRY)).toBe(expected);
      expect(guest.vcpu.get('rsp')).toBe(kernel(hex === '8f03' ? SOURCE + 8 : ENTRY));
      guest.close();
    }
  });

  it('push of memory that touches two hooked pages asks about both', () => {
    machine.reset();
    prepare(machine);
    machine.writePhysical(CODE as Gpa, code(`ff33${HLT}`));
    put64(machine, DATA, 0x1234n);
    const guest = new SimGuest(machine);
    guest.vcpu.set('rbx', kernel(DATA));
    const seen = new Set<string>();
    const set = (gpa: number, access: Access, verdict: Verdict): void => {
      guest.engine.hooks.page.set({
        gpa: gpa as Gpa,
        length: 8,
        access,
        callback: (event) => {
          seen.add(`${event.access} ${event.gpa.toString(16)}`);
          event.verdict = verdict;
        },
      });
    };
    set(DATA, Access.READ, Verdict.ALLOWED);
    set(STACK - 8, Access.WRITE, Verdict.ALLOWED);
    guest.run(20);
    expect([...seen]).toEqual(['1 20000', '2 2fff8']);
    expect(get64(machine, STACK - 8)).toBe(0x1234n);
    guest.close();

    // The twin: the stack is denied, although it is the read that faults first.
    machine.reset();
    prepare(machine);
    machine.writePhysical(CODE as Gpa, code(`ff33${HLT}`));
    put64(machine, DATA, 0x1234n);
    const twin = new SimGuest(machine);
    twin.vcpu.set('rbx', kernel(DATA));
    twin.engine.hooks.page.set({ gpa: DATA as Gpa, length: 8, access: Access.READ, callback: () => undefined });
    twin.engine.hooks.page.set({
      gpa: (STACK - 8) as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    twin.run(20);
    expect(get64(machine, STACK - 8)).toBe(0n);
    expect(twin.vcpu.get('rsp')).toBe(kernel(STACK));
    twin.close();
  });

  it('unaligned stores and stores over the page boundary, which no odd form may hide', () => {
    for (const [hex, from] of [
      ['488903', ENTRY - 4],
      ['488903', ENTRY + 4],
      ['4809 03', ENTRY - 1],
      ['488703', ENTRY + 1],
      ['488903', DATA - 4],
      ['480fb10b', ENTRY - 3],
    ] as const) {
      const entry = from < DATA ? DATA : ENTRY;
      for (const deny of [true, false]) {
        machine.reset();
        prepare(machine);
        machine.writePhysical(CODE as Gpa, code(hex + HLT));
        put64(machine, entry, 0x1003n);
        const guest = new SimGuest(machine);
        guest.vcpu.set('rbx', kernel(from));
        guest.vcpu.set('rax', hex === '480fb10b' ? get64(machine, from) : 0x0707_0707_0707_0707n);
        guest.vcpu.set('rcx', 0x0707_0707_0707_0707n);
        let asked = 0;
        guest.engine.hooks.page.set({
          gpa: entry as Gpa,
          length: 8,
          access: Access.WRITE,
          pagingStructure: true,
          callback: (event) => {
            asked++;
            if (deny) {
              event.verdict = Verdict.NOT_ALLOWED;
            }
          },
        });
        guest.run(20);
        expect(asked, hex).toBeGreaterThan(0);
        expect(get64(machine, entry) === 0x1003n).toBe(deny);
        guest.close();
      }
    }
  });

  for (const [name, hex] of VECTOR_STORES) {
    it(`${name} over the entry is judged by the value that it brings, as a whole and half by half [P12.9]`, () => {
      // Each puts RDX into XMM1; it lies in both halves.
      const unaligned = [
        [ENTRY, ENTRY - 4],
        [ENTRY, ENTRY - 11],
      ] as const;
      for (const [entry, from] of [
        [ENTRY, ENTRY],
        [ENTRY + 8, ENTRY],
        ...(name.includes('u') ? unaligned : []),
      ] as const) {
        for (const evil of [true, false]) {
          machine.reset();
          prepare(machine);
          machine.writePhysical(CODE as Gpa, code(`66480f6eca 660f6cc9 ${hex}${HLT}`));
          put64(machine, entry, 0x1003n);
          const guest = new SimGuest(machine);
          const before = [-16, -8, 8].map((at) => get64(machine, entry + at));
          guest.vcpu.set('rbx', kernel(from));
          guest.vcpu.set('rdx', evil ? 0x0707_0707_0707_0707n : 0x0101_0101_0101_0101n);
          const seen: bigint[] = [];
          guest.engine.hooks.page.set({
            gpa: entry as Gpa,
            length: 8,
            access: Access.WRITE,
            pagingStructure: true,
            callback: (event) => {
              const { old, new: next } = event.pageTableWrite!;
              expect(old).toBe(0x1003n);
              seen.push(next);
              // What the attack brings has the user bit in some byte of the entry, its twin has not.
              if ((next & 0x0404_0404_0404_0404n) !== 0n) {
                event.verdict = Verdict.NOT_ALLOWED;
              }
            },
          });
          guest.run(20);
          expect(seen.length).toBeGreaterThan(0);
          expect(guest.problems).toEqual([]);
          const after = [-16, -8, 8].map((at) => get64(machine, entry + at));
          expect(get64(machine, entry)).toBe(evil ? 0x1003n : seen[0]);
          // Nothing of a denied store happens, beside the entry neither.
          if (evil) expect(after).toEqual(before);
          else expect(after).not.toEqual(before);
          expect(guest.vcpu.get('rip')).toBe(kernel(CODE + 10 + hex.length / 2));
          guest.close();
        }
      }
    });
  }

  it('a vector store beside the entry is nobody\u2019s business', () => {
    for (const from of [ENTRY + 8, ENTRY - 16]) {
      machine.reset();
      prepare(machine);
      machine.writePhysical(CODE as Gpa, code(`0f1103${HLT}`));
      put64(machine, ENTRY, 0x1003n);
      put64(machine, from, 0x2003n);
      const guest = new SimGuest(machine);
      guest.vcpu.set('rbx', kernel(from));
      let asked = 0;
      guest.engine.hooks.page.set({
        gpa: ENTRY as Gpa,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        callback: () => void asked++,
      });
      guest.run(20);
      expect([asked, get64(machine, ENTRY), get64(machine, from)]).toEqual([0, 0x1003n, 0n]);
      expect(guest.problems).toEqual([]);
      guest.close();
    }
  });

  it('MASKMOVDQU is judged by what its mask lets through', () => {
    // PCMPEQD XMM0, XMM0 selects every byte; PXOR XMM0, XMM0 none.
    for (const [mask, asked, left] of [
      ['660f76c0', 1, 0x1003n],
      ['660fefc0', 0, 0x1003n],
    ] as const) {
      machine.reset();
      prepare(machine);
      machine.writePhysical(CODE as Gpa, code(`${mask} 660ff7c8${HLT}`));
      put64(machine, ENTRY, 0x1003n);
      const guest = new SimGuest(machine);
      guest.vcpu.set('rdi', kernel(ENTRY));
      const values: number[] = [];
      guest.engine.hooks.page.set({
        gpa: ENTRY as Gpa,
        length: 8,
        access: Access.WRITE,
        pagingStructure: true,
        callback: (event) => {
          const write = event.pageTableWrite!;
          if (write.newLow !== write.oldLow) {
            values.push(write.newLow);
            event.verdict = Verdict.NOT_ALLOWED;
          }
        },
      });
      guest.run(20);
      expect([values.length, get64(machine, ENTRY)], mask).toEqual([asked, left]);
      expect(guest.problems).toEqual([]);
      guest.close();
    }
  });

  it('a store whose bytes nobody can tell is blocked on the entry', () => {
    machine.reset();
    prepare(machine);
    machine.writePhysical(CODE as Gpa, code(`0fae03${HLT}`)); // fxsave [rbx]
    put64(machine, ENTRY, 0x1003n);
    const guest = new SimGuest(machine);
    guest.vcpu.set('rbx', kernel(ENTRY));
    guest.engine.hooks.page.set({
      gpa: ENTRY as Gpa,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: () => undefined,
    });
    guest.run(20);
    expect(get64(machine, ENTRY)).toBe(0x1003n);
    expect(guest.problems.map((problem) => problem.kind)).toEqual(['unknown-page-table-write']);
    guest.close();
  });

  it('rep movsb that begins before the entry is stopped at it, byte by byte, and goes on behind', () => {
    machine.reset();
    prepare(machine);
    machine.writePhysical(CODE as Gpa, code(`f3a4${HLT}`));
    put64(machine, ENTRY, 0x1003n);
    for (let at = -2; at < 3; at++) {
      put64(machine, SOURCE + at * 8, 0x0707_0707_0707_0707n);
    }
    const guest = new SimGuest(machine);
    guest.vcpu.set('rdi', kernel(ENTRY - 16));
    guest.vcpu.set('rsi', kernel(SOURCE - 16));
    guest.vcpu.set('rcx', 40n);
    guest.engine.hooks.page.set({
      gpa: ENTRY as Gpa,
      length: 8,
      access: Access.WRITE,
      pagingStructure: true,
      callback: (event) => {
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    guest.run(500);
    expect(get64(machine, ENTRY) & MONITORED).toBe(0x1003n & MONITORED);
    for (const at of [-16, -8, 8, 16]) {
      expect(get64(machine, ENTRY + at)).toBe(0x0707_0707_0707_0707n);
    }
    expect(guest.vcpu.get('rcx')).toBe(0n);
    guest.close();
  });
});
