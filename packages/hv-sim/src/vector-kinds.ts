/**
 * Operations on two vector registers, or on a register and 16 aligned bytes of memory, in the words of the SDM. The
 * types of the elements matter to the logic and unpacking of floating-point data no more than to those of integers.
 */
const BINARY = [
  ...['B', 'W', 'D', 'Q', 'SB', 'SW', 'USB', 'USW'].flatMap((size) => [`PADD${size}`, `PSUB${size}`]),
  'PMULLW',
  'PMULHW',
  'PMULHUW',
  'PMULUDQ',
  'PMADDWD',
  'PSADBW',
  'PAND',
  'PANDN',
  'POR',
  'PXOR',
  ...['B', 'W', 'D'].flatMap((size) => [`PCMPEQ${size}`, `PCMPGT${size}`]),
  'PMINUB',
  'PMAXUB',
  'PMINSW',
  'PMAXSW',
  'PAVGB',
  'PAVGW',
  ...['BW', 'WD', 'DQ', 'QDQ'].flatMap((sizes) => [`PUNPCKL${sizes}`, `PUNPCKH${sizes}`]),
  'PACKSSWB',
  'PACKSSDW',
  'PACKUSWB',
  // SSE3 and SSSE3
  'MOVSLDUP',
  'MOVSHDUP',
  'PSHUFB',
  'PABSB',
  'PABSW',
  'PABSD',
] as const;

/** Shifts of all elements by one count: of a register, 16 aligned bytes of memory, or an immediate. */
const SHIFTS = ['PSLLW', 'PSLLD', 'PSLLQ', 'PSRLW', 'PSRLD', 'PSRLQ', 'PSRAW', 'PSRAD'] as const;

/** Operations with an immediate that tells what goes where. */
const ARRANGED = ['PSHUFD', 'PSHUFLW', 'PSHUFHW', 'SHUFPS', 'SHUFPD', 'PALIGNR', 'PSLLDQ', 'PSRLDQ'] as const;

/** Masks of the elements' sign bits. */
const MASKS = ['PMOVMSKB', 'MOVMSKPS', 'MOVMSKPD'] as const;

/** What a vector operation's record has as its kind. */
export const VECTOR_KINDS: readonly string[] = [...BINARY, ...SHIFTS, ...ARRANGED, ...MASKS];

/**
 * Number of a kind.
 * @throws RangeError when there is none of that name: a mistake in the translator, found when the module loads.
 */
export function vectorKind(name: string): number {
  const number = VECTOR_KINDS.indexOf(name);
  if (number < 0) throw new RangeError(`no vector operation is called ${name}`);
  return number;
}

/** Floating-point instructions that do with bits what an integer one does. */
const EQUIVALENTS: Readonly<Record<string, string>> = {
  XORPS: 'PXOR',
  XORPD: 'PXOR',
  ORPS: 'POR',
  ORPD: 'POR',
  ANDPS: 'PAND',
  ANDPD: 'PAND',
  ANDNPS: 'PANDN',
  ANDNPD: 'PANDN',
  UNPCKLPS: 'PUNPCKLDQ',
  UNPCKHPS: 'PUNPCKHDQ',
  UNPCKLPD: 'PUNPCKLQDQ',
  UNPCKHPD: 'PUNPCKHQDQ',
};

/** Kind of the instruction of that name with two operands, undefined when it is none of them. */
export function binaryKind(mnemonic: string): number | undefined {
  const upper = mnemonic.toUpperCase();
  const name = EQUIVALENTS[upper] ?? upper;
  return (BINARY as readonly string[]).includes(name) ? vectorKind(name) : undefined;
}

/** Mnemonics of the instructions with two operands, of the shifts, the arranging ones and the masks, as a pattern. */
export const vectorMnemonics = {
  binary: pattern([...BINARY, ...Object.keys(EQUIVALENTS)]),
  shift: pattern(SHIFTS),
  arranged: pattern(ARRANGED),
  mask: pattern(MASKS),
};

function pattern(names: readonly string[]): string {
  return names.map((name) => name.charAt(0) + name.slice(1).toLowerCase()).join('|');
}
