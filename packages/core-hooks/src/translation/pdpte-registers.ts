import { PAGE_SIZE, u32Index, type VcpuRecord } from '@introd/abi';
import { RegisterGroup, type RegistersCapability } from '@introd/glue';
import type { PageCache } from './page-cache.js';
import { Paging, rootAddress } from './paging-mode.js';

const CR3 = u32Index('cr3');
const PDPTE0 = u32Index('pdpte0');
/** Words of the four registers. */
const WORDS = 8;
const PRESENT = 1;
/** Bits that a present entry must not have: a processor refuses to load it (SDM vol. 3A, table 4-8). */
const RESERVED_LOW = 0x1e6;
const RESERVED_HIGH = 0xfff0_0000;

/**
 * Keeps the PDPTE registers of PAE paging equal to the table in memory. A processor loads them with CR3 and does not look at memory again;
 * a guest that changes the table after that would execute other pages than those that a walk of memory finds.
 */
export class PdpteRegisters {
  readonly #port: RegistersCapability;
  readonly #pages: PageCache;

  constructor(port: RegistersCapability, pages: PageCache) {
    this.#port = port;
    this.#pages = pages;
  }

  /**
   * Loads the registers of a VCPU that stands at an exit with PAE paging anew, if they differ from memory. What exited begins again with them.
   * @throws what the backend throws
   */
  follow(vcpu: VcpuRecord, index: number): void {
    const registers = vcpu.u32;
    const root = rootAddress(Paging.PAE, registers[CR3]!, 0);
    const words = this.#pages.get(Math.floor(root / PAGE_SIZE))?.words;
    const from = (root % PAGE_SIZE) >>> 2;
    let changed = false;
    for (let at = 0; at < WORDS; at += 2) {
      let low = words?.[from + at] ?? 0;
      let high = words?.[from + at + 1] ?? 0;
      if ((low & PRESENT) === 0 || (low & RESERVED_LOW) !== 0 || (high & RESERVED_HIGH) !== 0) {
        low = 0;
        high = 0;
      }
      const register = PDPTE0 + at;
      const loaded = (registers[register]! & PRESENT) !== 0;
      if (loaded ? registers[register] !== low || registers[register + 1] !== high : low !== 0) {
        registers[register] = low;
        registers[register + 1] = high;
        changed = true;
      }
    }
    if (changed) {
      this.#port.storeRegisters(index, RegisterGroup.CONTROL);
    }
  }
}
