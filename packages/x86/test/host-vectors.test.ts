import { GENERAL_REGISTERS } from '@introd/abi';
import { emulateShellcode, type ShellcodeResult } from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';

/**
 * What hv-sim's differential test recorded of a host processor (packages/hv-sim/test/differential), as far as it is of
 * use here. That folder belongs to no package that could be imported by name, so its reader is loaded by its path.
 */
interface Recorded {
  readonly recordedGroups: (bitness: 32 | 64) => string[];
  readonly readVectors: (group: string, bitness: 32 | 64) => Map<string, Vector[]>;
}
interface Layout {
  readonly LAYOUT: {
    readonly code: number;
    readonly codeSize: number;
    readonly data: number;
    readonly dataSize: number;
    readonly readOnly: number;
    readonly readOnlySize: number;
    readonly gsBase: number;
  };
  readonly SELECTORS: { readonly code: number; readonly code32?: number; readonly stack: number };
  readonly COMPARED_FLAGS: number;
  readonly initialMemory: () => Uint8Array;
  readonly applyPatches: (base: Uint8Array, patches: readonly MemoryBytes[]) => Uint8Array;
}
interface MemoryBytes {
  readonly offset: number;
  readonly bytes: Uint8Array;
}
interface State {
  readonly gpr: BigUint64Array;
  readonly rflags: number;
  readonly xmm: BigUint64Array;
}
interface Vector {
  readonly test: {
    readonly form: string;
    readonly rip: number;
    readonly bitness?: 32 | 64;
    readonly code: Uint8Array;
    readonly before: State;
    readonly patches: readonly MemoryBytes[];
    readonly undefinedFlags: number;
  };
  readonly outcome: {
    readonly vector: number | undefined;
    readonly cr2: bigint;
    readonly rip: bigint;
    readonly after: State;
    readonly memory: readonly MemoryBytes[];
  };
}

const folder = '../../hv-sim/test/differential/';
const { recordedGroups, readVectors } = (await import(
  new URL(`${folder}vector-file.ts`, import.meta.url).href
)) as Recorded;
const { LAYOUT, SELECTORS, COMPARED_FLAGS, initialMemory, applyPatches } = (await import(
  new URL(`${folder}test-case.ts`, import.meta.url).href
)) as Layout;

const INT3 = 0xcc;
const MEMORY = initialMemory();
const LIMIT = 5000;
const OVERFLOW = 4;
const PAGE_FAULT = 14;

function emulate({ test: before }: Vector): ShellcodeResult {
  const code = new Uint8Array(LAYOUT.codeSize).fill(INT3);
  code.set(before.code, before.rip - LAYOUT.code);
  const memory = applyPatches(MEMORY, before.patches);
  const stack = BigInt(LAYOUT.data);
  const { bitness = 64 } = before;
  const wide = bitness === 64;
  const data = wide ? 0 : SELECTORS.stack;
  return emulateShellcode({
    code,
    codeBase: BigInt(LAYOUT.code),
    bitness,
    rip: BigInt(before.rip),
    registers: Object.fromEntries(GENERAL_REGISTERS.map((name, i) => [name, before.before.gpr[i]])),
    rflags: BigInt(before.before.rflags),
    xmm: before.before.xmm,
    segments: {
      es: { selector: data, base: 0n },
      cs: { selector: (wide ? SELECTORS.code : SELECTORS.code32) ?? 0, base: 0n },
      ss: { selector: SELECTORS.stack, base: 0n },
      ds: { selector: data, base: 0n },
      fs: { selector: 0, base: 0n },
      gs: { selector: 0, base: BigInt(LAYOUT.gsBase) },
    },
    stack: memory.subarray(0, LAYOUT.dataSize),
    stackBase: stack,
    maxInstructions: LIMIT,
    memoryThreshold: LIMIT,
    // The page behind the data can only be read.
    onExternalAccess: ({ address, size, stored }) => {
      const offset = Number(BigInt.asIntN(64, address - stack));
      const inside = offset >= 0 && offset + size <= memory.length;
      return inside && stored === undefined ? memory.slice(offset, offset + size) : undefined;
    },
  });
}

function differences(vector: Vector, result: ShellcodeResult): string[] {
  const { outcome, test: before } = vector;
  const found: string[] = [];
  const check = (what: string, want: unknown, got: unknown): void => {
    if (want !== got) found.push(`${what}: host ${String(want)}, emulation ${String(got)}`);
  };
  check('rip', outcome.rip, result.rip);
  GENERAL_REGISTERS.forEach((name, i) => {
    check(name, outcome.after.gpr[i], result.registers[name]);
  });
  const flags = COMPARED_FLAGS & ~before.undefinedFlags;
  check('rflags', outcome.after.rflags & flags, Number(result.rflags) & flags);
  outcome.after.xmm.forEach((half, i) => {
    check(`xmm${i >> 1}`, half, result.xmm[i]);
  });
  const memory = applyPatches(applyPatches(MEMORY, before.patches), outcome.memory).subarray(0, LAYOUT.dataSize);
  // What an ENTER that faults has pushed by then lies below the stack pointer.
  const unknown = outcome.vector !== undefined && before.form.startsWith('Enter');
  if (!unknown && Buffer.compare(memory, result.stack) !== 0) found.push('memory');
  return found;
}

/** Forms that the emulation does not cover as a processor does, and why. */
const NOT_COVERED: readonly { readonly reason: string; readonly forms: RegExp }[] = [
  { reason: 'far transfers end the emulation', forms: /^Iret[dq]$/ },
  {
    reason: 'there are no descriptor tables: a selector is judged by its value',
    forms: /^(Mov_Sreg_|Pop[wd]_[DES]S$)/,
  },
  { reason: 'of the state areas only the address of the last x87 instruction is made', forms: /^state-area/ },
  {
    reason: 'of the vector instructions those that decoders of payloads have use of are known',
    forms: /^(Shufp|Palignr|Movmskp|Pinsrw|Pextrw|Movddup|Packs|Packus|Pmuludq|Pmadd|Psadbw|Movs[lh]dup|Pabs)/,
  },
];

/** Single cases that a processor takes another way, and why. */
const OTHERWISE: readonly { readonly reason: string; readonly applies: (vector: Vector) => boolean }[] = [
  {
    reason:
      'a comparison that fails writes the old value back, which faults on a read-only page; no store is made here',
    applies: ({ test: { form }, outcome }) => form.startsWith('Cmpxchg') && outcome.vector === PAGE_FAULT,
  },
  {
    reason: 'INTO that traps leaves RIP behind it; the emulation names the instruction that ended it',
    applies: ({ test: { form }, outcome }) => form === 'Into' && outcome.vector === OVERFLOW,
  },
];

const covered = (form: string): boolean => !NOT_COVERED.some(({ forms }) => forms.test(form));
/** Where no 32-bit code is recorded the reader knows one folder only. */
const recorded = SELECTORS.code32 === undefined ? ([64] as const) : ([64, 32] as const);
const forms = recorded.flatMap((bitness) =>
  recordedGroups(bitness).map((group) => ({ bitness, group, vectors: readVectors(group, bitness) })),
);
const someCovered = forms.filter(({ vectors }) => [...vectors.keys()].some(covered));

describe('vectors recorded on a processor', () => {
  test.each(someCovered)(
    '$bitness-bit code, $group: registers, flags and memory are those of the processor',
    ({ vectors }) => {
      const failures: string[] = [];
      let cases = 0;
      for (const [form, list] of vectors) {
        if (!covered(form)) continue;
        for (const vector of list) {
          if (OTHERWISE.some(({ applies }) => applies(vector))) continue;
          cases++;
          const result = emulate(vector);
          const found = differences(vector, result);
          if (found.length > 0) {
            failures.push(
              `${form} ${Buffer.from(vector.test.code).toString('hex')}, ${result.status}: ${found.join('; ')}`,
            );
          }
        }
      }
      expect(failures.slice(0, 5)).toEqual([]);
      expect(cases).toBeGreaterThan(0);
    },
  );

  test.each(NOT_COVERED)('not covered: $reason', ({ forms: pattern }) => {
    const names = forms.flatMap(({ vectors }) => [...vectors.keys()]).filter((form) => pattern.test(form));
    // A reason that no longer holds must leave the list; single forms may be right by the chance of their cases.
    const right = names.filter((form) =>
      forms.every(({ vectors }) =>
        (vectors.get(form) ?? []).every((vector) => differences(vector, emulate(vector)).length === 0),
      ),
    );
    expect(names.length).toBeGreaterThan(0);
    expect(right.length).toBeLessThan(names.length);
  });
});
