import { u32Index, type VcpuRecord, XSAVE_AREA } from '@introd/abi';
import type { RegistersCapability } from '@introd/glue';
import type { VectorRegisters } from '@introd/x86';

const INDEX = u32Index('index');
const XMM_SIZE = 16;
const YMM_SIZE = 32;
/** Vector registers that lie in an XSAVE area up to its AVX component; the upper 16 of AVX-512 do not. */
const REGISTERS = 16;
const NOTHING = new Uint8Array(0);

/**
 * The vector registers of the VCPU that stands at an exit, fetched from the backend when the first of them is asked for. Made once and
 * used for every exit.
 */
export class VectorState implements VectorRegisters {
  readonly #port: RegistersCapability;
  readonly #area = new Uint8Array(XSAVE_AREA.size);
  #vcpu: VcpuRecord | undefined;
  /** Bytes of the VCPU's whole area; 0 before it was fetched. */
  #size = 0;

  constructor(port: RegistersCapability) {
    this.#port = port;
  }

  /** Turns to a VCPU at a new exit, or at one before which its registers may have changed. */
  open(vcpu: VcpuRecord): void {
    this.#vcpu = vcpu;
    this.#size = 0;
  }

  /**
   * Fills `target` with the lower 16 or 32 bytes of a vector register.
   * @returns false for what the VCPU has not, or not in the components x87, SSE and AVX
   */
  readVector(register: number, target: Uint8Array): boolean {
    if (this.#vcpu === undefined || register >= REGISTERS || target.length > YMM_SIZE) {
      return false;
    }
    if (this.#size === 0) {
      this.#size = this.#port.readXsaveArea(this.#vcpu.u32[INDEX]!, this.#area);
    }
    if (target.length > XMM_SIZE && this.#size < XSAVE_AREA.size) {
      return false;
    }
    for (let at = 0; at < target.length; at++) {
      const from = at < XMM_SIZE ? XSAVE_AREA.offset.xmm + at : XSAVE_AREA.offset.ymmHigh + at - XMM_SIZE;
      target[at] = this.#area[from + register * XMM_SIZE]!;
    }
    return true;
  }

  /** Size in bytes of the XSAVE area for the VCPU's XCR0. */
  areaSize(): number {
    return this.#vcpu === undefined ? 0 : this.#port.readXsaveArea(this.#vcpu.u32[INDEX]!, NOTHING);
  }
}
