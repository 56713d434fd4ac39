import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Access } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { type Bitness, DecodedInstruction, decodeInstruction, type MemoryOperand } from '../src/index.js';
import { instructionsOf, type ReferenceInstruction, type ReferenceOperand } from './reference-listing.js';
import { filesOfArchive } from './tar.js';

const data = process.env.INTROD_REFERENCE_DATA;
const archive = join(data ?? '', 'decoder', 'bddisasm_test.tar.gz');
const missing =
  data === undefined ? 'INTROD_REFERENCE_DATA is not set' : existsSync(archive) ? undefined : `there is no ${archive}`;

/** A class of instructions whose operands differ from the reference, with the reason. */
interface Difference {
  /** Regular expression for `set mnemonic problem`. */
  readonly form: string;
  readonly reason: string;
}
const differences = JSON.parse(
  readFileSync(new URL('./reference-differences.json', import.meta.url), 'utf8'),
) as readonly Difference[];

const RIP_OPERAND = 'RIP relative';

/** The numbers that are compared, of either side. */
interface Operand {
  readonly access: string;
  readonly size: number;
  readonly segment: number;
  readonly base: number;
  readonly index: number;
  readonly scale: number;
  readonly displacement: bigint;
}

/** READ and WRITE as letters. */
function letters(access: number): string {
  return `${(access & Access.READ) === 0 ? '' : 'R'}${(access & Access.WRITE) === 0 ? '' : 'W'}`;
}

/** The displacement in bytes: where it is compressed, the listing's operand has it as it is encoded, and its text multiplied. */
function displacementOf(one: ReferenceOperand, instruction: ReferenceInstruction): bigint {
  const inText = one.notes.has('Compressed displacement') ? /([-+])(0x[0-9a-f]+)\]/.exec(instruction.text) : null;
  return inText === null ? one.displacement : BigInt(inText[2]!) * (inText[1] === '-' ? -1n : 1n);
}

/** An operand of the reference in our terms; undefined when nothing is accessed, or a shadow stack. */
function expected(one: ReferenceOperand, instruction: ReferenceInstruction, bitness: Bitness): Operand | undefined {
  const access = one.access.replaceAll(/[^RW]/g, '');
  if (access === '' || one.notes.has('Shadow stack') || one.notes.has('Address Generator')) {
    return undefined;
  }
  const size = BigInt(one.notes.has('Stack') && access === 'W' ? one.size : 0);
  const relative = one.notes.has(RIP_OPERAND) ? BigInt(instruction.at + instruction.bytes.length) : 0n;
  const segment = one.segment ?? -1;
  return {
    access,
    // -1 is a size that the processor's state decides.
    size: Math.max(one.size, 0),
    segment: bitness === 64 && segment < 4 ? -1 : segment,
    base: one.notes.has(RIP_OPERAND) ? -1 : (one.base ?? -1),
    index: one.index ?? -1,
    scale: one.scale,
    displacement: BigInt.asUintN(instruction.addressSize, displacementOf(one, instruction) + relative - size),
  };
}

const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs'];

function actual(one: MemoryOperand, instruction: ReferenceInstruction): Operand {
  return {
    access: letters(one.access),
    // The reference has the size of all elements together.
    size: one.size * (one.elements?.count ?? 1),
    segment: one.segment === undefined ? -1 : SEGMENTS.indexOf(one.segment),
    base: one.base,
    index: one.elements?.register ?? one.index,
    scale: 1 << one.scaleShift,
    displacement: BigInt.asUintN(
      instruction.addressSize,
      (BigInt(one.displacementHigh) << 32n) | BigInt(one.displacementLow),
    ),
  };
}

/** Whether the instruction has the prefix of APX that gives it more registers: D5H after legacy prefixes. */
function isRex2(one: ReferenceInstruction, bitness: string): boolean {
  const first = one.bytes.find(
    (byte) => ![0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65].includes(byte),
  );
  return bitness === '64' && first === 0xd5;
}

/** What is wrong with the operands of an instruction, in one word; undefined when nothing is. */
function problemOf(one: ReferenceInstruction, bitness: Bitness): string | undefined {
  const decoded = decodeInstruction(one.bytes, BigInt(one.at), bitness);
  if (!(decoded instanceof DecodedInstruction)) {
    return decoded;
  }
  if (decoded.length !== one.bytes.length) {
    return 'length';
  }
  const wanted = one.memory.flatMap((operand) => expected(operand, one, bitness) ?? []);
  const found = decoded.memory.map((operand) => actual(operand, one));
  if (wanted.length !== found.length) {
    return `count${wanted.length}:${found.length}`;
  }
  for (const [at, operand] of wanted.entries()) {
    for (const field of Object.keys(operand) as (keyof Operand)[]) {
      if (operand[field] !== found[at]![field]) {
        return `${field}${operand[field]}:${found[at]![field]}`;
      }
    }
  }
  return undefined;
}

describe.skipIf(missing !== undefined)(
  `Operands against the reference decoder${missing === undefined ? '' : ` (skipped: ${missing})`}`,
  () => {
    it('are the same for all but the listed forms', () => {
      const unused = new Set(differences);
      const patterns = differences.map((difference) => [difference, new RegExp(`^(?:${difference.form})$`)] as const);
      const unexpected = new Map<string, string[]>();
      let compared = 0;
      for (const [name, bytes] of filesOfArchive(archive)) {
        const size = /_(16|32|64)(?:_skip)?\.result$/.exec(name);
        if (size === null) {
          continue;
        }
        for (const one of instructionsOf(Buffer.from(bytes).toString('latin1'))) {
          compared++;
          const problem = problemOf(one, Number(size[1]) as Bitness);
          if (problem === undefined) {
            continue;
          }
          const form = `${isRex2(one, size[1]!) ? 'REX2' : one.set} ${one.mnemonic} ${problem}`;
          const known = patterns.find(([, pattern]) => pattern.test(form));
          if (known === undefined) {
            const list = unexpected.get(form) ?? [];
            list.push(`${name} ${Buffer.from(one.bytes).toString('hex')} ${one.text}`);
            unexpected.set(form, list);
          } else {
            unused.delete(known[0]);
          }
        }
      }
      expect(compared).toBeGreaterThan(12_000);
      expect([...unexpected]).toEqual([]);
      expect([...unused].map(({ form }) => form)).toEqual([]);
    });
  },
);
