import { u32Index, type VcpuRecord } from '@introd/abi';
import { add, Flag, logic, lowMask, result, STATUS_FLAGS, subtract } from './arithmetic.js';
import { conditionHolds } from './condition.js';
import type { DecodedInstruction } from './decoded-instruction.js';
import { RegisterChanges } from './register-changes.js';
import { doubleShift, rotateOrShift } from './shift.js';
import { StoreOperation } from './store-operation.js';
import { COUNT_IN_CL, SourceKind } from './value-source.js';

const GENERAL = u32Index('rax');
const RIP = u32Index('rip');
const RFLAGS = u32Index('rflags');
const SS_ATTRIBUTES = u32Index('ssAttributes');
const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const RSP = 4;
const RSI = 6;
const RDI = 7;

const TRAP_FLAG = 0x100;
const DIRECTION_FLAG = 0x400;
const RESUME_FLAG = 0x1_0000;
const VM_FLAG = 0x2_0000;
/** D/B bit of a segment's access rights. */
const SEGMENT_32 = 1 << 14;

/**
 * What an instruction that stores up to 8 bytes does, computed before anything of it happens: the bytes that it
 * leaves in memory, and the registers and flags that it changes. Made once and used for every exit; nothing is allocated.
 *
 * Call {@link compute} with what memory holds, put {@link newLow} and {@link newHigh} there in one step, then {@link commit}.
 * A store that shall not happen ends with {@link commitDenied}.
 */
export class StoreEffect {
  /** Low half of the value that is stored, cut to the operand's size. */
  newLow = 0;
  /** High half of it. */
  newHigh = 0;
  /** Whether {@link commit} does all that the instruction does beside the store. When not, only the value is known. */
  complete = false;

  #size = 0;
  #length = 0;
  /** A repeated instruction with iterations left: RIP stays. */
  #again = false;
  #string = false;
  /** Code whose registers and RIP have 32 bits. */
  #short = false;
  #flagsMask = 0;
  #flags = 0;
  readonly #changes = new RegisterChanges();
  #sourceLow = 0;
  #sourceHigh = 0;

  /**
   * Computes the effect.
   * @param oldLow low half of what the memory operand holds
   * @param oldHigh high half of it; 0 for operands of 4 bytes and fewer
   * @param sourceLow low half of the source when it is in memory or in a vector register ({@link SourceKind})
   * @param sourceHigh high half of it
   * @returns false when the stored value is not known, or has more than 8 bytes
   */
  compute(
    instruction: DecodedInstruction,
    vcpu: VcpuRecord,
    oldLow: number,
    oldHigh: number,
    sourceLow: number,
    sourceHigh: number,
  ): boolean {
    const size = instruction.operandSize;
    const operation = instruction.storeOperation;
    const registers = vcpu.u32;
    const flags = registers[RFLAGS]!;
    this.#size = size;
    this.#length = instruction.length;
    this.#again = false;
    this.#string = false;
    this.#short = instruction.bitness !== 64;
    this.#changes.count = 0;
    this.#flagsMask = 0;
    this.#flags = 0;
    // A single-stepped instruction ends with a trap that only the processor can raise.
    this.complete = (flags & TRAP_FLAG) === 0;
    if (operation === StoreOperation.NONE || size > 8) {
      this.complete = false;
      return false;
    }
    this.#readSource(instruction, registers, sourceLow, sourceHigh);
    const low = this.#sourceLow;
    const high = this.#sourceHigh;
    const carry = flags & Flag.CF;
    switch (operation) {
      case StoreOperation.MOVE:
      case StoreOperation.VECTOR:
        this.#store(low, high);
        return true;
      case StoreOperation.STOS:
      case StoreOperation.MOVS:
        this.#store(low, high);
        this.#advance(instruction, registers, operation === StoreOperation.MOVS);
        return true;
      case StoreOperation.PUSH:
        this.#store(low, high);
        if (instruction.source.kind === SourceKind.RECORD) {
          // Newer processors store 2 bytes of a selector and move RSP by more (SDM vol. 2B, PUSH): theirs to do.
          this.complete = false;
        }
        this.#moveStack(registers, -size);
        return true;
      case StoreOperation.POP:
        this.#store(low, high);
        this.#moveStack(registers, size);
        return true;
      case StoreOperation.PUSHF:
        // VM and RF are pushed as 0 (SDM vol. 2B, PUSHF).
        this.#store(flags & ~(RESUME_FLAG | VM_FLAG), registers[RFLAGS + 1]!);
        this.complete = false;
        return true;
      case StoreOperation.ENTER:
        this.#store(low, high);
        this.complete = false;
        return true;
      case StoreOperation.SETCC:
        this.#store(conditionHolds(low, flags) ? 1 : 0, 0);
        return true;
      case StoreOperation.CALL: {
        const next = registers[RIP]! + this.#length;
        this.#store(next >>> 0, registers[RIP + 1]! + (next > 0xffff_ffff ? 1 : 0));
        this.complete = false;
        return true;
      }
      case StoreOperation.XCHG:
        this.#store(low, high);
        this.#changes.setPart(registers, instruction.source, oldLow, oldHigh, size);
        return true;
      case StoreOperation.XADD:
        add(oldLow, oldHigh, low, high, 0, size);
        this.#storeResult(STATUS_FLAGS);
        this.#changes.setPart(registers, instruction.source, oldLow, oldHigh, size);
        return true;
      case StoreOperation.CMPXCHG:
        this.#compareExchange(registers, oldLow, oldHigh, low, high);
        return true;
      case StoreOperation.CMPXCHG8B:
        this.#compareExchange8(registers, oldLow, oldHigh);
        return true;
      case StoreOperation.ADD:
      case StoreOperation.ADC:
        add(oldLow, oldHigh, low, high, operation === StoreOperation.ADC ? carry : 0, size);
        this.#storeResult(STATUS_FLAGS);
        return true;
      case StoreOperation.SUB:
      case StoreOperation.SBB:
        subtract(oldLow, oldHigh, low, high, operation === StoreOperation.SBB ? carry : 0, size);
        this.#storeResult(STATUS_FLAGS);
        return true;
      case StoreOperation.AND:
        logic(oldLow & low, oldHigh & high, size);
        this.#storeResult(STATUS_FLAGS);
        return true;
      case StoreOperation.OR:
        logic(oldLow | low, oldHigh | high, size);
        this.#storeResult(STATUS_FLAGS);
        return true;
      case StoreOperation.XOR:
        logic(oldLow ^ low, oldHigh ^ high, size);
        this.#storeResult(STATUS_FLAGS);
        return true;
      case StoreOperation.INC:
        add(oldLow, oldHigh, 1, 0, 0, size);
        this.#storeResult(STATUS_FLAGS & ~Flag.CF);
        return true;
      case StoreOperation.DEC:
        subtract(oldLow, oldHigh, 1, 0, 0, size);
        this.#storeResult(STATUS_FLAGS & ~Flag.CF);
        return true;
      case StoreOperation.NEG:
        subtract(0, 0, oldLow, oldHigh, 0, size);
        this.#storeResult(STATUS_FLAGS);
        return true;
      case StoreOperation.NOT:
        this.#store(~oldLow, ~oldHigh);
        return true;
      case StoreOperation.BTS:
      case StoreOperation.BTR:
      case StoreOperation.BTC:
        this.#changeBit(operation, oldLow, oldHigh, low & (size * 8 - 1));
        return true;
      case StoreOperation.ARPL: {
        // The privilege level becomes at least that of the source (SDM vol. 2A, ARPL).
        const raised = (oldLow & 3) < (low & 3);
        this.#store(raised ? (oldLow & ~3) | (low & 3) : oldLow, 0);
        this.#flagsMask = Flag.ZF;
        this.#flags = raised ? Flag.ZF : 0;
        return true;
      }
      case StoreOperation.MOVBE:
        this.#storeReversed(low, high);
        return true;
      case StoreOperation.SHL:
      case StoreOperation.SHR:
      case StoreOperation.SAR:
      case StoreOperation.ROL:
      case StoreOperation.ROR:
      case StoreOperation.RCL:
      case StoreOperation.RCR:
        rotateOrShift(operation, oldLow, oldHigh, low & 0xff, carry, size);
        this.#store(result.low, result.high);
        this.complete = false;
        return true;
      case StoreOperation.SHLD:
      case StoreOperation.SHRD: {
        const { count } = instruction.source;
        const by = count === COUNT_IN_CL ? registers[GENERAL + RCX * 2]! & 0xff : count;
        doubleShift(operation === StoreOperation.SHLD, oldLow, oldHigh, low, high, by, size);
        this.#store(result.low, result.high);
        this.complete = false;
        return true;
      }
      default:
        this.complete = false;
        return false;
    }
  }

  /** Gives the VCPU the registers, flags and RIP that it has after the instruction. */
  commit(vcpu: VcpuRecord): void {
    const registers = vcpu.u32;
    this.#changes.apply(registers);
    const keep = ~(this.#flagsMask | RESUME_FLAG);
    registers[RFLAGS] = (registers[RFLAGS]! & keep) | (this.#flags & this.#flagsMask);
    if (!this.#again) {
      this.#passInstruction(registers);
    }
  }

  /**
   * Ends an instruction whose store was denied. Nothing of it happens: no register but RIP changes. A string instruction
   * passes the denied element, so that the rest of a repeated one is asked about too.
   */
  commitDenied(vcpu: VcpuRecord): void {
    if (this.#string) {
      this.commit(vcpu);
    } else {
      this.#passInstruction(vcpu.u32);
    }
  }

  #passInstruction(registers: Uint32Array): void {
    const next = registers[RIP]! + this.#length;
    registers[RIP] = next;
    if (next > 0xffff_ffff && !this.#short) {
      registers[RIP + 1] = registers[RIP + 1]! + 1;
    }
  }

  #store(low: number, high: number): void {
    this.newLow = (low & lowMask(this.#size)) >>> 0;
    this.newHigh = this.#size === 8 ? high >>> 0 : 0;
  }

  #storeResult(flagsMask: number): void {
    this.newLow = result.low;
    this.newHigh = result.high;
    this.#flagsMask = flagsMask;
    this.#flags = result.flags;
  }

  #storeReversed(low: number, high: number): void {
    const swapped = swap32(low);
    if (this.#size === 8) {
      this.#store(swap32(high), swapped);
    } else {
      this.#store(this.#size === 4 ? swapped : swapped >>> 16, 0);
    }
  }

  #readSource(instruction: DecodedInstruction, registers: Uint32Array, memoryLow: number, memoryHigh: number): void {
    const source = instruction.source;
    switch (source.kind) {
      case SourceKind.REGISTER: {
        const at = GENERAL + source.register * 2;
        this.#sourceLow = source.highByte ? (registers[at]! >>> 8) & 0xff : registers[at]!;
        this.#sourceHigh = registers[at + 1]!;
        break;
      }
      case SourceKind.RECORD:
        this.#sourceLow = registers[source.register]! & 0xffff;
        this.#sourceHigh = 0;
        break;
      case SourceKind.IMMEDIATE:
        this.#sourceLow = source.low;
        this.#sourceHigh = source.high;
        break;
      default:
        this.#sourceLow = memoryLow;
        this.#sourceHigh = memoryHigh;
    }
  }

  #compareExchange(registers: Uint32Array, oldLow: number, oldHigh: number, low: number, high: number): void {
    const size = this.#size;
    const accumulatorLow = registers[GENERAL]!;
    const accumulatorHigh = registers[GENERAL + 1]!;
    subtract(accumulatorLow, accumulatorHigh, oldLow, oldHigh, 0, size);
    this.#flagsMask = STATUS_FLAGS;
    this.#flags = result.flags;
    if ((result.flags & Flag.ZF) !== 0) {
      this.#store(low, high);
      return;
    }
    // The processor writes back what it found (SDM vol. 2A, CMPXCHG).
    this.#store(oldLow, oldHigh);
    const mask = lowMask(size);
    if (size >= 4) {
      this.#changes.set(RAX, oldLow, size === 8 ? oldHigh : 0);
    } else {
      this.#changes.set(RAX, (accumulatorLow & ~mask) | (oldLow & mask), accumulatorHigh);
    }
  }

  #compareExchange8(registers: Uint32Array, oldLow: number, oldHigh: number): void {
    const equal = registers[GENERAL + RAX * 2] === oldLow >>> 0 && registers[GENERAL + RDX * 2] === oldHigh >>> 0;
    this.#flagsMask = Flag.ZF;
    this.#flags = equal ? Flag.ZF : 0;
    if (equal) {
      this.#store(registers[GENERAL + RBX * 2]!, registers[GENERAL + RCX * 2]!);
    } else {
      this.#store(oldLow, oldHigh);
      this.#changes.set(RAX, oldLow, 0);
      this.#changes.set(RDX, oldHigh, 0);
    }
  }

  #changeBit(operation: StoreOperation, oldLow: number, oldHigh: number, bit: number): void {
    const lowBit = bit < 32 ? 1 << bit : 0;
    const highBit = bit >= 32 ? 1 << (bit - 32) : 0;
    this.#flagsMask = Flag.CF;
    this.#flags = (oldLow & lowBit) !== 0 || (oldHigh & highBit) !== 0 ? Flag.CF : 0;
    if (operation === StoreOperation.BTS) {
      this.#store(oldLow | lowBit, oldHigh | highBit);
    } else if (operation === StoreOperation.BTR) {
      this.#store(oldLow & ~lowBit, oldHigh & ~highBit);
    } else {
      this.#store(oldLow ^ lowBit, oldHigh ^ highBit);
    }
  }

  /** Moves the string registers by one element, and counts it when the instruction is repeated. */
  #advance(instruction: DecodedInstruction, registers: Uint32Array, source: boolean): void {
    const bits = instruction.memory[instruction.storeOperand]!.addressSize;
    const step = (registers[RFLAGS]! & DIRECTION_FLAG) !== 0 ? -this.#size : this.#size;
    this.#string = true;
    this.#changes.move(registers, RDI, step, bits);
    if (source) {
      this.#changes.move(registers, RSI, step, bits);
    }
    if (instruction.repeated) {
      this.#changes.move(registers, RCX, -1, bits);
      this.#again = !this.#changes.lastIsZero(bits);
    }
  }

  /** Moves the stack pointer, which has the size of the stack segment outside of 64-bit code. */
  #moveStack(registers: Uint32Array, by: number): void {
    const bits = this.#short ? ((registers[SS_ATTRIBUTES]! & SEGMENT_32) === 0 ? 16 : 32) : 64;
    this.#changes.move(registers, RSP, by, bits);
  }
}

function swap32(value: number): number {
  return ((value >>> 24) | ((value >>> 8) & 0xff00) | ((value & 0xff00) << 8) | (value << 24)) >>> 0;
}
