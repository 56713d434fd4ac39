import { readFileSync } from 'node:fs';
import path from 'node:path';

/** Same kind of code as the reference inputs: a loop of integer arithmetic, and one that decodes itself in place. */
const OWN = {
  'arith64.bin': 'b8 00 01 00 00 31 d2 01 c2 48 83 f2 05 48 0f af d2 ff c8 75 f2 c3',
  'shellcode64.bin': 'e8 00 00 00 00 5f 48 83 c7 40 b9 40 00 00 00 80 37 5a 48 ff c7 ff c9 75 f6 90',
};

/** Where the inputs come from; undefined when the bench makes its own. */
export const referenceFolder = process.env.INTROD_REFERENCE_DATA
  ? path.join(process.env.INTROD_REFERENCE_DATA, 'bench')
  : undefined;

/** One of the inputs that must be the same as those of the C figures. */
export function input(name) {
  if (referenceFolder !== undefined) return new Uint8Array(readFileSync(path.join(referenceFolder, name)));
  return Uint8Array.from(OWN[name].split(' ').map((byte) => Number.parseInt(byte, 16)));
}
