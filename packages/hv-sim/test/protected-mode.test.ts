import { expect, test } from 'vitest';
import { AT, ProtectedGuest } from './protected-guest.js';

/** What {@link ProtectedGuest.outcome} gives when nothing has faulted. */
const ENDED = 0x77;

test.each(['none', '32-bit', 'pae'] as const)('a program of 32-bit code runs with paging: %s', (paging) => {
  const guest = new ProtectedGuest(paging);
  const end = guest.outcome(`
    mov ecx, 10
    xor eax, eax
    mov edi, data
    again: add eax, ecx
    push eax
    call store
    pop edx
    dec ecx
    jne again
    mov ebx, eax
    jmp done
    store: mov eax, [esp + 4]
    stosd
    ret
    done: nop`);
  expect(end).toBe(ENDED);
  expect([guest.register('rbx'), guest.register('rdx'), guest.register('rsp')]).toEqual([55, 55, AT.stack]);
  expect(Array.from({ length: 10 }, (_, i) => guest.read32(AT.data + i * 4))).toEqual([
    10, 19, 27, 34, 40, 45, 49, 52, 54, 55,
  ]);
});
