import { type Gpa, gfn, gpa, ShutdownReason } from '@introd/abi';
import { expect, test } from 'vitest';
import { enterLongMode, Machine, type MachineOptions } from './index.js';

const RAM = 0x20_0000;

/** A machine whose first 2 MiB are mapped as they lie, with code at 64 KiB. */
function machineWith(code: readonly number[]): Machine {
  const machine = identityMapped({ memory: [{ start: gpa(0), size: RAM }] });
  machine.writePhysical(gpa(0x1_0000), Uint8Array.from(code));
  enterLongMode(machine.vcpu(0), { cr3: 0x1000n, rip: 0x1_0000n, rsp: 0x9000n });
  return machine;
}

test('runs until the guest powers off, and keeps what it wrote to the debug port', () => {
  // mov al, 'A'; out 0xe9, al; mov ecx, 1000; dec ecx; jne $-2; mov al, 7; out 0xf4, al
  const code = [0xb0, 0x41, 0xe6, 0xe9, 0xb9, 0xe8, 3, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xb0, 7, 0xe6, 0xf4];
  const machine = machineWith(code);
  expect(machine.run(100)).toBe('budget');
  expect([machine.instructions, machine.time, machine.debugText]).toEqual([100, 100, 'A']);
  expect(machine.run(10_000)).toBe('shutdown');
  expect([machine.instructions, machine.shutdownReason, machine.powerOffCode]).toEqual([
    2005,
    ShutdownReason.POWER_OFF,
    7,
  ]);
  machine.clearDebugText();
  expect(machine.debugText).toBe('');
});

test('debug output of any length arrives whole', () => {
  // mov ecx, 20000; mov al, 'x'; out 0xe9, al; dec ecx; jne $-4; out 0xf4, al
  const machine = machineWith([0xb9, 0x20, 0x4e, 0, 0, 0xb0, 0x78, 0xe6, 0xe9, 0xff, 0xc9, 0x75, 0xfa, 0xe6, 0xf4]);
  machine.run(100_000);
  expect(machine.debugText).toBe('x'.repeat(20_000));
});

test('physical memory is read and written whole or not at all', () => {
  const machine = machineWith([0xf4]);
  const end = gpa(RAM - 2);
  expect(machine.writePhysical(end, Uint8Array.of(1, 2, 3))).toBe(false);
  expect(machine.writePhysical(end, Uint8Array.of(1, 2))).toBe(true);
  const bytes = new Uint8Array(2);
  expect(machine.readPhysical(end, bytes)).toBe(true);
  expect([...bytes]).toEqual([1, 2]);
  expect(machine.readPhysical(end, new Uint8Array(3))).toBe(false);
  expect(machine.readPhysical(-1 as Gpa, bytes)).toBe(false);
  expect(machine.mapPage(gfn(RAM / 4096))).toBeUndefined();
});

test('the host may rewrite code that the machine has decoded', () => {
  // mov eax, 1; jmp $-5
  const machine = machineWith([0xb8, 1, 0, 0, 0, 0xeb, 0xf9]);
  machine.run(10);
  machine.writePhysical(gpa(0x1_0001), Uint8Array.of(2));
  machine.run(2);
  expect(machine.vcpu(0).get('rax')).toBe(2n);
});

test('a machine in real mode stops instead of guessing', () => {
  const machine = new Machine({ memory: [{ start: gpa(0), size: 0x1000 }] });
  expect(machine.run(1)).toBe('shutdown');
  expect(machine.shutdownReason).toBe(ShutdownReason.UNSUPPORTED);
  expect(machine.unsupported).toBe(
    'VCPU 0 in real mode, which the machine lacks, at RIP 0xfff0: ' +
      'put it into a mode that the machine has with enterLongMode, enterCompatibilityMode or enterProtectedMode',
  );
});

test('of several VCPUs it names the one that used what the machine lacks', () => {
  for (const culprit of [0, 1]) {
    const machine = identityMapped({ vcpus: 2, memory: [{ start: gpa(0), size: RAM }] });
    machine.writePhysical(gpa(0x1_0000), Uint8Array.of(0xeb, 0xfe)); // jmp $
    machine.writePhysical(gpa(0x1_1000), Uint8Array.of(0x0f, 0x58, 0xc1)); // addps xmm0, xmm1
    for (const index of [0, 1]) {
      const rip = index === culprit ? 0x1_1000n : 0x1_0000n;
      enterLongMode(machine.vcpu(index), { cr3: 0x1000n, rip, rsp: 0x9000n });
      machine.setActive(index, true);
    }
    expect(machine.run(1000)).toBe('shutdown');
    const text = `VCPU ${culprit} in 64-bit mode: Addps_xmm_xmmm128 at RIP 0x11000: 0f58c1`;
    expect(machine.unsupported).toBe(text);
    // Looking at another VCPU changes nothing.
    const port = machine.openPort();
    port.readMsr(1 - culprit, 0x10);
    expect(machine.unsupported).toBe(text);
  }
});

test('names a VCPU that it does not have', () => {
  expect(() => machineWith([0xf4]).vcpu(1)).toThrow(expect.objectContaining({ code: 'ERR_HV_SIM_NO_SUCH_VCPU' }));
});

/** Writes page tables at 0x1000 that map 2 MiB at 0 as they lie, and returns the machine. */
function identityMapped(options: MachineOptions): Machine {
  const machine = new Machine(options);
  const entry = (at: number, value: bigint): void => {
    machine.writePhysical(gpa(at), new Uint8Array(BigUint64Array.of(value).buffer));
  };
  entry(0x1000, 0x2003n);
  entry(0x2000, 0x3003n);
  entry(0x3000, 0x83n);
  return machine;
}

test('eight VCPUs take turns of a quantum each, the same every time', () => {
  const play = (quantum: number): { order: number[]; counts: bigint[] } => {
    const machine = identityMapped({ vcpus: 8, quantum, memory: [{ start: gpa(0), size: RAM }] });
    // inc rax; jmp $-3
    machine.writePhysical(gpa(0x1_0000), Uint8Array.of(0x48, 0xff, 0xc0, 0xeb, 0xfb));
    const order: number[] = [];
    for (let i = 0; i < 8; i++) {
      enterLongMode(machine.vcpu(i), { cr3: 0x1000n, rip: 0x1_0000n, rsp: 0x9000n });
      machine.setActive(i, true);
    }
    machine.observe((vcpu) => order.push(vcpu));
    expect(machine.run(8 * quantum * 3)).toBe('budget');
    return { order, counts: Array.from({ length: 8 }, (_, i) => machine.vcpu(i).get('rax')) };
  };
  const first = play(10);
  expect(first.order).toEqual(Array.from({ length: 240 }, (_, i) => Math.floor(i / 10) % 8));
  expect(first.counts).toEqual(Array.from({ length: 8 }, () => 15n));
  expect(play(10)).toEqual(first);
});

test('2 GiB of RAM are there, and the guest uses both ends', () => {
  const size = 2 ** 31;
  const machine = identityMapped({ memory: [{ start: gpa(0), size }] });
  // The second GiB from 1 GiB on, as one page: PDPT entry 1.
  machine.writePhysical(gpa(0x2008), new Uint8Array(BigUint64Array.of(0x4000_0083n).buffer));
  // mov rbx, 0x7ffffff8; mov qword [rbx], 0x5a; mov rcx, [rbx]; out 0xf4, al
  const code = [
    0x48, 0xc7, 0xc3, 0xf8, 0xff, 0xff, 0x7f, 0x48, 0xc7, 0x03, 0x5a, 0, 0, 0, 0x48, 0x8b, 0x0b, 0xe6, 0xf4,
  ];
  machine.writePhysical(gpa(0x1_0000), Uint8Array.from(code));
  enterLongMode(machine.vcpu(0), { cr3: 0x1000n, rip: 0x1_0000n, rsp: 0x9000n });
  expect(machine.run(10)).toBe('shutdown');
  expect(machine.shutdownReason).toBe(ShutdownReason.POWER_OFF);
  expect(machine.vcpu(0).get('rcx')).toBe(0x5an);
  const bytes = new Uint8Array(8);
  expect(machine.readPhysical(gpa(size - 8), bytes)).toBe(true);
  expect([...bytes]).toEqual([0x5a, 0, 0, 0, 0, 0, 0, 0]);
  expect(machine.readPhysical(gpa(size - 7), bytes)).toBe(false);
  expect(() => new Machine({ memory: [{ start: gpa(0), size: size + 4096 }] })).toThrow(
    expect.objectContaining({ code: 'ERR_HV_SIM_OPTIONS' }),
  );
});

test('RAM may lie right below 2^52, and nowhere above', () => {
  const top = 2 ** 52 - 0x2000;
  const machine = identityMapped({
    memory: [
      { start: gpa(0), size: RAM },
      { start: gpa(top), size: 0x2000 },
    ],
  });
  // Linear 2 MiB: a page table whose first entry is the last frame.
  machine.writePhysical(gpa(0x3008), new Uint8Array(BigUint64Array.of(0x4003n).buffer));
  machine.writePhysical(gpa(0x4000), new Uint8Array(BigUint64Array.of(0x000f_ffff_ffff_f003n).buffer));
  // mov rbx, 0x200ff8; mov qword [rbx], 0x5a; out 0xf4, al
  const code = [0x48, 0xc7, 0xc3, 0xf8, 0x0f, 0x20, 0, 0x48, 0xc7, 0x03, 0x5a, 0, 0, 0, 0xe6, 0xf4];
  machine.writePhysical(gpa(0x1_0000), Uint8Array.from(code));
  enterLongMode(machine.vcpu(0), { cr3: 0x1000n, rip: 0x1_0000n, rsp: 0x9000n });
  expect(machine.run(10)).toBe('shutdown');
  expect(machine.shutdownReason).toBe(ShutdownReason.POWER_OFF);
  const bytes = new Uint8Array(8);
  expect(machine.readPhysical(gpa(2 ** 52 - 8), bytes)).toBe(true);
  expect([...bytes]).toEqual([0x5a, 0, 0, 0, 0, 0, 0, 0]);
  expect(() => new Machine({ memory: [{ start: top as Gpa, size: 0x3000 }] })).toThrow(
    expect.objectContaining({ code: 'ERR_HV_SIM_OPTIONS' }),
  );
});

test('a reset makes RAM and registers those of a new machine', () => {
  const machine = machineWith([0xb8, 1, 0, 0, 0, 0xeb, 0xf9]);
  machine.run(10);
  machine.reset();
  const bytes = new Uint8Array(RAM).fill(1);
  machine.readPhysical(gpa(0), bytes);
  expect(bytes.every((byte) => byte === 0)).toBe(true);
  const fresh = new Machine({ memory: [{ start: gpa(0), size: RAM }] });
  expect(machine.vcpu(0).u32).toEqual(fresh.vcpu(0).u32);
});
