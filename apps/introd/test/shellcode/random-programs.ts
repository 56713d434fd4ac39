import fc from 'fast-check';

/** A program without loops and faults, and whose flags are defined wherever they matter. */
export interface RandomProgram {
  readonly bitness: 32 | 64;
  readonly code: Uint8Array;
  readonly registers: readonly bigint[];
  readonly flags: number;
}

/** Numbers that choose one instruction and its operands. */
const choice = fc.tuple(
  fc.nat(255),
  fc.nat(255),
  fc.nat(255),
  fc.nat(255),
  fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff)),
);
type Choice = typeof choice extends fc.Arbitrary<infer T> ? T : never;

/** Registers that a program uses: not the stack pointer, not RBX, which points to memory, and no part of them. */
const USED = [0, 1, 2, 5, 6] as const;
const POINTER = 3;
/** Opcode extensions of the unary group F6/F7 that do not fault: NOT, NEG, MUL, IMUL. */
const UNARY = [2, 3, 4, 5] as const;
/** Opcodes of OR, AND and XOR, which leave AF undefined. */
const LOGIC = new Set([0x08, 0x20, 0x30]);
/** MOVS, CMPS, STOS, LODS and SCAS, each for bytes and for 4 bytes. */
const STRINGS = [0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf];
/** CMP ECX, EDX: defines all flags. */
const DEFINE_FLAGS = [0x39, 0xd1];

/** Writes instructions of one size with their operands. */
class Operands {
  readonly bytes: number[] = [];
  readonly #choice: Choice;
  readonly #wide: boolean;
  readonly #size: 1 | 2 | 4 | 8;

  constructor(chosen: Choice, bitness: 32 | 64) {
    this.#choice = chosen;
    this.#wide = bitness === 64;
    const sizes = this.#wide ? ([1, 2, 4, 8] as const) : ([1, 2, 4] as const);
    this.#size = sizes[chosen[1] % sizes.length] as 1 | 2 | 4 | 8;
  }

  /** Immediate of the operand's size, 4 bytes at most, or of one byte. */
  immediate(size = Math.min(this.#size, 4)): number[] {
    return Array.from({ length: size }, (_, i) => (this.#choice[4] >>> (8 * i)) & 0xff);
  }

  get isByte(): boolean {
    return this.#size === 1;
  }

  /**
   * Prefixes, opcode and ModRM.
   * @param opcode the form for words; the one for bytes is one below
   * @param extension of the opcode, in place of a register
   */
  instruction(opcode: readonly number[], extension?: number, noByte = false): number[] {
    const size = noByte && this.#size === 1 ? 4 : this.#size;
    const [, , registers, addressing] = this.#choice;
    const memory = addressing % 3 === 0;
    const high = this.#wide && addressing % 2 === 1;
    const register = extension ?? (USED[registers % USED.length] as number);
    const operand = USED[(registers >> 4) % USED.length] as number;
    const rex = (size === 8 ? 0x48 : 0) | (high && extension === undefined ? 0x44 : 0) | (high && !memory ? 0x41 : 0);
    const last = (opcode.at(-1) as number) - (size === 1 ? 1 : 0);
    return [
      ...(size === 2 ? [0x66] : []),
      ...(rex === 0 ? [] : [rex]),
      ...opcode.slice(0, -1),
      last,
      ...(memory ? [0x40 | (register << 3) | POINTER, (addressing >> 2) & 0x78] : [0xc0 | (register << 3) | operand]),
    ];
  }
}

/** The instructions a program is made of: bytes, and whether it leaves flags undefined. */
const KINDS: readonly ((operands: Operands, chosen: Choice, bitness: 32 | 64) => [number[], boolean?])[] = [
  (o, c) => {
    const operation = c[3] & 0x38;
    return [o.instruction([operation | (c[2] & 0x80 ? 3 : 1)]), LOGIC.has(operation)];
  },
  (o, c) => {
    const operation = (c[3] >> 1) & 7;
    return [[...o.instruction([0x81], operation), ...o.immediate()], true];
  },
  (o, c) => [[...o.instruction([0x83], (c[3] >> 1) & 7, true), ...o.immediate(1)], true],
  (o, c) => [o.instruction([0xf7], UNARY[c[3] % UNARY.length] as number), true],
  (o, c) => [o.instruction([0xff], c[3] & 1)],
  (o, c) => [[...o.instruction([0xc1], c[3] & 7), ...o.immediate(1)], true],
  (o, c) => [o.instruction([0xd1], c[3] & 7), true],
  (o, c) => [o.instruction([0xd3], c[3] & 7), true],
  (o) => [o.instruction([0x0f, 0xaf], undefined, true), true],
  (o, c) => [[...o.instruction([0x6b], undefined, true), c[4] & 0xff], true],
  (o) => [o.instruction([0x85]), true],
  (o) => [o.instruction([0x87])],
  (o) => [o.instruction([0x89])],
  (o) => [o.instruction([0x8b])],
  (o) => [o.instruction([0x0f, 0xc1])],
  (o) => [o.instruction([0x0f, 0xb1])],
  (o, c) => [o.instruction([0x0f, 0x40 | (c[3] & 15)], undefined, true)],
  (o, c) => [o.instruction([0x0f, 0xb6 | (c[3] & 9)], undefined, true)],
  (o, c) => [[...o.instruction([0x0f, 0xba], 4 | (c[3] & 3), true), c[4] & 0xff], true],
  (o, c) => [o.instruction([0x0f, 0xbc | (c[3] & 1)], undefined, true), true],
  (_o, c) => [[0x0f, 0xc8 | (USED[c[3] % USED.length] as number)]],
  (_o, c) => [[0x0f, 0x90 | (c[3] & 15), 0xc0 | (USED[c[2] % 3] as number)]],
  (_o, c) => [[0x50 | (USED[c[3] % USED.length] as number), 0x58 | (USED[c[2] % USED.length] as number)]],
  (_o, c) => [[[0xf8, 0xf9, 0xf5, 0x98, 0x99, 0x9f, 0x9e, 0x9c][c[3] & 7] as number]],
  (o, c) => [[...o.instruction([0x0f, 0xa4 | (c[3] & 8)], undefined, true), c[4] & 15], true],
  // A string instruction between two places of the memory, repeated or not: LEA of both pointers, a count, the instruction.
  (_o, c) => [
    [
      0x8d,
      0x73,
      c[2] & 0x7f,
      0x8d,
      0x7b,
      c[3] & 0x7f,
      0xb9,
      c[4] & 15,
      0,
      0,
      0,
      ...([[], [0xf3], [0xf2]][c[1] % 3] as number[]),
      STRINGS[c[4] % STRINGS.length] as number,
    ],
  ],
  // A frame, with a copy of the outer one at times, and back.
  (_o, c) => [[0xc8, c[2] & 0x38, 0, c[3] & 1, 0xc9]],
  // A jump over one byte, which is a NOP.
  (_o, c) => [[0x70 | (c[3] & 15), 0x01, 0x90]],
  (_o, c) => [
    [
      0x8d,
      0x44 | ((USED[c[3] % USED.length] as number) << 3),
      [0x01, 0x4d, 0x92, 0xf1][c[2] & 3] as number,
      c[4] & 0x7f,
    ],
  ],
];

/** What only 32-bit code has: each with what shows the flags that it defines. */
const LEGACY_KINDS: readonly ((chosen: Choice) => number[])[] = [
  // PUSHAD, POPAD; INC and DEC of one byte.
  () => [0x60, 0x61],
  (c) => [0x40 | (c[3] & 8) | (USED[c[2] % USED.length] as number)],
  // DAA and DAS, then LAHF; AAA and AAS, then SBB ECX, ECX.
  (c) => [0x27 | (c[3] & 8), 0x9f, ...DEFINE_FLAGS],
  (c) => [0x37 | (c[3] & 8), 0x19, 0xc9],
  // AAM and AAD, then SETS CL, SETZ DL, SETP CH.
  (c) => [0xd4 | (c[3] & 1), (c[4] & 0xff) | 1, 0x0f, 0x98, 0xc1, 0x0f, 0x94, 0xc2, 0x0f, 0x9a, 0xc5, ...DEFINE_FLAGS],
  // ARPL of memory and of a register; SALC.
  (c) => [0x63, c[3] & 1 ? 0x43 : 0xc1, ...(c[3] & 1 ? [c[2] & 0x7f] : [])],
  () => [0xd6],
];

function encode(chosen: readonly Choice[], bitness: 32 | 64): Uint8Array {
  const bytes = [...DEFINE_FLAGS];
  for (const one of chosen) {
    if (bitness === 32 && one[0] % 4 === 0) {
      const legacy = LEGACY_KINDS[one[1] % LEGACY_KINDS.length] as (typeof LEGACY_KINDS)[number];
      bytes.push(...legacy(one));
      continue;
    }
    const kind = KINDS[one[0] % KINDS.length] as (typeof KINDS)[number];
    const [instruction, leavesUndefined = false] = kind(new Operands(one, bitness), one, bitness);
    bytes.push(...instruction, ...(leavesUndefined ? DEFINE_FLAGS : []));
  }
  return Uint8Array.from([...bytes, 0xcc]);
}

const value = fc.oneof(
  fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  fc.constantFrom(0n, 1n, 0x7fn, 0x80n, 0x7fff_ffffn, 0x8000_0000n, 0x7fff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n),
);

/** Random programs for both bitnesses. */
export const randomProgram: fc.Arbitrary<RandomProgram> = fc
  .record({
    bitness: fc.constantFrom<32 | 64>(32, 64),
    chosen: fc.array(choice, { minLength: 1, maxLength: 40 }),
    registers: fc.array(value, { minLength: 16, maxLength: 16 }),
    flags: fc.nat(0xff),
  })
  .map(({ bitness, chosen, registers, flags }) => ({
    bitness,
    code: encode(chosen, bitness),
    registers: registers.map((register) => BigInt.asUintN(bitness, register)),
    // Status flags but AF and OF; bit 1 is always set.
    flags: (flags & 0xc5) | 2,
  }));
