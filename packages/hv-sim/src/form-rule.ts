import { CONDITIONS, opCode } from './op-codes.js';
import type { OpWriter } from './op-writer.js';

/** Writes the record of one form of an instruction. */
export type Emit = (op: OpWriter) => void;

/** Forms by a pattern on the decoder's name for them (`Add_rm32_r32`), and how their records are written. */
export type FormRule = readonly [pattern: RegExp, make: (match: RegExpExecArray) => Emit];

/** Size in bytes of the operand that a part of a form's name stands for: `rm32`, `r64`, `AX`, `m16`. */
export function operandSize(part: string): number {
  const bits = /^(?:rm|r|m|xmmm|moffs)(\d+)/.exec(part);
  if (bits) return Number(bits[1]) / 8;
  const size = { AL: 1, AX: 2, EAX: 4, RAX: 8 }[part];
  if (size === undefined) throw new RangeError(`no operand is called ${part}`);
  return size;
}

/** Size in bytes of the operand that a letter of a form's name stands for: `Movsb`, `Pushfq`. */
export const LETTER_SIZES: Readonly<Record<string, number>> = { b: 1, w: 2, d: 4, q: 8 };

/** The conditions as the forms' names have them (`Jne_rel8_64`), to be put into a pattern. */
export const conditionNames = CONDITIONS.map((name) => name.toLowerCase()).join('|');

/** Number of a condition by its name in a form's name. */
export function conditionNumber(name: string): number {
  return CONDITIONS.indexOf(name.toUpperCase() as (typeof CONDITIONS)[number]);
}

/** An operation without operands that a record must name. */
export function plain(name: string, size = 0): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.size(size);
  };
}

/** An operation whose only operand is the source. */
export function sourceOnly(name: string, size: number, operand = 0): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.size(size);
    op.source(operand);
  };
}

/** An operation whose only operand is the destination. */
export function destinationOnly(name: string, size: number): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.size(size);
    op.destination(0);
  };
}

/** An operation whose only operand is memory. */
export function memoryOnly(name: string, size: number): Emit {
  const code = opCode(name);
  return (op) => {
    op.code(code);
    op.size(size);
    op.memory();
  };
}
