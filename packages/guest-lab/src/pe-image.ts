import { PAGE_SIZE } from '@introd/abi';
import { LabError } from './error.js';
import { ascii } from './struct-writer.js';

// Section characteristics (PE format, section 4: IMAGE_SCN_...).
const SCN = {
  code: 0x20,
  initializedData: 0x40,
  discardable: 0x200_0000,
  notPaged: 0x800_0000,
  execute: 0x2000_0000,
  read: 0x4000_0000,
  write: 0x8000_0000,
} as const;

/** How a section is used. */
export type SectionUse = 'code' | 'const' | 'data' | 'discardable-code' | 'pad';

const CHARACTERISTICS: Record<SectionUse, number> = {
  code: SCN.code | SCN.notPaged | SCN.execute | SCN.read,
  const: SCN.initializedData | SCN.notPaged | SCN.read,
  data: (SCN.initializedData | SCN.notPaged | SCN.read | SCN.write) >>> 0,
  'discardable-code': SCN.code | SCN.discardable | SCN.execute | SCN.read,
  pad: SCN.initializedData | SCN.discardable | SCN.read,
};

/** A section of an image. */
export interface PeSection {
  /** At most 8 characters. */
  readonly name: string;
  /** Page-aligned. */
  readonly rva: number;
  /** VirtualSize in bytes. */
  readonly size: number;
  readonly use: SectionUse;
  /** Whether the section needs pageable memory (`PAGE...`): only clears IMAGE_SCN_MEM_NOT_PAGED. */
  readonly pageable?: boolean;
}

/** What the headers of an image say. */
export interface PeHeaders {
  readonly imageBase: bigint;
  readonly sizeOfImage: number;
  readonly entryPoint: number;
  readonly timeDateStamp: number;
  readonly dll: boolean;
  /** IMAGE_SUBSYSTEM: 1 native, 2 Windows GUI, 3 console. */
  readonly subsystem: number;
  readonly sections: readonly PeSection[];
  /** RVA and size by directory index. */
  readonly directories: ReadonlyMap<number, { readonly rva: number; readonly size: number }>;
}

/** Index of a data directory. */
export const PeDirectory = { EXPORT: 0, DEBUG: 6 } as const;

const DOS_HEADER_SIZE = 0x40;
const NT_OFFSET = 0x80;
const OPTIONAL_SIZE = 0xf0;
const SECTION_HEADER_SIZE = 40;
const DIRECTORIES = 16;

/** The header page of a PE32+ image (PE format, sections 2 and 3). */
export function peHeaderPage(headers: PeHeaders): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  const view = new DataView(page.buffer);
  const sectionTable = NT_OFFSET + 24 + OPTIONAL_SIZE;
  if (sectionTable + headers.sections.length * SECTION_HEADER_SIZE > PAGE_SIZE) {
    throw new LabError('ERR_GUEST_LAB_LAYOUT', 'too many sections for one header page');
  }
  view.setUint16(0, 0x5a4d, true); // MZ
  view.setUint16(0x18, DOS_HEADER_SIZE, true); // e_lfarlc
  view.setUint32(0x3c, NT_OFFSET, true);
  view.setUint32(NT_OFFSET, 0x4550, true); // PE
  const file = NT_OFFSET + 4;
  view.setUint16(file, 0x8664, true);
  view.setUint16(file + 2, headers.sections.length, true);
  view.setUint32(file + 4, headers.timeDateStamp, true);
  view.setUint16(file + 16, OPTIONAL_SIZE, true);
  view.setUint16(file + 18, headers.dll ? 0x2022 : 0x22, true); // executable image, large-address aware, DLL
  const optional = NT_OFFSET + 24;
  const code = headers.sections.filter((section) => section.use === 'code');
  view.setUint16(optional, 0x20b, true); // PE32+
  view.setUint8(optional + 2, 14); // linker version
  view.setUint32(
    optional + 4,
    code.reduce((sum, section) => sum + section.size, 0),
    true,
  );
  view.setUint32(optional + 16, headers.entryPoint, true);
  view.setUint32(optional + 20, code[0]?.rva ?? 0, true);
  view.setBigUint64(optional + 24, BigInt.asUintN(64, headers.imageBase), true);
  view.setUint32(optional + 32, PAGE_SIZE, true); // section alignment
  view.setUint32(optional + 36, 0x200, true); // file alignment
  view.setUint16(optional + 40, 10, true); // operating system version
  view.setUint16(optional + 44, 10, true); // image version
  view.setUint16(optional + 48, 10, true); // subsystem version
  view.setUint32(optional + 56, headers.sizeOfImage, true);
  view.setUint32(optional + 60, PAGE_SIZE, true); // size of headers
  view.setUint16(optional + 68, headers.subsystem, true);
  view.setUint16(optional + 70, 0x4160, true); // high-entropy VA, dynamic base, NX, CFG
  view.setBigUint64(optional + 72, 0x80000n, true); // stack reserve and commit, heap reserve and commit
  view.setBigUint64(optional + 80, 0x2000n, true);
  view.setBigUint64(optional + 88, 0x100000n, true);
  view.setBigUint64(optional + 96, 0x1000n, true);
  view.setUint32(optional + 108, DIRECTORIES, true);
  for (const [index, directory] of headers.directories) {
    view.setUint32(optional + 112 + index * 8, directory.rva, true);
    view.setUint32(optional + 116 + index * 8, directory.size, true);
  }
  headers.sections.forEach((section, i) => {
    const at = sectionTable + i * SECTION_HEADER_SIZE;
    page.set(ascii(section.name).subarray(0, Math.min(8, section.name.length)), at);
    const pageable = section.pageable === true ? SCN.notPaged : 0;
    view.setUint32(at + 8, section.size, true);
    view.setUint32(at + 12, section.rva, true);
    view.setUint32(at + 16, Math.ceil(section.size / 0x200) * 0x200, true); // size and place in the file
    view.setUint32(at + 20, section.rva, true);
    view.setUint32(at + 36, (CHARACTERISTICS[section.use] & ~pageable) >>> 0, true);
  });
  return page;
}

/** An export directory with its tables and names, to be placed at `rva` (PE format, section 6.3). */
export function peExports(
  rva: number,
  imageName: string,
  timeDateStamp: number,
  exports: ReadonlyMap<string, number>,
): Uint8Array {
  // Ordered by character code, as the loader's binary search wants it.
  const names = [...exports.keys()].toSorted((a, b) => (a < b ? -1 : 1));
  const addresses = 40;
  const namePointers = addresses + names.length * 4;
  const ordinals = namePointers + names.length * 4;
  let text = ordinals + names.length * 2;
  const texts = [imageName, ...names].map((name) => {
    const at = text;
    text += name.length + 1;
    return { at, bytes: ascii(name) };
  });
  const bytes = new Uint8Array(text);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, timeDateStamp, true);
  view.setUint32(12, rva + texts[0]!.at, true);
  view.setUint32(16, 1, true); // ordinal base
  view.setUint32(20, names.length, true);
  view.setUint32(24, names.length, true);
  view.setUint32(28, rva + addresses, true);
  view.setUint32(32, rva + namePointers, true);
  view.setUint32(36, rva + ordinals, true);
  names.forEach((name, i) => {
    view.setUint32(addresses + i * 4, exports.get(name)!, true);
    view.setUint32(namePointers + i * 4, rva + texts[i + 1]!.at, true);
    view.setUint16(ordinals + i * 2, i, true);
  });
  for (const { at, bytes: letters } of texts) bytes.set(letters, at);
  return bytes;
}

/** A debug directory of one CodeView entry and its RSDS record, to be placed at `rva` (PE format, section 5.1.1). */
export function peDebug(
  rva: number,
  timeDateStamp: number,
  pdb: { readonly name: string; readonly guid: string; readonly age: number },
): { readonly bytes: Uint8Array; readonly directorySize: number } {
  const directorySize = 28;
  const record = 24 + pdb.name.length + 1;
  const bytes = new Uint8Array(directorySize + 4 + record);
  const view = new DataView(bytes.buffer);
  const at = directorySize + 4;
  view.setUint32(4, timeDateStamp, true);
  view.setUint32(12, 2, true); // IMAGE_DEBUG_TYPE_CODEVIEW
  view.setUint32(16, record, true);
  view.setUint32(20, rva + at, true);
  view.setUint32(24, rva + at, true);
  bytes.set(ascii('RSDS').subarray(0, 4), at);
  // A GUID is written as one 32-bit and two 16-bit numbers, then eight bytes; in memory the numbers are little endian.
  const byte = (i: number): number => Number.parseInt(pdb.guid.slice(i * 2, i * 2 + 2), 16);
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  order.forEach((source, i) => {
    bytes[at + 4 + i] = byte(source);
  });
  view.setUint32(at + 20, pdb.age, true);
  bytes.set(ascii(pdb.name), at + 24);
  return { bytes, directorySize };
}
