import { type Cr3, type Gfn, type Gpa, type Gva, PAGE_SIZE, Verdict } from '@introd/abi';
import { createMockPort, type MockPort } from '@introd/glue/testing';
import { enterLongMode, type Machine } from '@introd/hv-sim';
import { describe, expect, inject, it } from 'vitest';
import { type CloakOptions, Engine } from '../src/index.js';
import { CODE, DATA, kernel, leafEntry, PML4, STACK } from './guest-layout.js';
import { code, get64, microMachine, prepare, put64, SimGuest } from './sim-guest.js';

const scale = inject('scale');
const CR3 = BigInt(PML4) as Cr3;
/** Two neighbouring pages, and where results go. */
const PAGE = 0x4_0000;
const OUTPUT = 0x6_0000;
/** Another frame for the first page. */
const SPARE = 0x5_0000;
const HLT = 'f4';

/** A region of 64 bytes, half of it on each page. */
const REGION = PAGE + PAGE_SIZE - 32;
const LENGTH = 64;
const PATCHED = new Uint8Array(LENGTH).fill(0xee);

const quad = (value: bigint): string => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
  return bytes.toString('hex');
};
const rsi = (va: bigint): string => `48be${quad(va)}`;
const rdi = (va: bigint): string => `48bf${quad(va)}`;
const rax = (value: bigint): string => `48b8${quad(value)}`;
/** mov [rdi], rax */
const store = (va: bigint, value: bigint): string => `${rdi(va)}${rax(value)}488907`;

/** What the two pages hold before anything is patched. */
const pattern = Uint8Array.from({ length: 2 * PAGE_SIZE }, (_, at) => (at * 7 + (at >> 8)) & 0xff);
const original = pattern.slice(REGION - PAGE, REGION - PAGE + LENGTH);

function machineWith(program: string, options: Parameters<typeof microMachine>[0] = {}): Machine {
  const machine = microMachine(options);
  prepare(machine);
  machine.writePhysical(CODE as Gpa, code(program));
  machine.writePhysical(PAGE as Gpa, pattern);
  return machine;
}

function guestWith(program: string): SimGuest {
  const guest = new SimGuest(machineWith(program));
  guest.engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
  return guest;
}

const region = (more: Partial<CloakOptions> = {}): CloakOptions => ({
  cr3: CR3,
  va: kernel(REGION),
  length: LENGTH,
  original,
  patched: PATCHED,
  apply: true,
  ...more,
});
const physical = (machine: Machine, gpa: number, count: number): Uint8Array => {
  const bytes = new Uint8Array(count);
  expect(machine.readPhysical(gpa as Gpa, bytes)).toBe(true);
  return bytes;
};

describe('a guest that reads around hidden bytes', () => {
  it('sees the originals inside and the real bytes outside, whatever offset and size, across both pages [P13.1] [P13.10]', () => {
    const copies: { readonly from: number; readonly size: number; readonly to: number }[] = [];
    let program = '';
    const add = (from: number, size: number, body: string): void => {
      const to = OUTPUT + copies.length * 64;
      copies.push({ from, size, to });
      program += rsi(kernel(from)) + rdi(kernel(to)) + body;
    };
    const moves: Record<number, string> = {
      1: '8a068807',
      2: '668b06668907',
      4: '8b068907',
      8: '488b06488907',
      16: '0f10060f1107',
    };
    for (const [size, body] of Object.entries(moves)) {
      for (const edge of [REGION, PAGE + PAGE_SIZE, REGION + LENGTH, REGION + 8]) {
        for (let from = edge - Number(size); from <= edge + 1; from++) {
          add(from, Number(size), body);
        }
      }
    }
    for (let size = 1; size <= 64; size++) {
      // mov ecx, size; rep movsb, from a place that changes with the size
      add(REGION - 30 + ((size * 37) % (LENGTH + 28)), size, `b9${quad(BigInt(size)).slice(0, 8)}f3a4`);
    }
    const guest = guestWith(program + HLT);
    expect(program.length / 2).toBeLessThan(DATA - CODE);
    const { cloaks } = guest.engine;
    // Two regions that touch each other: 40 and 24 bytes.
    const [first, second] = [40, 24];
    cloaks.hide(region({ length: first, original: original.subarray(0, first), patched: PATCHED.subarray(0, first) }));
    cloaks.hide(
      region({
        va: kernel(REGION + first),
        length: second,
        original: original.subarray(first),
        patched: PATCHED.subarray(first),
      }),
    );
    expect(physical(guest.machine, REGION, LENGTH)).toEqual(PATCHED);
    guest.run(100_000);
    for (const { from, size, to } of copies) {
      expect(
        Buffer.compare(physical(guest.machine, to, size), pattern.subarray(from - PAGE, from - PAGE + size)),
        `${size} bytes at region ${from - REGION}`,
      ).toBe(0);
    }
    expect(copies.length).toBeGreaterThan(150);
    expect(physical(guest.machine, REGION, LENGTH)).toEqual(PATCHED);
    expect(guest.problems).toEqual([]);
  });

  it('sees them as the second operand of an instruction, too [P13.13]', () => {
    // cmpsb: RSI outside of the region, RDI inside; the bytes are equal in the original only. setz [rbx]; the same with cmp al
    const program = `${rsi(kernel(DATA))}${rdi(kernel(REGION + 5))}48bb${quad(kernel(OUTPUT))}b904000000f3a60f9403${HLT}`;
    const guest = guestWith(program);
    guest.machine.writePhysical(DATA as Gpa, original.subarray(5, 9));
    guest.engine.cloaks.hide(region());
    guest.run(10_000);
    expect(physical(guest.machine, OUTPUT, 1)[0]).toBe(1);
    expect(guest.vcpu.get('rcx')).toBe(0n);
    expect(guest.problems).toEqual([]);
  });

  it('sees what is there when the reading instruction lies in the region and that is allowed [P13.8]', () => {
    // At the region: mov al, [rip]; hlt. It reads its own HLT.
    const own = new Uint8Array(LENGTH).fill(0xf4);
    own.set(code('8a0500000000'));
    for (const allowInternal of [true, false]) {
      const guest = guestWith(`${rax(kernel(REGION))}ffe0`);
      guest.engine.cloaks.hide(region({ patched: own, allowInternal }));
      guest.run(1000);
      expect(guest.vcpu.get('rax') & 0xffn).toBe(allowInternal ? 0xf4n : BigInt(original[6]!));
    }
  });
});

describe('a guest that writes to hidden bytes', () => {
  it('is denied whatever the listener says, and passes elsewhere on the page [1.2.10] [P13.2]', () => {
    const inside = [REGION, REGION + 30, REGION + LENGTH - 1].map((at) => store(kernel(at), 0x1111_1111_1111_1111n));
    const outside = [REGION - 8, REGION + LENGTH].map((at) => store(kernel(at), 0x2222_2222_2222_2222n));
    const guest = guestWith(inside.join('') + outside.join('') + HLT);
    const { counters } = guest.engine;
    let told = 0;
    guest.engine.cloaks.hide(
      region({
        onWrite: (event) => {
          told++;
          event.verdict = Verdict.ALLOWED;
          event.removeHook = true;
          expect(event.newValue()!.bytes.length).toBeGreaterThan(0);
        },
      }),
    );
    guest.run(1000);
    // The middle one lies on both pages.
    expect(told).toBe(4);
    expect(counters.forcedVerdicts).toBeGreaterThanOrEqual(3);
    expect(physical(guest.machine, REGION, LENGTH)).toEqual(PATCHED);
    expect(get64(guest.machine, REGION - 8)).toBe(0x2222_2222_2222_2222n);
    expect(get64(guest.machine, REGION + LENGTH)).toBe(0x2222_2222_2222_2222n);
    expect(guest.problems).toEqual([]);
  });

  it('executes what is there [P13.3]', () => {
    const patched = new Uint8Array(LENGTH).fill(0x90);
    // nops over the page border, then mov eax, 42; hlt
    patched.set(code('b82a000000f4'), 40);
    const guest = guestWith(`${rax(kernel(REGION))}ffe0`);
    guest.engine.cloaks.hide(region({ patched }));
    guest.run(1000);
    expect(guest.vcpu.get('rax')).toBe(42n);
    // Not one exit: fetching is no reading.
    expect(guest.engine.counters.eptViolations).toBe(0);
  });
});

describe('hidden bytes on a page that moves', () => {
  const entry = leafEntry(PAGE);
  it('leave the old frame, and are on the new one before other hooks look at it [P13.4]', () => {
    const program =
      store(kernel(entry), 0n) +
      store(kernel(entry), BigInt(SPARE) | 3n) +
      // mov rax, [rsi]; mov [rdi], rax
      `${rsi(kernel(REGION))}${rdi(kernel(OUTPUT))}488b06488907${HLT}`;
    const guest = guestWith(program);
    const { machine, engine } = guest;
    machine.writePhysical(SPARE as Gpa, pattern.subarray(0, PAGE_SIZE));
    engine.cloaks.hide(region());
    const seen: { readonly mapped: boolean; readonly old: Uint8Array; readonly now: Uint8Array }[] = [];
    engine.hooks.translation.set({
      cr3: CR3,
      va: kernel(PAGE),
      committed: ({ newGpa }) =>
        seen.push({
          mapped: newGpa !== undefined,
          old: physical(machine, REGION, 32),
          now: physical(machine, SPARE + (REGION - PAGE), 32),
        }),
    });
    guest.run(1000);
    const first = original.subarray(0, 32);
    expect(seen).toEqual([
      { mapped: false, old: first, now: first },
      { mapped: true, old: first, now: PATCHED.subarray(0, 32) },
    ]);
    // The second page has not moved.
    expect(physical(machine, PAGE + PAGE_SIZE, 32)).toEqual(PATCHED.subarray(32));
    expect(physical(machine, OUTPUT, 8)).toEqual(original.subarray(0, 8));
    expect(engine.port.getPageAccess((PAGE / PAGE_SIZE) as Gfn)).toBe(7);
    expect(engine.port.pauseCount).toBe(0);
    expect(guest.problems).toEqual([]);
  });

  it('are put on pages that were absent when they are mapped first, each by itself [P13.5]', () => {
    for (const absent of [[PAGE], [PAGE + PAGE_SIZE], [PAGE, PAGE + PAGE_SIZE]]) {
      const program = absent.map((page) => store(kernel(leafEntry(page)), BigInt(page) | 3n)).join('') + HLT;
      const guest = guestWith(program);
      for (const page of absent) {
        put64(guest.machine, leafEntry(page), 0n);
      }
      guest.engine.cloaks.hide(region());
      for (const [page, at, from] of [
        [PAGE, REGION, 0],
        [PAGE + PAGE_SIZE, PAGE + PAGE_SIZE, 32],
      ] as const) {
        const expected = (absent.includes(page) ? original : PATCHED).subarray(from, from + 32);
        expect(physical(guest.machine, at, 32)).toEqual(expected);
      }
      guest.run(1000);
      expect(physical(guest.machine, REGION, LENGTH)).toEqual(PATCHED);
    }
  });
});

describe('a cloak', () => {
  it('gives every byte back when it is restored, and leaves them there otherwise [P13.6]', () => {
    for (const restore of [true, false]) {
      const guest = guestWith(HLT);
      const cloak = guest.engine.cloaks.hide(region());
      expect(cloak.remove({ restore })).toBe(true);
      expect(cloak.remove({ restore: !restore })).toBe(true);
      expect(physical(guest.machine, REGION, LENGTH)).toEqual(restore ? original : PATCHED);
      guest.run(10);
      expect(guest.engine.hooks.page.count).toBe(0);
      expect(guest.engine.hooks.translation.count).toBe(0);
      for (const page of [PAGE, PAGE + PAGE_SIZE]) {
        expect(guest.engine.port.getPageAccess((page / PAGE_SIZE) as Gfn)).toBe(7);
      }
    }
  });

  it('may be removed by its own listener', () => {
    const guest = guestWith(store(kernel(REGION), 1n) + store(kernel(REGION), 2n) + HLT);
    const cloak = guest.engine.cloaks.hide(region({ onWrite: () => cloak.remove({ restore: true }) }));
    guest.run(1000);
    expect(get64(guest.machine, REGION)).toBe(2n);
    expect(guest.problems).toEqual([]);
  });

  it('is refused for three pages, wrong lengths and parts outside of it [P13.7] [P13.9]', () => {
    const guest = guestWith(HLT);
    const { cloaks } = guest.engine;
    const range = expect.objectContaining({ code: 'ERR_CORE_HOOKS_RANGE' });
    const three = { va: kernel(PAGE + 1), length: 2 * PAGE_SIZE, original: undefined, patched: undefined };
    expect(() => cloaks.hide(region(three))).toThrow(range);
    expect(() => cloaks.hide(region({ length: 0, original: undefined, patched: undefined }))).toThrow(range);
    expect(() => cloaks.hide(region({ patched: PATCHED.subarray(1) }))).toThrow(range);
    expect(cloaks.count).toBe(0);
    const cloak = cloaks.hide(region());
    for (const [offset, length] of [
      [LENGTH, 1],
      [-1, 1],
      [60, 5],
      [0.5, 1],
      [0, 0],
    ] as const) {
      expect(() => cloak.modifyOriginal(offset, new Uint8Array(length))).toThrow(range);
      expect(() => cloak.modifyPatched(offset, new Uint8Array(length))).toThrow(range);
      expect(() => cloak.modifyPatched(offset, length)).toThrow(range);
    }
    cloak.modifyOriginal(0, Uint8Array.of(1));
    expect(cloak.modifyPatched(60, Uint8Array.of(2, 3))).toBe(true);
    expect(cloak.modifyPatched(62, 2)).toBe(true);
    expect(physical(guest.machine, REGION + 60, 4)).toEqual(Uint8Array.of(2, 3, 0, 0));
    const seen = new Uint8Array(2);
    cloaks.readAsGuest(CR3, kernel(REGION), seen);
    expect(seen).toEqual(Uint8Array.of(1, original[1]!));
  });

  it('takes a missing buffer for zeros [P13.15]', () => {
    const guest = guestWith(HLT);
    const cloak = guest.engine.cloaks.hide(region({ original: undefined, patched: undefined }));
    expect(physical(guest.machine, REGION, LENGTH)).toEqual(new Uint8Array(LENGTH));
    guest.machine.writePhysical(REGION as Gpa, PATCHED);
    cloak.remove({ restore: true });
    expect(physical(guest.machine, REGION, LENGTH)).toEqual(new Uint8Array(LENGTH));
  });

  it('does not change the hash of what the guest believes in [P13.12]', () => {
    const guest = guestWith(HLT);
    const { cloaks } = guest.engine;
    const hash = (): number | undefined => cloaks.hash(CR3, kernel(PAGE), 2 * PAGE_SIZE);
    const before = hash();
    const cloak = cloaks.hide(region());
    expect(hash()).toBe(before);
    cloak.remove({ restore: false });
    expect(hash()).not.toBe(before);
    put64(guest.machine, leafEntry(PAGE), 0n);
    expect(hash()).toBeUndefined();
  });

  it('of a process is restored in its own address space, not in that of the system [P13.14]', () => {
    const guest = guestWith(HLT);
    const { machine, engine } = guest;
    // The process: tables of its own for the lower half, where PAGE is at SPARE.
    const [pml4, pdpt, pd, pt] = [0x7_0000, 0x7_1000, 0x7_2000, 0x7_3000] as const;
    for (const [table, next] of [
      [pml4, pdpt],
      [pdpt, pd],
      [pd, pt],
    ] as const) {
      put64(machine, table, BigInt(next) | 7n);
    }
    put64(machine, pt + (PAGE >> 12) * 8, BigInt(SPARE) | 7n);
    machine.writePhysical(SPARE as Gpa, pattern.subarray(0, PAGE_SIZE));
    const options = region({
      cr3: BigInt(pml4) as Cr3,
      va: BigInt(PAGE + 0x100) as Gva,
      length: 8,
      original: pattern.slice(0x100, 0x108),
      patched: PATCHED.subarray(0, 8),
    });
    const cloak = engine.cloaks.hide(options);
    expect(physical(machine, SPARE + 0x100, 8)).toEqual(PATCHED.subarray(0, 8));
    expect(engine.cloaks.find(CR3, options.va)).toBeUndefined();
    expect(engine.cloaks.find(options.cr3, options.va)).toBe(cloak);
    cloak.remove({ restore: true });
    expect(physical(machine, SPARE, PAGE_SIZE)).toEqual(pattern.slice(0, PAGE_SIZE));
    expect(physical(machine, PAGE, PAGE_SIZE)).toEqual(pattern.slice(0, PAGE_SIZE));
  });

  it('leaves nothing behind and no pause when any call of the backend fails [P13.11] [P18.1]', () => {
    const attempt = (arm: (mock: MockPort<ReturnType<Machine['openPort']>>) => void): 'refused' | 'hidden' => {
      const machine = machineWith(HLT);
      const mock = createMockPort(machine.openPort());
      const engine = new Engine(mock.port);
      engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
      arm(mock);
      try {
        const cloak = engine.cloaks.hide(region());
        expect(physical(machine, REGION, LENGTH)).toEqual(PATCHED);
        mock.clearFaults();
        cloak.remove({ restore: true });
        return 'hidden';
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_GLUE_INJECTED_FAULT' });
        mock.clearFaults();
        return 'refused';
      } finally {
        expect(mock.port.pauseCount).toBe(0);
        expect(physical(machine, PAGE, 2 * PAGE_SIZE)).toEqual(pattern);
        engine.close();
      }
    };
    let refused = 0;
    for (const operation of ['pause', 'resume', 'setPageAccess', 'flushPageAccess', 'writePhysical'] as const) {
      for (let nth = 1; nth <= 12; nth++) {
        refused += attempt((mock) => mock.fail({ operation, nth })) === 'refused' ? 1 : 0;
      }
    }
    expect(refused).toBeGreaterThan(8);
    expect(attempt(() => undefined)).toBe('hidden');
  });

  it('is put on and taken back inside a pause of somebody else, which goes on after it [P18.2]', () => {
    const { engine, machine } = guestWith(HLT);
    const { port } = engine;
    const depths: number[] = [];
    const writePhysical = port.writePhysical.bind(port);
    port.writePhysical = (gpa, bytes) => {
      depths.push(port.pauseCount);
      return writePhysical(gpa, bytes);
    };
    const outside: number[] = [];
    engine.hooks.translation.set({
      cr3: CR3,
      va: kernel(SPARE),
      priority: 'high',
      committed: () => {
        outside.push(port.pauseCount);
        const cloak = engine.cloaks.hide(region());
        outside.push(port.pauseCount);
        expect(physical(machine, REGION, LENGTH)).toEqual(PATCHED);
        cloak.remove({ restore: true });
        outside.push(port.pauseCount);
      },
    });
    engine.memory.writePhysical(leafEntry(SPARE), new Uint8Array(8));
    // The write itself, then one for each page of the cloak, twice; the pause that there is serves.
    expect(depths).toEqual([0, 1, 1, 1, 1]);
    expect([outside, port.pauseCount]).toEqual([[1, 1, 1], 0]);
    engine.close();
  });

  it('is never seen through by a VCPU that reads while another moves the page', () => {
    for (let seed = 1; seed <= 3 * scale; seed++) {
      const entry = leafEntry(PAGE);
      // VCPU 0: unmaps and maps the page elsewhere and back, 8 times. VCPU 1 reads through a second mapping of both frames.
      const move = (to: number): string => store(kernel(entry), 0n) + store(kernel(entry), BigInt(to) | 3n);
      const machine = machineWith((move(SPARE) + move(PAGE)).repeat(4) + HLT, {
        vcpus: 2,
        seed,
        quantum: 7,
        race: { betweenFaultAndDelivery: 6, insideCalls: 6 },
      });
      machine.writePhysical(SPARE as Gpa, pattern.subarray(0, PAGE_SIZE));
      const reader = CODE + 0x4000;
      // mov rax, [rsi]; cmp rax, rbx; jne out; mov rax, [rdi]; cmp rax, rbx; jne out; dec rcx; jnz; hlt; out: mov [r8], rax; hlt
      machine.writePhysical(reader as Gpa, code('488b06 4839d8 750e 488b07 4839d8 7506 48ffc9 75eb f4 498900 f4'));
      const vcpu = machine.vcpu(1);
      enterLongMode(vcpu, { cr3: CR3, rip: kernel(reader), rsp: kernel(STACK + 0x1000) });
      machine.setActive(1, true);
      const first = Buffer.from(original).readBigUInt64LE();
      vcpu.set('rbx', first);
      vcpu.set('rcx', 60n);
      vcpu.set('r8', kernel(OUTPUT));
      // The lower half leads to the same tables; the reader shall not go through the entry that changes.
      const alias = 0x7_4000;
      put64(machine, alias, BigInt(PAGE) | 3n);
      put64(machine, alias + 8, BigInt(SPARE) | 3n);
      put64(machine, 0x3000 + 8, BigInt(alias) | 7n);
      vcpu.set('rsi', kernel(0x20_0000 + (REGION - PAGE)));
      vcpu.set('rdi', kernel(0x20_1000 + (REGION - PAGE)));
      const guest = new SimGuest(machine);
      guest.engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
      guest.engine.cloaks.hide(region());
      guest.run(100_000);
      expect(get64(machine, OUTPUT), `seed ${seed}`).toBe(0n);
      expect(vcpu.get('rcx')).toBe(0n);
      expect(guest.problems).toEqual([]);
      expect(physical(machine, REGION, LENGTH)).toEqual(PATCHED);
    }
  });
});

describe('an engine that closes', () => {
  it('gives the guest the bytes back that it believes to have, on both pages, whoever wrote the patched ones', () => {
    for (const apply of [true, false]) {
      const machine = machineWith(HLT);
      const guest = new SimGuest(machine);
      guest.engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
      if (!apply) {
        machine.writePhysical(REGION as Gpa, PATCHED);
      }
      guest.engine.cloaks.hide(region({ apply }));
      expect(physical(machine, REGION, LENGTH)).toEqual(PATCHED);
      guest.close();
      expect(physical(machine, PAGE, 2 * PAGE_SIZE)).toEqual(pattern);
      expect(guest.problems).toEqual([]);
    }
  });

  it('leaves a cloak alone that was removed without its originals', () => {
    const machine = machineWith(HLT);
    const guest = new SimGuest(machine);
    guest.engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
    guest.engine.cloaks.hide(region()).remove({ restore: false });
    guest.close();
    expect(physical(machine, REGION, LENGTH)).toEqual(PATCHED);
  });
});
