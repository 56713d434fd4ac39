import { type Gpa, gfn, gpa, ShutdownReason } from '@introd/abi';
import { expect, test } from 'vitest';
import { enterLongMode, Machine } from './index.js';

const RAM = 0x20_0000;

/** A machine whose first 2 MiB are mapped as they lie, with code at 64 KiB. */
function machineWith(code: readonly number[]): Machine {
  const machine = new Machine({ memory: [{ start: gpa(0), size: RAM }] });
  const entry = new BigUint64Array([0x2003n]);
  machine.writePhysical(gpa(0x1000), new Uint8Array(entry.buffer));
  entry[0] = 0x3003n;
  machine.writePhysical(gpa(0x2000), new Uint8Array(entry.buffer));
  entry[0] = 0x83n;
  machine.writePhysical(gpa(0x3000), new Uint8Array(entry.buffer));
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

test('a machine without the guest in 64-bit mode stops instead of guessing', () => {
  const machine = new Machine({ memory: [{ start: gpa(0), size: 0x1000 }] });
  expect(machine.run(1)).toBe('shutdown');
  expect(machine.shutdownReason).toBe(ShutdownReason.UNSUPPORTED);
  expect(machine.unsupported).toContain('0xfff0');
});

test('names a VCPU that it does not have', () => {
  expect(() => machineWith([0xf4]).vcpu(1)).toThrow(expect.objectContaining({ code: 'ERR_HV_SIM_NO_SUCH_VCPU' }));
});
