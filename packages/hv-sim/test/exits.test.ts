import { Access, ExitCause, ExitKind, Reply, ShutdownReason } from '@introd/abi';
import { type FullPort, NO_ERROR_CODE, NO_EXIT, type SwitchedExit } from '@introd/glue';
import { describe, expect, test } from 'vitest';
import type { MachineOptions } from '../src/index.js';
import { AT, frame, TinyGuest } from './tiny-guest.js';

function open(text: string, options: Partial<MachineOptions> = {}): { guest: TinyGuest; port: FullPort } {
  const guest = new TinyGuest(options).code(text);
  return { guest, port: guest.machine.openPort() };
}

/** Waits for the exit of VCPU 0 and checks that the machine still stands before its change. */
function nextExit(port: FullPort, kind: ExitKind, vcpu = 0): void {
  expect(port.next(10)).toBe(vcpu);
  expect(port.vcpu(vcpu).exitKind).toBe(kind);
}

const WRITE_DATA = 'mov rbx, 0x30010\nmov eax, 0x55\nspot: mov [rbx], al\nmov cl, [rbx]\nout 0xf4, al';

describe('second-level violations', () => {
  test('a write exits before it happens, with everything about it; each reply does what it says', () => {
    for (const [reply, code, memory] of [
      [Reply.ALLOW_ONCE, 0x55n, 0x55n],
      [Reply.SKIP, 0n, 0n],
      [Reply.RETRY, 0x55n, 0x55n],
    ] as const) {
      const { guest, port } = open(WRITE_DATA);
      port.setPageAccess(frame(AT.data), Access.READ | Access.EXECUTE);
      port.flushPageAccess();
      nextExit(port, ExitKind.EPT_VIOLATION);
      const record = port.vcpu(0);
      expect(record.rip).toBe(guest.label('spot'));
      expect([record.exitCause, record.exitAccess, record.get32('exitSize')]).toEqual([
        ExitCause.DATA,
        Access.WRITE,
        1,
      ]);
      expect([record.exitGpa, record.exitGla, record.get32('exitInstructionLength')]).toEqual([0x3_0010, 0x3_0010n, 2]);
      expect(guest.read64(AT.data + 0x10)).toBe(0n);
      if (reply === Reply.RETRY) port.setPageAccess(frame(AT.data), Access.ALL);
      port.reply(0, reply);
      expect(port.next(1)).toBe(port.vcpuCount);
      expect(record.get('rcx') & 0xffn).toBe(code);
      expect(guest.read64(AT.data + 0x10)).toBe(memory);
    }
  });

  test('what is allowed once is asked again for the next instruction', () => {
    const { port } = open('mov rbx, 0x30010\nmov [rbx], al\nmov [rbx], al\nout 0xf4, al');
    port.setPageAccess(frame(AT.data), Access.READ);
    for (let i = 0; i < 2; i++) {
      nextExit(port, ExitKind.EPT_VIOLATION);
      port.reply(0, Reply.ALLOW_ONCE);
    }
    expect(port.next(1)).toBe(port.vcpuCount);
  });

  test('an IRETQ whose eight pages have all their page tables refused goes through, a frame at a time', () => {
    const guest = new TinyGuest();
    const record = guest.machine.vcpu(0);
    const FAR = 0x10_0000;
    let next = FAR;
    const frames: number[] = [AT.pml4];
    /** Maps a page in a slot of the top table of its own; the page is the first or last of the slot. */
    const mapAlone = (slot: number, last: boolean): number => {
      const index = last ? 511 : 0;
      const [pdpt, pd, pt, page] = [next, next + 0x1000, next + 0x2000, next + 0x3000] as const;
      next += 0x4000;
      frames.push(pdpt, pd, pt, page);
      guest.write64(AT.pml4 + slot * 8, BigInt(pdpt) | 3n);
      guest.write64(pdpt + index * 8, BigInt(pd) | 3n);
      guest.write64(pd + index * 8, BigInt(pt) | 3n);
      guest.write64(pt + index * 8, BigInt(page) | 3n);
      return page;
    };
    /** Bytes across the border between two slots; returns their linear address. */
    const across = (slot: number, bytes: Uint8Array, inFirst: number): bigint => {
      const first = mapAlone(slot, true);
      const second = mapAlone(slot + 1, false);
      guest.write(first + 0x1000 - inFirst, bytes.subarray(0, inFirst));
      guest.write(second, bytes.subarray(inFirst));
      return (BigInt(slot + 1) << 39n) - BigInt(inFirst);
    };
    const words = (...values: bigint[]): Uint8Array => new Uint8Array(BigUint64Array.from(values).buffer);
    const stack = across(3, words(BigInt(AT.code), 0x10n, 2n, BigInt(AT.stack), 0xcn), 20);
    const gdt = across(5, words(0x00af_9b00_0000_ffffn), 4) - 0x10n;
    const ldt = across(7, words(0x00cf_9300_0000_ffffn), 4) - 0x8n;
    record.set('rip', across(1, Uint8Array.of(0x48, 0xcf), 1));
    record.set('rsp', stack);
    record.set('gdtBase', gdt);
    record.set32('gdtLimit', 0x17);
    record.set('ldtrBase', ldt);
    record.set32('ldtrLimit', 0xf);
    record.set32('ldtrAttributes', 0x82);
    const port = guest.machine.openPort();
    for (const address of frames) port.setPageAccess(frame(address), Access.NONE);
    const seen = new Set<number>();
    while (true) {
      nextExit(port, ExitKind.EPT_VIOLATION);
      // The walk for the instruction that IRETQ has gone to.
      if (record.rip === BigInt(AT.code)) break;
      const touched = record.exitGpa - (record.exitGpa % 0x1000);
      expect(seen).not.toContain(touched);
      seen.add(touched);
      port.reply(0, Reply.ALLOW_ONCE);
    }
    expect([...seen].toSorted((a, b) => a - b)).toEqual(frames.toSorted((a, b) => a - b));
    expect(seen.size).toBe(33);
    expect(record.get32('ssSelector')).toBe(0xc);
  });

  test('what is allowed once is not open to another VCPU', () => {
    const guest = new TinyGuest({ vcpus: 2, quantum: 1 }).code('mov rbx, 0x30010\nagain: mov [rbx], al\njmp again');
    guest.machine.setActive(1, true);
    const port = guest.machine.openPort();
    port.setPageAccess(frame(AT.data), Access.READ);
    const seen = [port.next(1), port.next(1)];
    expect(seen.sort()).toEqual([0, 1]);
    port.reply(0, Reply.ALLOW_ONCE);
    // VCPU 0 gets through once and exits at the second round; VCPU 1 stands where it stood.
    expect(port.next(1)).toBe(0);
    port.reply(0, Reply.ALLOW_ONCE);
    port.reply(1, Reply.RETRY);
    const again = [port.next(1), port.next(1)];
    expect(again.sort()).toEqual([0, 1]);
  });

  test('several violations of one instruction add up', () => {
    // The write crosses two pages without W, and the code page may not be fetched.
    const { guest, port } = open('mov rbx, 0x30ffc\nmov rax, 0x1122334455667788\nmov [rbx], rax\nout 0xf4, al');
    port.setPageAccess(frame(AT.data), Access.READ);
    port.setPageAccess(frame(AT.data + 0x1000), Access.READ);
    const seen: number[] = [];
    for (let i = 0; i < 2; i++) {
      nextExit(port, ExitKind.EPT_VIOLATION);
      seen.push(Number(port.vcpu(0).exitGpa));
      expect(guest.read64(AT.data + 0xff8)).toBe(0n);
      port.reply(0, Reply.ALLOW_ONCE);
    }
    expect(seen).toEqual([0x3_0ffc, 0x3_1000]);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.read64(AT.data + 0xffc)).toBe(0x1122_3344_5566_7788n);
  });

  test('supplied data is read in place of memory, once', () => {
    const { guest, port } = open('mov rbx, 0x30010\nmov rax, [rbx]\nmov rcx, [rbx]\nout 0xf4, al');
    guest.write64(AT.data + 0x10, 0x1111n);
    port.setPageAccess(frame(AT.data), Access.EXECUTE);
    nextExit(port, ExitKind.EPT_VIOLATION);
    port.vcpu(0).replyData.set([0xaa, 0xbb]);
    port.vcpu(0).set32('replyDataLength', 2);
    port.reply(0, Reply.SUPPLY_READ);
    nextExit(port, ExitKind.EPT_VIOLATION);
    expect(port.vcpu(0).get('rax')).toBe(0xbbaan);
    port.reply(0, Reply.ALLOW_ONCE);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(port.vcpu(0).get('rcx')).toBe(0x1111n);
  });

  test('a fetch exits with its cause; allowed once it runs one instruction, skipped none', () => {
    const { guest, port } = open('mov rbx, 0x30000\njmp rbx');
    guest.write(AT.data, Uint8Array.of(0x48, 0xff, 0xc0, 0x48, 0xff, 0xc1, 0xf4));
    port.setPageAccess(frame(AT.data), Access.READ | Access.WRITE);
    nextExit(port, ExitKind.EPT_VIOLATION);
    const record = port.vcpu(0);
    expect([record.exitCause, record.exitAccess, record.rip]).toEqual([ExitCause.FETCH, Access.EXECUTE, 0x3_0000n]);
    port.reply(0, Reply.ALLOW_ONCE);
    nextExit(port, ExitKind.EPT_VIOLATION);
    expect([record.get('rax'), record.rip]).toEqual([1n, 0x3_0003n]);
    port.reply(0, Reply.SKIP);
    nextExit(port, ExitKind.EPT_VIOLATION);
    expect([record.get('rcx'), record.rip]).toEqual([0n, 0x3_0006n]);
  });

  test('the page walker exits on tables it may not read, not on its accessed and dirty bits unless asked', () => {
    const { guest, port } = open(WRITE_DATA);
    port.setPageAccess(frame(AT.pt), Access.READ);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.read64(AT.pt + 0x30 * 8) & 0x60n).toBe(0x60n);

    const asked = open(WRITE_DATA);
    asked.port.setExit({ kind: 'page-walk-updates' }, true);
    asked.port.setPageAccess(frame(AT.pt), Access.READ);
    nextExit(asked.port, ExitKind.EPT_VIOLATION);
    // The first walk is that of the fetch.
    expect([asked.port.vcpu(0).exitCause, asked.port.vcpu(0).exitGpa]).toEqual([ExitCause.PAGE_WALK, AT.pt + 0x10 * 8]);
    expect(asked.guest.read64(AT.pt + 0x10 * 8) & 0x20n).toBe(0n);

    const hidden = open(WRITE_DATA);
    hidden.port.setPageAccess(frame(AT.pdpt), Access.NONE);
    nextExit(hidden.port, ExitKind.EPT_VIOLATION);
    expect([hidden.port.vcpu(0).exitCause, hidden.port.vcpu(0).exitAccess]).toEqual([ExitCause.PAGE_WALK, Access.READ]);
  });

  test('event delivery exits before anything is pushed, and is repeated or left out', () => {
    for (const [reply, vector] of [
      [Reply.ALLOW_ONCE, 6],
      [Reply.SKIP, 0x20],
    ] as const) {
      const { guest, port } = open('ud2\nmov al, 0x20\nout 0xf4, al');
      port.setPageAccess(frame(AT.stack - 8), Access.READ);
      nextExit(port, ExitKind.EPT_VIOLATION);
      const record = port.vcpu(0);
      expect([record.exitCause, record.get32('exitVector'), record.rip]).toEqual([
        ExitCause.EVENT_DELIVERY,
        6,
        BigInt(AT.code),
      ]);
      expect(guest.read64(AT.stack - 8)).toBe(0n);
      port.reply(0, reply);
      expect(port.next(1)).toBe(port.vcpuCount);
      expect(guest.machine.powerOffCode).toBe(vector);
    }
  });

  test('an injected exception is delivered, reported, and one at a time', () => {
    const { guest, port } = open('loop_: jmp loop_');
    port.setExit({ kind: 'event-injected' }, true);
    port.inject(0, 14, 6, 0xdead_b000n);
    expect(() => port.inject(0, 13, 0, 0n)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_INJECTION_PENDING' }));
    nextExit(port, ExitKind.EVENT_INJECTED);
    const record = port.vcpu(0);
    expect([record.get32('exitVector'), record.get32('exitErrorCode'), record.get('exitNewValue')]).toEqual([
      14,
      6,
      0xdead_b000n,
    ]);
    expect(record.get('cr2')).toBe(0xdead_b000n);
    port.reply(0, Reply.RETRY);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.machine.powerOffCode).toBe(14);
    expect(guest.read64(Number(record.get('rsp')))).toBe(6n);
  });

  test('an injected exception without error code pushes none', () => {
    const { guest, port } = open('loop_: jmp loop_');
    port.inject(0, 6, NO_ERROR_CODE, 0n);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.machine.powerOffCode).toBe(6);
    expect(guest.machine.vcpu(0).get('rsp')).toBe(BigInt(AT.stack - 40));
  });
});

describe('switched exits', () => {
  const cases: readonly (readonly [SwitchedExit, string, ExitKind])[] = [
    [{ kind: 'cr-write', register: 3 }, 'mov rax, cr3\nmov cr3, rax', ExitKind.CR_WRITE],
    [{ kind: 'cr-write', register: 0 }, 'clts', ExitKind.CR_WRITE],
    [{ kind: 'cr-write', register: 8 }, 'mov eax, 3\nmov cr8, rax', ExitKind.CR_WRITE],
    [
      { kind: 'msr-write', register: 0xc000_0102 },
      'mov ecx, 0xc0000102\nxor eax, eax\nxor edx, edx\nwrmsr',
      ExitKind.MSR_WRITE,
    ],
    [
      { kind: 'xcr-write' },
      'mov rax, cr4\nbts rax, 18\nmov cr4, rax\nxor ecx, ecx\nmov eax, 3\nxor edx, edx\nxsetbv',
      ExitKind.XCR_WRITE,
    ],
    [{ kind: 'descriptor-table' }, 'sub rsp, 16\nsidt [rsp]', ExitKind.DESCRIPTOR_TABLE],
    [{ kind: 'descriptor-table' }, 'sub rsp, 16\nlidt [rsp]', ExitKind.DESCRIPTOR_TABLE],
    [{ kind: 'breakpoint' }, 'int3', ExitKind.BREAKPOINT],
    [{ kind: 'vmcall' }, 'vmcall', ExitKind.VMCALL],
  ];

  test.each(cases)('%j exits while it is on, before the change, and is skipped whole', (exit, text, kind) => {
    const program = `${text}\nafter: mov al, 0x33\nout 0xf4, al`;
    const { guest, port } = open(program);
    port.setExit(exit, true);
    nextExit(port, kind);
    port.reply(0, Reply.SKIP);
    expect(port.vcpu(0).rip).toBe(guest.label('after'));
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(guest.machine.powerOffCode).toBe(0x33);

    const off = open(program);
    expect(off.port.next(1)).toBe(off.port.vcpuCount);
    const own = kind === ExitKind.BREAKPOINT ? 3 : kind === ExitKind.VMCALL ? 6 : 0x33;
    expect(off.guest.machine.powerOffCode).toBe(own);
  });

  test('the engine may commit another value than the guest wanted', () => {
    const { port } = open('mov eax, 3\nmov cr8, rax\nout 0xf4, al');
    port.setExit({ kind: 'cr-write', register: 8 }, true);
    nextExit(port, ExitKind.CR_WRITE);
    const record = port.vcpu(0);
    expect([record.get('exitOldValue'), record.get('exitNewValue'), record.get('cr8')]).toEqual([0n, 3n, 0n]);
    record.set('replyValue', 5n);
    port.reply(0, Reply.ALLOW_ONCE);
    expect(port.next(1)).toBe(port.vcpuCount);
    expect(record.get('cr8')).toBe(5n);
  });
});

describe('time', () => {
  test('a tick comes each second of guest time, on the guest record', () => {
    const { guest, port } = open('loop_: jmp loop_');
    const times: number[] = [];
    for (let i = 0; i < 30 && times.length < 2; i++) {
      const index = port.next(100);
      if (index === NO_EXIT) continue;
      expect(index).toBe(port.vcpuCount);
      expect(port.guestRecord.exitKind).toBe(ExitKind.TICK);
      times.push(port.guestRecord.exitTime);
      port.reply(index, Reply.RETRY);
    }
    expect(times).toEqual([1_000_000, 2_000_000]);
    expect(guest.machine.time).toBe(2_000_000);
  });

  test('next waits no longer than it is told, and a shutdown stays', () => {
    const { guest, port } = open('loop_: jmp loop_');
    expect(port.next(2)).toBe(NO_EXIT);
    expect(guest.machine.time).toBe(2000);
    const done = open('cli\nhlt');
    for (let i = 0; i < 2; i++) {
      expect(done.port.next(1)).toBe(1);
      expect(done.port.guestRecord.get32('exitRegister')).toBe(ShutdownReason.HALTED);
    }
  });
});

describe('the machine as a whole', () => {
  const program = `
    xor ecx, ecx
    again: lock inc qword ptr [data]
    mov rax, [data]
    add rcx, rax
    imul rcx, rcx, 31
    jmp again`;

  /** Hash-like trace of a run in pieces of the given sizes. */
  function trace(guest: TinyGuest, pieces: readonly number[]): string {
    for (const piece of pieces) guest.machine.run(piece);
    return [0, 1, 2]
      .map((i) => `${guest.machine.vcpu(i).get('rcx')}/${guest.machine.vcpu(i).rip}/${guest.machine.instructions}`)
      .join(' ');
  }

  function start(guest: TinyGuest): TinyGuest {
    guest.code(program);
    for (const i of [1, 2]) guest.machine.setActive(i, true);
    return guest;
  }

  test('runs the same whatever the pieces, and again after reset', () => {
    const guest = start(new TinyGuest({ vcpus: 3, quantum: 7 }));
    const whole = trace(guest, [1000]);
    expect(trace(start(new TinyGuest({ vcpus: 3, quantum: 7 })), [1, 9, 90, 400, 500])).toBe(whole);
    expect(trace(start(new TinyGuest({ vcpus: 3, quantum: 8 })), [1000])).not.toBe(whole);
    guest.machine.reset();
    expect([guest.machine.time, guest.machine.instructions, guest.read64(AT.data)]).toEqual([0, 0, 0n]);
    guest.build();
    expect(trace(start(guest), [1000])).toBe(whole);
  });

  test('observe sees every instruction of every VCPU and changes nothing', () => {
    const plain = trace(start(new TinyGuest({ vcpus: 3, quantum: 7 })), [300]);
    const guest = start(new TinyGuest({ vcpus: 3, quantum: 7 }));
    const seen = [0, 0, 0];
    guest.machine.observe((vcpu) => {
      seen[vcpu]!++;
    });
    expect(trace(guest, [300])).toBe(plain);
    expect(seen.reduce((a, b) => a + b)).toBe(300);
    guest.machine.observe(undefined);
    guest.machine.run(10);
    expect(seen.reduce((a, b) => a + b)).toBe(300);
  });

  test('a port leaves the machine as it found it, and reset closes it', () => {
    const { guest, port } = open(WRITE_DATA);
    port.setPageAccess(frame(AT.data), Access.NONE);
    nextExit(port, ExitKind.EPT_VIOLATION);
    expect(() => guest.machine.openPort()).toThrow(expect.objectContaining({ code: 'ERR_HV_SIM_PORT_OPEN' }));
    port.close();
    expect(guest.machine.run(100)).toBe('shutdown');
    expect(guest.machine.powerOffCode).toBe(0x55);
    const second = guest.machine.openPort();
    guest.machine.reset();
    expect(() => second.next(1)).toThrow(expect.objectContaining({ code: 'ERR_GLUE_CLOSED' }));
  });

  test('RAM lies anywhere in 52 bits', () => {
    const guest = new TinyGuest({
      memory: [
        { start: 0 as never, size: 0x20_0000 },
        { start: (2 ** 52 - 0x1000) as never, size: 0x1000 },
      ],
    });
    guest.map(0x30, 0x000f_ffff_ffff_f003n);
    guest.code('mov rax, 0x1234\nmov [data], rax\nmov rcx, [data]\nout 0xf4, al').machine.run(10);
    expect(guest.machine.vcpu(0).get('rcx')).toBe(0x1234n);
    expect(guest.machine.mapPage((2 ** 40 - 1) as never)?.[1]).toBe(0x12);
  });

  test.each([
    { memory: [] },
    { memory: [{ start: 1, size: 4096 }] },
    { memory: [{ start: 0, size: 2 ** 31 + 4096 }] },
    {
      memory: [
        { start: 0, size: 8192 },
        { start: 4096, size: 4096 },
      ],
    },
    { memory: [{ start: 2 ** 52, size: 4096 }] },
    { vcpus: 9 },
    { vcpus: 0 },
    { quantum: 0 },
  ])('refuses %j', (options) => {
    expect(() => new TinyGuest(options as never)).toThrow(expect.objectContaining({ code: 'ERR_HV_SIM_OPTIONS' }));
  });
});
