import type { Gpa } from '@introd/abi';
import { expect, test } from 'vitest';
import { enterLongMode, Machine } from './index.js';

test('boots', () => {
  const machine = new Machine({ memory: [{ start: 0 as Gpa, size: 0x20_0000 }] });
  const entries = new BigUint64Array(512);
  entries[0] = 0x2003n;
  machine.writePhysical(0x1000 as Gpa, new Uint8Array(entries.buffer));
  entries[0] = 0x83n;
  machine.writePhysical(0x2000 as Gpa, new Uint8Array(entries.buffer));
  // mov al,'A'; out 0xe9,al; mov ecx, 1000000; l: dec ecx; jnz l; out 0xf4,al
  machine.writePhysical(
    0x10000 as Gpa,
    Uint8Array.from([0xb0, 0x41, 0xe6, 0xe9, 0xb9, 0x80, 0x96, 0x98, 0, 0xff, 0xc9, 0x75, 0xfc, 0xe6, 0xf4, 0xf4]),
  );
  enterLongMode(machine.vcpu(0), { cr3: 0x1000n, rip: 0x10000n, rsp: 0x9000n });
  const t = performance.now();
  const r = machine.run(100_000_000);
  console.log(
    r,
    machine.debugText,
    machine.instructions,
    machine.powerOffCode,
    machine.unsupported,
    performance.now() - t,
    machine.vcpu(0).rip,
  );
  expect(r).toBe('shutdown');
});
