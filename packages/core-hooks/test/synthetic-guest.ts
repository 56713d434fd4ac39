import { Access, type ExitCause, type Gpa, type VcpuRecord } from '@introd/abi';
import { SyntheticPort, type SyntheticPortOptions } from '@introd/glue/testing';
import { Engine, type EngineOptions, type EngineProblem } from '../src/index.js';
import { CODE, kernel, PML4, pageTables, STACK } from './guest-layout.js';

/** EFER with LME, LMA, NXE and SCE; attributes of a flat 64-bit ring-0 code segment. */
const EFER = 0xd01n;
const CODE_64 = 0xa09b;

/** An engine on RAM without a processor: the test says what exits. */
export class SyntheticGuest {
  readonly port: SyntheticPort;
  readonly engine: Engine;
  readonly problems: EngineProblem[] = [];

  constructor(options: EngineOptions = {}, portOptions: SyntheticPortOptions = {}) {
    this.port = new SyntheticPort(portOptions);
    for (const [gpa, entry] of pageTables()) {
      this.put64(gpa, entry);
    }
    for (let index = 0; index < this.port.vcpuCount; index++) {
      const vcpu = this.port.vcpu(index);
      vcpu.set('cr3', BigInt(PML4));
      vcpu.set('efer', EFER);
      vcpu.set32('csAttributes', CODE_64);
      vcpu.set('rip', kernel(CODE));
      vcpu.set('rsp', kernel(STACK));
      vcpu.set('rflags', 2n);
    }
    this.engine = new Engine(this.port, options);
    this.engine.onProblem((problem) => this.problems.push(problem));
  }

  get vcpu(): VcpuRecord {
    return this.port.vcpu(0);
  }

  put64(gpa: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    this.port.writePhysical(gpa as Gpa, bytes);
  }

  get64(gpa: number): bigint {
    return this.engine.memory.read64(gpa as Gpa)!;
  }

  /** Writes machine code at {@link CODE} (or elsewhere) and lets RIP of VCPU 0 point there. */
  code(hex: string, at = CODE): void {
    this.engine.memory.writePhysical(at as Gpa, Buffer.from(hex.replaceAll(' ', ''), 'hex'));
    this.vcpu.set('rip', kernel(at));
  }

  /** Raises a violation at a physical address that is mapped at {@link kernel} and lets the engine answer it once. */
  violate(gpa: number, access: Access = Access.WRITE, cause?: ExitCause, size = 8): void {
    this.port.raiseViolation(0, {
      gpa: gpa as Gpa,
      gla: kernel(gpa),
      access,
      size,
      ...(cause === undefined ? {} : { cause }),
    });
    this.engine.step(1);
  }

  /** The same until the engine does not ask to see the exit again. @returns how often it did */
  settle(gpa: number, access: Access = Access.WRITE): number {
    for (let count = 0; ; count++) {
      const before = this.engine.counters.retries;
      this.violate(gpa, access);
      if (this.engine.counters.retries === before) {
        return count;
      }
    }
  }

  /** Has the engine drop what it knows of the guest's code, so that only hooks of the test are left. */
  forgetCode(): void {
    this.vcpu.set('rip', 0n);
    this.engine.flushInstructions();
    this.engine.step(0);
  }
}
