import { MEMORY_OUTSIDE } from './abort.js';
import { FetchedCode } from './fetched-code.js';
import type { EmulatedInstruction } from './instruction.js';
import { ByteState, MemoryWindow } from './memory-window.js';
import type { ShellcodeOptions } from './options.js';
import { ShellcodeFlag } from './shellcode-flags.js';
import { WatchedFields } from './watched-fields.js';

/** Stack when none is given: 8 KiB, from 4 KiB below the page of the stack pointer (behaviour section 4). */
const STACK_SIZE = 0x2000;
const PAGE = 0x1000n;
/** Bytes at the place that the stack pointer is moved to that must be valid for a pivot. */
const PIVOT_REACH = 64;

/** Printable ASCII: paths, addresses of servers and command lines are made of all of it. */
function isStringCharacter(byte: number): boolean {
  return byte >= 0x20 && byte <= 0x7e;
}

/** Base of the stack when none is given. */
function defaultStackBase(options: ShellcodeOptions): bigint {
  const stackPointer = options.registers?.rsp;
  // Without either there is a page of room between stack and code.
  if (stackPointer === undefined) return (options.codeBase & ~(PAGE - 1n)) - BigInt(STACK_SIZE) - PAGE;
  return (stackPointer & ~(PAGE - 1n)) - PAGE;
}

/** What the emulated code reads and writes: code, stack, and whatever the caller answers for. It raises the flags of accesses. */
export class EmulatedMemory {
  readonly code: MemoryWindow;
  readonly stack: MemoryWindow;
  readonly fetched: FetchedCode;
  readonly watched: WatchedFields;
  /** Raised so far. */
  flags = 0;
  externalAccesses = 0;
  /** High half of what was loaded last. */
  high = 0;
  readonly #options: ShellcodeOptions;
  readonly #allowed: number;
  readonly #stringLength: number;
  readonly #externalLimit: number;
  readonly #traced: boolean;
  /** Every access has to be looked at: it is traced, or what is watched lies inside, or code lies on the stack. */
  readonly #careful: boolean;
  readonly #scratch = new DataView(new ArrayBuffer(8));

  /** @param options code, stack and thresholds */
  constructor(options: ShellcodeOptions) {
    this.#options = options;
    this.code = new MemoryWindow(options.code, options.codeBase, options.bitness);
    this.stack = new MemoryWindow(
      options.stack ?? new Uint8Array(STACK_SIZE),
      options.stackBase ?? defaultStackBase(options),
      options.bitness,
    );
    this.fetched = new FetchedCode(this.code, options.bitness);
    this.watched = new WatchedFields(options, [this.code, this.stack]);
    this.#allowed = ~(options.forceOff ?? 0);
    this.#stringLength = options.stringThreshold ?? 8;
    this.#externalLimit = options.memoryThreshold ?? 0;
    this.#traced = options.onMemoryAccess !== undefined;
    const overlap = this.stack.overlay(this.code);
    this.#careful = this.#traced || this.watched.insideWindows || overlap;
  }

  /** Raises a flag, unless it is forced off. */
  raise(flag: number): void {
    this.flags |= flag & this.#allowed;
  }

  /** Loads 1, 2, 4 or 8 bytes; the high half is in {@link high}. */
  load(low: number, high: number, size: number, instruction: EmulatedInstruction): number {
    if (!this.#careful) {
      const inCode = this.code.offsetOf(low, high, size);
      if (inCode >= 0) return this.#value(this.code.view, inCode, size);
      const inStack = this.stack.offsetOf(low, high, size);
      if (inStack >= 0) {
        this.#noteStackLoad(inStack, size, instruction);
        return this.#value(this.stack.view, inStack, size);
      }
    }
    this.loadBytes(low, high, new Uint8Array(this.#scratch.buffer, 0, size), instruction);
    return this.#value(this.#scratch, 0, size);
  }

  #value(view: DataView, offset: number, size: number): number {
    switch (size) {
      case 1:
        this.high = 0;
        return view.getUint8(offset);
      case 2:
        this.high = 0;
        return view.getUint16(offset, true);
      case 4:
        this.high = 0;
        return view.getUint32(offset, true);
      default:
        this.high = view.getUint32(offset + 4, true);
        return view.getUint32(offset, true);
    }
  }

  /** Loads any number of bytes. */
  loadBytes(low: number, high: number, target: Uint8Array, instruction: EmulatedInstruction): void {
    const size = target.length;
    const inCode = this.code.offsetOf(low, high, size);
    const inStack = this.stack.offsetOf(low, high, size);
    const outside = inCode < 0 && inStack < 0;
    if (outside || this.#careful) this.raise(this.watched.flagOf(low, high, size, instruction));
    if (inStack >= 0) this.#noteStackLoad(inStack, size, instruction);
    if (inCode >= 0) target.set(this.code.bytes.subarray(inCode, inCode + size));
    else if (inStack >= 0) target.set(this.stack.bytes.subarray(inStack, inStack + size));
    else this.#loadExternal(low, high, target);
    if (this.#traced) this.#trace(low, high, size, target.slice(), undefined);
  }

  #loadExternal(low: number, high: number, target: Uint8Array): void {
    const bytes = this.#askOutside(low, high, target.length, undefined);
    if (bytes !== undefined && bytes.length >= target.length) {
      target.set(bytes.subarray(0, target.length));
      return;
    }
    if (this.watched.isSelf(low, high) && (target.length === 4 || target.length === 8)) {
      const view = new DataView(target.buffer, target.byteOffset, target.length);
      view.setUint32(0, this.watched.tibLow, true);
      if (target.length === 8) view.setUint32(4, this.watched.tibHigh, true);
      return;
    }
    throw MEMORY_OUTSIDE;
  }

  #askOutside(low: number, high: number, size: number, stored: Uint8Array | undefined): Uint8Array | undefined {
    this.externalAccesses++;
    if (this.externalAccesses > this.#externalLimit) return undefined;
    return this.#options.onExternalAccess?.({ address: toAddress(low, high), size, stored });
  }

  /** Stores 1, 2, 4 or 8 bytes. */
  store(low: number, high: number, valueLow: number, valueHigh: number, size: number): void {
    if (size >= 4) this.noteValue(valueLow >>> 0, size === 8 ? valueHigh >>> 0 : 0);
    const stack = this.stack;
    const offset = this.#careful || this.code.offsetOf(low, high, size) >= 0 ? -1 : stack.offsetOf(low, high, size);
    if (offset < 0) {
      this.#scratch.setUint32(0, valueLow, true);
      this.#scratch.setUint32(4, valueHigh, true);
      this.#storeBytes(low, high, new Uint8Array(this.#scratch.buffer, 0, size));
      return;
    }
    stack.state.fill(ByteState.WRITTEN, offset, offset + size);
    switch (size) {
      case 1:
        stack.bytes[offset] = valueLow;
        break;
      case 2:
        stack.view.setUint16(offset, valueLow, true);
        break;
      case 4:
        stack.view.setUint32(offset, valueLow, true);
        break;
      default:
        stack.view.setUint32(offset, valueLow, true);
        stack.view.setUint32(offset + 4, valueHigh, true);
    }
  }

  /** Stores any number of bytes. */
  storeBytes(low: number, high: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (bytes.length >= 8) this.noteValue(view.getUint32(0, true), view.getUint32(4, true));
    this.#storeBytes(low, high, bytes);
  }

  #storeBytes(low: number, high: number, bytes: Uint8Array): void {
    const size = bytes.length;
    const inCode = this.code.offsetOf(low, high, size);
    const inStack = this.stack.offsetOf(low, high, size);
    const commit = inCode < 0 || this.#options.bypassSelfWrites !== true;
    if (inCode >= 0) {
      // Noticed when they are executed; what was fetched before is not what will be executed next.
      this.code.mark(inCode, size, ByteState.WRITTEN);
      this.fetched.drop(inCode, size);
      if (commit) this.code.bytes.set(bytes, inCode);
    }
    if (inStack >= 0) {
      // Whatever instruction pointer was there is gone.
      this.stack.state.fill(ByteState.WRITTEN, inStack, inStack + size);
      if (commit) this.stack.bytes.set(bytes, inStack);
    }
    if (inCode < 0 && inStack < 0 && this.#askOutside(low, high, size, bytes.slice()) === undefined) {
      throw MEMORY_OUTSIDE;
    }
    if (this.#traced) this.#trace(low, high, size, undefined, bytes.slice());
  }

  /** The processor has stored an instruction pointer: to the stack, or it is of no interest. */
  markRip(low: number, high: number, size: number): void {
    const offset = this.stack.offsetOf(low, high, size);
    if (offset >= 0) this.stack.mark(offset, size, ByteState.SAVED_RIP);
  }

  /** A load that keeps a saved instruction pointer tells the code where it is. */
  #noteStackLoad(offset: number, size: number, instruction: EmulatedInstruction): void {
    if (instruction.keepsLoad && this.stack.any(offset, size, ByteState.SAVED_RIP)) this.raise(ShellcodeFlag.LOAD_RIP);
  }

  /** A value was made: when it is the address of a string that was built on the stack, that is noticed. */
  noteValue(low: number, high: number): void {
    const offset = this.stack.offsetOf(low, high, this.#stringLength);
    if (offset < 0 || !this.stack.all(offset, this.#stringLength, ByteState.WRITTEN)) return;
    for (let i = 0; i < this.#stringLength; i++) {
      if (!isStringCharacter(this.stack.bytes[offset + i]!)) return;
    }
    this.raise(ShellcodeFlag.STACK_STR);
  }

  /** XCHG has changed the stack pointer. */
  notePivot(low: number, high: number): void {
    if (low % (this.#options.bitness === 64 ? 8 : 4) !== 0) return;
    if (this.code.offsetOf(low, high, PIVOT_REACH) >= 0 || this.stack.offsetOf(low, high, PIVOT_REACH) >= 0) {
      this.raise(ShellcodeFlag.STACK_PIVOT);
    }
  }

  #trace(
    low: number,
    high: number,
    size: number,
    loaded: Uint8Array | undefined,
    stored: Uint8Array | undefined,
  ): void {
    this.#options.onMemoryAccess?.({ address: toAddress(low, high), size, loaded, stored });
  }
}

function toAddress(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}
