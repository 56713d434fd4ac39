import { Access, u32Index, type VcpuRecord, Verdict } from '@introd/abi';

const RIP = u32Index('rip');

/** How often in a row a VCPU may be sent back to the same RIP. */
export const MAX_RETRIES = 256;
/** How often in a row the handling of a VCPU's exit may fail before it is answered with the fallback verdict. */
const MAX_FAILURES = 3;

/** What a VCPU did at its last exits: whether it gets on, and what it was allowed to execute. */
export class VcpuProgress {
  #retryLow = 0;
  #retryHigh = 0;
  #retries = 0;
  /** Exits in a row whose handling threw. */
  #failures = 0;
  /** Execution at this RIP and GPA was allowed at the last exit (behaviour 1.2.4, step 14). */
  #executed = false;
  #executedLow = 0;
  #executedHigh = 0;
  #executedGpa = 0;

  /** Counts an exit that ends with the VCPU at the same RIP. @returns false once it has been sent back there too often */
  mayRetry(registers: Uint32Array): boolean {
    if (this.#retryLow !== registers[RIP] || this.#retryHigh !== registers[RIP + 1]) {
      this.#retryLow = registers[RIP]!;
      this.#retryHigh = registers[RIP + 1]!;
      this.#retries = 0;
    }
    if (++this.#retries <= MAX_RETRIES) {
      return true;
    }
    this.#retries = 0;
    return false;
  }

  /** Counts an exit whose handling threw. @returns false once that has happened too often in a row */
  mayFail(): boolean {
    if (this.#failures++ < MAX_FAILURES) {
      return true;
    }
    this.#failures = 0;
    return false;
  }

  /** An exit was handled without anything thrown. */
  noteHandled(): void {
    this.#failures = 0;
  }

  /** Whether an exit is a further one of the instruction whose execution was allowed at the last exit. */
  isReexecution(vcpu: VcpuRecord, access: Access): boolean {
    if (!this.#executed) {
      return false;
    }
    const registers = vcpu.u32;
    const same = this.#executedLow === registers[RIP] && this.#executedHigh === registers[RIP + 1];
    this.#executed = same && (access !== Access.EXECUTE || this.#executedGpa !== vcpu.exitGpa);
    return this.#executed;
  }

  /** The hooks gave a verdict about an access. */
  noteVerdict(vcpu: VcpuRecord, access: Access, verdict: Verdict): void {
    this.#retries = 0;
    if (verdict === Verdict.ALLOWED && (access & Access.EXECUTE) !== 0) {
      const registers = vcpu.u32;
      this.#executed = true;
      this.#executedLow = registers[RIP]!;
      this.#executedHigh = registers[RIP + 1]!;
      this.#executedGpa = vcpu.exitGpa;
    }
  }
}
