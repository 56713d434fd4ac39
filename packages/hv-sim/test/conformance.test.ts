import type { Capability } from '@introd/glue';
import {
  type ConformanceGuest,
  type ConformanceTarget,
  conformanceInstructions,
  conformanceSuite,
  createMockPort,
} from '@introd/glue/testing';
import { decodeInto, emptyInstruction, Mnemonic } from '@introd/x86/decoder';
import { describe, expect, it, test } from 'vitest';
import { enterLongMode, Machine } from '../src/index.js';

const capabilities: readonly Capability[] = [
  'memory',
  'write',
  'map',
  'registers',
  'pause',
  'exits',
  'page-access',
  'inject',
];

function start(guest: ConformanceGuest): ConformanceTarget {
  const machine = new Machine({ memory: guest.memoryRegions, vcpus: guest.entries.length });
  for (const { gpa, bytes } of guest.image) expect(machine.writePhysical(gpa, bytes)).toBe(true);
  guest.entries.forEach((entry, index) => {
    const record = machine.vcpu(index);
    enterLongMode(record, { cr3: entry.cr3, rip: entry.rip, rsp: entry.rsp });
    expect([record.get32('csSelector'), record.get32('ssSelector')]).toEqual([entry.cs, entry.ss]);
    record.set('gdtBase', entry.gdt.base);
    record.set32('gdtLimit', entry.gdt.limit);
    record.set('idtBase', entry.idt.base);
    record.set32('idtLimit', entry.idt.limit);
    machine.setActive(index, true);
  });
  return {
    port: machine.openPort(),
    runUnattended: (milliseconds) => {
      machine.run(milliseconds * 1000);
    },
    reopen: () => machine.openPort(),
  };
}

conformanceSuite({ name: 'hv-sim', capabilities, vcpus: 2, start, framework: { describe, it } });

conformanceSuite({
  name: 'hv-sim behind the mock',
  capabilities,
  vcpus: 2,
  start(guest) {
    const target = start(guest);
    return { ...target, port: createMockPort(target.port).port };
  },
  framework: { describe, it },
});

test("the conformance guest's hand-written bytes are the instructions that their text says", () => {
  const instruction = emptyInstruction();
  for (const { program, text, bytes, gpa } of conformanceInstructions()) {
    const name = `${program}: ${text}`;
    expect(decodeInto(bytes, BigInt(gpa), 64, instruction), name).toBeUndefined();
    expect(instruction.length, name).toBe(bytes.length);
    const written = text.replace(/^(rep|lock) /, '').split(' ')[0]!;
    const mnemonic = Mnemonic[instruction.mnemonic]!.toLowerCase();
    expect([mnemonic, mnemonic === 'jne' ? 'jnz' : mnemonic], name).toContain(written);
  }
});
