import { expect, test } from 'vitest';
import { generateCase } from './generate.js';
import { LAYOUT, type TestCase } from './test-case.js';

const CASES = 400;

function cases(form: string): TestCase[] {
  return Array.from({ length: CASES }, (_, index) => generateCase(form, index));
}

// ADD r/m8, r8 has opcode 00.
function opcodeAt({ code }: TestCase): number {
  return code.indexOf(0);
}

function hasPrefix(sample: TestCase, isPrefix: (byte: number) => boolean): boolean {
  return [...sample.code.subarray(0, opcodeAt(sample))].some(isPrefix);
}

function hasRex(sample: TestCase): boolean {
  return hasPrefix(sample, (byte) => byte >> 4 === 4);
}

function modRm(sample: TestCase): number {
  return sample.code[opcodeAt(sample) + 1] as number;
}

function isMemory(sample: TestCase): boolean {
  return modRm(sample) < 0xc0;
}

function crossesCodePage({ rip, code }: TestCase): boolean {
  return rip < LAYOUT.code + 0x1000 && rip + code.length > LAYOUT.code + 0x1000;
}

test('the same case comes out each time', () => {
  expect(generateCase('Add_rm32_r32', 7)).toEqual(generateCase('Add_rm32_r32', 7));
  expect(generateCase('Add_rm32_r32', 7)).not.toEqual(generateCase('Add_rm32_r32', 8));
});

test.each<[string, (sample: TestCase) => boolean]>([
  ['a register', (sample) => !isMemory(sample)],
  ['memory', isMemory],
  ['a high byte register', (sample) => !hasRex(sample) && ((modRm(sample) >> 3) & 7) >= 4],
  ['REX', hasRex],
  ['LOCK', (sample) => hasPrefix(sample, (byte) => byte === 0xf0)],
  ['32-bit addresses', (sample) => hasPrefix(sample, (byte) => byte === 0x67)],
  ['the GS segment', (sample) => hasPrefix(sample, (byte) => byte === 0x65)],
  ['RIP-relative addresses', (sample) => (modRm(sample) & 0xc7) === 5],
  ['an index', (sample) => isMemory(sample) && (modRm(sample) & 7) === 4],
  ['code that crosses a page', crossesCodePage],
])('a form is tried with %s', (_what, matches) => {
  expect(cases('Add_rm8_r8').filter(matches).length).toBeGreaterThan(CASES / 100);
});

test('memory operands cross pages', () => {
  const crossing = cases('Mov_r64_rm64').filter(({ patches }) =>
    patches.some(({ offset }) => (offset & 0xfff) > 0xff8),
  );
  expect(crossing.length).toBeGreaterThan(CASES / 100);
});
