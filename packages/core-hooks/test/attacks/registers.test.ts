import { Access, DescriptorTable, type Gpa, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA, kernel, leafEntry } from '../guest-layout.js';
import { put64 } from '../sim-guest.js';
import { attackGuest, bytesAt, FAULT, NO_FAULT } from './attack-guest.js';

const LSTAR = 0xc000_0082;
const HANDLER = 0xffff_8000_0001_2000n;
const EVIL = 0xffff_8000_0002_0000n;
const CR4_SMEP = 1n << 20n;
const CR4_SMAP = 1n << 21n;
const CR4_PAE_GLOBAL = 0xa0n;

function writeLstar(value: bigint): string {
  return `mov ecx, ${LSTAR}\nmov eax, ${value & 0xffff_ffffn}\nmov edx, ${value >> 32n}\nwrmsr\nmov r15, 7`;
}

describe('a write of LSTAR', () => {
  for (const { name, value, blocked } of [
    { name: 'to attacker code is blocked', value: EVIL, blocked: true },
    { name: "of the kernel's own handler passes the same hook", value: HANDLER, blocked: false },
  ]) {
    it(`${name} [1.2.8 MSR]`, () => {
      const guest = attackGuest(writeLstar(value));
      guest.vcpu.set('lstar', 1n);
      const seen: bigint[] = [];
      guest.engine.hooks.msr.set(LSTAR, (event) => {
        seen.push(event.oldValue, event.newValue);
        event.verdict = event.newValue === HANDLER ? Verdict.ALLOWED : Verdict.NOT_ALLOWED;
      });
      guest.run(50);
      expect(seen).toEqual([1n, value]);
      expect(guest.vcpu.get('lstar')).toBe(blocked ? 1n : HANDLER);
      expect(guest.vcpu.get('r15')).toBe(7n);
      guest.close();
    });
  }

  it('is committed with the value that a hook put in its place, which later hooks see; the strongest verdict wins [1.2.8 MSR] [1.2.3]', () => {
    const guest = attackGuest(writeLstar(EVIL));
    const seen: bigint[] = [];
    guest.engine.hooks.msr.set(LSTAR, (event) => event.replace(HANDLER));
    guest.engine.hooks.msr.set(LSTAR, (event) => {
      seen.push(event.newValue);
    });
    guest.run(50);
    expect(seen).toEqual([HANDLER]);
    expect(guest.vcpu.get('lstar')).toBe(HANDLER);
    guest.close();
    const denied = attackGuest(writeLstar(EVIL));
    denied.engine.hooks.msr.set(LSTAR, (event) => {
      event.verdict = Verdict.NOT_ALLOWED;
    });
    denied.engine.hooks.msr.set(LSTAR, (event) => {
      event.verdict = Verdict.ALLOWED;
    });
    denied.run(50);
    expect(denied.vcpu.get('lstar')).toBe(0n);
    denied.close();
  });
});

describe('a write of CR4', () => {
  for (const [name, bit] of [
    ['SMEP', CR4_SMEP],
    ['SMAP', CR4_SMAP],
  ] as const) {
    for (const { what, value, blocked } of [
      { what: `clears ${name} is blocked`, value: CR4_PAE_GLOBAL | (CR4_SMEP ^ CR4_SMAP ^ bit), blocked: true },
      { what: `keeps ${name} passes the same hook`, value: CR4_PAE_GLOBAL | bit | 8n, blocked: false },
    ]) {
      it(`that ${what} [1.2.8 CR]`, () => {
        const guest = attackGuest(`mov rax, ${value}\nmov cr4, rax\nmov r15, 7`);
        // Code and stack are the supervisor's, or it could use neither.
        for (let page = 0; page < 512; page++) {
          put64(guest.machine, leafEntry(page * 4096), BigInt(page * 4096) | 3n);
        }
        const before = guest.vcpu.get('cr4') | CR4_SMEP | CR4_SMAP;
        guest.vcpu.set('cr4', before);
        let asked = 0;
        guest.engine.hooks.cr.set(4, (event) => {
          asked++;
          event.verdict = (event.newValue & bit) === 0n ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
        });
        guest.run(50);
        expect(asked).toBe(1);
        expect(guest.vcpu.get('cr4')).toBe(blocked ? before : value);
        expect(guest.vcpu.get('r15')).toBe(7n);
        guest.close();
      });
    }
  }
});

describe('a LIDT', () => {
  const OPERAND = DATA + 0x200;
  const own = kernel(DATA + 0x8000);

  function load(base: bigint, limit: number, setUp: (guest: ReturnType<typeof attackGuest>) => void = () => {}) {
    const guest = attackGuest('lidt [rbx+0x200]\nmov r15, 7');
    put64(guest.machine, OPERAND, (base << 16n) | BigInt(limit));
    put64(guest.machine, OPERAND + 8, base >> 48n);
    const seen: (bigint | number)[] = [];
    guest.engine.hooks.descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, (event) => {
      seen.push(event.oldBase, event.oldLimit, event.newBase, event.newLimit);
      event.verdict = event.newBase === own ? Verdict.ALLOWED : Verdict.NOT_ALLOWED;
    });
    setUp(guest);
    guest.run(50);
    expect(guest.vcpu.get('r15')).toBe(7n);
    return { guest, seen };
  }

  it('of a table of the attacker is blocked [1.2.8 DTR]', () => {
    const { guest, seen } = load(EVIL, 0xfff);
    expect(seen).toEqual([own, 0x1ff, EVIL, 0xfff]);
    expect(guest.vcpu.get('idtBase')).toBe(own);
    guest.close();
  });

  it('of the same table with another limit passes the same hook [1.2.8 DTR]', () => {
    const { guest, seen } = load(own, 0xff);
    expect(seen).toEqual([own, 0x1ff, own, 0xff]);
    expect(guest.vcpu.get('idtBase')).toBe(own);
    expect(guest.vcpu.get32('idtLimit')).toBe(0xff);
    guest.close();
  });

  it('that sets the register up, or changes nothing, is not asked about [1.2.8 DTR]', () => {
    const initial = load(EVIL, 0xfff, ({ vcpu }) => vcpu.set('idtBase', 0n));
    expect(initial.seen).toEqual([]);
    expect(initial.guest.vcpu.get('idtBase')).toBe(EVIL);
    initial.guest.close();
    const same = load(own, 0x1ff);
    expect(same.seen).toEqual([]);
    same.guest.close();
  });

  it('calls hooks with exactly its flags [1.2.8 DTR] [P10.6]', () => {
    let others = 0;
    const { guest, seen } = load(own, 0xff, ({ engine }) => {
      engine.hooks.descriptorTable.set(DescriptorTable.GDTR | DescriptorTable.WRITE, () => {
        others++;
      });
    });
    expect(seen).toHaveLength(4);
    expect(others).toBe(0);
    guest.close();
  });
});

describe('a LGDT with a hooked operand', () => {
  /** The code that may load the table: what is behind it is the attacker's. */
  const KERNEL_CODE = 32;
  for (const { name, before, blocked } of [
    { name: 'is stopped by the page hook before the register is asked about', before: KERNEL_CODE, blocked: true },
    { name: 'passes the same hook when it lies in the code that may do it', before: KERNEL_CODE - 3, blocked: false },
  ]) {
    it(`${name} [1.2.8 DTR]`, () => {
      const guest = attackGuest(`${'nop\n'.repeat(before)}lgdt [rbx]\nmov r15, 7`);
      const kernelEnd = guest.vcpu.rip + BigInt(KERNEL_CODE);
      const base = guest.vcpu.get('gdtBase');
      put64(guest.machine, DATA, ((base & 0xffff_ffff_ffffn) << 16n) | 23n);
      put64(guest.machine, DATA + 8, base >> 48n);
      let loads = 0;
      let reads = 0;
      guest.engine.hooks.descriptorTable.set(DescriptorTable.GDTR | DescriptorTable.WRITE, () => {
        loads++;
      });
      guest.engine.hooks.page.set({
        gpa: DATA as Gpa,
        length: 16,
        access: Access.READ,
        callback: (event) => {
          reads++;
          event.verdict = event.rip < kernelEnd ? Verdict.ALLOWED : Verdict.NOT_ALLOWED;
        },
      });
      guest.run(50);
      expect(reads).toBeGreaterThan(0);
      expect(loads).toBe(blocked ? 0 : 1);
      expect(guest.vcpu.get32('gdtLimit')).toBe(blocked ? 31 : 23);
      expect(guest.vcpu.get('r15')).toBe(7n);
      guest.close();
    });
  }

  it('a SGDT that would write into a hooked page is seen by the page hook [1.2.8 DTR]', () => {
    const guest = attackGuest('sgdt [rbx]\nmov r15, 7');
    guest.engine.hooks.descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, () => {});
    guest.engine.hooks.page.set({
      gpa: DATA as Gpa,
      length: 4,
      access: Access.WRITE,
      callback: (event) => {
        event.verdict = Verdict.NOT_ALLOWED;
      },
    });
    guest.run(50);
    expect(bytesAt(guest, DATA, 10)).toEqual(Array.from({ length: 10 }, () => 0));
    expect(guest.vcpu.get('r15')).toBe(7n);
    guest.close();
  });
});

describe('an XSETBV', () => {
  for (const blocked of [true, false]) {
    it(`${blocked ? 'of other components is blocked' : 'of the same ones passes the same hook'} [1.2.8 XCR]`, () => {
      const guest = attackGuest(`xor ecx, ecx\nmov eax, ${blocked ? 7 : 3}\nxor edx, edx\nxsetbv\nmov r15, 7`);
      guest.vcpu.set('cr4', guest.vcpu.get('cr4') | (1n << 18n));
      guest.vcpu.set('xcr0', 3n);
      const seen: [number, bigint][] = [];
      guest.engine.hooks.xcr.set((event) => {
        seen.push([event.xcr, event.newValue]);
        event.verdict = event.newValue === event.oldValue ? Verdict.ALLOWED : Verdict.NOT_ALLOWED;
      });
      guest.run(50);
      expect(seen).toEqual([[0, blocked ? 7n : 3n]]);
      expect(guest.vcpu.get('xcr0')).toBe(3n);
      expect(guest.vcpu.get('r15')).toBe(7n);
      guest.close();
    });
  }
});

describe('an INT3', () => {
  it('goes to its handlers in order until one claims it, and RIP goes behind it or stays [1.2.8 INT3]', () => {
    const guest = attackGuest('int3\nmov r14, 1\nint3\nmov r15, 7');
    const calls: string[] = [];
    const first = guest.vcpu.rip;
    guest.engine.hooks.breakpoint.set({ callback: () => calls.push('any') });
    guest.engine.hooks.breakpoint.set({
      rip: first,
      callback: (event) => {
        calls.push('first');
        event.claim('skip');
      },
    });
    guest.engine.hooks.breakpoint.set({
      callback: (event) => {
        calls.push('last');
        event.vcpu.set('rip', event.rip + 1n);
        guest.engine.port.storeRegisters(event.vcpuIndex, 1);
        event.claim('stay');
      },
    });
    guest.run(50);
    expect(calls).toEqual(['any', 'first', 'any', 'last']);
    expect([guest.vcpu.get('r14'), guest.vcpu.get('r15')]).toEqual([1n, 7n]);
    expect(bytesAt(guest, FAULT, 1)).toEqual([NO_FAULT]);
    guest.close();
  });

  it("is the guest's own #BP when nobody claims it [1.2.8 INT3]", () => {
    const guest = attackGuest('int3\nmov r15, 7');
    guest.engine.hooks.breakpoint.set({ callback: () => {} });
    guest.run(50);
    expect(bytesAt(guest, FAULT, 1)).toEqual([3]);
    expect(guest.engine.counters.breakpoints).toBe(1);
    guest.close();
  });
});

describe('a VMCALL', () => {
  it('goes to its handlers; one that nobody claims is what it would be without us [1.2.8 VMCALL]', () => {
    const guest = attackGuest('mov eax, 34\nvmcall\nmov r15, 7\nmov eax, 35\nvmcall\nmov r14, 7');
    guest.engine.hooks.vmcall.set({
      callback: (event) => {
        if (event.vcpu.get('rax') === 34n) {
          event.claim();
        }
      },
    });
    guest.run(50);
    expect(guest.vcpu.get('r15')).toBe(7n);
    expect(guest.vcpu.get('r14')).toBe(0n);
    expect(bytesAt(guest, FAULT, 1)).toEqual([6]);
    expect(guest.engine.lastExit.reason).not.toBe('claimed');
    guest.close();
  });
});

describe('an injected event', () => {
  it('is reported when it is delivered [1.2.8 injection]', () => {
    const guest = attackGuest('nop\nvmcall\nmov r15, 7');
    const reports: (number | bigint)[] = [];
    guest.engine.hooks.injected.set((event) => {
      reports.push(event.vector, event.errorCode, event.cr2);
    });
    guest.engine.hooks.vmcall.set({
      callback: (event) => {
        guest.engine.port.inject(event.vcpuIndex, 14, 4, 0x1234n);
        event.claim();
      },
    });
    guest.run(50);
    expect(reports).toEqual([14, 4, 0x1234n]);
    expect(guest.engine.counters.injections).toBe(1);
    expect(bytesAt(guest, FAULT, 1)).toEqual([14]);
    guest.close();
  });
});
