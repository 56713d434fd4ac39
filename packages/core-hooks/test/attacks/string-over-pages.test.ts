import { Access, type Gpa, PAGE_SIZE, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DATA, kernel } from '../guest-layout.js';
import { attackGuest, bytesAt } from './attack-guest.js';

/** The page behind {@link DATA}, with hooked bytes in its middle. */
const SECOND = DATA + PAGE_SIZE;
const HOOKED = SECOND + 0x41;
const SOURCE = DATA + 0x5001;
const EVIL = 0x66;
const GOOD = 0x11;

/**
 * String instructions whose first element crosses into the hooked page far before the hooked bytes, and which go on inside of that page.
 * Downwards the last page is the crossing one's first.
 */
const ATTACKS = [
  { name: 'STOSW', text: `mov rdi, ${kernel(SECOND - 1)}\nmov ecx, 0x80\nrep stosw`, access: Access.WRITE },
  {
    name: 'MOVSD',
    text: `mov rsi, ${kernel(SOURCE)}\nmov rdi, ${kernel(SECOND - 3)}\nmov ecx, 0x40\nrep movsd`,
    access: Access.WRITE,
  },
  {
    name: 'STOSQ, downwards from the page above',
    text: `std\nmov rdi, ${kernel(SECOND + PAGE_SIZE - 1)}\nmov ecx, 0x1fe\nrep stosq\ncld`,
    access: Access.WRITE,
  },
] as const;

describe('a repeated string instruction whose current element lies on two pages', () => {
  for (const { name, text } of ATTACKS) {
    for (const value of [EVIL, GOOD]) {
      it(`${name}: ${value === EVIL ? 'changes no hooked byte of the second' : 'passes the same hook with another value'} [1.2.4-12]`, () => {
        const guest = attackGuest(`mov rax, ${BigInt(value) * 0x0101_0101_0101_0101n}\n${text}`);
        guest.machine.writePhysical(SOURCE as Gpa, new Uint8Array(0x100).fill(value));
        let asked = 0;
        guest.engine.hooks.page.set({
          gpa: HOOKED as Gpa,
          length: 2,
          access: Access.WRITE,
          callback: (event) => {
            asked++;
            if (event.newValue()?.bytes[0] !== GOOD) {
              event.verdict = Verdict.NOT_ALLOWED;
            }
          },
        });
        guest.run(2000);
        expect(asked).toBeGreaterThan(0);
        expect(bytesAt(guest, HOOKED, 2)).toEqual(value === EVIL ? [0, 0] : [GOOD, GOOD]);
        // What is not hooked was written in either case.
        expect(bytesAt(guest, HOOKED - 0x20, 1)).toEqual([value]);
        expect(guest.problems).toEqual([]);
      });
    }
  }

  it('SCASW finds what the guest shall see, not what is there [1.2.6] [P13.13]', () => {
    for (const [wanted, left] of [
      [0x6666, 0x60 - 0x22],
      [0x7777, 0],
    ] as const) {
      // The hidden word holds 0x7777, and the guest shall see 0x6666.
      const guest = attackGuest(`mov eax, ${wanted}\nmov rdi, ${kernel(SECOND - 1)}\nmov ecx, 0x60\nrepne scasw`);
      guest.machine.writePhysical(HOOKED as Gpa, Uint8Array.of(0x77, 0x77));
      guest.engine.hooks.page.set({
        gpa: HOOKED as Gpa,
        length: 2,
        access: Access.READ,
        callback: (event) => event.overlay(HOOKED as Gpa, Uint8Array.of(0x66, 0x66)),
      });
      guest.run(2000);
      expect(guest.vcpu.get('rcx')).toBe(BigInt(left));
      expect(guest.problems).toEqual([]);
    }
  });
});
