import { createVcpuRecord, gpa } from '@introd/abi';
import { expect, test } from 'vitest';
import { elfCore, rawImage } from './dump.js';

const memory = [
  { start: gpa(0x4000), size: 0x2000 },
  { start: gpa(0), size: 0x1000 },
];

function source() {
  const vcpu = createVcpuRecord(0);
  vcpu.set('rip', 0xffff_f800_0000_1234n);
  vcpu.set('r15', 15n);
  vcpu.set('rsp', 0x7fn);
  vcpu.set32('csSelector', 0x10);
  return {
    memory,
    vcpus: [vcpu],
    read: (address: number, target: Uint8Array): void => {
      // Each byte tells the page that it lies in.
      for (let i = 0; i < target.length; i++) target[i] = 1 + Math.floor((address + i) / 0x1000);
    },
  };
}

test('the raw image has each byte at its physical address, and zero where there is no RAM', () => {
  const image = Buffer.concat([...rawImage(source())]);
  expect(image.length).toBe(0x6000);
  expect([...image].filter((_, i) => i % 0x1000 === 0xfff)).toEqual([1, 0, 0, 0, 5, 6]);
});

test('the ELF core says where each region lies, and holds the registers', () => {
  const file = Buffer.concat([...elfCore(source())]);
  expect(file.subarray(0, 7).toString('hex')).toBe('7f454c46020101');
  expect([file.readUInt16LE(16), file.readUInt16LE(18), file.readUInt16LE(56)]).toEqual([4, 62, 3]);
  const header = (i: number) => {
    const at = 64 + i * 56;
    return {
      type: file.readUInt32LE(at),
      offset: Number(file.readBigUInt64LE(at + 8)),
      physical: Number(file.readBigUInt64LE(at + 24)),
      size: Number(file.readBigUInt64LE(at + 32)),
    };
  };
  const loads = [header(1), header(2)];
  expect(loads.map(({ type, physical, size }) => [type, physical, size])).toEqual([
    [1, 0, 0x1000],
    [1, 0x4000, 0x2000],
  ]);
  for (const { offset, physical } of loads) expect(file[offset]).toBe(1 + physical / 0x1000);
  expect(file.length).toBe(loads[1]!.offset + loads[1]!.size);
  const note = header(0);
  expect(note.type).toBe(4);
  const status = note.offset + 12 + 8;
  expect(file.subarray(note.offset + 12, status).toString('latin1')).toBe('CORE\0\0\0\0');
  const register = (i: number): bigint => file.readBigUInt64LE(status + 112 + i * 8);
  // user_regs_struct: r15 is first, rip the 17th, cs, rflags, rsp follow.
  expect([register(0), register(16), register(17), register(19)]).toEqual([15n, 0xffff_f800_0000_1234n, 0x10n, 0x7fn]);
});
