/**
 * Operations on two vector registers, or on a register and 16 aligned bytes of memory, in the words of the SDM. The
 * types of the elements matter to the logic and unpacking of floating-point data no more than to those of integers.
 */
export const BINARY_KINDS = [
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
export const VECTOR_SHIFT_KINDS = ['PSLLW', 'PSLLD', 'PSLLQ', 'PSRLW', 'PSRLD', 'PSRLQ', 'PSRAW', 'PSRAD'] as const;

/** Operations with an immediate that tells what goes where. */
export const ARRANGED_KINDS = [
  'PSHUFD',
  'PSHUFLW',
  'PSHUFHW',
  'SHUFPS',
  'SHUFPD',
  'PALIGNR',
  'PSLLDQ',
  'PSRLDQ',
] as const;

/** Masks of the elements' sign bits. */
export const MASK_KINDS = ['PMOVMSKB', 'MOVMSKPS', 'MOVMSKPD'] as const;

/** What a vector operation's record has as its kind; the number of a kind is its place in this list. */
export const VECTOR_KINDS: readonly string[] = [
  ...BINARY_KINDS,
  ...VECTOR_SHIFT_KINDS,
  ...ARRANGED_KINDS,
  ...MASK_KINDS,
];
