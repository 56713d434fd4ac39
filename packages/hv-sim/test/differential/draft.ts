import { CodeExt, Instruction, Register } from 'iced-x86';
import { Random } from './random.js';
import { type Bitness, initialRegisters, LAYOUT, MEMORY_SIZE, type MemoryBytes, type Registers } from './test-case.js';
import type { Shift } from './undefined-flags.js';

/** Thrown when the operands that were drawn do not go together; the generator draws again. */
export class Retry extends Error {}

/** A case while it is being put together. */
export class Draft {
  readonly random: Random;
  readonly instruction = new Instruction();
  readonly before: Registers;
  readonly patches: MemoryBytes[] = [];
  mnemonic = '';
  rip = 0;
  /** Bytes of the memory operand, 0 when the instruction does not access it. */
  memorySize = 0;
  /** Size of the operation. */
  operandBits = 0;
  /** Linear address of the memory operand, when it has one inside the layout. */
  memoryAddress: number | undefined;
  forceMemory = false;
  /** 32-bit address size. */
  address32 = false;
  /** Only addresses in the writable data, for operands that decide where execution goes. */
  safeAddress = false;
  /** Keeps RSP where it is pushed to and popped from. */
  usesStack = false;
  shift: Shift | undefined;
  lastImmediate = 0;
  readonly operandRegisters: Register[] = [];
  #immediates: bigint[] = [];
  #pinned = 0;

  constructor(
    readonly form: string,
    readonly seed: number,
    readonly bitness: Bitness = 64,
  ) {
    this.before = initialRegisters(seed, bitness);
    this.address32 = bitness === 32;
    this.random = new Random(seed ^ 0x64726166);
  }

  /** How many general registers the code can name, and as many XMM registers. */
  get registers(): 8 | 16 {
    return this.bitness === 64 ? 16 : 8;
  }

  /** Whether a memory operand may lie in CS, which 32-bit code cannot write. */
  get mayUseCodeSegment(): boolean {
    return this.bitness === 64 || !this.safeAddress;
  }

  /** Bytes of a return address. */
  get pointerSize(): 4 | 8 {
    return this.bitness === 64 ? 8 : 4;
  }

  /** Whether the form takes a LOCK prefix. */
  get lockable(): boolean {
    const info = CodeExt.opCode(this.instruction.code);
    const lockable = info.canUseLockPrefix;
    info.free();
    return lockable;
  }

  /** Value of a 64-bit register before the case. */
  gpr(number: number): bigint {
    return this.before.gpr[number] as bigint;
  }

  /** Whether something depends on the value of that register already. */
  isPinned(number: number): boolean {
    return (this.#pinned & (1 << number)) !== 0;
  }

  /** Gives a register the value that it must have. */
  pin(number: number, value: bigint): void {
    if (this.isPinned(number)) throw new Retry();
    this.keep(number);
    this.before.gpr[number] = BigInt.asUintN(this.bitness, value);
  }

  /** Gives a register a value, unless something else depends on it. Says whether it did. */
  tryPin(number: number, value: bigint): boolean {
    if (this.isPinned(number)) return false;
    this.pin(number, value);
    return true;
  }

  /** Declares that something depends on the value the register has. */
  keep(number: number): void {
    this.#pinned |= 1 << number;
  }

  /** Values for the immediates to come, in order. */
  presetImmediates(...values: bigint[]): void {
    this.#immediates = values;
  }

  /** The next preset immediate. */
  immediate(): bigint | undefined {
    return this.#immediates.shift();
  }

  /** Writes into memory before the case; says whether all of it lies in the writable data. */
  patch(address: number, bytes: Uint8Array): boolean {
    const offset = address - LAYOUT.data;
    if (offset < 0 || offset + bytes.length > LAYOUT.dataSize) return false;
    this.patches.push({ offset, bytes });
    return true;
  }

  /** {@link patch} with a little-endian value. */
  patchValue(address: number, value: bigint, size: number): boolean {
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i++) bytes[i] = Number((value >> BigInt(8 * i)) & 0xffn);
    return this.patch(address, bytes);
  }

  /** Where a memory access of that size goes: mostly data, now and then a page crossing, the read-only page or nothing mapped. */
  target(size: number, alignment = 1): number {
    const { random } = this;
    const extent = Math.max(size, 1);
    const choice = this.safeAddress ? 99 : random.below(100);
    if (choice < 2)
      return random.oneIn(2)
        ? LAYOUT.data - random.below(extent) - 1
        : LAYOUT.data + MEMORY_SIZE - random.below(extent);
    if (choice < 4) return LAYOUT.readOnly + random.below(LAYOUT.readOnlySize - extent);
    if (choice < 6) return LAYOUT.readOnly - random.below(extent);
    if (choice < 20) return LAYOUT.data + 0x1000 * (1 + random.below(3)) - random.below(extent);
    const address = LAYOUT.data + 0x100 + random.below(LAYOUT.dataSize - 0x200);
    if (alignment > 1 && !random.oneIn(8)) return address & -alignment;
    return random.oneIn(2) ? address & -8 : address;
  }

  /** A stack pointer with room on both sides. */
  stackPointer(): number {
    const { random } = this;
    const choice = random.below(100);
    if (choice < 3) return LAYOUT.data + random.below(9);
    if (choice < 5) return LAYOUT.readOnly + random.below(9);
    if (choice < 12) return LAYOUT.data + 0x1000 * (1 + random.below(3)) + random.below(16) - 8;
    const address = LAYOUT.data + 0x400 + random.below(LAYOUT.dataSize - 0x800);
    return random.oneIn(5) ? address : address & -8;
  }

  /** A place in the code pages outside of the instruction. */
  branchTarget(short: boolean): number {
    const { random } = this;
    if (short) return random.oneIn(2) ? this.rip + 24 + random.below(96) : this.rip - 8 - random.below(96);
    for (;;) {
      const target = LAYOUT.code + 0x10 + random.below(LAYOUT.codeSize - 0x20);
      if (target < this.rip - 1 || target > this.rip + 24) return target;
    }
  }

  /** A segment register operand. */
  segmentOperand(): Register {
    return this.random.pick(this.mnemonic === 'Mov' && this.form.startsWith('Mov_Sreg') ? LOADABLE : READABLE);
  }
}

const READABLE = [Register.ES, Register.CS, Register.SS, Register.DS, Register.FS, Register.GS];
// A load of FS or GS would take the base away that the host's C library needs.
const LOADABLE = [Register.ES, Register.DS, Register.SS];
