import { Decoder, DecoderError, DecoderOptions } from 'iced-x86';
import { type Bitness, FlowControl, MAX_INSTRUCTION_LENGTH, OpKind, requireBitness } from './decoder.js';

/** Instructions moved to another place, where they do the same. */
export interface Relocation {
  /** As many bytes as the originals, each instruction at its old offset. */
  readonly bytes: Uint8Array;
}

/**
 * Why instructions cannot be moved. `invalid`, `incomplete`: the bytes are not instructions, or there are too few. `short-branch`: a branch
 * whose displacement has less than 32 bits. `out-of-range`: a target that the new place cannot reach with 32 bits. `branch-inside`: a branch
 * to one of the moved instructions behind the first. `ends-early`: one of them, not the last, never goes on to the next, so what follows may be something else.
 */
export type RelocationFailure =
  | 'invalid'
  | 'incomplete'
  | 'short-branch'
  | 'out-of-range'
  | 'branch-inside'
  | 'ends-early';

/** Where an instruction refers to relative to itself. */
interface RelativeReference {
  readonly target: bigint;
  /** First byte of the 32-bit displacement, counted from the first instruction. */
  readonly at: number;
  /** First byte behind the instruction. */
  readonly end: number;
  readonly branch: boolean;
}

/**
 * Moves whole instructions: those that begin in the first `atLeast` bytes. Displacements of branches and of RIP-relative operands
 * are adapted where the decoder finds them, whatever the instruction and its prefixes.
 * @param bytes machine code, up to 15 bytes more than `atLeast`
 * @param from address of the first byte
 * @param to address that they shall work at
 * @param atLeast bytes to be moved at least
 * @param bitness size of the code
 * @throws X86Error `ERR_X86_OPTIONS` when there is no code of that size
 */
export function relocateInstructions(
  bytes: Uint8Array,
  from: bigint,
  to: bigint,
  atLeast: number,
  bitness: Bitness,
): Relocation | RelocationFailure {
  const found = referencesOf(bytes, from, atLeast, bitness);
  if (typeof found === 'string') {
    return found;
  }
  // Not `slice`, which does not copy when it is a Buffer's.
  const moved = Uint8Array.from(bytes.subarray(0, found.length));
  const view = new DataView(moved.buffer);
  for (const { target, at, end, branch } of found.references) {
    if (branch && target > from && target < from + BigInt(found.length)) {
      return 'branch-inside';
    }
    const distance = BigInt.asIntN(64, target - (to + BigInt(end)));
    // A 32-bit displacement reaches every address of 32-bit code.
    if (bitness === 64 && BigInt.asIntN(32, distance) !== distance) {
      return 'out-of-range';
    }
    view.setInt32(at, Number(BigInt.asIntN(32, distance)), true);
  }
  return { bytes: moved };
}

function referencesOf(
  bytes: Uint8Array,
  from: bigint,
  atLeast: number,
  bitness: Bitness,
): { readonly length: number; readonly references: readonly RelativeReference[] } | RelocationFailure {
  requireBitness(bitness);
  const decoder = new Decoder(bitness, bytes, DecoderOptions.None);
  decoder.ip = from;
  const references: RelativeReference[] = [];
  try {
    while (decoder.position < atLeast) {
      const start = decoder.position;
      const instruction = decoder.decode();
      const offsets = decoder.getConstantOffsets(instruction);
      try {
        if (decoder.lastError !== DecoderError.None) {
          const cut = decoder.lastError === DecoderError.NoMoreBytes && bytes.length - start < MAX_INSTRUCTION_LENGTH;
          return cut ? 'incomplete' : 'invalid';
        }
        const end = decoder.position;
        if (isRelativeBranch(instruction.opCount === 0 ? undefined : instruction.op0Kind)) {
          if (offsets.immediateSize !== 4) {
            return 'short-branch';
          }
          const target = instruction.nearBranchTarget;
          references.push({ target, at: start + offsets.immediateOffset, end, branch: true });
        } else if (instruction.isIpRelMemoryOperand) {
          const target = instruction.ipRelMemoryAddress;
          references.push({ target, at: start + offsets.displacementOffset, end, branch: false });
        }
        if (end < atLeast && endsFlow(instruction.flowControl)) {
          return 'ends-early';
        }
      } finally {
        offsets.free();
        instruction.free();
      }
    }
    return { length: decoder.position, references };
  } finally {
    decoder.free();
  }
}

function isRelativeBranch(kind: OpKind | undefined): boolean {
  return kind === OpKind.NearBranch16 || kind === OpKind.NearBranch32 || kind === OpKind.NearBranch64;
}

function endsFlow(flow: FlowControl): boolean {
  return (
    flow === FlowControl.Return ||
    flow === FlowControl.UnconditionalBranch ||
    flow === FlowControl.IndirectBranch ||
    flow === FlowControl.Exception
  );
}
