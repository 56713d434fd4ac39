import type { Cr3, Gpa } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA, kernel, PML4 } from '../guest-layout.js';
import type { SimGuest } from '../sim-guest.js';
import { attackGuest, bytesAt, FAULT, NO_FAULT } from './attack-guest.js';

/** Where a descriptor table of the attacker lies: hidden bytes are a descriptor of it. */
const TABLE = DATA + 0x1000;
/** Selector of the descriptor that lies on hidden bytes. */
const SELECTOR = 0x8;
const HIDDEN = TABLE + SELECTOR;
/** Writable data with limit 0x12345, and with limit 0x54321: what is there, and what the guest shall see. */
const THERE = 0x0041_9300_0000_2345n;
const SEEN = 0x0045_9300_0000_4321n;

function bytesOf(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}

/** A guest with a GDT whose descriptor {@link SELECTOR} has hidden bytes, or lies beside hidden bytes on the same page. */
function guestWithTable(text: string, beside: boolean): SimGuest {
  const guest = attackGuest(text);
  const { machine, vcpu } = guest;
  const table = beside ? TABLE + 0x100 : TABLE;
  machine.writePhysical((table + 0x10) as Gpa, bytesOf(0x00af_9b00_0000_ffffn));
  machine.writePhysical((table + 0x18) as Gpa, bytesOf(0x00cf_9300_0000_ffffn));
  machine.writePhysical((table + SELECTOR) as Gpa, bytesOf(THERE));
  machine.writePhysical(HIDDEN as Gpa, bytesOf(SEEN));
  vcpu.set('gdtBase', kernel(table));
  vcpu.set32('gdtLimit', 0x1f);
  guest.engine.addressSpaces = { systemCr3: BigInt(PML4) as Cr3, isKnown: () => true };
  guest.engine.cloaks.hide({
    cr3: BigInt(PML4) as Cr3,
    va: kernel(HIDDEN),
    length: 8,
    original: bytesOf(SEEN),
    patched: bytesOf(THERE),
    apply: true,
  });
  return guest;
}

describe('hidden bytes that the processor reads as a structure of its own', () => {
  const attacks = [
    { name: 'LSL with a register', text: `mov ecx, ${SELECTOR}\nlsl eax, ecx` },
    { name: 'LSL with memory elsewhere', text: `mov word ptr [rbx], ${SELECTOR}\nlsl eax, word ptr [rbx]` },
    {
      name: 'LSL with memory on the same page, which may be read',
      text: `mov word ptr [rbx+0x1800], ${SELECTOR}\nlsl eax, word ptr [rbx+0x1800]`,
    },
  ];
  for (const { name, text } of attacks) {
    it(`are not told by ${name}; a descriptor beside them on the page is [1.2.6]`, () => {
      const attack = guestWithTable(`xor eax, eax\n${text}`, false);
      attack.run(200);
      expect(attack.vcpu.get('rax')).toBe(0n);
      expect(attack.problems.map(({ kind }) => kind)).toEqual(['hidden-read']);
      const twin = guestWithTable(`xor eax, eax\n${text}`, true);
      twin.run(200);
      expect(twin.vcpu.get('rax')).toBe(0x12345n);
      expect(twin.engine.counters.eptViolations).toBeGreaterThan(0);
      expect(twin.problems).toEqual([]);
      for (const guest of [attack, twin]) expect(bytesAt(guest, FAULT, 1)).toEqual([NO_FAULT]);
    });
  }

  it('are not a gate of the IDT; a gate beside them on the page is [1.2.6]', () => {
    for (const hidden of [true, false]) {
      const guest = attackGuest('mov r15, 1\nint 3\nmov r15, 2');
      const { machine, vcpu } = guest;
      const idt = Number(vcpu.get('idtBase') - kernel(0));
      const table = new Uint8Array(0x200);
      machine.readPhysical(idt as Gpa, table);
      machine.writePhysical(TABLE as Gpa, table);
      vcpu.set('idtBase', kernel(TABLE));
      const gate = TABLE + 3 * 16;
      const va = hidden ? gate + 8 : TABLE + 0x800;
      const there = new Uint8Array(4);
      machine.readPhysical(va as Gpa, there);
      guest.engine.addressSpaces = { systemCr3: BigInt(PML4) as Cr3, isKnown: () => true };
      guest.engine.cloaks.hide({
        cr3: BigInt(PML4) as Cr3,
        va: kernel(va),
        length: 4,
        original: Uint8Array.of(1, 2, 3, 4),
        patched: there,
        apply: true,
      });
      guest.run(200);
      expect(bytesAt(guest, FAULT, 1)).toEqual([hidden ? NO_FAULT : 3]);
      expect(guest.vcpu.get('r15')).toBe(hidden ? 2n : 1n);
      expect(guest.problems.map(({ kind }) => kind)).toEqual(hidden ? ['hidden-read'] : []);
    }
  });

  it('are not a page-table entry; an entry beside them on the page is [1.2.6]', () => {
    const output = DATA + 0x1_0000;
    for (const hidden of [true, false]) {
      const entry = TABLE + 8;
      const guest = attackGuest(`mov rax, ${kernel(0x20_1000)}\nxor edx, edx\nmov rdx, [rax]`);
      // The attacker's last-level table is the page with the hidden bytes.
      guest.machine.writePhysical(0x3008 as Gpa, bytesOf(BigInt(TABLE) | 7n));
      guest.machine.writePhysical(entry as Gpa, bytesOf(BigInt(output) | 0x67n));
      guest.machine.writePhysical(output as Gpa, bytesOf(0x5555n));
      guest.engine.addressSpaces = { systemCr3: BigInt(PML4) as Cr3, isKnown: () => true };
      const va = hidden ? entry : entry + 8;
      guest.engine.cloaks.hide({
        cr3: BigInt(PML4) as Cr3,
        va: kernel(va),
        length: 8,
        original: undefined,
        patched: hidden ? bytesOf(BigInt(output) | 0x67n) : undefined,
        apply: true,
      });
      guest.run(200);
      expect(guest.vcpu.get('rdx')).toBe(hidden ? 0n : 0x5555n);
      expect(guest.engine.counters.pageWalks).toBeGreaterThan(0);
      expect(guest.problems.map(({ kind }) => kind)).toEqual(hidden ? ['hidden-read'] : []);
    }
  });
});
