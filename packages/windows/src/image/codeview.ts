import type { Gva } from '@introd/abi';
import type { VirtualMemory } from '../virtual-memory.js';
import { DEBUG_DIRECTORY, type PeHeaders, printable } from './pe-headers.js';

/** Which symbol file an image was linked with. */
export interface CodeView {
  /** File name without folder; what is not printable ASCII is `?`. */
  readonly name: string;
  /** 32 upper-case hex digits, as a GUID is written, without dashes. */
  readonly guid: string;
  readonly age: number;
}

/** Size of one IMAGE_DEBUG_DIRECTORY. */
const ENTRY = 28;
/** Images have fewer than ten entries. */
const MAX_ENTRIES = 32;
/** IMAGE_DEBUG_TYPE_CODEVIEW */
const TYPE_CODEVIEW = 2;
/** 'RSDS', GUID, age. */
const RSDS_HEADER = 24;
/** MAX_PATH of Windows. */
const MAX_NAME = 260;

/**
 * Finds the CodeView record (RSDS) of an image through its debug directory.
 * @returns `undefined` when there is none, or it cannot be read
 */
export function readCodeView(memory: VirtualMemory, base: Gva, headers: PeHeaders): CodeView | undefined {
  const directory = headers.directories[DEBUG_DIRECTORY];
  if (!directory) return undefined;
  const entries = new Uint8Array(Math.min(Math.floor(directory.size / ENTRY), MAX_ENTRIES) * ENTRY);
  if (!memory.read((base + BigInt(directory.rva)) as Gva, entries)) return undefined;
  const view = new DataView(entries.buffer);
  for (let at = 0; at < entries.length; at += ENTRY) {
    if (view.getUint32(at + 12, true) !== TYPE_CODEVIEW) continue;
    const size = view.getUint32(at + 16, true);
    const rva = view.getUint32(at + 20, true);
    if (rva === 0 || size < RSDS_HEADER || rva + size > headers.sizeOfImage) continue;
    const record = new Uint8Array(Math.min(size, RSDS_HEADER + MAX_NAME));
    if (!memory.read((base + BigInt(rva)) as Gva, record)) continue;
    const found = parseCodeView(record);
    if (found) return found;
  }
  return undefined;
}

function hex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}

/** Reads an RSDS record; `undefined` when it is none. */
export function parseCodeView(record: Uint8Array): CodeView | undefined {
  if (record.length < RSDS_HEADER) return undefined;
  const view = new DataView(record.buffer, record.byteOffset, record.length);
  if (view.getUint32(0, true) !== 0x5344_5352) return undefined;
  let guid = hex(view.getUint32(4, true), 8) + hex(view.getUint16(8, true), 4) + hex(view.getUint16(10, true), 4);
  for (let at = 12; at < 20; at += 1) guid += hex(view.getUint8(at), 2);
  const text = record.subarray(RSDS_HEADER);
  const end = text.indexOf(0);
  const path = printable(end < 0 ? text : text.subarray(0, end));
  return { name: path.slice(path.lastIndexOf('\\') + 1), guid, age: view.getUint32(20, true) };
}
