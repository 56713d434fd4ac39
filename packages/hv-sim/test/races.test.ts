import { Access, ExitKind, type Gpa, Reply } from '@introd/abi';
import { type FullPort, NO_EXIT } from '@introd/glue';
import { describe, expect, inject, test } from 'vitest';
import type { MachineOptions } from '../src/index.js';
import { AT, frame, TinyGuest } from './tiny-guest.js';

// Each seed starts machines of its own for every window: 200 of them at full scale.
const seeds = Array.from({ length: Math.ceil(20 * Math.sqrt(inject('scale'))) }, (_, seed) => seed);
const COUNTER = AT.data + 0x1000;
const COUNT = `counter: inc qword ptr [0x${COUNTER.toString(16)}]\njmp counter`;

/** A guest whose VCPU 0 starts at the code, and every other at a label of its own. */
function start(text: string, others: readonly string[], options: Partial<MachineOptions>): TinyGuest {
  const guest = new TinyGuest({ vcpus: 1 + others.length, quantum: 1, ...options }).code(text);
  others.forEach((label, i) => {
    guest.enter(i + 1, guest.label(label));
    guest.machine.setActive(i + 1, true);
  });
  return guest;
}

/** Waits for an exit of a kind; returns the VCPU. */
function waitFor(port: FullPort, kind: ExitKind): number {
  const index = port.next(10);
  expect(index).not.toBe(NO_EXIT);
  expect(port.vcpu(index).exitKind).toBe(kind);
  return index;
}

describe('interleaving', () => {
  // Each VCPU takes a ticket and writes its name to the log.
  const LOG = AT.data + 0x2000;
  const WRITERS = `
    zero: mov al, 0x30
    jmp write
    one: mov al, 0x31
    write: mov ecx, 1
    lock xadd [data], rcx
    mov [rcx + 0x${LOG.toString(16)}], al
    jmp write`;

  /** The order in which two VCPUs have written. */
  function order(options: Partial<MachineOptions>, pieces: readonly number[] = [400]): string {
    const guest = start(WRITERS, ['one'], { quantum: 5, ...options });
    for (const piece of pieces) guest.machine.run(piece);
    const log = new Uint8Array(Number(guest.read64(AT.data)));
    guest.machine.readPhysical(LOG as Gpa, log);
    return String.fromCharCode(...log);
  }

  test('by seed: the same seed gives the same order of writes, another seed another', () => {
    const orders = seeds.map((seed) => order({ interleave: 'seeded', seed }));
    expect(orders).toEqual(seeds.map((seed) => order({ interleave: 'seeded', seed })));
    expect(new Set(orders).size).toBe(seeds.length);
    expect(order({ seed: 1 })).toBe(order({ seed: 2 }));
  });

  test('by seed is the same in whatever pieces the machine runs', () => {
    for (const seed of seeds.slice(0, 5)) {
      const options = { interleave: 'seeded', seed } as const;
      expect(order(options, [1, 2, 3, 44, 150, 200])).toBe(order(options));
    }
  });

  test('by seed has turns of every length from one instruction to the quantum, of every VCPU', () => {
    const guest = start(`${COUNT}\nspin: jmp spin`, ['counter', 'spin'], { quantum: 4, interleave: 'seeded', seed: 3 });
    const ran: number[] = [];
    guest.machine.observe((vcpu) => ran.push(vcpu));
    guest.machine.run(3000);
    const lengths = new Set<number>();
    let length = 0;
    ran.forEach((vcpu, i) => {
      length++;
      if (ran[i + 1] === vcpu) return;
      lengths.add(length);
      length = 0;
    });
    expect([...lengths]).toEqual(expect.arrayContaining([1, 2, 3, 4]));
    for (const vcpu of [0, 1, 2]) {
      const share = ran.filter((other) => other === vcpu).length / ran.length;
      expect(share).toBeGreaterThan(0.25);
      expect(share).toBeLessThan(0.42);
    }
  });
});

describe('between a fault and its delivery', () => {
  const TEXT = `mov rbx, data\nwriter: mov [rbx], al\njmp writer\nother: mov rbx, data\nsecond: mov [rbx + 8], al\njmp second\n${COUNT}`;

  /** How far the third VCPU has counted when the first exit is delivered, then at that of another VCPU. */
  function deliver(window: number, seed: number, paused = false): readonly bigint[] {
    const guest = start(TEXT, ['other', 'counter'], { seed, race: { betweenFaultAndDelivery: window } });
    const port = guest.machine.openPort();
    port.setPageAccess(frame(AT.data), Access.READ);
    waitFor(port, ExitKind.EPT_VIOLATION);
    const first = guest.read64(COUNTER);
    if (paused) port.pause();
    // With the window open the other VCPU has come to its exit meanwhile.
    const second = port.next(10);
    return second === NO_EXIT ? [first] : [first, guest.read64(COUNTER)];
  }

  test('others run, by seed, as many as the window is wide; none when it is closed', () => {
    const without = deliver(0, 1);
    const counts = seeds.map((seed) => deliver(60, seed)[0]!);
    expect(counts).toEqual(seeds.map((seed) => deliver(60, seed)[0]!));
    expect(new Set(counts).size).toBeGreaterThan(5);
    for (const count of counts) {
      expect(count).toBeGreaterThanOrEqual(without[0]!);
      expect(count).toBeLessThanOrEqual(without[0]! + 30n);
    }
  });

  test('a pause closes the window of an exit that waits already', () => {
    const open = seeds.map((seed) => deliver(60, seed)).filter((counts) => counts.length === 2);
    expect(open.some(([first, second]) => second! > first!)).toBe(true);
    const closed = seeds.map((seed) => deliver(60, seed, true)).filter((counts) => counts.length === 2);
    expect(closed.length).toBeGreaterThan(0);
    for (const [first, second] of closed) expect(second).toBe(first);
  });
});

describe('inside the calls of the engine', () => {
  const CALLS: Readonly<Record<string, (port: FullPort) => unknown>> = {
    readPhysical: (port) => port.readPhysical(AT.code as Gpa, new Uint8Array(1)),
    writePhysical: (port) => port.writePhysical((AT.data + 64) as Gpa, new Uint8Array(1)),
    compareExchange: (port) => port.compareExchange((AT.data + 64) as Gpa, 8, 0, 0, 0, 0),
    mapPage: (port) => port.mapPage(frame(AT.data)),
    fetchRegisters: (port) => port.fetchRegisters(0, 7),
    storeRegisters: (port) => port.storeRegisters(0, 7),
    readMsr: (port) => port.readMsr(0, 0xc000_0080),
    setExit: (port) => port.setExit({ kind: 'vmcall' }, true),
    getPageAccess: (port) => port.getPageAccess(frame(AT.data)),
    setPageAccess: (port) => port.setPageAccess(frame(AT.data), Access.ALL),
    flushPageAccess: (port) => port.flushPageAccess(),
    reply: (port) => port.reply(0, Reply.SKIP),
    inject: (port) => port.inject(0, 6, -1, 0n),
  };

  test.each(Object.keys(CALLS))('%s: another VCPU runs, for some seed; never while the guest is paused', (name) => {
    const counted = (seed: number, paused: boolean): bigint => {
      // Long enough for the calls before it.
      const guest = start(`${'nop\n'.repeat(50)}vmcall\n${COUNT}`, ['counter'], { seed, race: { insideCalls: 20 } });
      const port = guest.machine.openPort();
      port.setExit({ kind: 'vmcall' }, true);
      waitFor(port, ExitKind.VMCALL);
      if (paused) port.pause();
      const before = guest.read64(COUNTER);
      CALLS[name]!(port);
      return guest.read64(COUNTER) - before;
    };
    const open = seeds.map((seed) => counted(seed, false));
    expect(open).toEqual(seeds.map((seed) => counted(seed, false)));
    expect(open.some((count) => count > 0n)).toBe(true);
    for (const seed of seeds) expect(counted(seed, true)).toBe(0n);
  });

  // Sixteen bytes that the guest replaces in one instruction, now all zeros, now all ones.
  const REPLACE = `pcmpeqd xmm1, xmm1\npxor xmm0, xmm0\nagain: movdqa [data], xmm0\nmovdqa [data], xmm1\njmp again`;

  /** Whether a read of the sixteen bytes has shown a half of each. */
  function tornRead(seed: number, paused: boolean): boolean {
    const guest = start(REPLACE, [], { seed, race: { insideCalls: 9 } });
    const port = guest.machine.openPort();
    port.next(1);
    for (let i = 0; i < 10; i++) {
      const bytes = new Uint8Array(16);
      port.readPhysical(AT.code as Gpa, new Uint8Array(1));
      if (paused) port.pause();
      port.readPhysical(AT.data as Gpa, bytes);
      if (paused) port.resume();
      if (bytes[0] !== bytes[15]) return true;
    }
    return false;
  }

  test('a long read may be torn; not while the guest is paused', () => {
    expect(seeds.some((seed) => tornRead(seed, false))).toBe(true);
    expect(seeds.some((seed) => tornRead(seed, true))).toBe(false);
  });

  // The guest looks at sixteen bytes in one instruction, and powers off when the halves differ.
  const WATCH = `again: movdqa xmm0, [data]\nmovq rax, xmm0\npsrldq xmm0, 8\nmovq rdx, xmm0\ncmp rax, rdx\nje again\nmov al, 1\nout 0xf4, al`;

  function tornWrite(seed: number, paused: boolean): boolean {
    const guest = start(WATCH, [], { seed, race: { insideCalls: 20 } });
    const port = guest.machine.openPort();
    for (let i = 0; i < 10; i++) {
      if (paused) port.pause();
      port.writePhysical(AT.data as Gpa, new Uint8Array(16).fill(i));
      if (paused) port.resume();
    }
    port.next(1);
    return guest.machine.powerOffCode === 1;
  }

  test('a long write may be seen half; not while the guest is paused', () => {
    expect(seeds.some((seed) => tornWrite(seed, false))).toBe(true);
    expect(seeds.some((seed) => tornWrite(seed, true))).toBe(false);
  });
});

describe('between a reply and the retry', () => {
  // VCPU 1 waits for the engine's sign, then swaps the store of AL for one of CL.
  const FLAG = AT.data + 0x3000;
  const SWAP = `
    mov rbx, data
    mov eax, 0x11
    mov ecx, 0x22
    spot: mov [rbx], al
    stop: jmp stop
    swapper: mov rdx, [0x${FLAG.toString(16)}]
    test rdx, rdx
    je swapper
    mov byte ptr [spot + 1], 0x0b
    wait: jmp wait`;

  /** What the store has written: 0x11 as the engine saw it, 0x22 when it was swapped after the reply. */
  function stored(window: number, seed: number): number {
    const guest = start(SWAP, ['swapper'], { seed, race: { betweenReplyAndRetry: window } });
    const port = guest.machine.openPort();
    port.setPageAccess(frame(AT.data), Access.READ);
    waitFor(port, ExitKind.EPT_VIOLATION);
    guest.write64(FLAG, 1n);
    expect(guest.read64(Number(guest.label('spot'))) & 0xffffn).toBe(0x0388n);
    port.setPageAccess(frame(AT.data), Access.ALL);
    port.reply(0, Reply.RETRY);
    port.next(1);
    return Number(guest.read64(AT.data) & 0xffn);
  }

  test('another VCPU swaps the instruction, for some seeds; for none when the window is closed', () => {
    const results = seeds.map((seed) => stored(20, seed));
    expect(results).toEqual(seeds.map((seed) => stored(20, seed)));
    expect(new Set(results)).toEqual(new Set([0x11, 0x22]));
    expect(new Set(seeds.map((seed) => stored(0, seed)))).toEqual(new Set([0x11]));
  });

  test('a paused guest stands still after the reply; the window opens when it goes on', () => {
    const guest = start(`vmcall\nmov r8, [0x${COUNTER.toString(16)}]\nstop: jmp stop\n${COUNT}`, ['counter'], {
      race: { betweenReplyAndRetry: 50 },
      seed: 5,
    });
    const port = guest.machine.openPort();
    port.setExit({ kind: 'vmcall' }, true);
    waitFor(port, ExitKind.VMCALL);
    port.pause();
    const before = guest.read64(COUNTER);
    port.reply(0, Reply.SKIP);
    expect(port.next(1)).toBe(NO_EXIT);
    expect(guest.read64(COUNTER)).toBe(before);
    port.resume();
    expect(port.next(1)).toBe(NO_EXIT);
    expect(port.vcpu(0).get('r8')).toBeGreaterThan(before + 2n);
  });

  test('a VCPU that is held while no other can run goes on in time', () => {
    const guest = start('vmcall\nmov al, 7\nout 0xf4, al', [], { race: { betweenReplyAndRetry: 50 }, seed: 5 });
    const port = guest.machine.openPort();
    port.setExit({ kind: 'vmcall' }, true);
    waitFor(port, ExitKind.VMCALL);
    port.reply(0, Reply.SKIP);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.machine.powerOffCode).toBe(7);
  });
});

test.each([
  { race: { insideCalls: -1 } },
  { race: { betweenReplyAndRetry: 0.5 } },
  { race: { betweenFaultAndDelivery: 1e9 } },
])('refuses %j', (options) => {
  expect(() => new TinyGuest(options)).toThrow(expect.objectContaining({ code: 'ERR_HV_SIM_OPTIONS' }));
});
