import { Access, type Cr3, type Gpa, type Gva, Verdict } from '@introd/abi';
import { describe, expect, inject, it } from 'vitest';
import { DATA } from './guest-layout.js';
import type { Mode } from './naive-walker.js';
import { HIGH, PagedGuest } from './paged-guest.js';

const scale = inject('scale');
const SEEDS = 20 * scale;

const MODES: readonly Mode[] = ['32-bit', 'pae', '4-level', '5-level'];
/** A frame that the attacker maps in place of the hooked one. */
const OTHER = 0x5_0000;
const EVIL = 0x6666;
const GOOD = 0x1111;

interface Remap {
  readonly name: string;
  /** Makes the guest's tables ready; gives the entry to be written, its new value, and where the hooked page is then. */
  prepare(guest: PagedGuest): { readonly entry: number; readonly value: number; readonly page: number };
}

const REMAPS: readonly Remap[] = [
  {
    name: 'remaps the page',
    prepare: ({ way }) => ({ entry: way.at(-1)!, value: OTHER | 3, page: OTHER }),
  },
  {
    name: 'splits the large page that it lies in',
    prepare: (guest) => {
      const { way, entrySize } = guest;
      const [directory, last] = way.slice(-2) as [number, number];
      const table = last - (last % 4096);
      guest.write(directory, 0x83n);
      guest.write(table + (DATA >> 12) * entrySize, BigInt(OTHER) | 3n);
      return { entry: directory, value: table | 3, page: OTHER };
    },
  },
  {
    name: 'merges it into a large page',
    prepare: (guest) => {
      const [directory, last] = guest.way.slice(-2) as [number, number];
      guest.write(last, BigInt(OTHER) | 3n);
      return { entry: directory, value: 0x83, page: DATA };
    },
  },
];

describe('an attack that', () => {
  for (const mode of MODES) {
    for (const { name, prepare } of REMAPS) {
      it(`${name} under a hook and writes there meets the hook, its benign twin too: ${mode} [P8.3] [P8.13]${mode === '5-level' ? ' [P7.17]' : ''}`, () => {
        for (const value of [EVIL, GOOD]) {
          const guest = new PagedGuest(mode);
          const { entry, value: newEntry, page } = prepare(guest);
          guest.start(`mov dword [${entry}], ${newEntry}
            invlpg [${DATA}]
            mov dword [${DATA + 0x10}], ${value}
            hlt`);
          guest.engine.addressSpaces = { ...guest.engine.addressSpaces, pagingMode: mode };
          const asked: unknown[] = [];
          const hook = guest.engine.hooks.virtual.set({
            cr3: guest.cr3 as Cr3,
            va: BigInt(DATA + 0x10) as Gva,
            length: 4,
            access: Access.WRITE,
            callback: (event) => {
              asked.push(hook.addressOf(event.gpa));
              const bytes = event.newValue()?.bytes;
              if (bytes === undefined || bytes[0] === (EVIL & 0xff)) {
                event.verdict = Verdict.NOT_ALLOWED;
              }
            },
          });
          const before = hook.gpa;
          guest.run(1000);
          expect(guest.problems).toEqual([]);
          expect([before !== hook.gpa, hook.gpa]).toEqual([true, page + 0x10]);
          expect(asked).toEqual([BigInt(DATA + 0x10)]);
          expect(guest.read(page + 0x10, 4)).toBe(value === EVIL ? 0n : BigInt(GOOD));
          guest.close();
        }
      });
    }
  }

  for (const order of [
    [4, 0],
    [0, 4],
  ]) {
    it(`writes a PAE entry in two halves, byte ${order[0]} first, cannot map what it must not, its benign twin can [1.2.4-13] [P5.9]`, () => {
      for (const [high, mapped] of [
        [1, false],
        [0, true],
      ] as const) {
        const guest = new PagedGuest('pae');
        const entry = guest.way.at(-1)!;
        guest.write(entry, 0n);
        const halves = { 0: 0x5003, 4: high };
        guest.start(`${order.map((half) => `mov dword [${entry + half}], ${halves[half as 0 | 4]}`).join('\n')}\nhlt`);
        guest.engine.addressSpaces = { ...guest.engine.addressSpaces, pagingMode: 'pae' };
        let asked = 0;
        let open = false;
        guest.machine.observe(() => {
          open ||= guest.read(entry, 8) === (BigInt(HIGH) | 0x5003n);
        });
        const hook = guest.engine.hooks.translation.set({
          cr3: guest.cr3 as Cr3,
          va: BigInt(DATA) as Gva,
          callback: (event) => {
            asked++;
            if ((event.newGpa ?? 0) >= HIGH) {
              event.verdict = Verdict.NOT_ALLOWED;
            }
          },
        });
        guest.run(1000);
        expect([open, asked > 0]).toEqual([false, true]);
        // Written low half first, the entry maps what the low half says until the high one is denied.
        const now = mapped || order[0] === 0 ? 0x5000 : undefined;
        expect(hook.gpa).toBe(now);
        expect(guest.read(entry, 8)).toBe(now === undefined ? 1n << 32n : 0x5003n);
        expect(guest.problems).toEqual([]);
        guest.close();
      }
    });
  }

  /** VCPU 1 maps two frames in turn under the code of VCPU 0: in one the store is innocent, in the other it is not. */
  function swapCode(seed: number, toctou: boolean): { passed: boolean; stored: boolean; swaps: number } {
    const race = { betweenFaultAndDelivery: 8, insideCalls: 4, betweenReplyAndRetry: 8 };
    const guest = new PagedGuest('4-level', { vcpus: 2, seed, quantum: 5, race }, { toctou });
    const { engine } = guest;
    const [one, two] = [0x6_0000, 0x7_0000];
    const target = DATA + 0x100;
    const loop = (register: string): string => `again: mov [rbx], ${register}
      mov r9, cr3
      mov cr3, r9
      dec r8
      jne again
      hlt`;
    // The innocent one last: VCPU 0 starts there.
    guest.start(loop('rax'), 0, two);
    guest.start(loop('rcx'), 0, one);
    const code = guest.machine.vcpu(0);
    code.set('rbx', BigInt(target));
    code.set('rax', BigInt(EVIL));
    code.set('rcx', BigInt(GOOD));
    code.set('r8', 15n);
    const last = guest.way.at(-1)!;
    const mapping = last - (last % 4096) + (one >> 12) * 8;
    guest.start(
      `again: mov [rdi], rdx
      mov [rdi], rsi
      dec r8
      jne again
      hlt`,
      1,
    );
    const swapper = guest.machine.vcpu(1);
    swapper.set('rdi', BigInt(mapping));
    swapper.set('rsi', BigInt(one) | 3n);
    swapper.set('rdx', BigInt(two) | 3n);
    swapper.set('r8', 30n);
    let passed = false;
    let stored = false;
    guest.machine.observe(() => {
      const value = guest.read(target, 8);
      passed ||= value === BigInt(EVIL);
      stored ||= value === BigInt(GOOD);
    });
    engine.hooks.page.set({
      gpa: target as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        if (event.newValue()?.bytes[0] !== (GOOD & 0xff)) {
          event.verdict = Verdict.NOT_ALLOWED;
        }
      },
    });
    // The table is a hooked one in either case, so that the swaps themselves take the same time.
    let swaps = 0;
    engine.hooks.pageTable.set({ gpa: mapping as Gpa, entrySize: 8, callback: () => swaps++ });
    engine.hooks.page.flush();
    guest.run(100_000);
    guest.close();
    return { passed, stored, swaps };
  }

  it('puts another page under an instruction that was allowed succeeds for some seeds without the TOCTOU rule', () => {
    let passed = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      passed += swapCode(seed, false).passed ? 1 : 0;
    }
    expect(passed).toBeGreaterThan(0);
  });

  it('puts another page under an instruction that was allowed succeeds for no seed with it, and the innocent one happens', () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { passed, stored, swaps } = swapCode(seed, true);
      expect([seed, passed, stored, swaps > 0]).toEqual([seed, false, true, true]);
    }
  });
});
