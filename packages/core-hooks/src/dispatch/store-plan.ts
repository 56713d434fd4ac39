import { type Gpa, hex64, PAGE_SIZE, u32Index, type VcpuRecord } from '@introd/abi';
import { type FullPort, RegisterGroup } from '@introd/glue';
import { type AccessList, type DecodedInstruction, SourceKind, StoreEffect, writtenValue } from '@introd/x86';
import { CoreHooksError } from '../error.js';
import type { PageCache } from '../translation/page-cache.js';
import { type Translator, Walk } from '../translation/translator.js';
import { ACCESSED, DIRTY, loadEntry, oldLowAt, storeByte, storeOperand } from './page-table-entry.js';
import { PageTableWrite } from './page-table-write.js';
import type { ReadOverlay } from './read-overlay.js';
import { type StoreRegistersContext, storeRegisters } from './store-registers.js';
import { Marks, markTables } from './table-marks.js';
import type { VectorState } from './vector-state.js';

const CR3 = u32Index('cr3');

/** Who carries a store out, and what is known of it. */
export const Plan = {
  /** Nothing planned yet. */
  NONE: 0,
  /** The engine, in one compare-exchange within 8 aligned bytes. */
  EMULATE: 1,
  /** The processor; the bytes that it will store are known. */
  NATIVE: 2,
  /** The value is not known. */
  UNKNOWN: 3,
  /** It cannot happen: a page that it needs is not mapped. The guest gets the page fault. */
  FAULT: 4,
} as const;
/** One of the {@link Plan} numbers. */
export type Plan = (typeof Plan)[keyof typeof Plan];

/** Most bytes of a store whose value is computed. */
const MAX_STORE = 64;

/** Translates an address of the instruction at hand; -1 when it is not mapped. */
export type Resolve = (vcpu: VcpuRecord, low: number, high: number) => number;

/** What a {@link StorePlan} needs of the engine. */
export interface StorePlanContext extends StoreRegistersContext {
  readonly port: FullPort;
  readonly pages: PageCache;
  readonly translator: Translator;
  readonly overlay: ReadOverlay;
  readonly vectors: VectorState;
}

/**
 * The store of one instruction, decided before it happens: what it will write, who shall write it, and the commit. Made once and
 * used for every exit.
 */
export class StorePlan {
  readonly #context: StorePlanContext;
  readonly #port: FullPort;
  readonly #pages: PageCache;
  readonly #translator: Translator;
  readonly #overlay: ReadOverlay;
  readonly #vectors: VectorState;
  readonly #effect = new StoreEffect();
  readonly #old = new Uint8Array(MAX_STORE);
  readonly #new = new Uint8Array(MAX_STORE);
  readonly #source = new Uint8Array(MAX_STORE);
  readonly #vector = new Uint8Array(16);
  readonly #words = new Uint32Array(this.#source.buffer);

  kind: Plan = Plan.NONE;
  /** The entry that callbacks are asked about. */
  readonly write = new PageTableWrite();
  /** One half of it, for hooks on entries of 4 bytes. */
  readonly #half = new PageTableWrite();
  /** Whether a callback replaced a value that the engine does not write itself. */
  nativeReplaced = false;
  /** Physical address of the first byte. */
  gpa = 0;
  /** Bytes on the first page. */
  firstSize = 0;
  /** Physical address of the bytes on the second page; -1 when there are none. */
  secondGpa = -1;
  /** For FAULT: low half of the address. */
  faultLow = 0;
  /** For FAULT: high half of the address. */
  faultHigh = 0;
  /** For FAULT: whether the store faults, or the read of its source. */
  faultWrite = false;
  /** For FAULT: whether the page is there and forbidden, or not there. */
  faultPresent = false;
  /** For FAULT: whether it is the fetch of the instruction that faults. */
  faultFetch = false;

  #size = 0;
  #repeatedElement = false;
  #entry = -1;
  #instruction: DecodedInstruction | undefined;
  #glaLow = 0;
  #glaHigh = 0;

  constructor(context: StorePlanContext) {
    this.#context = context;
    this.#overlay = context.overlay;
    this.#port = context.port;
    this.#vectors = context.vectors;
    this.#pages = context.pages;
    this.#translator = context.translator;
  }

  /** Forgets the last instruction. */
  reset(): void {
    this.kind = Plan.NONE;
    this.nativeReplaced = false;
    this.write.replaced = false;
    this.#repeatedElement = false;
    this.#entry = -1;
  }

  /**
   * Plans the store of an instruction. Does nothing when that was done since {@link reset}.
   * @throws CoreHooksError ERR_CORE_HOOKS_NO_MEMORY when the hooked page that it goes to is no RAM any more; what the backend throws
   */
  prepare(instruction: DecodedInstruction, vcpu: VcpuRecord, list: AccessList, resolve: Resolve): void {
    if (this.kind !== Plan.NONE) {
      return;
    }
    this.kind = Plan.UNKNOWN;
    const operand = instruction.storeOperand;
    const size = instruction.operandSize;
    if (operand < 0 || size === 0 || size > MAX_STORE) {
      return;
    }
    this.#size = size;
    if (!this.#locate(vcpu, list, operand, size, resolve)) {
      return;
    }
    const source = instruction.source;
    if (source.kind === SourceKind.MEMORY && !this.#readSource(vcpu, list, source.operand, size)) {
      return;
    }
    const offset = this.gpa & 7;
    if (size > 8 || this.secondGpa >= 0 || offset + size > 8) {
      this.#planNative(instruction, vcpu, size);
      return;
    }
    if (source.kind === SourceKind.VECTOR && !this.#readVector(instruction)) {
      return;
    }
    if (!this.#planSlot(instruction, vcpu)) {
      return;
    }
    if (!this.#effect.complete) {
      this.#planNative(instruction, vcpu, size);
      return;
    }
    this.#entry = this.write.gpa;
    this.#instruction = instruction;
    this.#glaLow = list.low[operand]!;
    this.#glaHigh = list.high[operand]!;
    this.#repeatedElement = instruction.repeated;
    this.kind = Plan.EMULATE;
  }

  /** Computes the entry that a store leaves in its 8 aligned bytes from what they hold now. */
  #planSlot(instruction: DecodedInstruction, vcpu: VcpuRecord): boolean {
    const offset = this.gpa & 7;
    const size = this.#size;
    this.#loadSlot(this.gpa - offset);
    const { write } = this;
    const low = oldLowAt(write, offset);
    const high = size === 8 ? write.oldHigh : 0;
    const words = this.#words;
    if (!this.#effect.compute(instruction, vcpu, low, high, words[0]!, words[1]!)) {
      return false;
    }
    storeOperand(write, offset, size, this.#effect.newLow, this.#effect.newHigh);
    return true;
  }

  /**
   * Fills {@link write} with the entry at `gpa`, a multiple of 8 that the store touches, unless it holds it.
   * @throws CoreHooksError ERR_CORE_HOOKS_NO_MEMORY
   */
  selectEntry(gpa: number): void {
    if (this.#entry === gpa) {
      return;
    }
    this.nativeReplaced ||= this.write.replaced;
    this.#loadSlot(gpa);
    this.#entry = gpa;
    const write = this.write;
    write.newLow = write.oldLow;
    write.newHigh = write.oldHigh;
    for (let at = 0; at < 8; at++) {
      const index = this.#indexOf(gpa + at);
      if (index >= 0) {
        storeByte(write, at, this.#new[index]!);
      }
    }
  }

  /**
   * The entry at `gpa` that the store touches, to be shown to a callback: {@link write}, or a copy of one half of it, whose replacement
   * {@link takeReplacement} takes over.
   */
  view(gpa: number, size: 4 | 8): PageTableWrite {
    const write = this.write;
    this.selectEntry(gpa - (gpa & 7));
    if (size === 8) {
      return write;
    }
    const upper = (gpa & 4) !== 0;
    const half = this.#half;
    half.size = 4;
    half.gpa = gpa as Gpa;
    half.oldLow = upper ? write.oldHigh : write.oldLow;
    half.newLow = upper ? write.newHigh : write.newLow;
    half.replaced = false;
    return half;
  }

  /** Takes over what a callback made of the last {@link view}. */
  takeReplacement(view: PageTableWrite): void {
    const write = this.write;
    if (view !== write && view.replaced) {
      if ((view.gpa & 4) !== 0) {
        write.newHigh = view.newLow;
      } else {
        write.newLow = view.newLow;
      }
      write.replaced = true;
    }
  }

  /** Whether a callback replaced a value that was last selected for a store which the processor makes. */
  get isReplacedNatively(): boolean {
    return this.kind === Plan.NATIVE && (this.nativeReplaced || this.write.replaced);
  }

  /**
   * Carries the store out: one compare-exchange, then registers, flags and RIP.
   * @returns false, and nothing happened, when memory does not hold any more what was decided about
   */
  commit(vcpu: VcpuRecord, index: number): boolean {
    const write = this.write;
    const { gpa } = this;
    const marks = markTables(this.#port, this.#translator, vcpu, this.#glaLow, this.#glaHigh, gpa, write.gpa);
    if (marks === Marks.FAILED || (marks === Marks.WATCHED && !this.#planAgain(vcpu))) {
      return false;
    }
    const offset = this.gpa & 7;
    const size = this.#size as 1 | 2 | 4 | 8;
    let done: boolean;
    if (write.replaced || (offset & (size - 1)) !== 0 || size === 8) {
      done = this.#port.compareExchange(write.gpa, 8, write.oldLow, write.oldHigh, write.newLow, write.newHigh);
    } else {
      const low = offset >= 4 ? write.oldHigh : write.oldLow;
      const next = offset >= 4 ? write.newHigh : write.newLow;
      const shift = (offset & 3) * 8;
      const mask = size === 4 ? 0xffff_ffff : (1 << (size * 8)) - 1;
      done = this.#port.compareExchange(
        this.gpa as Gpa,
        size,
        ((low >>> shift) & mask) >>> 0,
        0,
        ((next >>> shift) & mask) >>> 0,
        0,
      );
    }
    if (done) {
      this.#effect.commit(vcpu);
      storeRegisters(this.#context, index, RegisterGroup.GENERAL);
    }
    return done;
  }

  /**
   * Computes the store again from an entry that got its accessed or dirty bit by being on the way to itself.
   * @returns false when more than these bits differ from what was decided about
   */
  #planAgain(vcpu: VcpuRecord): boolean {
    const write = this.write;
    const { newLow, newHigh, replaced } = write;
    this.#planSlot(this.#instruction!, vcpu);
    if (replaced) {
      write.newLow = newLow;
      write.newHigh = newHigh;
      write.replaced = true;
      return true;
    }
    return ((write.newLow ^ newLow) & ~(ACCESSED | DIRTY)) === 0 && write.newHigh === newHigh;
  }

  /**
   * Ends an instruction whose store was denied, where the engine must do that itself: a repeated string instruction goes on behind the
   * denied element.
   * @returns false when it is for the processor to pass the instruction
   */
  passDenied(vcpu: VcpuRecord, index: number): boolean {
    if (!this.#repeatedElement) {
      return false;
    }
    this.#effect.commitDenied(vcpu);
    storeRegisters(this.#context, index, RegisterGroup.GENERAL);
    return true;
  }

  /** The bytes that a store leaves at `gpa`, as far as they are known and on its pages. */
  newBytes(gpa: number, size: number): Uint8Array | undefined {
    if (this.kind === Plan.EMULATE) {
      const bytes = new Uint8Array(size);
      const { newLow, newHigh } = this.write;
      for (let at = 0; at < size; at++) {
        const position = gpa + at - this.write.gpa;
        bytes[at] = (position < 4 ? newLow : newHigh) >>> ((position & 3) * 8);
      }
      return bytes;
    }
    const first = this.kind === Plan.NATIVE ? this.#indexOf(gpa) : -1;
    return first < 0 ? undefined : this.#new.slice(first, first + size);
  }

  #locate(vcpu: VcpuRecord, list: AccessList, operand: number, size: number, resolve: Resolve): boolean {
    const low = list.low[operand]!;
    const high = list.high[operand]!;
    const onFirst = Math.min(size, PAGE_SIZE - (low & (PAGE_SIZE - 1)));
    this.firstSize = onFirst;
    this.secondGpa = -1;
    this.gpa = resolve(vcpu, low, high);
    if (this.gpa < 0) {
      this.fault(low, high, true, false);
      return false;
    }
    if (onFirst < size) {
      const nextLow = (low + onFirst) >>> 0;
      const nextHigh = nextLow === 0 ? (high + 1) >>> 0 : high;
      this.secondGpa = resolve(vcpu, nextLow, nextHigh);
      if (this.secondGpa < 0) {
        this.fault(nextLow, nextHigh, true, false);
        return false;
      }
    }
    return true;
  }

  /** The instruction cannot happen: the guest gets a page fault at this address. */
  fault(low: number, high: number, write: boolean, present: boolean, fetch = false): void {
    this.kind = Plan.FAULT;
    this.faultLow = low;
    this.faultHigh = high;
    this.faultWrite = write;
    this.faultPresent = present;
    this.faultFetch = fetch;
  }

  /** Reads the source operand of MOVS, PUSH or POP. */
  #readSource(vcpu: VcpuRecord, list: AccessList, operand: number, size: number): boolean {
    const registers = vcpu.u32;
    const low = list.low[operand]!;
    const high = list.high[operand]!;
    for (let done = 0; done < size; ) {
      const sum = low + done;
      const atLow = sum >>> 0;
      const atHigh = sum > 0xffff_ffff ? (high + 1) >>> 0 : high;
      const status = this.#translator.walk(registers[CR3]!, registers[CR3 + 1]!, atLow, atHigh);
      if (status === Walk.NO_MEMORY) {
        return false;
      }
      if (status !== Walk.OK || (vcpu.cpl === 3 && !this.#translator.user)) {
        this.fault(atLow, atHigh, false, status === Walk.OK);
        return false;
      }
      const offset = atLow & (PAGE_SIZE - 1);
      const count = Math.min(size - done, PAGE_SIZE - offset);
      const page = this.#pages.get(Math.floor(this.#translator.gpa / PAGE_SIZE));
      if (page === undefined) {
        return false;
      }
      for (let at = 0; at < count; at++) {
        this.#source[done + at] = page.bytes[offset + at]!;
      }
      if (this.#overlay.any) {
        this.#overlay.apply(this.#translator.gpa, this.#source, done, count);
      }
      done += count;
    }
    return true;
  }

  /** Reads the bytes of a vector register that a store of up to 8 bytes takes. */
  #readVector(instruction: DecodedInstruction): boolean {
    const { register, byteOffset } = instruction.source;
    if (!this.#vectors.readVector(register, this.#vector)) {
      return false;
    }
    for (let at = 0; at < this.#size; at++) {
      this.#source[at] = this.#vector[byteOffset + at]!;
    }
    return true;
  }

  /** Plans a store that the engine cannot make in one step. The kind stays UNKNOWN when its bytes cannot be told. */
  #planNative(instruction: DecodedInstruction, vcpu: VcpuRecord, size: number): void {
    // Of a repeated string instruction the engine can still pass one element, even where it does not write it.
    this.#repeatedElement =
      instruction.repeated && this.#effect.compute(instruction, vcpu, 0, 0, 0, 0) && this.#effect.complete;
    if (instruction.source.kind === SourceKind.MEMORY) {
      // What comes out of memory may be other bytes by the time the processor stores it.
      return;
    }
    for (let at = 0; at < size; at++) {
      const gpa = at < this.firstSize ? this.gpa + at : this.secondGpa + at - this.firstSize;
      const page = this.#pages.get(Math.floor(gpa / PAGE_SIZE));
      if (page === undefined) {
        return;
      }
      this.#old[at] = page.bytes[gpa % PAGE_SIZE]!;
    }
    if (writtenValue(instruction, vcpu, this.#old.subarray(0, size), this.#new, undefined, this.#vectors)) {
      this.kind = Plan.NATIVE;
    }
  }

  /** Index in the stored bytes of the one at a physical address; -1 when it is not stored. */
  #indexOf(gpa: number): number {
    const onFirst = gpa - this.gpa;
    if (onFirst >= 0 && onFirst < this.firstSize) {
      return onFirst;
    }
    const onSecond = gpa - this.secondGpa;
    return this.secondGpa >= 0 && onSecond >= 0 && onSecond < this.#size - this.firstSize
      ? this.firstSize + onSecond
      : -1;
  }

  /**
   * Puts the 8 bytes at `gpa`, on a hooked page, as they are now into {@link write}.
   * @throws CoreHooksError ERR_CORE_HOOKS_NO_MEMORY
   */
  #loadSlot(gpa: number): void {
    const words = this.#pages.get(Math.floor(gpa / PAGE_SIZE))?.words;
    if (words === undefined) {
      throw new CoreHooksError('ERR_CORE_HOOKS_NO_MEMORY', 'a hooked frame is no RAM any more', {
        address: hex64(gpa),
      });
    }
    const index = (gpa % PAGE_SIZE) >> 2;
    loadEntry(this.write, gpa, words[index]!, words[index + 1]!);
  }
}
