import { Access, type Gpa, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA } from '../guest-layout.js';
import { PagedGuest } from '../paged-guest.js';

const EVIL = 0x6666;
const GOOD = 0x1111;
/** Two frames with one instruction at the same place: an evil store, and an innocent one. */
const EVIL_FRAME = 0x6_0000;
const DECOY_FRAME = 0x7_0000;
/** The page whose translation the processor remembers. */
const WINDOW = 0x8_0000;
/** Top-level table of the guest. */
const ROOT = 0x1000;
const TARGET = DATA + 0x100;
const SCRATCH = 0x9_0000;

interface Outcome {
  readonly passed: boolean;
  readonly stored: boolean;
  readonly asked: number;
}

/** Runs VCPU 0 with a hook on {@link TARGET} that lets nothing but GOOD through; `passed` tells whether EVIL was ever there. */
function guarded(guest: PagedGuest, steps = 10_000): Outcome {
  let passed = false;
  let stored = false;
  guest.machine.observe(() => {
    const value = guest.read(TARGET, 4);
    passed ||= value === BigInt(EVIL);
    stored ||= value === BigInt(GOOD);
  });
  let asked = 0;
  guest.engine.hooks.page.set({
    gpa: TARGET as Gpa,
    length: 8,
    access: Access.WRITE,
    callback: (event) => {
      asked++;
      if (event.newValue()?.bytes[0] !== (GOOD & 0xff)) {
        event.verdict = Verdict.NOT_ALLOWED;
      }
    },
  });
  guest.run(steps);
  guest.close();
  return { passed, stored, asked };
}

describe('an attack with a translation that only the processor remembers', () => {
  /** @param evil whether the store behind the remembered translation is another one than the one in the tables */
  function attack(evil: boolean): Outcome {
    const guest = new PagedGuest('4-level');
    const last = guest.way.at(-1)!;
    const entry = last - (last % 4096) + (WINDOW >> 12) * 8;
    guest.write(entry, BigInt(EVIL_FRAME) | 3n);
    guest.start(`mov [rbx], ${evil ? 'rcx' : 'rax'}\nret`, 0, EVIL_FRAME);
    guest.start('mov [rbx], rax\nret', 0, DECOY_FRAME);
    // Nothing that happens after the second round changes the rights of a page: all are guarded by then.
    guest.start(`mov rbx, ${TARGET}
      call ${DECOY_FRAME}
      mov rdx, ${EVIL_FRAME | 3}
      mov r8d, 2
      again: mov rbx, ${SCRATCH}
      mov r9, cr3
      mov cr3, r9
      call ${WINDOW}
      mov [${entry}], rdx
      mov rdx, ${DECOY_FRAME | 3}
      dec r8d
      jne again
      mov rbx, ${TARGET}
      call ${WINDOW}
      hlt`);
    const vcpu = guest.machine.vcpu(0);
    vcpu.set('rax', BigInt(GOOD));
    vcpu.set('rcx', BigInt(EVIL));
    return guarded(guest);
  }

  it('is judged by the instruction that it executes, and its benign twin passes', () => {
    expect(attack(true)).toMatchObject({ passed: false });
    const twin = attack(false);
    expect([twin.passed, twin.stored, twin.asked > 0]).toEqual([false, true, true]);
  });

  /** The same by tables of the attacker's own: kernel code that is cached already is mapped there, and something else before. */
  function attackFromOtherSpace(evil: boolean): Outcome {
    const guest = new PagedGuest('4-level');
    const own = 0x10_0000;
    const half = 256 * 8;
    const kernel = 0xffff_8000_0000_0000n;
    guest.write(ROOT + half, BigInt(ROOT + 0x1000) | 3n);
    for (const [at, to] of [
      [own, ROOT + 0x1000],
      [own + half, own + 0x1000],
      [own + 0x1000, own + 0x2000],
      [own + 0x2000, own + 0x3000],
    ] as const) {
      guest.write(at, BigInt(to) | 3n);
    }
    const entry = own + 0x3000 + (DECOY_FRAME >> 12) * 8;
    guest.write(entry, BigInt(EVIL_FRAME) | 3n);
    guest.start(`mov [rbx], ${evil ? 'rcx' : 'rax'}\nret`, 0, EVIL_FRAME);
    guest.start('mov [rbx], rax\nret', 0, DECOY_FRAME);
    guest.start(`mov rbx, ${TARGET}
      call rsi
      mov r9, ${own}
      mov cr3, r9
      mov rbx, ${SCRATCH}
      call rsi
      mov rdx, ${DECOY_FRAME | 3}
      mov [${entry}], rdx
      mov rbx, ${TARGET}
      call rsi
      hlt`);
    const vcpu = guest.machine.vcpu(0);
    vcpu.set('rax', BigInt(GOOD));
    vcpu.set('rcx', BigInt(EVIL));
    vcpu.set('rsi', kernel + BigInt(DECOY_FRAME));
    return guarded(guest);
  }

  it('in an address space of its own is judged by the instruction that it executes, and its benign twin passes', () => {
    expect(attackFromOtherSpace(true)).toMatchObject({ passed: false });
    const twin = attackFromOtherSpace(false);
    expect([twin.passed, twin.stored, twin.asked > 1]).toEqual([false, true, true]);
  });

  /** The same with the PDPTE registers, which only a write of CR3 loads: the table in memory leads somewhere else by then. */
  function attackByRegisters(evil: boolean): Outcome {
    const guest = new PagedGuest('pae');
    const root = guest.way[0]!;
    const [directory, table] = [0x10_0000, 0x10_1000];
    guest.write(directory, BigInt(table) | 3n);
    for (let page = 0; page < 512; page++) {
      const frame = page * 4096 === WINDOW ? EVIL_FRAME : page * 4096;
      guest.write(table + page * 8, BigInt(frame) | 3n);
    }
    const innocent = guest.way.at(-1)!;
    guest.write(innocent - (innocent % 4096) + (WINDOW >> 12) * 8, BigInt(DECOY_FRAME) | 3n);
    const decoyRoot = guest.read(root, 8);
    guest.start(`mov [ebx], ${evil ? 'ecx' : 'eax'}\nhlt`, 0, EVIL_FRAME);
    guest.start('mov [ebx], eax\nhlt', 0, DECOY_FRAME);
    // The registers hold the tables of the evil frame; the table in memory, from now on, those of the decoy.
    guest.start(`mov dword [${root}], ${directory | 1}
      mov edx, cr3
      mov cr3, edx
      mov dword [${root}], ${Number(decoyRoot)}
      mov edx, ${WINDOW}
      jmp edx`);
    const vcpu = guest.machine.vcpu(0);
    vcpu.set('rbx', BigInt(TARGET));
    vcpu.set('rax', BigInt(GOOD));
    vcpu.set('rcx', BigInt(EVIL));
    return guarded(guest);
  }

  it('in the PDPTE registers of PAE is judged by the instruction that it executes, and its benign twin passes', () => {
    expect(attackByRegisters(true)).toMatchObject({ passed: false });
    const twin = attackByRegisters(false);
    expect([twin.passed, twin.stored, twin.asked > 0]).toEqual([false, true, true]);
  });
});
