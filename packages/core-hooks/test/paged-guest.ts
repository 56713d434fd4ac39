import type { Gpa } from '@introd/abi';
import { enterLongMode, enterProtectedMode, Machine, type MachineOptions } from '@introd/hv-sim';
import { Assembler } from '@introd/x86/encoder';
import type { EngineOptions } from '../src/index.js';
import { CODE, DATA, STACK } from './guest-layout.js';
import { type Mode, SHAPES } from './naive-walker.js';
import { SimGuest } from './sim-guest.js';

const RAM = 4 * 1024 * 1024;
/** RAM above 4 GiB: what only the upper half of an entry can lead to. */
export const HIGH = 0x1_0000_0000;
const ROOT = 0x1000;

/** A guest on the machine whose linear addresses of the first 2 MiB (4 MiB in the 32-bit mode) are its physical ones, in a mode of one's choice. */
export class PagedGuest extends SimGuest {
  /** Physical addresses of the entries that lead to {@link DATA}, from the root down. */
  readonly way: readonly number[];
  readonly entrySize: number;
  readonly #mode: Mode;
  readonly #started = new Set<number>();

  constructor(mode: Mode, options: Omit<MachineOptions, 'memory'> = {}, engine: EngineOptions = {}) {
    const memory = [
      { start: 0 as Gpa, size: RAM },
      { start: HIGH as Gpa, size: 0x10_0000 },
    ];
    super(asleep(new Machine({ ...options, memory })), engine);
    this.#mode = mode;
    const { levels, entry } = SHAPES[mode];
    this.entrySize = entry;
    const last = levels.length - 1;
    this.way = levels.map((_, level) => ROOT + level * 4096 + (level === last ? (DATA >> 12) * entry : 0));
    for (const [level, at] of this.way.entries()) {
      if (level < last) {
        // Above the directory of PAE, R/W and U/S are reserved.
        this.write(at, BigInt(ROOT + (level + 1) * 4096) | (mode === 'pae' && level === 0 ? 1n : 3n));
      }
    }
    for (let page = 0; page < 512; page++) {
      this.write(ROOT + last * 4096 + page * entry, BigInt(page * 4096) | 3n);
    }
  }

  /** Lets the VCPUs go that were started, and runs as {@link SimGuest.run} does: before, no race lets them run under the engine's calls. */
  override run(maxSteps: number): number {
    for (const index of this.#started) {
      this.machine.setActive(index, true);
    }
    return super.run(maxSteps);
  }

  /** Writes an entry without the engine. */
  write(at: number, value: bigint): void {
    const bytes = new Uint8Array(new BigUint64Array([value]).buffer);
    this.machine.writePhysical(at as Gpa, bytes.subarray(0, this.entrySize));
  }

  /** Reads `size` bytes, 8 at most. */
  read(at: number, size: number): bigint {
    const bytes = new Uint8Array(8);
    this.machine.readPhysical(at as Gpa, bytes.subarray(0, size));
    return new BigUint64Array(bytes.buffer)[0]!;
  }

  get cr3(): bigint {
    return BigInt(ROOT);
  }

  /** Puts code at an address and a VCPU before it. The code ends with HLT. */
  start(source: string, index = 0, at = CODE): void {
    const wide = this.#mode === '4-level' || this.#mode === '5-level';
    const unit = new Assembler({ bitness: wide ? 64 : 32 }).section('code', BigInt(at)).assemble(source).link();
    this.machine.writePhysical(at as Gpa, unit.sections.get('code')!.bytes);
    this.#started.add(index);
    const vcpu = this.machine.vcpu(index);
    const stack = STACK + index * 0x1000;
    if (this.#mode === '32-bit' || this.#mode === 'pae') {
      enterProtectedMode(vcpu, { paging: this.#mode, cr3: this.cr3, eip: at, esp: stack });
    } else {
      enterLongMode(vcpu, {
        levels: this.#mode === '5-level' ? 5 : 4,
        cr3: this.cr3,
        rip: BigInt(at),
        rsp: BigInt(stack),
      });
    }
  }
}

function asleep(machine: Machine): Machine {
  for (let index = 0; index < machine.vcpuCount; index++) {
    machine.setActive(index, false);
  }
  return machine;
}
