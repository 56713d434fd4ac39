import { lowMask, result, STATUS_FLAGS } from '../arithmetic.js';
import { INVALID_SELECTOR, UNSUPPORTED_OPERAND } from './abort.js';
import { type EmulatedInstruction, NO_REGISTER, type Operand, OperandKind } from './instruction.js';
import { EmulatedMemory } from './memory.js';
import type { ShellcodeOptions } from './options.js';
import type { ShellcodeStatus } from './shellcode-flags.js';
import { VECTOR_SIZE } from './vector-operands.js';

const WORD = 0x1_0000_0000;
const RSP = 4;
const CS = 1;
const SS = 2;

const ALWAYS_ONE = 2;
/** Selectors from here on are not of a Windows descriptor table. */
const SELECTOR_LIMIT = 0x80;

/** The processor of an emulation: registers, and the operands of an instruction. All values are unsigned 32-bit halves. */
export class Emulation {
  /** General registers: low and high halves in turn. */
  readonly general = new Uint32Array(32);
  /** YMM registers, whose low halves are the XMM registers. */
  readonly vectors = new Uint8Array(16 * VECTOR_SIZE);
  readonly mmx = new Uint8Array(8 * 8);
  readonly selectors = new Uint16Array(6);
  /** Segment bases in halves. */
  readonly segmentBases = new Uint32Array(12);
  /** CR0 to CR8 in halves. */
  readonly control = new Uint32Array(18);
  rflags = 0;
  readonly wide: boolean;
  readonly userMode: boolean;
  readonly like: 'processor' | 'bddisasm';
  readonly memory: EmulatedMemory;

  /** Offset of the instruction in the code, and of the next one; -1 when that is elsewhere. */
  start = 0;
  next = 0;
  /** RIP when {@link next} is -1. */
  ripLow = 0;
  ripHigh = 0;
  /** High half of what was read last. */
  high = 0;
  addressLow = 0;
  addressHigh = 0;
  /** Ends the emulation after the instruction. */
  status: ShellcodeStatus | undefined;
  /** Begun so far, a repeated one once. */
  instructions = 0;
  /** The same, and the elements of repeated ones: what the limit is for. */
  steps = 0;
  readonly maxSteps: number;
  /** Control and status of SSE: every exception masked, as Windows begins a thread. */
  mxcsr = 0x1f80;
  /** Address of the last x87 instruction. */
  fpuRipLow = 0;
  fpuRipHigh = 0;
  /** Status flags that instructions set. */
  readonly flagMask: number;

  /** @param options what is emulated */
  constructor(options: ShellcodeOptions) {
    this.wide = options.bitness === 64;
    this.userMode = options.ring !== 0;
    this.like = options.semantics ?? 'processor';
    this.flagMask = this.like === 'processor' ? STATUS_FLAGS : STATUS_FLAGS & ~0x10;
    this.maxSteps = options.maxInstructions ?? 256;
    this.memory = new EmulatedMemory(options);
  }

  /** Address of an offset of the code, in {@link addressLow} and {@link addressHigh}. */
  codeAddress(offset: number): void {
    const { baseLow, baseHigh } = this.memory.code;
    const low = baseLow + offset;
    this.addressLow = low >>> 0;
    this.addressHigh = this.wide ? (baseHigh + Math.floor(low / WORD)) >>> 0 : 0;
  }

  /** Goes to an address. */
  jump(low: number, high: number): void {
    this.next = this.memory.code.offsetOf(low, high, 1);
    this.ripLow = low;
    this.ripHigh = high;
  }

  /** Takes a near branch. */
  branch(instruction: EmulatedInstruction): void {
    const next = this.start + instruction.target;
    if (next >= 0 && next < this.memory.code.bytes.length && instruction.targetSize !== 2) {
      this.next = next;
      return;
    }
    this.codeAddress(this.start);
    const low = this.addressLow + instruction.target;
    const high = (this.addressHigh + Math.floor(low / WORD)) >>> 0;
    if (instruction.targetSize === 2) this.jump(low & 0xffff, 0);
    else this.jump(low >>> 0, this.wide ? high : 0);
  }

  /** Address of the instruction's memory operand, without the segment. */
  effectiveAddress(instruction: EmulatedInstruction): void {
    const { base, index } = instruction;
    let low = instruction.displacementLow;
    let high = instruction.displacementHigh;
    if (base !== NO_REGISTER) {
      low += this.general[2 * base]!;
      high += this.general[2 * base + 1]!;
    } else if (instruction.ripRelative) {
      this.codeAddress(this.start);
      low += this.addressLow;
      high += this.addressHigh;
    }
    if (index !== NO_REGISTER) {
      low += this.general[2 * index]! * instruction.scale;
      high += this.general[2 * index + 1]! * instruction.scale;
    }
    this.#setAddress(low, high, instruction.addressSize);
  }

  #setAddress(low: number, high: number, size: number): void {
    if (size === 8) {
      this.addressLow = low >>> 0;
      this.addressHigh = (high + Math.floor(low / WORD)) >>> 0;
    } else {
      this.addressLow = size === 4 ? low >>> 0 : low & 0xffff;
      this.addressHigh = 0;
    }
  }

  /** Moves the address by a distance of at most 53 bits, before the segment is added. */
  moveAddress(distance: number, size: number): void {
    const low = this.addressLow + (distance >>> 0);
    const high = this.addressHigh + Math.floor(distance / WORD);
    this.#setAddress(low, high, size);
  }

  /** Linear address of the instruction's memory operand. */
  linearAddress(instruction: EmulatedInstruction): void {
    this.effectiveAddress(instruction);
    if (instruction.segment !== NO_REGISTER) this.addSegment(instruction.segment);
  }

  /** Adds the base of a segment to the address. */
  addSegment(segment: number): void {
    const low = this.addressLow + this.segmentBases[2 * segment]!;
    const high = this.addressHigh + this.segmentBases[2 * segment + 1]!;
    this.#setAddress(low, high, this.wide ? 8 : 4);
  }

  /** Value of an operand: the low half; the high one is in {@link high}. */
  read(instruction: EmulatedInstruction, operand: Operand): number {
    switch (operand.kind) {
      case OperandKind.GENERAL: {
        this.high = operand.size === 8 ? this.general[2 * operand.register + 1]! : 0;
        return (this.general[2 * operand.register]! & operand.mask) >>> 0;
      }
      case OperandKind.IMMEDIATE:
        this.high = instruction.immediateHigh;
        return instruction.immediateLow;
      case OperandKind.MEMORY:
        this.linearAddress(instruction);
        return this.load(instruction, operand.size);
      case OperandKind.HIGH_BYTE:
        this.high = 0;
        return (this.general[2 * operand.register]! >>> 8) & 0xff;
      case OperandKind.SEGMENT:
        this.high = 0;
        return this.selectors[operand.register]!;
      case OperandKind.CONTROL:
        if (operand.register > 8 || operand.register === 1) throw UNSUPPORTED_OPERAND;
        this.high = this.wide ? this.control[2 * operand.register + 1]! : 0;
        return this.control[2 * operand.register]!;
      default:
        throw UNSUPPORTED_OPERAND;
    }
  }

  /** Loads up to 8 bytes at {@link addressLow}. */
  load(instruction: EmulatedInstruction, size: number): number {
    const low = this.memory.load(this.addressLow, this.addressHigh, size, instruction);
    this.high = this.memory.high;
    return low;
  }

  /** Stores up to 8 bytes at {@link addressLow}. */
  store(low: number, high: number, size: number): void {
    this.memory.store(this.addressLow, this.addressHigh, low, high, size);
  }

  /** Writes an operand. */
  write(instruction: EmulatedInstruction, operand: Operand, low: number, high: number): void {
    switch (operand.kind) {
      case OperandKind.GENERAL:
        this.setGeneral(operand.register, operand.size, low, high);
        return;
      case OperandKind.MEMORY:
        this.linearAddress(instruction);
        this.store(low, high, operand.size);
        return;
      case OperandKind.HIGH_BYTE:
        this.general[2 * operand.register] = (this.general[2 * operand.register]! & ~0xff00) | ((low & 0xff) << 8);
        return;
      case OperandKind.SEGMENT:
        this.#setSelector(operand.register, low & 0xffff);
        return;
      case OperandKind.CONTROL:
        if (operand.register > 8 || operand.register === 1) throw UNSUPPORTED_OPERAND;
        this.control[2 * operand.register] = low;
        this.control[2 * operand.register + 1] = this.wide ? high : 0;
        return;
      default:
        throw UNSUPPORTED_OPERAND;
    }
  }

  /** Writes the operand that was read from memory just now: where {@link addressLow} still is. */
  writeBack(operand: Operand, low: number, high: number): void {
    if (operand.kind === OperandKind.MEMORY) this.store(low, high, operand.size);
    else if (operand.kind === OperandKind.GENERAL) this.setGeneral(operand.register, operand.size, low, high);
    else this.general[2 * operand.register] = (this.general[2 * operand.register]! & ~0xff00) | ((low & 0xff) << 8);
  }

  /** Sets the low bytes of a general register; 4 of them clear the upper half (SDM vol. 1, 3.4.1.1). */
  setGeneral(register: number, size: number, low: number, high: number): void {
    if (size >= 4) {
      this.general[2 * register] = low;
      this.general[2 * register + 1] = size === 8 ? high : 0;
      this.memory.noteValue(low >>> 0, size === 8 ? high >>> 0 : 0);
    } else {
      const mask = lowMask(size);
      this.general[2 * register] = (this.general[2 * register]! & ~mask) | (low & mask);
    }
  }

  #setSelector(register: number, value: number): void {
    // A null selector is for 64-bit code only, and not for SS of user code; one of the local table, with another level
    // than the code's, or of a descriptor that no system has, would fault.
    const null64 = value === 0 && this.wide && register !== SS;
    const level = this.userMode ? 3 : 0;
    const wrong = (value & 0xfff8) >= SELECTOR_LIMIT || (value & 4) !== 0 || (value & 3) !== level;
    if (register === CS || (!null64 && wrong)) throw INVALID_SELECTOR;
    this.selectors[register] = value;
  }

  /** Address that the stack pointer and a distance give. */
  stackAddress(distance: number): void {
    const low = this.general[2 * RSP]! + distance;
    const high = this.general[2 * RSP + 1]!;
    this.#setAddress(low, high, this.wide ? 8 : 4);
    if (!this.wide) this.addSegment(SS);
  }

  /** Moves the stack pointer. */
  moveStack(distance: number): void {
    const low = this.general[2 * RSP]! + distance;
    if (this.wide) this.general[2 * RSP + 1] = this.general[2 * RSP + 1]! + Math.floor(low / WORD);
    this.general[2 * RSP] = low;
  }

  /** Pushes a value. */
  push(low: number, high: number, size: number): void {
    this.stackAddress(-size);
    this.store(low, high, size);
    this.moveStack(-size);
  }

  /** Loads what lies on top of the stack, without moving the stack pointer. */
  top(instruction: EmulatedInstruction, size: number): number {
    this.stackAddress(0);
    return this.load(instruction, size);
  }

  /** Takes over the flags of the last operation of the arithmetic module. */
  takeFlags(): void {
    this.rflags = (this.rflags & ~this.flagMask) | (result.flags & this.flagMask);
  }

  /** Sets some flags; AF only where the emulation is to be like a processor. */
  setFlags(mask: number, value: number): void {
    const kept = mask & (this.flagMask | ~STATUS_FLAGS);
    this.rflags = (this.rflags & ~kept) | (value & kept) | ALWAYS_ONE;
  }
}
