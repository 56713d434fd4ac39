import { Code, Decoder, DecoderOptions } from 'iced-x86';
import { caseSeed, generateCase } from './generate.js';
import { Random } from './random.js';
import type { TestCase } from './test-case.js';

const LOCK = 0xf0;
const MAX_INSTRUCTION = 15;

/** An instruction with a LOCK prefix that it does not take, or with a register destination: #UD before anything else. */
export function generateMisplacedLock(forms: readonly string[], index: number): TestCase {
  const random = new Random(caseSeed('misplaced lock', index));
  for (;;) {
    const sample = generateCase(random.pick(forms), random.below(1000));
    const code = Uint8Array.from([LOCK, ...sample.code]);
    if (code.length <= MAX_INSTRUCTION && isRefused(code)) return { ...sample, form: 'misplaced LOCK', code };
  }
}

function isRefused(code: Uint8Array): boolean {
  const decoder = new Decoder(64, code, DecoderOptions.None);
  const instruction = decoder.decode();
  const refused = instruction.code === Code.INVALID;
  instruction.free();
  decoder.free();
  return refused;
}
