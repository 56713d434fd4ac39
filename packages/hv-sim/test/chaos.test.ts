import { Access, ExitKind, Reply } from '@introd/abi';
import { type FullPort, NO_ERROR_CODE, NO_EXIT } from '@introd/glue';
import { describe, expect, inject, test } from 'vitest';
import type { ChaosOptions, MachineOptions } from '../src/index.js';
import { AT, frame, TinyGuest } from './tiny-guest.js';

const DATA_FRAME = frame(AT.data);

describe('changes of rights that are lost', () => {
  const WRITE = 'mov rbx, data\nspot: mov [rbx], al\ninc qword ptr [rbx + 8]\njmp spot';

  function open(chaos: ChaosOptions): { guest: TinyGuest; port: FullPort } {
    const guest = new TinyGuest({ chaos }).code(WRITE);
    return { guest, port: guest.machine.openPort() };
  }

  test('a restriction reads back as set and does not hold, until it is set again', () => {
    const { guest, port } = open({ loseRightsChanges: [1] });
    port.setPageAccess(DATA_FRAME, Access.READ);
    port.flushPageAccess();
    expect(port.getPageAccess(DATA_FRAME)).toBe(Access.READ);
    expect(port.next(1)).toBe(NO_EXIT);
    expect(guest.read64(AT.data + 8)).toBeGreaterThan(10n);
    expect(guest.machine.lostRightsChanges).toBe(1);
    port.setPageAccess(DATA_FRAME, Access.READ);
    port.flushPageAccess();
    expect(port.next(1)).toBe(0);
    expect(port.vcpu(0).exitAccess).toBe(Access.WRITE);
    expect(guest.machine.lostRightsChanges).toBe(1);
  });

  test('a grant that is lost repeats the violation, until rights are taken away and given again', () => {
    const { guest, port } = open({ loseRightsChanges: [2] });
    port.setPageAccess(DATA_FRAME, Access.READ);
    expect(port.next(1)).toBe(0);
    port.setPageAccess(DATA_FRAME, Access.ALL);
    port.reply(0, Reply.RETRY);
    expect(port.next(1)).toBe(0);
    expect(port.getPageAccess(DATA_FRAME)).toBe(Access.ALL);
    // The repair of behaviour 1.2.5: no rights, then the right ones.
    port.setPageAccess(DATA_FRAME, Access.NONE);
    port.setPageAccess(DATA_FRAME, Access.ALL);
    port.reply(0, Reply.RETRY);
    expect(port.next(1)).toBe(NO_EXIT);
    expect(guest.read64(AT.data + 8)).toBeGreaterThan(10n);
  });

  test('nothing is lost unless asked, and only what was asked', () => {
    for (const chaos of [{}, { loseRightsChanges: 0 }, { loseRightsChanges: [2] }, { loseInjections: 1 }]) {
      const { guest, port } = open(chaos);
      port.setPageAccess(DATA_FRAME, Access.READ);
      expect(port.next(1)).toBe(0);
      expect(guest.machine.lostRightsChanges).toBe(0);
    }
  });

  test.each([0.1, 0.5, 0.9])('a share of %d is lost, by seed', (share) => {
    const frames = Array.from({ length: 400 }, (_, i) => frame(0x2_0000 + i * 0x1000));
    const lost = (seed: number): number => {
      const guest = new TinyGuest({ seed, chaos: { loseRightsChanges: share } });
      const port = guest.machine.openPort();
      for (const number of frames) port.setPageAccess(number, Access.READ);
      // Set again: those that were lost are not lost twice, and the others are no change.
      for (const number of frames) port.setPageAccess(number, Access.READ);
      return guest.machine.lostRightsChanges;
    };
    const counts = [1, 2, 3, 4].map(lost);
    expect(counts).toEqual([1, 2, 3, 4].map(lost));
    expect(new Set(counts).size).toBeGreaterThan(1);
    // Five standard deviations of the binomial distribution.
    const tolerance = 5 * Math.sqrt(frames.length * share * (1 - share));
    for (const count of counts) expect(Math.abs(count - frames.length * share)).toBeLessThan(tolerance);
  });
});

describe('injections that lose', () => {
  const TIMER = 0x31;
  /** Enables the APIC and arms its timer for the far future; handlers return. */
  const TEXT = `
    mov ecx, 0x80f
    mov eax, 0x1ff
    xor edx, edx
    wrmsr
    mov ecx, 0x832
    mov eax, ${TIMER}
    wrmsr
    mov ecx, 0x838
    mov eax, 0x7fffffff
    wrmsr
    vmcall
    spin: jmp spin
    faulted: add rsp, 8
    inc r12
    iretq
    interrupted: inc r13
    push rax
    push rcx
    push rdx
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq`;

  /** A guest that spins with its timer armed; interrupts on or off. */
  function open(interrupts: boolean, options: Partial<MachineOptions>): { guest: TinyGuest; port: FullPort } {
    const guest = new TinyGuest(options).code(TEXT);
    for (const vector of [13, 14]) guest.gate(vector, guest.label('faulted'));
    guest.gate(TIMER, guest.label('interrupted'));
    const port = guest.machine.openPort();
    port.setExit({ kind: 'vmcall' }, true);
    port.setExit({ kind: 'event-injected' }, true);
    expect(port.next(1)).toBe(0);
    expect(port.vcpu(0).exitKind).toBe(ExitKind.VMCALL);
    if (interrupts) port.vcpu(0).set('rflags', 0x202n);
    port.reply(0, Reply.SKIP);
    return { guest, port };
  }

  /** Injects a page fault; returns the vector that was delivered. */
  function pageFault(port: FullPort): number {
    port.inject(0, 14, 4, 0x1234_5000n);
    expect(port.next(1)).toBe(0);
    expect(port.vcpu(0).exitKind).toBe(ExitKind.EVENT_INJECTED);
    const vector = port.vcpu(0).get32('exitVector');
    port.reply(0, Reply.RETRY);
    // Lets the handler end.
    expect(port.next(0.05)).toBe(NO_EXIT);
    return vector;
  }

  test('the interrupt of the timer comes in its place, ahead of its time, and the injection is dropped', () => {
    const { guest, port } = open(true, { chaos: { loseInjections: [1] } });
    expect(pageFault(port)).toBe(TIMER);
    const record = port.vcpu(0);
    expect([record.get('r12'), record.get('r13'), record.get('cr2')]).toEqual([0n, 1n, 0n]);
    expect(guest.machine.lostInjections).toBe(1);
    expect(pageFault(port)).toBe(14);
    expect([record.get('r12'), record.get('r13'), record.get('cr2')]).toEqual([1n, 1n, 0x1234_5000n]);
    expect(guest.machine.lostInjections).toBe(1);
  });

  test('a VCPU that takes no interrupts takes the injection', () => {
    const { guest, port } = open(false, { chaos: { loseInjections: 1 } });
    expect(pageFault(port)).toBe(14);
    expect(guest.machine.lostInjections).toBe(0);
  });

  test('an exception comes in its place, interrupts on or off, and leaves CR2', () => {
    for (const interrupts of [true, false]) {
      const { guest, port } = open(interrupts, { chaos: { loseInjections: 1, injectionWinner: 13 } });
      port.vcpu(0).set('cr2', 0x77n);
      expect(pageFault(port)).toBe(13);
      expect(port.vcpu(0).get32('exitErrorCode')).toBe(0);
      expect(port.vcpu(0).get('cr2')).toBe(0x77n);
      expect(guest.machine.lostInjections).toBe(1);
    }
  });

  test('an interrupt whose delivery is refused is delivered on the retry, and reported then', () => {
    const { guest, port } = open(true, { chaos: { loseInjections: 1 } });
    port.setPageAccess(frame(AT.stack - 8), Access.READ);
    port.inject(0, 14, 4, 0n);
    expect(port.next(1)).toBe(0);
    expect(port.vcpu(0).exitKind).toBe(ExitKind.EPT_VIOLATION);
    expect(port.vcpu(0).get32('exitVector')).toBe(TIMER);
    port.setPageAccess(frame(AT.stack - 8), Access.ALL);
    port.reply(0, Reply.RETRY);
    expect(port.next(1)).toBe(0);
    expect([port.vcpu(0).exitKind, port.vcpu(0).get32('exitVector')]).toEqual([ExitKind.EVENT_INJECTED, TIMER]);
    expect(guest.machine.lostInjections).toBe(1);
  });

  test.each([0, 0.1, 0.5, 0.9, 1])('a share of %d is lost, by seed; injected again, each gets through', (share) => {
    const count = Math.ceil(100 * Math.sqrt(inject('scale')));
    const run = (seed: number): readonly number[] => {
      const { guest, port } = open(true, { seed, chaos: { loseInjections: share } });
      const vectors = Array.from({ length: count }, () => pageFault(port));
      expect(guest.machine.lostInjections).toBe(vectors.filter((vector) => vector === TIMER).length);
      return vectors;
    };
    const vectors = run(1);
    expect(run(1)).toEqual(vectors);
    expect(new Set(vectors)).toEqual(new Set(share === 0 ? [14] : share === 1 ? [TIMER] : [14, TIMER]));
    const lost = vectors.filter((vector) => vector === TIMER).length;
    const tolerance = 5 * Math.sqrt(count * share * (1 - share));
    expect(Math.abs(lost - count * share)).toBeLessThanOrEqual(tolerance);
    if (share > 0 && share < 1) expect(run(2)).not.toEqual(vectors);
  });

  test('an exception without an error code is lost like any other', () => {
    const { port } = open(true, { chaos: { loseInjections: [1] } });
    port.inject(0, 6, NO_ERROR_CODE, 0n);
    expect(port.next(1)).toBe(0);
    expect(port.vcpu(0).get32('exitVector')).toBe(TIMER);
  });
});

test.each([
  { chaos: { loseInjections: 1.5 } },
  { chaos: { loseRightsChanges: -0.1 } },
  { chaos: { loseRightsChanges: [0] } },
  { chaos: { loseInjections: Number.NaN } },
  { chaos: { injectionWinner: 32 } },
])('refuses %j', (options) => {
  expect(() => new TinyGuest(options)).toThrow(expect.objectContaining({ code: 'ERR_HV_SIM_OPTIONS' }));
});
