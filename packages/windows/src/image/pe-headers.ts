/** Headers of PE images in guest memory. Field offsets are those of Microsoft's PE/COFF specification. */

/** Bytes of headers that are looked at: the first page, as the original does. */
export const HEADER_SIZE = 4096;

/** A section of an image. */
export interface PeSection {
  /** Name without trailing NULs, at most 8 characters; what is not printable ASCII is `?`. */
  readonly name: string;
  /** Offset from the base of the image. */
  readonly rva: number;
  /** Bytes used in memory. */
  readonly virtualSize: number;
  /** Bytes that belong to it: {@link virtualSize} rounded up to the section alignment. */
  readonly size: number;
  readonly executable: boolean;
  readonly writable: boolean;
  readonly discardable: boolean;
}

/** Where a directory of an image lies. */
interface PeDirectory {
  readonly rva: number;
  readonly size: number;
}

/** What the headers of an image say. */
export interface PeHeaders {
  readonly bits: 32 | 64;
  readonly sizeOfImage: number;
  readonly timeDateStamp: number;
  /** Offset of the entry point from the base, 0 when there is none. */
  readonly entryPoint: number;
  readonly sections: readonly PeSection[];
  /** The data directories, at most 16; one that is empty or lies outside the image is `undefined`. */
  readonly directories: readonly (PeDirectory | undefined)[];
}

const MACHINE_X86 = 0x14c;
const MACHINE_X64 = 0x8664;
const MAGIC_32 = 0x10b;
const MAGIC_64 = 0x20b;
/** Size of the PE signature and the file header. */
const NT_HEADER = 24;
/** Offset of the data directories in the optional header, by kind. */
const DIRECTORIES_32 = 96;
const DIRECTORIES_64 = 112;
/** Size of the 64-bit headers with 16 directories; the original asks for it whatever the kind. */
const NT_HEADERS_64 = NT_HEADER + DIRECTORIES_64 + 16 * 8;
const SECTION_HEADER = 40;
const MAX_IMAGE = 2 ** 31;
const SCN_DISCARDABLE = 0x0200_0000;
const SCN_EXECUTE = 0x2000_0000;
const SCN_WRITE = 0x8000_0000;

/** Index of the debug directory. */
export const DEBUG_DIRECTORY = 6;

/**
 * Reads the headers of an image (windows.md 2.1).
 * @param page the first 4096 bytes of the image in memory
 * @returns the headers, or what is wrong with them as a text
 */
export function parsePeHeaders(page: Uint8Array): PeHeaders | string {
  if (page.length < HEADER_SIZE) return 'less than a page';
  const view = new DataView(page.buffer, page.byteOffset, HEADER_SIZE);
  if (view.getUint16(0, true) !== 0x5a4d) return 'no MZ';
  const nt = view.getUint32(0x3c, true);
  if (nt + NT_HEADERS_64 >= HEADER_SIZE) return 'the headers lie outside the first page';
  if (view.getUint32(nt, true) !== 0x4550) return 'no PE signature';
  const machine = view.getUint16(nt + 4, true);
  if (machine !== MACHINE_X64 && machine !== MACHINE_X86) return 'neither x86 nor x64';
  const optional = nt + NT_HEADER;
  const magic = view.getUint16(optional, true);
  if (magic !== MAGIC_32 && magic !== MAGIC_64) return 'unknown kind of optional header';
  const directoriesAt = magic === MAGIC_64 ? DIRECTORIES_64 : DIRECTORIES_32;
  const optionalSize = view.getUint16(nt + 20, true);
  const directoryCount = view.getUint32(optional + directoriesAt - 4, true);
  if (optionalSize !== directoriesAt + 8 * directoryCount) return 'the optional header has the wrong size';
  const sizeOfImage = view.getUint32(optional + 56, true);
  if (sizeOfImage > MAX_IMAGE) return 'the image is larger than 2 GiB';
  const alignment = view.getUint32(optional + 32, true);
  if (alignment === 0) return 'no section alignment';
  const sectionCount = view.getUint16(nt + 6, true);
  const table = optional + optionalSize;
  if (table + sectionCount * SECTION_HEADER > HEADER_SIZE) return 'the section table lies outside the first page';
  const entryPoint = view.getUint32(optional + 16, true);
  if (entryPoint >= sizeOfImage) return 'the entry point lies outside the image';
  if (nt >= sizeOfImage) return 'the headers lie outside the image';
  const sections: PeSection[] = [];
  for (let index = 0; index < sectionCount; index += 1) {
    const section = parseSection(page, view, table + index * SECTION_HEADER, alignment, sizeOfImage);
    if (typeof section === 'string') return section;
    sections.push(section);
  }
  const directories = Array.from({ length: Math.min(directoryCount, 16) }, (_, index): PeDirectory | undefined => {
    const rva = view.getUint32(optional + directoriesAt + index * 8, true);
    const size = view.getUint32(optional + directoriesAt + index * 8 + 4, true);
    return rva === 0 || size === 0 || rva + size > sizeOfImage ? undefined : { rva, size };
  });
  const bits = magic === MAGIC_64 ? 64 : 32;
  const timeDateStamp = view.getUint32(nt + 8, true);
  return { bits, sizeOfImage, timeDateStamp, entryPoint, sections, directories };
}

function parseSection(
  page: Uint8Array,
  view: DataView,
  at: number,
  alignment: number,
  sizeOfImage: number,
): PeSection | string {
  const virtualSize = view.getUint32(at + 8, true);
  const rva = view.getUint32(at + 12, true);
  const rawSize = view.getUint32(at + 16, true);
  const characteristics = view.getUint32(at + 36, true);
  if (rva === 0) return 'a section at the base of the image';
  if (virtualSize === 0 && (rawSize === 0 || rawSize > 4096)) return 'a section without size';
  const size = Math.ceil((virtualSize || rawSize) / alignment) * alignment;
  if (rva >= sizeOfImage || rva + size > sizeOfImage) return 'a section outside the image';
  return {
    name: sectionName(page.subarray(at, at + 8)),
    rva,
    virtualSize,
    size,
    executable: (characteristics & SCN_EXECUTE) !== 0,
    writable: (characteristics & SCN_WRITE) !== 0,
    discardable: (characteristics & SCN_DISCARDABLE) !== 0,
  };
}

function sectionName(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return printable(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Bytes as ASCII; what is not printable becomes `?`, because it may end up on a person's terminal. */
export function printable(characters: Iterable<number>): string {
  let text = '';
  for (const character of characters) {
    text += character >= 0x20 && character < 0x7f ? String.fromCharCode(character) : '?';
  }
  return text;
}

/** The section that holds an offset from the base of the image. */
export function sectionAt(headers: PeHeaders, rva: number): PeSection | undefined {
  return headers.sections.find((section) => rva >= section.rva && rva < section.rva + section.size);
}
