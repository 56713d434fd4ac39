import { MXCSR_MASK, XSAVE_AREA, XSAVE_HEADER_END, XStateComponent } from '@introd/abi';
import { caseSeed } from './generate.js';
import { Random } from './random.js';
import { Flag, initialRegisters, LAYOUT, type MemoryBytes, type TestCase } from './test-case.js';

const RAX = 0;
const RDX = 2;
const RSI = 6;
const RDI = 7;
const AT = XSAVE_AREA.offset;

/** The instructions, with [RSI] for those that restore and [RDI] for those that save (SDM vol. 2). */
const RESTORE: Record<'fx' | 'x', readonly number[]> = { fx: [0x0f, 0xae, 0x0e], x: [0x0f, 0xae, 0x2e] };
const SAVE: Record<'fx' | 'x', readonly (readonly number[])[]> = {
  fx: [[0x0f, 0xae, 0x07]],
  // XSAVE, XSAVEOPT, XSAVEC
  x: [
    [0x0f, 0xae, 0x27],
    [0x0f, 0xae, 0x37],
    [0x0f, 0xc7, 0x27],
  ],
};
const REX_W = 0x48;

/** `mov dword [rdi+28], 0xffff`: the bits of MXCSR that exist differ by processor. */
const SET_MXCSR_MASK = [0xc7, 0x47, 0x1c, 0xff, 0xff, 0, 0];
/** `or byte [rdi+512], 7`: when a component counts as in its initial configuration differs by processor. */
const SET_STATE_BITS = [0x80, 0x8f, 0, 2, 0, 0, 7];

/** Extensions that the cases need, by the names of iced's `CpuidFeature`. */
export const stateAreaFeatures = ['XSAVE', 'XSAVEOPT', 'XSAVEC', 'AVX'] as const;

/** A case that restores state from one area and saves it into another; now and then the area is one that no processor takes. */
export function generateStateArea(index: number): TestCase {
  const seed = caseSeed('state-area', index);
  const random = new Random(seed ^ 0x61726561);
  const before = initialRegisters(seed);
  const kind = random.oneIn(3) ? 'fx' : 'x';
  const source = LAYOUT.data + random.below(8) * 64 + (random.oneIn(2) ? 0x1000 - 0x200 : 0);
  const target = LAYOUT.data + 0x2000 + random.below(8) * 64 + (random.oneIn(2) ? 0x1000 - 0x200 : 0);
  const unaligned = random.oneIn(20) ? random.pick(kind === 'x' ? [1, 8, 16, 32] : [1, 8]) : 0;
  before.gpr[RSI] = BigInt(source + (random.oneIn(2) ? unaligned : 0));
  before.gpr[RDI] = BigInt(target + (random.oneIn(2) ? unaligned : 0));
  // Bits that no processor offers do not count.
  before.gpr[RAX] = BigInt(random.below(8)) | (random.oneIn(2) ? random.u64() & ~0xffff_ffffn : 0n);
  before.gpr[RDX] = random.u64() & 0x3fff_ffff_0000_0000n;
  const prefix = (bytes: readonly number[]): number[] => (random.oneIn(2) ? [REX_W, ...bytes] : [...bytes]);
  const code = [
    ...prefix(RESTORE[kind]),
    ...prefix(random.pick(SAVE[kind])),
    ...SET_MXCSR_MASK,
    ...(kind === 'x' ? SET_STATE_BITS : []),
  ];
  return {
    form: 'state-area',
    rip: LAYOUT.code + 0x400,
    bitness: 64,
    code: Uint8Array.from(code),
    // By single steps: some end at the first with #GP, and the handler halts.
    instructions: 1,
    seed,
    before,
    patches: [
      { offset: source - LAYOUT.data, bytes: controls(random) },
      ...(kind === 'x' ? [{ offset: source - LAYOUT.data + AT.xstateBv, bytes: header(random) }] : []),
      // The pointers of the last x87 instruction are zero before and after: some processors leave them alone.
      { offset: target - LAYOUT.data, bytes: new Uint8Array(AT.mxcsr) },
    ] satisfies MemoryBytes[],
    undefinedFlags: kind === 'x' ? Flag.AF : 0,
  };
}

/** FCW, FSW without unmasked exceptions, FTW, no pointers, MXCSR. */
function controls(random: Random): Uint8Array {
  const bytes = new Uint8Array(AT.mxcsrMask);
  const view = new DataView(bytes.buffer);
  view.setUint16(AT.fcw, 0x7f | (random.u32() & 0xf00), true);
  view.setUint16(AT.fsw, random.u32() & 0x7f7f, true);
  bytes[AT.ftw] = random.u32();
  view.setUint32(AT.mxcsr, random.u32() & MXCSR_MASK, true);
  if (random.oneIn(12)) bytes[AT.mxcsr + 3] = 0x80;
  return bytes;
}

function header(random: Random): Uint8Array {
  const bytes = new Uint8Array(XSAVE_HEADER_END - AT.xstateBv);
  const view = new DataView(bytes.buffer);
  const known = XStateComponent.X87 | XStateComponent.SSE | XStateComponent.AVX;
  const present = random.u32() & known;
  bytes[0] = present;
  if (random.oneIn(3)) {
    // Where AVX lies does not depend on the components before it, so any of them may be left out.
    bytes[8] = random.oneIn(8) ? random.u32() & known : present | (random.u32() & known);
    bytes[15] = 0x80;
  }
  if (random.oneIn(12)) view.setUint8(random.pick([7, 8, 14, 16, 23]), 1 << random.below(7));
  return bytes;
}
