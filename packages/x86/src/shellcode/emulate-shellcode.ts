import { GENERAL_REGISTERS, type GeneralRegister } from '@introd/abi';
import { instructionText } from '../instruction-text.js';
import { Abort } from './abort.js';
import { Emulation } from './emulation.js';
import type { EmulatedInstruction } from './instruction.js';
import { ByteState } from './memory-window.js';
import {
  SEGMENT_REGISTERS,
  type SegmentName,
  type ShellcodeOptions,
  type ShellcodeResult,
  type ShellcodeTraceStep,
} from './options.js';
import { ShellcodeFlag, type ShellcodeStatus } from './shellcode-flags.js';
import { requireValidOptions } from './valid-options.js';
import { VECTOR_SIZE } from './vector-operands.js';

const WORD = 0x1_0000_0000;
const RSP = 4;
/** Interrupts on, and the bit that is always 1. */
const INITIAL_FLAGS = 0x202n;
/** Selectors of Windows by bitness and ring. */
const SELECTORS: Readonly<Record<'32-0' | '32-3' | '64-0' | '64-3', Readonly<Record<SegmentName, number>>>> = {
  '32-0': { es: 0x10, cs: 0x08, ss: 0x10, ds: 0x10, fs: 0x30, gs: 0 },
  '32-3': { es: 0x23, cs: 0x1b, ss: 0x23, ds: 0x23, fs: 0x3b, gs: 0x23 },
  '64-0': { es: 0x18, cs: 0x10, ss: 0x18, ds: 0x18, fs: 0, gs: 0 },
  '64-3': { es: 0x2b, cs: 0x33, ss: 0x2b, ds: 0x2b, fs: 0x2b, gs: 0x53 },
};

/**
 * Executes code that was found where none should be, and notes what it does that programs do not. Whatever the bytes
 * are, it ends after {@link ShellcodeOptions.maxInstructions} steps and never throws by itself; what the callbacks throw
 * comes through.
 * @throws X86Error `ERR_X86_OPTIONS` when an option is not as {@link ShellcodeOptions} says, or unknown
 */
export function emulateShellcode(options: ShellcodeOptions): ShellcodeResult {
  requireValidOptions(options);
  const emulation = new Emulation(options);
  initialise(emulation, options);
  const run = new Run(emulation, options);
  const status = run.toEnd();
  return run.result(status);
}

function initialise(m: Emulation, options: ShellcodeOptions): void {
  const set = (halves: Uint32Array, index: number, value: bigint): void => {
    const cut = BigInt.asUintN(options.bitness, value);
    halves[2 * index] = Number(cut & 0xffff_ffffn);
    halves[2 * index + 1] = Number(cut >> 32n);
  };
  const { stack } = m.memory;
  const stackPointer = stack.baseLow + (stack.bytes.length >>> 1);
  m.general[2 * RSP] = stackPointer;
  m.general[2 * RSP + 1] = stack.baseHigh + Math.floor(stackPointer / WORD);
  GENERAL_REGISTERS.forEach((name, index) => {
    const value = options.registers?.[name];
    if (value !== undefined) set(m.general, index, value);
  });
  SEGMENT_REGISTERS.forEach((name, index) => {
    const segment = options.segments?.[name];
    m.selectors[index] = segment?.selector ?? SELECTORS[`${options.bitness}-${options.ring ?? 3}`][name];
    if (segment !== undefined) set(m.segmentBases, index, segment.base);
  });
  const tib = options.tibBase;
  const tibSegment = options.bitness === 64 ? 5 : 4;
  if (tib !== undefined && options.segments?.[SEGMENT_REGISTERS[tibSegment]!] === undefined) {
    set(m.segmentBases, tibSegment, tib);
  }
  const control = options.controlRegisters ?? {};
  for (const [name, number] of [
    ['cr0', 0],
    ['cr2', 2],
    ['cr3', 3],
    ['cr4', 4],
    ['cr8', 8],
  ] as const) {
    set(m.control, number, control[name] ?? 0n);
  }
  m.rflags = Number(BigInt.asUintN(32, options.rflags ?? INITIAL_FLAGS)) | 0;
  if (options.xmm !== undefined) {
    const bytes = new Uint8Array(options.xmm.buffer, options.xmm.byteOffset, options.xmm.byteLength);
    for (let register = 0; register < 16; register++) {
      m.vectors.set(bytes.subarray(16 * register, 16 * register + 16), VECTOR_SIZE * register);
    }
  }
  const rip = BigInt.asUintN(options.bitness, options.rip ?? options.codeBase);
  m.jump(Number(rip & 0xffff_ffffn), Number(rip >> 32n));
}

/** The loop over the instructions, and what it counts. */
class Run {
  readonly #m: Emulation;
  readonly #options: ShellcodeOptions;
  readonly #trace: TraceStep | undefined;
  #unique = 0;
  #nops = 0;
  #nulls = 0;
  /** Nothing but NOPs so far. */
  #sled = true;

  constructor(emulation: Emulation, options: ShellcodeOptions) {
    this.#m = emulation;
    this.#options = options;
    this.#trace = options.onInstruction === undefined ? undefined : new TraceStep(emulation, options.bitness);
  }

  /** Executes until something ends it. */
  toEnd(): ShellcodeStatus {
    const m = this.#m;
    const { memory } = m;
    const codeLength = memory.code.bytes.length;
    const stopOnDetection = this.#options.stopOnDetection === true;
    const limit = m.maxSteps;
    while (m.steps < limit) {
      m.steps++;
      if (stopOnDetection && memory.flags !== 0) return 'detected';
      const at = m.next;
      if (at < 0 || at >= codeLength) return 'rip-outside';
      const instruction = memory.fetched.known(at) ?? this.#fetch(at);
      if (typeof instruction === 'string') return instruction;
      this.#trace?.show(this.#options, instruction, at);
      m.start = at;
      m.next = at + instruction.length;
      m.instructions++;
      if (this.#sled) {
        if (instruction.nop) this.#nops++;
        else this.#sled = false;
      }
      if (instruction.nulls) this.#nulls++;
      try {
        instruction.execute(m, instruction);
      } catch (error) {
        if (!(error instanceof Abort)) throw error;
        m.next = at;
        return error.status;
      }
      if (m.status !== undefined) {
        m.next = at;
        return m.status;
      }
    }
    if (this.#nops * 100 >= m.steps * (this.#options.nopThreshold ?? 75) && this.#nops > 0) {
      memory.raise(ShellcodeFlag.NOP_SLED);
    }
    return 'limit';
  }

  #fetch(at: number): EmulatedInstruction | ShellcodeStatus {
    const { memory } = this.#m;
    const instruction = memory.fetched.fetch(at);
    if (instruction === 'incomplete') return 'rip-outside';
    if (instruction === 'invalid') return 'invalid-instruction';
    const { code } = memory;
    if (!code.any(at, 1, ByteState.EXECUTED)) {
      this.#unique++;
      code.mark(at, 1, ByteState.EXECUTED);
    }
    // Looked at only here: what is written later is fetched anew.
    if (code.any(at, instruction.length, ByteState.WRITTEN)) memory.raise(ShellcodeFlag.WRITE_SELF);
    return instruction;
  }

  /** Everything that came of it. */
  result(status: ShellcodeStatus): ShellcodeResult {
    const m = this.#m;
    const registers = {} as Record<GeneralRegister, bigint>;
    GENERAL_REGISTERS.forEach((name, index) => {
      registers[name] = wide(m.general[2 * index]!, m.general[2 * index + 1]!);
    });
    if (m.next >= 0) {
      m.codeAddress(m.next);
      m.ripLow = m.addressLow;
      m.ripHigh = m.addressHigh;
    }
    return {
      status,
      flags: m.memory.flags,
      registers,
      rflags: BigInt(m.rflags >>> 0),
      rip: wide(m.ripLow, m.ripHigh),
      xmm: lowHalves(m.vectors),
      steps: m.steps,
      uniqueAddresses: this.#unique,
      nops: this.#nops,
      nulls: this.#nulls,
      externalAccesses: m.memory.externalAccesses,
      code: m.memory.code.bytes,
      stack: m.memory.stack.bytes,
    };
  }
}

/** The one object that a trace is shown. */
class TraceStep implements ShellcodeTraceStep {
  readonly #m: Emulation;
  readonly #bitness: 32 | 64;
  #instruction: EmulatedInstruction | undefined;
  #at = 0;

  constructor(emulation: Emulation, bitness: 32 | 64) {
    this.#m = emulation;
    this.#bitness = bitness;
  }

  show(options: ShellcodeOptions, instruction: EmulatedInstruction, at: number): void {
    this.#instruction = instruction;
    this.#at = at;
    options.onInstruction?.(this);
  }

  get address(): bigint {
    this.#m.codeAddress(this.#at);
    return wide(this.#m.addressLow, this.#m.addressHigh);
  }

  get bytes(): Uint8Array {
    return this.#instruction!.bytes.slice();
  }

  get text(): string {
    return instructionText(this.#instruction!.bytes, this.address, this.#bitness);
  }

  get rflags(): bigint {
    return BigInt(this.#m.rflags >>> 0);
  }

  get flags(): number {
    return this.#m.memory.flags;
  }

  register(name: GeneralRegister): bigint {
    const index = GENERAL_REGISTERS.indexOf(name);
    return wide(this.#m.general[2 * index]!, this.#m.general[2 * index + 1]!);
  }
}

/** The XMM registers of the YMM registers. */
function lowHalves(vectors: Uint8Array): BigUint64Array {
  const low = new Uint8Array(16 * 16);
  for (let register = 0; register < 16; register++) {
    low.set(vectors.subarray(VECTOR_SIZE * register, VECTOR_SIZE * register + 16), 16 * register);
  }
  return new BigUint64Array(low.buffer);
}

function wide(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}
