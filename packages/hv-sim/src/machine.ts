import { type Gfn, type Gpa, ShutdownReason, type VcpuRecord } from '@introd/abi';
import type { FullPort, MemoryRegion } from '@introd/glue';
import { CHAOS_RULES, type ChaosOptions } from './chaos.js';
import { HvSimError } from './error.js';
import { MachineCore } from './machine-core.js';
import { MACHINE_LIMITS } from './memory-map.js';
import { checkOptions, integer, type OptionRules, oneOf, optionGroup, required } from './option-rules.js';
import { PhysicalMap, sortedRegions } from './physical-memory.js';
import { SimPort } from './port.js';
import { RACE_RULES, type RaceOptions } from './races.js';
import { unsupportedText } from './unsupported-text.js';

/** What a machine is made of. */
export interface MachineOptions {
  /** 1..8, default 1. */
  readonly vcpus?: number;
  /** RAM: page aligned, anywhere in 52 bits, together at most 2 GiB. */
  readonly memory: readonly MemoryRegion[];
  /** Unix time in milliseconds at which the machine's clock starts; default 2024-01-01. */
  readonly clockOrigin?: number;
  /** Instructions per VCPU and turn, default 100; with `interleave: 'seeded'` at most so many. */
  readonly quantum?: number;
  /** Whose turn comes next: that of the next VCPU (default), or of one drawn by seed, for a drawn number of instructions from 1 to the quantum. */
  readonly interleave?: 'round-robin' | 'seeded';
  /** Seed of all that is drawn, default 1. Uses its low 32 bits. */
  readonly seed?: number;
  readonly race?: RaceOptions;
  readonly chaos?: ChaosOptions;
}

/** Furthest time from 1970 that a Date can be, in milliseconds (ECMA-262, 21.4.1.1). */
const DATE_LIMIT = 8.64e15;

const MACHINE_RULES: OptionRules<MachineOptions> = {
  vcpus: integer('a number of VCPUs', 1, MACHINE_LIMITS.VCPUS),
  memory: required({
    mustBe: 'an array of regions { start, size }',
    accepts: (value) => Array.isArray(value) && value.every((region) => typeof region === 'object' && region !== null),
  }),
  clockOrigin: {
    mustBe: 'a Unix time in milliseconds',
    accepts: (value) => typeof value === 'number' && Math.abs(value) <= DATE_LIMIT,
  },
  quantum: integer('a number of instructions', 1, 1_000_000),
  interleave: oneOf('round-robin', 'seeded'),
  seed: { mustBe: 'an integer below 2^53', accepts: Number.isSafeInteger },
  race: optionGroup(RACE_RULES),
  chaos: optionGroup(CHAOS_RULES),
};

/** How {@link Machine.run} ended. */
export type RunResult = 'budget' | 'exit' | 'shutdown';

const RUN_RESULTS: readonly RunResult[] = ['budget', 'exit', 'shutdown'];

/**
 * An x86-64 machine in software. It runs machine code of protected and long mode, deterministically: the same program, options and
 * calls give the same instructions in the same order. It does not run by itself, only inside {@link run} and, while a
 * port is open, inside the port's calls.
 */
export class Machine {
  readonly #core: MachineCore;
  readonly #quantum: number;
  readonly #seed: number;
  readonly #interleave: 'round-robin' | 'seeded';
  readonly #race: RaceOptions;
  readonly #chaos: ChaosOptions;
  readonly #clockOrigin: number;
  #port: SimPort | undefined;

  /** @throws HvSimError ERR_HV_SIM_OPTIONS, ERR_HV_SIM_NOT_BUILT */
  constructor(options: MachineOptions) {
    checkOptions('Machine options', options, MACHINE_RULES);
    this.#quantum = options.quantum ?? 100;
    this.#seed = options.seed ?? 1;
    this.#interleave = options.interleave ?? 'round-robin';
    this.#race = options.race ?? {};
    this.#chaos = options.chaos ?? {};
    this.#clockOrigin = options.clockOrigin ?? Date.UTC(2024, 0, 1);
    this.#core = new MachineCore(new PhysicalMap(sortedRegions(options.memory)), options.vcpus ?? 1);
    this.reset();
  }

  /** Everything back to power-on: RAM zero, all rights, clock at 0, only VCPU 0 active. Closes an open port. */
  reset(): void {
    this.#port?.close();
    this.#core.reset(this.#quantum, this.#interleave === 'seeded' ? this.#seed : undefined);
    this.setActive(0, true);
  }

  /** Number of VCPUs, active or not. */
  get vcpuCount(): number {
    return this.#core.records.length;
  }

  /** RAM in ascending order. */
  get memoryRegions(): readonly MemoryRegion[] {
    return this.#core.physical.regions;
  }

  /**
   * The live registers of a VCPU: always the same object.
   * @throws HvSimError ERR_HV_SIM_NO_SUCH_VCPU
   */
  vcpu(index: number): VcpuRecord {
    const record = this.#core.records[index];
    if (!record) throw new HvSimError('ERR_HV_SIM_NO_SUCH_VCPU', `the machine has no VCPU ${index}`);
    return record;
  }

  /** Makes a VCPU take part, or not. @throws HvSimError ERR_HV_SIM_NO_SUCH_VCPU */
  setActive(index: number, active: boolean): void {
    this.vcpu(index);
    this.#core.words[this.#core.sideIndex(index, 'active')] = active ? 1 : 0;
  }

  /** Fills `target` from guest-physical memory; false when some byte is not RAM. */
  readPhysical(address: Gpa, target: Uint8Array): boolean {
    return this.#core.read(address, target);
  }

  /** Writes guest-physical memory; false, and nothing is written, when some byte is not RAM. */
  writePhysical(address: Gpa, source: Uint8Array): boolean {
    return this.#core.write(address, source);
  }

  /** The 4096 live bytes of a frame, to be read only; undefined when it is not RAM. */
  mapPage(frame: Gfn): Uint8Array | undefined {
    return this.#core.page(frame);
  }

  /**
   * Runs until `maxInstructions` have been executed (time that all VCPUs spend halted counts too, a microsecond as an
   * instruction), an exit waits in the open port, or the machine stops for good.
   */
  run(maxInstructions: number): RunResult {
    return RUN_RESULTS[this.#core.run(Math.max(0, Math.floor(maxInstructions)), true)]!;
  }

  /**
   * Has `fn` called after every instruction, with the number of the VCPU; `undefined` switches it off. Much slower. The
   * function may look at the machine, and must not run it.
   */
  observe(fn: ((vcpu: number) => void) | undefined): void {
    this.#core.onInstruction = fn;
    this.#core.cpu.setObserving(fn ? 1 : 0);
  }

  /** What the guest has written to the debug port, a character per byte. */
  get debugText(): string {
    this.#core.takeDebug();
    return this.#core.debugText;
  }

  clearDebugText(): void {
    this.#core.takeDebug();
    this.#core.debugText = '';
  }

  /** Instructions executed by all VCPUs. */
  get instructions(): number {
    return this.#core.cpu.currentInstructions();
  }

  /** Microseconds since power-on. */
  get time(): number {
    return this.#core.cpu.currentTime();
  }

  /** Unix time in milliseconds at power-on. */
  get clockOrigin(): number {
    return this.#clockOrigin;
  }

  /** Changes of rights that the open port has lost so far ({@link ChaosOptions}). */
  get lostRightsChanges(): number {
    return this.#port?.lostRightsChanges ?? 0;
  }

  /** Injections that the open port has lost so far ({@link ChaosOptions}). */
  get lostInjections(): number {
    return this.#port?.lostInjections ?? 0;
  }

  /** Why the machine has stopped for good. */
  get shutdownReason(): ShutdownReason | undefined {
    return (this.#core.cpu.currentShutdown() || undefined) as ShutdownReason | undefined;
  }

  /** What the guest wrote to the power-off port. */
  get powerOffCode(): number | undefined {
    return this.shutdownReason === ShutdownReason.POWER_OFF ? this.#core.cpu.currentPowerOffCode() : undefined;
  }

  /** What the guest used and the machine lacks: the VCPU with its mode, and the instruction with its address and bytes. */
  get unsupported(): string | undefined {
    if (this.shutdownReason !== ShutdownReason.UNSUPPORTED) return undefined;
    return unsupportedText(this.#core, this.#core.cpu.currentShutdownVcpu());
  }

  /**
   * Opens the machine's one port: from then on second-level rights and exits exist, until it is closed.
   * @throws HvSimError ERR_HV_SIM_PORT_OPEN
   */
  openPort(): FullPort {
    if (this.#port) throw new HvSimError('ERR_HV_SIM_PORT_OPEN', 'the port of this machine is open already');
    const behaviour = { race: this.#race, chaos: this.#chaos, seed: this.#seed };
    const port = new SimPort(this.#core, this.#clockOrigin, behaviour, () => {
      this.#port = undefined;
    });
    this.#port = port;
    return port;
  }
}
