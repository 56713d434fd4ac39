/** Reads the listings of the reference decoder: instructions with their operands, as text. */

/** A memory operand as the listing has it. */
export interface ReferenceOperand {
  /** Letters of the access: R, W, with C before conditional ones; P for prefetches. */
  readonly access: string;
  readonly size: number;
  readonly segment: number | undefined;
  readonly base: number | undefined;
  readonly index: number | undefined;
  readonly scale: number;
  /** As a number of the address size. */
  readonly displacement: bigint;
  /** What else is said about it: `Stack`, `String`, `RIP relative`, .. */
  readonly notes: ReadonlySet<string>;
}

/** An instruction of a listing. */
export interface ReferenceInstruction {
  readonly at: number;
  readonly bytes: Uint8Array;
  readonly mnemonic: string;
  readonly text: string;
  /** Name of the group of instructions, such as AVX512F. */
  readonly set: string;
  readonly addressSize: number;
  readonly memory: readonly ReferenceOperand[];
}

const HEAD = /^([0-9a-f]{16}) ([0-9a-f]+)\s+(.*)$/i;
const OPERAND =
  /^\s*Operand: \d+, Acc:\s*([-A-Z]+),\s+Type:\s*Memory, Size:\s*(-?\d+), RawSize:\s*-?\d+, Encoding: \w(.*)$/;

function operandOf(head: RegExpExecArray, line: string): ReferenceOperand {
  const place = (name: string): number | undefined => {
    const found = new RegExp(`${name}: (\\d+)`).exec(line);
    return found === null ? undefined : Number(found[1]);
  };
  const displacement = /Displacement: (0x[0-9a-f]+)/.exec(line);
  const scale = /Index: \d+ \* (\d+)/.exec(line);
  return {
    access: head[1]!,
    size: Number(head[2]!),
    segment: place('Segment'),
    base: place('Base'),
    index: place('Index'),
    scale: scale === null ? 1 : Number(scale[1]),
    displacement: displacement === null ? 0n : BigInt(displacement[1]!),
    notes: new Set([...head[3]!.matchAll(/([A-Za-z ]+): \S+/g)].map((match) => match[1]!.trim())),
  };
}

/** The instructions of a listing; bytes that are not one are left out. */
export function instructionsOf(listing: string): ReferenceInstruction[] {
  const instructions: ReferenceInstruction[] = [];
  for (const block of listing.split(/\r?\n(?=[0-9a-f]{16} )/i)) {
    const lines = block.split(/\r?\n/);
    const head = HEAD.exec(lines[0] ?? '');
    if (head === null || head[3]!.startsWith('db ')) {
      continue;
    }
    const memory: ReferenceOperand[] = [];
    lines.forEach((line, at) => {
      const operand = OPERAND.exec(line);
      if (operand !== null) {
        memory.push(operandOf(operand, lines[at + 1] ?? ''));
      }
    });
    const words = head[3]!.trim().split(/\s+/);
    const mnemonic = words.find((word) => !/^(?:REP|REPZ|REPNZ|LOCK|XACQUIRE|XRELEASE|BND)$/.test(word)) ?? '';
    instructions.push({
      at: Number.parseInt(head[1]!, 16),
      bytes: Uint8Array.from(Buffer.from(head[2]!, 'hex')),
      mnemonic,
      text: head[3]!.trim(),
      set: /ISA Set: (\S+),/.exec(block)?.[1] ?? '',
      addressSize: Number(/ASIZE: (\d+)/.exec(block)?.[1] ?? 64),
      memory,
    });
  }
  return instructions;
}
