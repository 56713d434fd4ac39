import { Access, ExitKind, Reply } from '@introd/abi';
import { describe, expect, test } from 'vitest';
import { AT, frame, TinyGuest } from './tiny-guest.js';

/** Two pages that may not be accessed, and as many elements of 4 bytes on each side of their border. */
const BORDER = AT.data + 0x1000;
const HALF = 6;
const SIZE = 4;

/** Runs a repeated instruction over the border; returns RCX at each violation. */
function exits(instruction: string, down: boolean, each: boolean, shift = 0): number[] {
  const first = down ? BORDER + (HALF - 1) * SIZE : BORDER - HALF * SIZE;
  // The other pointer of MOVS and CMPS goes through pages that nobody guards.
  const guest = new TinyGuest().code(`
    mov edi, ${first + shift}
    mov esi, ${instruction.includes('lods') ? first + shift : 0x4_0800}
    mov ecx, ${2 * HALF}
    xor eax, eax
    ${down ? 'std' : 'cld'}
    spot: ${instruction}
    mov al, 7
    out 0xf4, al`);
  const port = guest.machine.openPort();
  port.setExit({ kind: 'rep-iterations' }, each);
  for (const page of [AT.data, BORDER]) port.setPageAccess(frame(page), Access.NONE);
  const seen: number[] = [];
  while (port.next(10) === 0) {
    const record = port.vcpu(0);
    expect([record.exitKind, record.rip]).toEqual([ExitKind.EPT_VIOLATION, guest.label('spot')]);
    seen.push(Number(record.get('rcx')));
    port.reply(0, Reply.ALLOW_ONCE);
  }
  expect(guest.machine.powerOffCode).toBe(7);
  expect(port.vcpu(0).get('rcx')).toBe(0n);
  return seen;
}

const counts = (from: number) => Array.from({ length: from }, (_, i) => from - i);

describe.each(['rep movsd', 'rep stosd', 'rep lodsd', 'repe scasd', 'repe cmpsd'])('%s', (instruction) => {
  test.each([false, true])('exits once per page, and once per element when that is on (downwards: %s)', (down) => {
    expect(exits(instruction, down, false)).toEqual([2 * HALF, HALF]);
    expect(exits(instruction, down, true)).toEqual(counts(2 * HALF));
  });

  test('an element across the border exits for each of its pages, and what follows lies on the second', () => {
    // One element less lies wholly before the border. The crossing one is asked about twice: both pages are allowed then.
    expect(exits(instruction, false, false, 2)).toEqual([2 * HALF, HALF + 1, HALF + 1]);
  });
});
