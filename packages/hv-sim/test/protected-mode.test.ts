import { ShutdownReason } from '@introd/abi';
import { expect, inject, test } from 'vitest';
import { RandomNumbers } from '../src/random-numbers.js';
import { AT, ProtectedGuest } from './protected-guest.js';

const scale = inject('scale');

/** Kinds of code that {@link ProtectedGuest} is turned into. */
const KINDS: readonly { paging: 'none' | '32-bit' | 'pae'; wide?: false; limit?: number }[] = [
  { paging: 'none' },
  { paging: '32-bit' },
  { paging: 'pae' },
  { paging: '32-bit', limit: 0x1_00c0 },
  { paging: 'pae', wide: false },
];

const KNOWN_REASONS = [0, ...Object.values(ShutdownReason)];

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

test('random bytes end as a guest ends, in code of every kind', () => {
  const numbers = new RandomNumbers(0x1bad_b002);
  const random = (): number => numbers.below(2 ** 32);
  const ended: Record<string, number> = {};
  for (let round = 0; round < 40 * scale; round++) {
    const kind = KINDS[round % KINDS.length]!;
    const guest = new ProtectedGuest(kind.paging);
    if (kind.wide === false) guest.record.set32('csAttributes', 0x9b);
    if (kind.limit !== undefined) guest.record.set32('csLimit', kind.limit);
    const code = Uint8Array.from({ length: 256 }, () => random() & 0xff);
    guest.write(AT.code, code);
    for (const name of ['rax', 'rcx', 'rdx', 'rbx', 'rsi', 'rdi'] as const) {
      guest.record.set(name, BigInt(random()) & (random() & 1 ? 0xffff_ffffn : 0x1f_ffffn));
    }
    // Faults go to the code too, so that what follows is as random.
    for (let vector = 0; vector < 64; vector++) guest.gate(vector, AT.code + (random() & 0xff));
    const result = guest.machine.run(400);
    const reason = result === 'shutdown' ? guest.machine.shutdownReason : 0;
    expect(KNOWN_REASONS).toContain(reason);
    ended[result] = (ended[result] ?? 0) + 1;
    expect(guest.record.get('rip') >> 32n).toBe(0n);
  }
  // Both happen: guests that go on, and guests that stop.
  expect(Object.keys(ended).toSorted()).toEqual(['budget', 'shutdown']);
});
