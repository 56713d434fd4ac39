import type { GeneralRegister } from '@introd/abi';
import type { ShellcodeStatus } from './shellcode-flags.js';

/** Segment registers by name, in the order of their encoding. */
export const SEGMENT_REGISTERS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const;

/** Name of a segment register. */
export type SegmentName = (typeof SEGMENT_REGISTERS)[number];

/** What of a segment register matters here. */
export interface ShellcodeSegment {
  /** 16 bits. */
  readonly selector: number;
  /** Linear address; in 64-bit code only those of FS and GS count. */
  readonly base: bigint;
}

/** An access of the emulated code. */
export interface ShellcodeAccess {
  /** Linear address of the first byte. */
  readonly address: bigint;
  /** 1 to 512 bytes. */
  readonly size: number;
  /** The bytes that are stored; undefined for a load. */
  readonly stored: Uint8Array | undefined;
}

/** The instruction that comes next, as a trace sees it. The object is one for all; what it gives is read when asked for. */
export interface ShellcodeTraceStep {
  readonly address: bigint;
  /** Its bytes; a copy. */
  readonly bytes: Uint8Array;
  /** In Intel syntax. */
  readonly text: string;
  /** RFLAGS before it. */
  readonly rflags: bigint;
  /** Flags of {@link ShellcodeFlag} that are raised so far. */
  readonly flags: number;
  /** A general register before it. */
  register(name: GeneralRegister): bigint;
}

/** What to emulate, and how far. Addresses and registers are cut to the size that they have. Numbers behind names are the defaults of behaviour section 4. */
export interface ShellcodeOptions {
  /** The code, usually the page it was found in. It is copied. */
  readonly code: Uint8Array;
  /** Linear address of the first byte of `code`. */
  readonly codeBase: bigint;
  readonly bitness: 32 | 64;
  /** Where to begin; default: `codeBase`. */
  readonly rip?: bigint;
  /** Default: 3. */
  readonly ring?: 0 | 3;
  /** What is not given is 0, RSP excepted, which then points into the middle of the stack. */
  readonly registers?: Partial<Readonly<Record<GeneralRegister, bigint>>>;
  /** Default: 202h, interrupts enabled. */
  readonly rflags?: bigint;
  /** All 16 XMM registers in halves of 8 bytes, low one first; default: 0. */
  readonly xmm?: BigUint64Array;
  /** Default: flat, selectors as Windows has them for the ring. */
  readonly segments?: Partial<Readonly<Record<SegmentName, ShellcodeSegment>>>;
  /** Control registers that ring 0 reads; default: 0. */
  readonly controlRegisters?: Partial<Readonly<Record<'cr0' | 'cr2' | 'cr3' | 'cr4' | 'cr8', bigint>>>;
  /** Content of the stack; default: 8 KiB of zeros. It is copied. */
  readonly stack?: Uint8Array;
  /** Linear address of the first byte of `stack`; default: 4 KiB below the page that RSP points into. */
  readonly stackBase?: bigint;
  /** Linear address of the thread's TIB, in ring 0 of the KPCR; default: base of GS, in 32-bit code of FS. */
  readonly tibBase?: bigint;
  /** Instructions, and elements of repeated string instructions; default 256. */
  readonly maxInstructions?: number;
  /** How many of 100 instructions must be NOPs for a sled, 0 to 100; default 75. */
  readonly nopThreshold?: number;
  /** Length from which on characters on the stack are a string; default 8, at least 1. */
  readonly stringThreshold?: number;
  /** How many accesses outside code and stack may be asked of `onExternalAccess`; default 0. */
  readonly memoryThreshold?: number;
  /** Flags of {@link ShellcodeFlag} that are never raised; default none. */
  readonly forceOff?: number;
  /** End with `detected` before the instruction after the first flag; default: go on. */
  readonly stopOnDetection?: boolean;
  /**
   * Stores into the code are noticed but not made: for code that has decoded itself already, which a second round
   * would scramble. Default: they are made.
   */
  readonly bypassSelfWrites?: boolean;
  /**
   * `processor` (default) does what a processor does. `bddisasm` does what that library's emulator does where the two
   * differ: AF is kept by every instruction, SHRD by one puts the old sign into OF, a 64-bit DIV or IDIV changes nothing,
   * INTO always ends the emulation, 16 bytes of memory need not be aligned, 32-bit code may store through CS, and POPF
   * loads IF and IOPL in every ring.
   */
  readonly semantics?: 'processor' | 'bddisasm';
  /**
   * Asked for what lies outside code and stack.
   * @returns for a load, the bytes (as many as asked for); for a store, anything when it is accepted; undefined refuses both
   */
  readonly onExternalAccess?: (access: ShellcodeAccess) => Uint8Array | undefined;
  /** Told of each instruction before it is executed. */
  readonly onInstruction?: (step: ShellcodeTraceStep) => void;
  /** Told of each access to memory that succeeded. */
  readonly onMemoryAccess?: (access: ShellcodeAccess & { readonly loaded: Uint8Array | undefined }) => void;
}

/** What came of an emulation. */
export interface ShellcodeResult {
  readonly status: ShellcodeStatus;
  /** Bits of {@link ShellcodeFlag}. */
  readonly flags: number;
  /** General registers at the end; those of an instruction that was not completed are as before it. */
  readonly registers: Readonly<Record<GeneralRegister, bigint>>;
  readonly rflags: bigint;
  /** Address of the instruction that ended the emulation, or that would have come next. */
  readonly rip: bigint;
  /** XMM registers in halves of 8 bytes, low one first. */
  readonly xmm: BigUint64Array;
  /** Instructions that were begun, and elements of repeated string instructions. */
  readonly steps: number;
  /** Addresses at which an instruction was executed. */
  readonly uniqueAddresses: number;
  /** NOP instructions before anything else. */
  readonly nops: number;
  /** Instructions whose bytes are 00 00: the code ran into empty memory. */
  readonly nulls: number;
  /** Accesses outside code and stack. */
  readonly externalAccesses: number;
  /** The code as it is at the end. */
  readonly code: Uint8Array;
  /** The stack as it is at the end. */
  readonly stack: Uint8Array;
}
