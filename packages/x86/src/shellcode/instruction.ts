import type { Emulation } from './emulation.js';

/** Where an operand is. */
export const OperandKind = {
  NONE: 0,
  GENERAL: 1,
  /** AH, CH, DH, BH. */
  HIGH_BYTE: 2,
  IMMEDIATE: 3,
  MEMORY: 4,
  SEGMENT: 5,
  /** XMM or YMM. */
  VECTOR: 6,
  MMX: 7,
  CONTROL: 8,
  /** A register that the emulation does not keep. */
  OTHER: 9,
} as const;
export type OperandKind = (typeof OperandKind)[keyof typeof OperandKind];

/** An operand; address and immediate stand in the instruction. */
export interface Operand {
  readonly kind: OperandKind;
  /** In bytes. */
  readonly size: number;
  /** Number of the register within its kind. */
  readonly register: number;
  /** Mask of the low half of a value. */
  readonly mask: number;
}

/** How a string instruction repeats. */
export const Repeat = { NONE: 0, WHILE_EQUAL: 1, WHILE_NOT_EQUAL: 2 } as const;

/** No register. */
export const NO_REGISTER = -1;

/** Executes one instruction. */
export type Handler = (emulation: Emulation, instruction: EmulatedInstruction) => void;

/**
 * An instruction made ready to be executed: a plain object that holds for every address, so that it is decoded once for
 * all emulations. Numbers of 64 bits are in unsigned halves.
 */
export interface EmulatedInstruction {
  readonly execute: Handler;
  readonly bytes: Uint8Array;
  readonly length: number;
  readonly bitness: 32 | 64;
  readonly first: Operand;
  readonly second: Operand;
  readonly third: Operand;
  /** Sign-extended to 64 bits where the instruction does. */
  readonly immediateLow: number;
  readonly immediateHigh: number;
  /** The second immediate: nesting level of ENTER, selector of a far branch. */
  readonly secondImmediate: number;
  /** Registers of the address; {@link NO_REGISTER} for none. */
  readonly base: number;
  readonly index: number;
  readonly scale: number;
  readonly displacementLow: number;
  readonly displacementHigh: number;
  /** The displacement counts from the address of the instruction. */
  readonly ripRelative: boolean;
  /** Segment whose base is added; {@link NO_REGISTER} for none. */
  readonly segment: number;
  /** Of the memory operand, or of the counter of a loop, in bytes. */
  readonly addressSize: 2 | 4 | 8;
  /** Size of what goes over the stack (of one value, with a return or a frame), or of the memory operand, in bytes. */
  readonly size: number;
  /** Of a near branch: distance from the address of the instruction, sign-extended. */
  readonly target: number;
  /** Of a near branch: 2, 4 or 8. */
  readonly targetSize: number;
  /** A jump or call with a selector. */
  readonly far: boolean;
  /** Condition code, as in the low four bits of Jcc. */
  readonly condition: number;
  readonly repeat: number;
  /** Encoded with a VEX prefix. */
  readonly vex: boolean;
  /** What is read from memory goes into a general or vector register or other memory: it is kept, not only looked at. */
  readonly keepsLoad: boolean;
  readonly nop: boolean;
  /** Bytes 00 00. */
  readonly nulls: boolean;
}
