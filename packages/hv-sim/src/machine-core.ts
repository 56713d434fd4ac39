import { readFileSync } from 'node:fs';
import { type Gfn, PAGE_SIZE, VCPU_RECORD, VCPU_RECORD_VERSION, VcpuRecord, XSAVE_AREA } from '@introd/abi';
import { initXsaveState } from '@introd/glue';
import { HvSimError } from './error.js';
import { frameTables, MACHINE_LIMITS, MEMORY_MAP } from './memory-map.js';
import type { PhysicalMap } from './physical-memory.js';
import { Translator } from './translate.js';
import { VCPU_BLOCK_SIZE, VCPU_SIDE } from './vcpu-block.js';

/** What wasm/cpu.wasm exports: assembly/machine.ts. */
interface CpuExports {
  define(regions: number, frames: number, rights: number, flags: number, ops: number, ram: number): void;
  reset(quantum: number, seeded: number, seed: number): void;
  run(budget: number, untilExit: number): number;
  takeExit(): number;
  waitingExit(): number;
  reply(index: number, action: number): void;
  hold(index: number, instructions: number): void;
  setExit(kind: number, register: number, on: number): number;
  attach(on: number): void;
  setObserving(on: number): void;
  markStale(): void;
  invalidateCode(frame: number): void;
  currentTime(): number;
  currentInstructions(): number;
  currentShutdown(): number;
  currentShutdownVcpu(): number;
  currentPowerOffCode(): number;
  currentLostInjections(): number;
  debugSize(): number;
  clearDebug(): void;
  readVcpuMsr(index: number, msr: number): number;
  msrLow(): number;
  msrHigh(): number;
}

/** Number of the guest's record among the VCPU blocks. */
export const GUEST_BLOCK: number = MACHINE_LIMITS.VCPUS;

/** Flag of a frame that holds decoded instructions, as assembly/physical.ts has it. */
const FRAME_CODE = 1;

let compiled: WebAssembly.Module | undefined;

function compile(): WebAssembly.Module {
  if (compiled) return compiled;
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = new Uint8Array(readFileSync(new URL('../wasm/cpu.wasm', import.meta.url)));
  } catch (cause) {
    throw new HvSimError('ERR_HV_SIM_NOT_BUILT', 'the machine has not been compiled: wasm/cpu.wasm is missing', {
      cause,
      hint: 'run `npm run build` in packages/hv-sim',
    });
  }
  compiled = new WebAssembly.Module(bytes);
  return compiled;
}

/** The WebAssembly instance of one machine and the views into its memory. */
export class MachineCore {
  readonly cpu: CpuExports;
  /** All of linear memory; it never grows, so the views stay valid. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same as 32-bit words. */
  readonly words: Uint32Array<ArrayBuffer>;
  /** Offset of guest RAM in {@link bytes}. */
  readonly ram: number;
  readonly records: readonly VcpuRecord[];
  readonly guestRecord: VcpuRecord;
  /** Debug output taken from the machine. */
  debugText = '';
  onInstruction: ((vcpu: number) => void) | undefined;
  readonly #tables: ReturnType<typeof frameTables>;
  /** Nothing has run or been written yet: what is zero need not be filled, which would make all of RAM resident. */
  #fresh = true;

  constructor(
    readonly physical: PhysicalMap,
    vcpus: number,
  ) {
    this.#tables = frameTables(physical.frames);
    this.ram = this.#tables.ram;
    const pages = Math.ceil(this.#tables.end / 0x1_0000);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const buffer = memory.buffer as ArrayBuffer;
    this.bytes = new Uint8Array(buffer);
    this.words = new Uint32Array(buffer);
    const translator = new Translator(buffer);
    const instance = new WebAssembly.Instance(compile(), {
      env: {
        memory,
        // Without assertions nothing of the machine aborts; the import stands for allocation, which it does not use.
        abort: () => {
          throw new Error('the machine aborted');
        },
      },
      machine: {
        translate: (
          code: number,
          available: number,
          offset: number,
          out: number,
          max: number,
          crossing: number,
          mode: number,
        ) => translator.translate(code, available, offset, out, max, crossing !== 0, mode),
        debugFull: () => this.takeDebug(),
        observed: (vcpu: number) => this.onInstruction?.(vcpu),
      },
    });
    this.cpu = instance.exports as unknown as CpuExports;
    const view = new DataView(buffer);
    let frame = 0;
    physical.regions.forEach(({ start, size }, i) => {
      const at = MEMORY_MAP.REGIONS + i * 16;
      view.setBigUint64(at, BigInt(start / PAGE_SIZE), true);
      view.setUint32(at + 8, size / PAGE_SIZE, true);
      view.setUint32(at + 12, frame, true);
      frame += size / PAGE_SIZE;
    });
    const { rights, flags, ops, ram } = this.#tables;
    this.cpu.define(physical.regions.length, physical.frames, rights, flags, ops, ram);
    this.records = Array.from({ length: vcpus }, (_, i) => this.#record(i));
    this.guestRecord = this.#record(GUEST_BLOCK);
  }

  #record(block: number): VcpuRecord {
    return new VcpuRecord(this.bytes.buffer, MEMORY_MAP.BLOCKS + block * VCPU_BLOCK_SIZE);
  }

  /**
   * Everything as at power-on: RAM zero, all rights, no decoded code.
   * @param seed draws order and length of the VCPUs' turns; without it they go round-robin
   */
  reset(quantum: number, seed?: number): void {
    const { rights, flags, end } = this.#tables;
    if (!this.#fresh) {
      this.bytes.fill(0, MEMORY_MAP.BLOCKS, MEMORY_MAP.BLOCKS + (GUEST_BLOCK + 1) * VCPU_BLOCK_SIZE);
      this.bytes.fill(0, flags, end);
    }
    this.#fresh = false;
    this.bytes.fill(7, rights, flags);
    this.debugText = '';
    this.onInstruction = undefined;
    [...this.records, this.guestRecord].forEach((record, i) => {
      record.set32('version', VCPU_RECORD_VERSION);
      record.set32('index', i);
      record.set('rflags', 2n);
      record.set('rip', 0xfff0n);
      // Values after reset: SDM vol. 3A, table 9-1; the APIC is in x2APIC mode already.
      record.set('cr0', 0x6000_0010n);
      record.set('dr6', 0xffff_0ff0n);
      record.set('dr7', 0x400n);
      record.set('xcr0', 1n);
      record.set('pat', 0x0007_0406_0007_0406n);
      record.set('apicBase', i === 0 ? 0xfee0_0d00n : 0xfee0_0c00n);
      initXsaveState(this.xsave(i));
    });
    this.cpu.reset(quantum, seed === undefined ? 0 : 1, seed ?? 0);
  }

  /** Forgets cached translations before the next instruction. */
  markStale(): void {
    this.cpu.markStale();
  }

  /** Second-level rights of the frame at a position in RAM. */
  rightsAt(position: number): number {
    return this.bytes[this.#tables.rights + Math.floor(position / PAGE_SIZE)]!;
  }

  setRightsAt(position: number, access: number): void {
    const at = this.#tables.rights + Math.floor(position / PAGE_SIZE);
    // Wider rights are found by the walk that the narrower ones force.
    if ((this.bytes[at]! & ~access) !== 0) this.cpu.markStale();
    this.bytes[at] = access;
  }

  /** Restores all rights of all frames. */
  clearRights(): void {
    this.bytes.fill(7, this.#tables.rights, this.#tables.flags);
    this.cpu.markStale();
  }

  /** Fills `target`; false when some byte is not RAM. */
  read(address: number, target: Uint8Array): boolean {
    if (!this.physical.covers(address, target.length)) return false;
    for (let done = 0; done < target.length; ) {
      const from = this.ram + this.physical.position(address + done);
      const length = Math.min(target.length - done, PAGE_SIZE - ((address + done) % PAGE_SIZE));
      target.set(this.bytes.subarray(from, from + length), done);
      done += length;
    }
    return true;
  }

  /** Writes `source`; false, and nothing is written, when some byte is not RAM. */
  write(address: number, source: Uint8Array): boolean {
    if (!this.physical.covers(address, source.length)) return false;
    for (let done = 0; done < source.length; ) {
      const position = this.physical.position(address + done);
      const length = Math.min(source.length - done, PAGE_SIZE - ((address + done) % PAGE_SIZE));
      this.beforeWrite(position);
      this.bytes.set(source.subarray(done, done + length), this.ram + position);
      done += length;
    }
    return true;
  }

  /** The frame at a position in RAM changes from outside. */
  beforeWrite(position: number): void {
    const frame = Math.floor(position / PAGE_SIZE);
    if ((this.bytes[this.#tables.flags + frame]! & FRAME_CODE) !== 0) this.cpu.invalidateCode(frame);
    // A translation that the old bytes gave must not outlive them.
    this.cpu.markStale();
  }

  /** Position in RAM of a frame, in bytes from its start; -1 when it is not RAM. */
  framePosition(frame: Gfn | number): number {
    return Number.isInteger(frame) ? this.physical.position(frame * PAGE_SIZE) : -1;
  }

  /** The live bytes of a frame. */
  page(frame: Gfn | number): Uint8Array | undefined {
    const position = this.framePosition(frame);
    return position < 0 ? undefined : this.bytes.subarray(this.ram + position, this.ram + position + PAGE_SIZE);
  }

  /** Index in {@link words} of a field of a VCPU's side area. */
  sideIndex(vcpu: number, field: keyof typeof VCPU_SIDE.offset): number {
    return (MEMORY_MAP.BLOCKS + vcpu * VCPU_BLOCK_SIZE + VCPU_RECORD.size + VCPU_SIDE.offset[field]) >>> 2;
  }

  /** The x87 and vector registers of a VCPU, as XSAVE_AREA has them. */
  xsave(vcpu: number): Uint8Array {
    const at = this.sideIndex(vcpu, 'xsave') * 4;
    return this.bytes.subarray(at, at + XSAVE_AREA.size);
  }

  /** Takes the debug output that the guest has written since the last call. */
  takeDebug(): void {
    const size = this.cpu.debugSize();
    if (size === 0) return;
    const text = this.bytes.subarray(MEMORY_MAP.DEBUG, MEMORY_MAP.DEBUG + size);
    this.debugText += String.fromCharCode(...text);
    this.cpu.clearDebug();
  }

  /** Runs for at most `budget` microseconds, more than 2^31 too. */
  run(budget: number, untilExit: boolean): number {
    const deadline = this.cpu.currentTime() + budget;
    let result = 0;
    do {
      result = this.cpu.run(Math.min(deadline - this.cpu.currentTime(), 0x3fff_ffff), untilExit ? 1 : 0);
    } while (result === 0 && this.cpu.currentTime() < deadline);
    if (this.cpu.debugSize() !== 0) this.takeDebug();
    return result;
  }
}
