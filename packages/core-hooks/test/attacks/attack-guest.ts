import type { Gpa } from '@introd/abi';
import { Assembler } from '@introd/x86/encoder';
import type { EngineOptions } from '../../src/index.js';
import { CODE, DATA, kernel, STACK } from '../guest-layout.js';
import { microMachine, prepare, SimGuest } from '../sim-guest.js';

/** Where exceptions of an {@link attackGuest} lead: vector n writes n to {@link FAULT} and halts. */
const STUBS = CODE + 0x4000;
const IDT = DATA + 0x8000;
const GDT = DATA + 0x9000;
/** The vector of the exception that ended the guest; {@link NO_FAULT} when none did. */
export const FAULT = DATA + 0xa000;
export const NO_FAULT = 0xff;

function assemble(text: string, gpa: number): Uint8Array {
  return new Assembler().section('code', kernel(gpa)).assemble(text).link().sections.get('code')!.bytes;
}

/** A micro guest in ring 0 of 64-bit mode that runs assembly text, with RBX at {@link DATA}, ending at its HLT or at the first exception. */
export function attackGuest(text: string, options: { vcpus?: number; seed?: number } & EngineOptions = {}): SimGuest {
  const { vcpus, seed, ...engineOptions } = options;
  const machine = microMachine({
    ...(vcpus === undefined ? {} : { vcpus }),
    ...(seed === undefined ? {} : { seed }),
  });
  prepare(machine);
  machine.writePhysical(CODE as Gpa, assemble(`${text}\nhlt`, CODE));
  for (let vector = 0; vector < 32; vector++) {
    const stub = kernel(STUBS + vector * 32);
    const code = assemble(`mov rax, ${kernel(FAULT)}\nmov byte ptr [rax], ${vector}\nhlt`, STUBS + vector * 32);
    machine.writePhysical((STUBS + vector * 32) as Gpa, code);
    const gate = new DataView(new ArrayBuffer(16));
    gate.setUint16(0, Number(stub & 0xffffn), true);
    gate.setUint16(2, 0x10, true);
    gate.setUint16(4, 0x8e00, true);
    gate.setUint16(6, Number((stub >> 16n) & 0xffffn), true);
    gate.setUint32(8, Number(stub >> 32n), true);
    machine.writePhysical((IDT + vector * 16) as Gpa, new Uint8Array(gate.buffer));
  }
  machine.writePhysical(FAULT as Gpa, Uint8Array.of(NO_FAULT));
  const descriptors = new DataView(new ArrayBuffer(32));
  descriptors.setBigUint64(0x10, 0x00af_9b00_0000_ffffn, true);
  descriptors.setBigUint64(0x18, 0x00cf_9300_0000_ffffn, true);
  machine.writePhysical(GDT as Gpa, new Uint8Array(descriptors.buffer));
  for (let index = 0; index < machine.vcpuCount; index++) {
    const vcpu = machine.vcpu(index);
    vcpu.set('idtBase', kernel(IDT));
    vcpu.set32('idtLimit', 0x1ff);
    vcpu.set('gdtBase', kernel(GDT));
    vcpu.set32('gdtLimit', 31);
    vcpu.set('rbx', kernel(DATA));
    vcpu.set('rsp', kernel(STACK + index * 0x1000));
  }
  return new SimGuest(machine, engineOptions);
}

/** Bytes of the guest at a physical address. */
export function bytesAt(guest: SimGuest, gpa: number, length: number): number[] {
  const bytes = new Uint8Array(length);
  guest.machine.readPhysical(gpa as Gpa, bytes);
  return [...bytes];
}
