import type { Gpa, VcpuRecord } from '@introd/abi';
import { enterLongMode, Machine, type MachineOptions } from '@introd/hv-sim';
import { Engine, type EngineOptions, type EngineProblem } from '../src/index.js';
import { CODE, kernel, PML4, pageTables, STACK } from './guest-layout.js';

/** RAM of a micro guest. */
const RAM = 4 * 1024 * 1024;

/** The machine of a micro guest: tables, code and a stack, nothing else. VCPUs run until they meet a HLT. */
export function microMachine(options: Omit<MachineOptions, 'memory'> = {}): Machine {
  return new Machine({ ...options, memory: [{ start: 0 as Gpa, size: RAM }] });
}

/** Machine code from hex digits. */
export function code(hex: string): Uint8Array {
  return Buffer.from(hex.replaceAll(' ', ''), 'hex');
}

/** Puts tables into a machine that was reset, and every VCPU into long mode at {@link CODE}, inactive ones included. */
export function prepare(machine: Machine): void {
  const tables = new DataView(new ArrayBuffer(5 * 4096));
  for (const [gpa, entry] of pageTables()) {
    tables.setBigUint64(gpa, entry, true);
  }
  machine.writePhysical(0 as Gpa, new Uint8Array(tables.buffer));
  for (let index = 0; index < machine.vcpuCount; index++) {
    enterLongMode(machine.vcpu(index), {
      cr3: BigInt(PML4),
      rip: kernel(CODE),
      rsp: kernel(STACK + index * 0x1000),
    });
  }
}

/** A prepared machine with an engine on its port. */
export class SimGuest {
  readonly engine: Engine;
  readonly problems: EngineProblem[] = [];

  constructor(
    readonly machine: Machine,
    options: EngineOptions = {},
  ) {
    this.engine = new Engine(machine.openPort(), options);
    this.engine.onProblem((problem) => this.problems.push(problem));
  }

  get vcpu(): VcpuRecord {
    return this.machine.vcpu(0);
  }

  /** Runs until the guest stops, at most so many steps. @returns steps taken */
  run(maxSteps: number): number {
    for (let step = 0; step < maxSteps; step++) {
      if (this.engine.step(10) === 'shutdown') {
        return step;
      }
    }
    throw new Error(`the guest did not stop in ${maxSteps} steps`);
  }

  close(): void {
    this.engine.close();
  }
}

/** The 8 bytes at a physical address. */
export function get64(machine: Machine, gpa: number): bigint {
  const bytes = new Uint8Array(8);
  machine.readPhysical(gpa as Gpa, bytes);
  return new DataView(bytes.buffer).getBigUint64(0, true);
}

export function put64(machine: Machine, gpa: number, value: bigint): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  machine.writePhysical(gpa as Gpa, bytes);
}
