import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { GeneralRegister } from '@introd/abi';
import { emulateShellcode, type ShellcodeStatus } from '@introd/x86/shellcode';
import { describe, expect, test } from 'vitest';

const root = process.env.INTROD_REFERENCE_DATA;
const folder = root === undefined ? undefined : path.join(root, 'shemu');
const names =
  folder === undefined
    ? []
    : readdirSync(folder)
        .filter((name) => name.endsWith('.test'))
        .map((name) => name.slice(0, -'.test'.length))
        .toSorted();

/** How the cases were made: code with 100h zeros behind it, 2,000h bytes of stack around RSP, the TIB at 7FFF0000h. */
const CODE_BASE = 0x20_0000n;
const ROOM = 0x100;
const STACK = { base: 0x1f_d000n, size: 0x2000 };
const TIB = 0x7fff_0000n;
const LIMIT = 10_000;

/** The numbers of bddisasm's `SHEMU_ABORT_...` (public header bdshemu.h). */
const STATUS: Readonly<Record<ShellcodeStatus, number>> = {
  limit: 0,
  'memory-outside': 1,
  'rip-outside': 2,
  'unsupported-instruction': 3,
  'unsupported-operand': 6,
  'no-privilege': 9,
  halted: 10,
  'invalid-selector': 11,
  'invalid-instruction': 16,
  detected: 0xffff_ffff,
};

/** What a `.result` file says. */
interface Expected {
  /** Registers before each instruction, in order: name and value. */
  readonly steps: { registers: Map<string, bigint>; rflags: bigint; bytes: string }[];
  /** Accesses to memory, in order, as the file has them. */
  readonly accesses: string[];
  readonly end: string;
}

function parse(text: string): Expected {
  const steps: Expected['steps'] = [];
  const accesses: string[] = [];
  let end = '';
  let registers = new Map<string, bigint>();
  for (const line of text.split(/\r?\n/)) {
    const access = /^\s+Memory (LOAD|STOR), address (0x\w+), size (\d+), value (\w*)/.exec(line);
    const instruction = /^IP: 0x(\w+)\s+(\w+)/.exec(line);
    if (access !== null) accesses.push(access.slice(1).join(' '));
    else if (instruction !== null) {
      steps.push({
        registers,
        rflags: registers.get('rflags') ?? -1n,
        bytes: (instruction[2] as string).toLowerCase(),
      });
      registers = new Map();
    } else if (line.startsWith('Emulation terminated')) end = line;
    else {
      for (const [, name, value] of line.matchAll(/(\w+)\s*= (0x\w+)/g)) {
        const register = (name as string).toLowerCase();
        if (/^r(\w[xpi]|\d+|ip|flags)$/.test(register)) registers.set(register, BigInt(value as string));
      }
    }
  }
  return { steps, accesses, end };
}

/** Flags of ring 0 stand 16 bits higher in the files than in policies: 1,0000,0000h is the first. */
function numberedAsInFiles(flags: number): bigint {
  const wide = BigInt(flags);
  return (wide & 0xffffn) | ((wide >> 16n) << 32n);
}

function run(name: string) {
  const code = readFileSync(path.join(folder as string, `${name}.test`));
  const padded = new Uint8Array(code.length + ROOM);
  padded.set(code);
  const expected = parse(readFileSync(path.join(folder as string, `${name}.result`), 'latin1'));
  const before = expected.steps[0]?.registers ?? new Map<string, bigint>();
  const start = before.get('rsp') ?? STACK.base + 0x1000n;
  const general = [...before].filter(([register]) => /^(r[a-ds][xpi]|r[89]|r1[0-5])$/.test(register));
  const steps: Expected['steps'] = [];
  const accesses: string[] = [];
  const result = emulateShellcode({
    code: padded,
    codeBase: CODE_BASE,
    bitness: name.includes('_32_') ? 32 : 64,
    ring: name.includes('_r0_') ? 0 : 3,
    rip: before.get('rip') ?? CODE_BASE,
    registers: Object.fromEntries(general) as Partial<Record<GeneralRegister, bigint>>,
    rflags: before.get('rflags') ?? 0x202n,
    stack: new Uint8Array(STACK.size),
    stackBase: start - 0x1000n,
    tibBase: TIB,
    maxInstructions: LIMIT,
    semantics: 'bddisasm',
    onInstruction: (step) => {
      const index = steps.length;
      const registers = new Map<string, bigint>();
      for (const register of expected.steps[index]?.registers.keys() ?? []) {
        if (register === 'rip') registers.set(register, step.address);
        else if (register === 'rflags') registers.set(register, step.rflags);
        else if (/^r(1[6-9]|2\d|3[01])$/.test(register)) registers.set(register, 0n);
        else registers.set(register, step.register(register as GeneralRegister));
      }
      steps.push({ registers, rflags: step.rflags, bytes: Buffer.from(step.bytes).toString('hex') });
    },
    onMemoryAccess: ({ address, size, loaded, stored }) => {
      const bytes = Buffer.from(loaded ?? stored ?? [])
        .toString('hex')
        .toUpperCase();
      accesses.push(
        `${loaded === undefined ? 'STOR' : 'LOAD'} 0x${address.toString(16).padStart(16, '0')} ${size} ${bytes}`,
      );
    },
  });
  const end = `Emulation terminated with status 0x${STATUS[result.status].toString(16).padStart(8, '0')}, flags: 0x${numberedAsInFiles(result.flags).toString(16)}, ${result.nops} NOPs, ${result.nulls} NULLs, ${result.steps} total instructions, ${result.uniqueAddresses} unique instructions`;
  return { expected, actual: { steps, accesses, end } };
}

describe.skipIf(folder === undefined)(
  `shellcode cases of the reference data${folder === undefined ? ' (skipped: INTROD_REFERENCE_DATA is not set)' : ''}`,
  () => {
    test.each(names)('%s: every register before every instruction, accesses, status, flags, counts', (name) => {
      const { expected, actual } = run(name);
      expect(expected.steps.length).toBeGreaterThan(0);
      expect(actual.end).toBe(expected.end);
      expect(actual.steps).toEqual(expected.steps);
      expect(actual.accesses).toEqual(expected.accesses);
    });
  },
);
