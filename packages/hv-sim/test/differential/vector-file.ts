import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Bitness, initialRegisters, type MemoryBytes, type Outcome, type TestCase } from './test-case.js';

/** A recorded case and what the host did. */
export interface Vector {
  test: TestCase;
  outcome: Outcome;
}

/** By bitness of the code. */
const FOLDERS: Readonly<Record<Bitness, URL>> = {
  64: new URL('./vectors/', import.meta.url),
  32: new URL('./vectors-32/', import.meta.url),
};
const SUFFIX = '.vectors.json';
/** A file holds, for each form, its cases as {@link encodeVector} writes them. */
type VectorFile = Record<string, string[]>;

/** Names of the recorded groups. */
export function recordedGroups(bitness: Bitness = 64): string[] {
  return readdirSync(fileURLToPath(FOLDERS[bitness]))
    .filter((name) => name.endsWith(SUFFIX))
    .map((name) => name.slice(0, -SUFFIX.length))
    .toSorted();
}

/** The vectors of a group, by form. */
export function readVectors(group: string, bitness: Bitness = 64): Map<string, Vector[]> {
  const file = JSON.parse(readFileSync(new URL(`${group}${SUFFIX}`, FOLDERS[bitness]), 'utf8')) as VectorFile;
  return new Map(
    Object.entries(file).map(([form, lines]) => [form, lines.map((line) => decodeVector(form, line, bitness))]),
  );
}

/** Writes a group's file. */
export function writeVectors(group: string, vectors: readonly Vector[], bitness: Bitness = 64): void {
  mkdirSync(FOLDERS[bitness], { recursive: true });
  const file: VectorFile = {};
  for (const vector of vectors) {
    const lines = file[vector.test.form] ?? [];
    lines.push(encodeVector(vector));
    file[vector.test.form] = lines;
  }
  writeFileSync(
    new URL(`${group}${SUFFIX}`, FOLDERS[bitness]),
    `${JSON.stringify(file, null, 0).replaceAll('",', '",\n')}\n`,
  );
}

/**
 * One line of hexadecimal fields, separated by `;`. Before: RIP, code, number of instructions, seed of the registers, RFLAGS, registers that
 * differ from the seed's, memory that differs from the initial one, undefined flags. After: vector
 * or empty, error code, CR2, RIP, RFLAGS, general registers and XMM halves that changed, memory that changed.
 */
function encodeVector({ test, outcome }: Vector): string {
  const seeded = initialRegisters(test.seed, test.bitness);
  return [
    hex(test.rip),
    bytesToHex(test.code),
    hex(test.instructions),
    hex(test.seed),
    hex(test.before.rflags),
    encodeChanges(seeded.gpr, test.before.gpr),
    encodeMemory(test.patches),
    hex(test.undefinedFlags),
    outcome.vector === undefined ? '' : hex(outcome.vector),
    hex(outcome.error),
    hex(outcome.cr2),
    hex(outcome.rip),
    hex(outcome.after.rflags),
    encodeChanges(test.before.gpr, outcome.after.gpr),
    encodeChanges(test.before.xmm, outcome.after.xmm),
    encodeMemory(outcome.memory),
  ].join(';');
}

/** The inverse of {@link encodeVector}. */
function decodeVector(form: string, line: string, bitness: Bitness): Vector {
  const fields = line.split(';');
  let next = 0;
  const text = (): string => {
    const field = fields[next++];
    if (field === undefined) throw new Error(`${form}: a recorded case has too few fields`);
    return field;
  };
  const number = (): number => Number.parseInt(text(), 16);
  const big = (): bigint => BigInt(`0x${text()}`);
  const rip = number();
  const code = hexToBytes(text());
  const instructions = number();
  const seed = number();
  const seeded = initialRegisters(seed, bitness);
  const rflags = number();
  const before = { gpr: decodeChanges(seeded.gpr, text()), rflags, xmm: seeded.xmm };
  const patches = decodeMemory(text());
  const test: TestCase = {
    form,
    rip,
    bitness,
    code,
    instructions,
    seed,
    before,
    patches,
    undefinedFlags: number(),
  };
  const vector = text();
  const outcome: Outcome = {
    vector: vector === '' ? undefined : Number.parseInt(vector, 16),
    error: number(),
    cr2: big(),
    rip: big(),
    after: { rflags: number(), gpr: decodeChanges(before.gpr, text()), xmm: decodeChanges(before.xmm, text()) },
    memory: decodeMemory(text()),
  };
  return { test, outcome };
}

function hex(value: number | bigint): string {
  return value.toString(16);
}

function bytesToHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

function hexToBytes(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, 'hex'));
}

function encodeChanges(from: BigUint64Array, to: BigUint64Array): string {
  const changes: string[] = [];
  to.forEach((value, i) => {
    if (value !== from[i]) changes.push(`${hex(i)}=${hex(value)}`);
  });
  return changes.join(',');
}

function decodeChanges(from: BigUint64Array, text: string): BigUint64Array {
  const to = from.slice();
  for (const [index, value] of pairs(text)) to[Number.parseInt(index, 16)] = BigInt(`0x${value}`);
  return to;
}

function encodeMemory(runs: readonly MemoryBytes[]): string {
  return runs.map(({ offset, bytes }) => `${hex(offset)}=${bytesToHex(bytes)}`).join(',');
}

function decodeMemory(text: string): MemoryBytes[] {
  return pairs(text).map(([offset, bytes]) => ({ offset: Number.parseInt(offset, 16), bytes: hexToBytes(bytes) }));
}

function pairs(text: string): [string, string][] {
  if (text === '') return [];
  return text.split(',').map((entry) => {
    const [key = '', value = ''] = entry.split('=');
    return [key, value];
  });
}
