import { hex64 } from '@introd/abi';
import { type Relocation, type RelocationFailure, relocateInstructions } from '@introd/x86';
import { CoreHooksError } from '../error.js';
import type { ArgumentLocation, DetourDescriptor, DetourHandler, FunctionLocation } from './descriptor.js';
import { HYPERCALLS } from './detour.js';
import { MAX_ARGUMENTS, MAX_SLOT } from './detour-call.js';
import { parsePattern } from './function-search.js';

/** Opcode of JMP rel32, and its length with the displacement: the branch, and the way back. */
export const JMP = 0xe9;
export const BRANCH_SIZE = 5;
/** One-byte NOP. */
const NOP = 0x90;
/** General registers of 64-bit code (SDM vol. 1, 3.4.1). */
const GENERAL_REGISTERS = 16;
/** Longest handler with what is appended to it. */
const MAX_HANDLER = 512;
/** Bytes of a function that are looked at: the branch, and the longest instruction that may begin inside it, rounded up. */
export const FUNCTION_BYTES = 24;

/** Where the moved instructions go in a handler. */
export function relocationOffset(handler: DetourHandler): number {
  return handler.relocatedAt ?? handler.code.length;
}

/**
 * Refuses a descriptor that contradicts itself.
 * @throws CoreHooksError ERR_CORE_HOOKS_DETOUR
 */
export function checkDescriptor({ name, handlers, function: location, arguments: locations }: DetourDescriptor): void {
  const refuse = (what: string, hint: string): never => {
    throw new CoreHooksError('ERR_CORE_HOOKS_DETOUR', `the detour ${name} ${what}`, { hint });
  };
  checkLocation(location, refuse);
  for (const list of location.by === 'pattern' ? location.patterns.map((one) => one.arguments) : []) {
    checkArguments(list, refuse);
  }
  checkArguments(locations, refuse);
  for (const { code, hypercall, publicData, relocatedAt = code.length } of handlers) {
    if (relocatedAt < 0 || relocatedAt > code.length || code.length - relocatedAt > BRANCH_SIZE) {
      refuse(
        'has a handler whose moved instructions would lie outside of it or on its code',
        `relocatedAt is the length of the code, or at most ${BRANCH_SIZE} bytes before it.`,
      );
    }
    if (hypercall !== undefined) {
      if (!Object.hasOwn(HYPERCALLS, hypercall.kind)) {
        refuse(`has a handler with the hypercall ${String(hypercall.kind)}`, 'Hypercalls are int3 and vmcall.');
      }
      const { on } = HYPERCALLS[hypercall.kind];
      if (hypercall.offset + on.length > relocatedAt || !on.every((byte, at) => code[hypercall.offset + at] === byte)) {
        refuse(
          `has a handler without ${hypercall.kind} where it says that there is one`,
          'offset is where its first byte is in the code.',
        );
      }
    }
    for (const item of publicData ?? []) {
      if (item.offset < 0 || item.size < 1 || item.offset + item.size > relocatedAt) {
        refuse(`has public data '${item.name}' outside of its handler`, 'It lies before the moved instructions.');
      }
    }
  }
}

type Refuse = (what: string, hint: string) => never;

/** Also when no image is there yet to look for the function in. */
function checkLocation(location: FunctionLocation, refuse: Refuse): void {
  switch (location.by) {
    case 'export':
    case 'symbol':
      return;
    case 'pattern':
      for (const pattern of location.patterns) {
        parsePattern(pattern.bytes);
      }
      return;
    default:
      refuse(
        `is looked for by ${String((location as { readonly by: unknown }).by)}`,
        'A function is found by export, symbol or pattern.',
      );
  }
}

function checkArguments(locations: readonly ArgumentLocation[] | undefined, refuse: Refuse): void {
  if (locations === undefined) {
    return;
  }
  if (locations.length > MAX_ARGUMENTS) {
    refuse(`has more than ${MAX_ARGUMENTS} arguments`, 'Name the arguments that the callback asks for.');
  }
  for (const location of locations) {
    const [number, limit] =
      'register' in location ? [location.register, GENERAL_REGISTERS] : [location.stack, MAX_SLOT + 1];
    if (!Number.isInteger(number) || number < 0 || number >= limit) {
      refuse(
        `has an argument in ${'register' in location ? 'register' : 'stack word'} ${String(number)}`,
        `A register is 0 to ${GENERAL_REGISTERS - 1} in the order RAX RCX RDX RBX RSP RBP RSI RDI R8..R15; a word of the stack 0 to ${MAX_SLOT}.`,
      );
    }
  }
}

/** A handler ready for its place. */
export interface BuiltHandler {
  readonly bytes: Uint8Array;
  /** Bytes of the function that it replaces. */
  readonly prologueSize: number;
}

/** Size of a handler for a function that begins with some bytes. */
export function handlerSize(
  handler: DetourHandler,
  functionBytes: Uint8Array,
  functionAddress: bigint,
  bitness: 32 | 64,
): number | RelocationFailure | 'too-long' {
  // How long the moved instructions are does not depend on where they go.
  const moved = relocateInstructions(functionBytes, functionAddress, functionAddress, BRANCH_SIZE, bitness);
  if (typeof moved === 'string') {
    return moved;
  }
  const size = relocationOffset(handler) + moved.bytes.length + BRANCH_SIZE;
  return size > MAX_HANDLER ? 'too-long' : size;
}

/**
 * Puts a handler together: its code, the instructions that the branch replaces, and the jump behind them.
 * @param at where it will lie
 */
export function buildHandler(
  handler: DetourHandler,
  code: Uint8Array,
  functionBytes: Uint8Array,
  functionAddress: bigint,
  at: bigint,
  bitness: 32 | 64,
): BuiltHandler | RelocationFailure {
  const offset = relocationOffset(handler);
  const to = at + BigInt(offset);
  const moved: Relocation | RelocationFailure = relocateInstructions(
    functionBytes,
    functionAddress,
    to,
    BRANCH_SIZE,
    bitness,
  );
  if (typeof moved === 'string') {
    return moved;
  }
  const prologueSize = moved.bytes.length;
  const back = branch(to + BigInt(prologueSize), functionAddress + BigInt(prologueSize), BRANCH_SIZE, bitness);
  if (back === undefined) {
    return 'out-of-range';
  }
  const bytes = new Uint8Array(offset + prologueSize + BRANCH_SIZE);
  bytes.set(code.subarray(0, offset));
  bytes.set(moved.bytes, offset);
  bytes.set(back, offset + prologueSize);
  return { bytes, prologueSize };
}

/** JMP rel32 from one address to another, and NOPs up to `size`; undefined when 32 bits do not reach. */
export function branch(from: bigint, to: bigint, size: number, bitness: 32 | 64): Uint8Array | undefined {
  const distance = BigInt.asIntN(64, to - (from + BigInt(BRANCH_SIZE)));
  if (bitness === 64 && BigInt.asIntN(32, distance) !== distance) {
    return undefined;
  }
  const bytes = new Uint8Array(size).fill(NOP);
  bytes[0] = JMP;
  new DataView(bytes.buffer).setInt32(1, Number(BigInt.asIntN(32, distance)), true);
  return bytes;
}

/** Where a JMP rel32 leads, for people. */
export function branchTarget(bytes: Uint8Array, at: bigint): string {
  const displacement = new DataView(bytes.buffer, bytes.byteOffset).getInt32(1, true);
  return hex64(BigInt.asUintN(64, at + BigInt(BRANCH_SIZE + displacement)));
}
