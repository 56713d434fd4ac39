import { GENERAL_REGISTERS, gpa, type VcpuRecord } from '@introd/abi';
import { enterLongMode, Machine } from '@introd/hv-sim';
import { emulateShellcode } from '@introd/x86/shellcode';
import fc from 'fast-check';
import { describe, expect, inject, test } from 'vitest';
import { type RandomProgram, randomProgram } from './random-programs.js';

const scale = inject('scale');
const PML4 = 0x1000;
const PDPT = 0x2000;
const CODE = 0x1_0000;
const STACK = 0x3_0000;
const STACK_SIZE = 0x2000;
/** What RBX points to, and where RSP is. */
const DATA = STACK + 0x800;
const TOP = STACK + 0x1800;
/** More than any program has. */
const MAX_STEPS = 1000;

const machine = new Machine({ memory: [{ start: gpa(0), size: 0x10_0000 }] });

function prepare(vcpu: VcpuRecord, bitness: 32 | 64, ring: 0 | 3): void {
  enterLongMode(vcpu, { cr3: BigInt(PML4), rip: BigInt(CODE), rsp: BigInt(TOP) });
  // Flat segments of the ring; without EFER.LMA and paging the code is 32-bit (SDM vol. 3A, 3.4.5).
  vcpu.set32('csSelector', ring === 0 ? 0x10 : 0x33);
  vcpu.set32('ssSelector', ring === 0 ? 0x18 : 0x2b);
  const level = ring << 5;
  vcpu.set32('csAttributes', (bitness === 64 ? 0xa09b : 0xc09b) | level);
  vcpu.set32('ssAttributes', 0xc093 | level);
  if (bitness === 64) return;
  for (const name of ['ds', 'es'] as const) {
    vcpu.set32(`${name}Selector`, ring === 0 ? 0x18 : 0x2b);
    vcpu.set32(`${name}Attributes`, 0xc093 | level);
    vcpu.set32(`${name}Limit`, 0xffff_ffff);
    vcpu.set(`${name}Base`, 0n);
  }
  vcpu.set('cr0', 0x33n);
  vcpu.set('efer', 0n);
}

function onMachine(program: RandomProgram, ring: 0 | 3, registers: readonly bigint[]) {
  machine.reset();
  const put64 = (at: number, value: bigint): void => {
    machine.writePhysical(gpa(at), new Uint8Array(BigUint64Array.of(value).buffer));
  };
  put64(PML4, BigInt(PDPT) | 7n);
  put64(PDPT, 0x87n);
  machine.writePhysical(gpa(CODE), program.code);
  machine.writePhysical(gpa(STACK), new Uint8Array(STACK_SIZE));
  const vcpu = machine.vcpu(0);
  prepare(vcpu, program.bitness, ring);
  GENERAL_REGISTERS.forEach((name, i) => {
    vcpu.set(name, registers[i] as bigint);
  });
  vcpu.set('rflags', BigInt(program.flags));
  // Up to the INT3, one at a time: how many a repeated instruction counts for is the machine's own affair.
  const last = BigInt(CODE + program.code.length - 1);
  let end: string = 'budget';
  for (let step = 0; step < MAX_STEPS && end === 'budget' && vcpu.get('rip') !== last; step++) end = machine.run(1);
  const stack = new Uint8Array(STACK_SIZE);
  machine.readPhysical(gpa(STACK), stack);
  return {
    end,
    state: [...GENERAL_REGISTERS.map((name) => vcpu.get(name)), vcpu.get('rip'), vcpu.get('rflags')].map((v) =>
      v.toString(16),
    ),
    stack,
  };
}

describe('the emulator and the embedded machine', () => {
  test.each([0, 3] as const)('come to the same registers, flags and memory with random programs in ring %d', (ring) => {
    let executed = 0;
    fc.assert(
      fc.property(randomProgram, (program) => {
        const registers = program.registers.map((value, i) =>
          i === 3 ? BigInt(DATA) : i === 4 ? BigInt(TOP) : i > 7 && program.bitness === 32 ? 0n : value,
        );
        const emulated = emulateShellcode({
          code: program.code,
          codeBase: BigInt(CODE),
          bitness: program.bitness,
          ring,
          registers: Object.fromEntries(GENERAL_REGISTERS.map((name, i) => [name, registers[i]])),
          rflags: BigInt(program.flags),
          stack: new Uint8Array(STACK_SIZE),
          stackBase: BigInt(STACK),
          maxInstructions: MAX_STEPS,
        });
        expect(emulated.status).toBe('halted');
        expect(emulated.rip).toBe(BigInt(CODE + program.code.length - 1));
        const real = onMachine(program, ring, registers);
        expect(real.end).toBe('budget');
        const state = [...GENERAL_REGISTERS.map((name) => emulated.registers[name]), emulated.rip, emulated.rflags];
        expect(state.map((value) => value.toString(16))).toEqual(real.state);
        expect(Buffer.compare(emulated.stack, real.stack)).toBe(0);
        executed += emulated.steps;
      }),
      { numRuns: 1_000 * scale },
    );
    expect(executed).toBeGreaterThan(1_000);
  });
});
