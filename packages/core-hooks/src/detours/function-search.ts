import { type Gva, PAGE_SIZE } from '@introd/abi';
import { CoreHooksError } from '../error.js';
import type { CodeImage, CodeSection } from '../guest-system/code-images.js';
import type { ArgumentLocation, CodePattern, FunctionLocation } from './descriptor.js';

/** A function that was found, and its arguments where the pattern knows them better. */
export interface FoundFunction {
  readonly va: Gva;
  readonly arguments?: readonly ArgumentLocation[] | undefined;
}

/** Most bytes of a section that are searched. */
const MAX_SECTION = 16 * 1024 * 1024;
/** Most bytes of a pattern. */
const MAX_PATTERN = 256;
const ANY = -1;

/** Finds a function. Of patterns each is tried in its section, then each in every executable section. */
export function findFunction(image: CodeImage, location: FunctionLocation): FoundFunction | undefined {
  if (location.by !== 'pattern') {
    const va = location.by === 'export' ? image.exportOf(location.name) : image.symbolOf(location.name);
    return va === undefined ? undefined : { va };
  }
  const parsed = location.patterns.map((pattern) => ({ pattern, bytes: parsePattern(pattern.bytes) }));
  for (const hinted of [true, false]) {
    for (const { pattern, bytes } of parsed) {
      if (hinted && pattern.section === undefined) {
        continue;
      }
      for (const section of image.sections) {
        if (hinted ? section.name === pattern.section : section.executable) {
          const va = searchSection(image, section, bytes);
          if (va !== undefined) {
            return { va: (va + BigInt(pattern.offset ?? 0)) as Gva, arguments: pattern.arguments };
          }
        }
      }
    }
  }
  return undefined;
}

/**
 * The bytes of a pattern, -1 for any.
 * @throws CoreHooksError ERR_CORE_HOOKS_DETOUR
 */
export function parsePattern(text: CodePattern['bytes']): readonly number[] {
  const digits = text.replaceAll(/\s/gu, '');
  const pairs = digits.match(/../gsu) ?? [];
  const bytes = pairs.map((pair) =>
    pair === '??' ? ANY : /^[0-9a-f]{2}$/iu.test(pair) ? Number.parseInt(pair, 16) : -2,
  );
  if (
    digits.length % 2 !== 0 ||
    bytes.length > MAX_PATTERN ||
    bytes.includes(-2) ||
    bytes.every((byte) => byte === ANY)
  ) {
    throw new CoreHooksError('ERR_CORE_HOOKS_DETOUR', `'${text.slice(0, 80)}' is not a pattern of bytes`, {
      hint: 'Two hex digits for each byte, ?? for any; at least one byte must be known.',
    });
  }
  return bytes;
}

/** First place of a pattern in a section, its last possible position included. Pages that cannot be read match nothing. */
function searchSection(image: CodeImage, section: CodeSection, pattern: readonly number[]): Gva | undefined {
  const size = Math.min(section.size, MAX_SECTION);
  const bytes = new Uint8Array(size);
  for (let from = 0; from < size; ) {
    const end = readableEnd(image, section.start, bytes, from);
    const at = indexOf(bytes, pattern, from, end);
    if (at >= 0) {
      return (section.start + BigInt(at)) as Gva;
    }
    from = nextPage(section.start, end);
  }
  return undefined;
}

/** Reads page by page from an offset on. @returns the offset of the first page that cannot be read, or the end */
function readableEnd(image: CodeImage, start: Gva, bytes: Uint8Array, from: number): number {
  let at = from;
  while (at < bytes.length) {
    const next = Math.min(nextPage(start, at), bytes.length);
    if (!image.read((start + BigInt(at)) as Gva, bytes.subarray(at, next))) {
      return at;
    }
    at = next;
  }
  return at;
}

/** Offset of the page that follows the one that an offset from `start` is on. */
function nextPage(start: Gva, offset: number): number {
  const inPage = Number((start + BigInt(offset)) & BigInt(PAGE_SIZE - 1));
  return offset + PAGE_SIZE - inPage;
}

function indexOf(bytes: Uint8Array, pattern: readonly number[], from: number, end: number): number {
  const anchor = pattern.findIndex((byte) => byte !== ANY);
  const last = end - pattern.length;
  for (let at = from; at <= last; at++) {
    at = bytes.indexOf(pattern[anchor]!, at + anchor) - anchor;
    if (at + anchor < 0 || at > last) {
      return -1;
    }
    if (pattern.every((byte, index) => byte === ANY || bytes[at + index] === byte)) {
      return at;
    }
  }
  return -1;
}
