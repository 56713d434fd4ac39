import { Access, type Cr3, type Gpa, Verdict } from '@introd/abi';
import { RegisterGroup } from '@introd/glue';
import { describe, expect, it } from 'vitest';
import type { Engine, EngineOptions } from '../src/index.js';
import { attackGuest, bytesAt } from './attacks/attack-guest.js';
import { DATA, kernel, leafEntry, PML4 } from './guest-layout.js';
import { get64, type SimGuest } from './sim-guest.js';

const CR3 = BigInt(PML4) as Cr3;
const LSTAR = 0xc000_0082;
const ENTRY = leafEntry(DATA + 0x1000);
const REMAPPED = BigInt(DATA + 0x2000) | 7n;

interface Judged {
  verdict: Verdict;
  removeHook: boolean;
}

/** Each kind of hook with a verdict: how it is set, the instruction that it is asked about, and whether that happened. */
const KINDS: Readonly<
  Record<
    string,
    {
      readonly text: string;
      set(engine: Engine, callback: (event: Judged) => void): void;
      happened(guest: SimGuest): boolean;
    }
  >
> = {
  'a page hook': {
    text: 'mov qword ptr [rbx], 5',
    set: ({ hooks }, callback) => {
      hooks.page.set({ gpa: DATA as Gpa, length: 8, access: Access.WRITE, callback });
    },
    happened: ({ machine }) => get64(machine, DATA) === 5n,
  },
  'a virtual-address hook': {
    text: 'mov qword ptr [rbx], 5',
    set: ({ hooks }, callback) => {
      hooks.virtual.set({ cr3: CR3, va: kernel(DATA), length: 8, access: Access.WRITE, callback });
    },
    happened: ({ machine }) => get64(machine, DATA) === 5n,
  },
  'a page-table hook': {
    text: `mov rdi, ${kernel(ENTRY)}\nmov rax, ${REMAPPED}\nmov [rdi], rax`,
    set: ({ hooks }, callback) => {
      hooks.pageTable.set({ gpa: ENTRY, entrySize: 8, callback });
    },
    happened: ({ machine }) => get64(machine, ENTRY) === REMAPPED,
  },
  'a translation hook': {
    text: `mov rdi, ${kernel(ENTRY)}\nmov rax, ${REMAPPED}\nmov [rdi], rax`,
    set: ({ hooks }, callback) => {
      hooks.translation.set({ cr3: CR3, va: kernel(DATA + 0x1000), callback });
    },
    happened: ({ machine }) => get64(machine, ENTRY) === REMAPPED,
  },
  'an MSR hook': {
    text: `mov ecx, ${LSTAR}\nmov eax, 5\nxor edx, edx\nwrmsr`,
    set: ({ hooks }, callback) => {
      hooks.msr.set(LSTAR, callback);
    },
    happened: ({ vcpu }) => vcpu.get('lstar') === 5n,
  },
};

function guestOf(text: string, options: EngineOptions): SimGuest & { readonly causes: string[] } {
  const guest = attackGuest(`${text}\nmov r15, 7`, options);
  const causes: string[] = [];
  guest.engine.onProblem(({ kind, cause }) => {
    causes.push(`${kind} ${String((cause as { code?: unknown } | undefined)?.code)}`);
  });
  return Object.assign(guest, { causes });
}

for (const [name, kind] of Object.entries(KINDS)) {
  describe(`the callback of ${name}`, () => {
    for (const wrong of [undefined, null, Number.NaN, 'NOT_ALLOWED', 4, 77, -1, {}]) {
      it(`that leaves ${JSON.stringify(wrong) ?? 'nothing'} as its verdict has failed: the fallback counts, and a problem tells [1.2.3]`, () => {
        for (const fallback of ['allow', 'block'] as const) {
          const guest = guestOf(kind.text, { fallback });
          kind.set(guest.engine, (event) => {
            event.verdict = wrong as Verdict;
          });
          guest.run(200);
          expect(guest.causes).toContain('callback ERR_CORE_HOOKS_VERDICT');
          expect(kind.happened(guest)).toBe(fallback === 'allow');
          expect(guest.vcpu.get('r15')).toBe(7n);
          guest.close();
        }
      });
    }

    it('that says what it means is taken at its word, whatever the fallback [1.2.3]', () => {
      for (const fallback of ['allow', 'block'] as const) {
        for (const verdict of [Verdict.ALLOWED, Verdict.NOT_ALLOWED]) {
          const guest = guestOf(kind.text, { fallback });
          kind.set(guest.engine, (event) => {
            event.verdict = verdict;
          });
          guest.run(200);
          expect(kind.happened(guest)).toBe(verdict === Verdict.ALLOWED);
          expect(guest.causes).toEqual([]);
          guest.close();
        }
      }
    });

    it('that wants its hook removed and then throws is not called again [1.2.2]', () => {
      for (const throws of [true, false]) {
        const back = `mov rax, ${BigInt(DATA + 0x1000) | 7n}\nmov [rdi], rax`;
        const guest = guestOf(`${kind.text}\n${kind.text.includes('[rdi]') ? back : ''}\n${kind.text}`, {});
        let calls = 0;
        kind.set(guest.engine, (event) => {
          calls++;
          event.removeHook = true;
          if (throws) {
            throw new Error('on purpose');
          }
        });
        guest.run(200);
        expect(calls).toBe(1);
        expect(guest.causes).toHaveLength(throws ? 1 : 0);
        expect(kind.happened(guest)).toBe(true);
        guest.close();
      }
    });
  });
}

describe('a hook that says to have emulated an instruction', () => {
  for (const name of ['a page hook', 'an MSR hook']) {
    const kind = KINDS[name]!;
    it(`and leaves RIP where it is keeps the VCPU there for a while only: ${name} [1.2.3]`, () => {
      for (const fallback of ['allow', 'block'] as const) {
        const guest = guestOf(kind.text, { fallback });
        let calls = 0;
        kind.set(guest.engine, (event) => {
          calls++;
          event.verdict = Verdict.ALLOWED_VIRTUAL;
        });
        guest.run(400);
        expect(calls).toBe(257);
        expect(guest.causes).toEqual(['retry-limit undefined']);
        expect(kind.happened(guest)).toBe(fallback === 'allow');
        expect(guest.vcpu.get('r15')).toBe(7n);
        guest.close();
      }
    });
  }

  it('and moves RIP may do so as often as it likes [1.2.3]', () => {
    const guest = guestOf('mov r8d, 400\nagain:\nmov [rbx], rax\ndec r8\njne again', {});
    let calls = 0;
    guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 8,
      access: Access.WRITE,
      callback: (event) => {
        calls++;
        event.vcpu.set('rip', event.rip + BigInt(event.instruction!.length));
        guest.engine.port.storeRegisters(event.vcpuIndex, RegisterGroup.GENERAL);
        event.verdict = Verdict.ALLOWED_VIRTUAL;
      },
    });
    guest.run(2000);
    expect(calls).toBe(400);
    expect(guest.causes).toEqual([]);
    expect(guest.vcpu.get('r15')).toBe(7n);
    guest.close();
  });
});

describe('a listener about writes to hidden bytes', () => {
  for (const { name, offset, denied } of [
    { name: 'that throws does not let them through', offset: 0, denied: true },
    { name: 'is not asked about the bytes beside them, which may be written', offset: 8, denied: false },
  ]) {
    it(`${name} [1.2.10] [P13.2]`, () => {
      const guest = guestOf(`mov qword ptr [rbx+${offset}], 7`, {});
      guest.engine.cloaks.hide({
        cr3: CR3,
        va: kernel(DATA),
        length: 8,
        original: undefined,
        patched: new Uint8Array(8).fill(0xcc),
        apply: true,
        onWrite: () => {
          throw new Error('on purpose');
        },
      });
      guest.run(200);
      expect(bytesAt(guest, DATA, 8)).toEqual(Array.from({ length: 8 }, () => 0xcc));
      expect(get64(guest.machine, DATA + 8)).toBe(denied ? 0n : 7n);
      expect(guest.causes).toHaveLength(denied ? 1 : 0);
      guest.close();
    });
  }
});
