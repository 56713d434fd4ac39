import { type EmulatedInstruction, NO_REGISTER } from './instruction.js';
import type { MemoryWindow } from './memory-window.js';
import type { ShellcodeOptions } from './options.js';
import { ShellcodeFlag } from './shellcode-flags.js';

const FS = 4;
const GS = 5;

/** Fields of the TIB and the KPCR (public symbols of ntdll and ntoskrnl). */
const FIELDS = {
  32: { segment: FS, self: 0x18, peb: 0x30, wow32: 0xc0, currentThread: 0x124 },
  64: { segment: GS, self: 0x30, peb: 0x60, wow32: undefined, currentThread: 0x188 },
} as const;

/** KUSER_SHARED_DATA as user code sees it, and the fields of which a shellcode makes use: offset and size. */
const SHARED_USER_DATA = 0x7ffe_0000;
const SHARED_FIELDS = [
  // KdDebuggerEnabled, SystemCall, Cookie.
  { offset: 0x2d4, size: 1 },
  { offset: 0x308, size: 8 },
  { offset: 0x330, size: 8 },
] as const;
const SHARED_PAGE = 0x1000;

/** The fields of the system's structures in whose use an address says what the code is after. */
export class WatchedFields {
  /** Code or stack lie where the fields are, so that accesses there have to be looked at as well. */
  readonly insideWindows: boolean;
  readonly #fields: (typeof FIELDS)[32 | 64];
  readonly #tibLow: number;
  readonly #tibHigh: number;
  readonly #userMode: boolean;

  /**
   * @param options where the TIB is
   * @param windows code and stack
   */
  constructor(options: ShellcodeOptions, windows: readonly MemoryWindow[]) {
    const wide = options.bitness === 64;
    const tib = BigInt.asUintN(
      options.bitness,
      options.tibBase ?? (wide ? options.segments?.gs : options.segments?.fs)?.base ?? 0n,
    );
    this.#fields = FIELDS[options.bitness];
    this.#tibLow = Number(tib & 0xffff_ffffn);
    this.#tibHigh = Number(tib >> 32n);
    this.#userMode = options.ring !== 0;
    this.insideWindows = windows.some(
      (window) =>
        reaches(window, SHARED_USER_DATA, 0, SHARED_PAGE) || reaches(window, this.#tibLow, this.#tibHigh, SHARED_PAGE),
    );
  }

  /** The flag that a load raises; 0 for none. */
  flagOf(low: number, high: number, size: number, instruction: EmulatedInstruction): number {
    if (high === 0) {
      const offset = low - SHARED_USER_DATA;
      for (const field of SHARED_FIELDS) {
        if (offset < field.offset + field.size && offset + size > field.offset) return ShellcodeFlag.SUD_ACCESS;
      }
    }
    // Only through the segment: programs that know the address of a TIB use it, too.
    if (instruction.segment === NO_REGISTER || instruction.segment !== this.#fields.segment) return 0;
    switch (this.#offsetInTib(low, high)) {
      case this.#fields.peb:
        return this.#userMode ? ShellcodeFlag.TIB_ACCESS : 0;
      case this.#fields.wow32:
        return this.#userMode ? ShellcodeFlag.TIB_WOW32 : 0;
      case this.#fields.currentThread:
        return this.#userMode ? 0 : ShellcodeFlag.KPCR_ACCESS;
      default:
        return 0;
    }
  }

  /** Whether the address is that of the TIB's pointer to itself, whose value is known. */
  isSelf(low: number, high: number): boolean {
    return this.#offsetInTib(low, high) === this.#fields.self;
  }

  /** Low half of the TIB's address. */
  get tibLow(): number {
    return this.#tibLow;
  }

  /** High half of the TIB's address. */
  get tibHigh(): number {
    return this.#tibHigh;
  }

  #offsetInTib(low: number, high: number): number {
    return high === this.#tibHigh ? low - this.#tibLow : -1;
  }
}

/** Whether a window has a byte of a range that does not cross 4 GiB. */
function reaches(window: MemoryWindow, low: number, high: number, size: number): boolean {
  const distance = (high - window.baseHigh) * 0x1_0000_0000 + (low - window.baseLow);
  return distance < window.bytes.length && distance + size > 0;
}
