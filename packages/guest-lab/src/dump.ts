import type { SegmentName, VcpuRecord } from '@introd/abi';
import type { MemoryRegion } from '@introd/glue';

/** Bytes of one piece of a dump. */
const CHUNK = 0x10_0000;

/** What a dump is made of. */
export interface DumpSource {
  readonly memory: readonly MemoryRegion[];
  readonly vcpus: readonly VcpuRecord[];
  /** Fills the array with physical memory from an address on. */
  read(address: number, target: Uint8Array): void;
}

/** Raw physical memory: byte n of the image is physical address n; what is not RAM is zero. */
export function* rawImage(source: DumpSource): Generator<Uint8Array> {
  let at = 0;
  for (const region of sorted(source.memory)) {
    for (; at < region.start; at += CHUNK) yield new Uint8Array(Math.min(CHUNK, region.start - at));
    at = region.start;
    yield* regionBytes(source, region);
    at = region.start + region.size;
  }
}

/** An ELF64 core: one PT_NOTE with an NT_PRSTATUS per VCPU, one PT_LOAD per region of RAM, addresses physical. */
export function* elfCore(source: DumpSource): Generator<Uint8Array> {
  const regions = sorted(source.memory);
  const notes = source.vcpus.map(prStatusNote);
  const noteSize = notes.reduce((sum, note) => sum + note.length, 0);
  const headers = new Uint8Array(ELF_HEADER + PROGRAM_HEADER * (regions.length + 1));
  const view = new DataView(headers.buffer);
  // ELF64, little endian, version 1; ET_CORE, EM_X86_64 (System V ABI, chapter 4).
  headers.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 4, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(32, BigInt(ELF_HEADER), true);
  view.setUint16(52, ELF_HEADER, true);
  view.setUint16(54, PROGRAM_HEADER, true);
  view.setUint16(56, regions.length + 1, true);
  const notesAt = headers.length;
  let fileOffset = Math.ceil((notesAt + noteSize) / 4096) * 4096;
  const padding = fileOffset - notesAt - noteSize;
  programHeader(view, 0, { type: 4, flags: 0, fileOffset: notesAt, address: 0, size: noteSize });
  regions.forEach((region, i) => {
    programHeader(view, i + 1, { type: 1, flags: 7, fileOffset, address: region.start, size: region.size });
    fileOffset += region.size;
  });
  yield headers;
  yield* notes;
  yield new Uint8Array(padding);
  for (const region of regions) yield* regionBytes(source, region);
}

const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;

interface ProgramHeader {
  readonly type: number;
  readonly flags: number;
  readonly fileOffset: number;
  readonly address: number;
  readonly size: number;
}

function programHeader(view: DataView, index: number, header: ProgramHeader): void {
  const at = ELF_HEADER + PROGRAM_HEADER * index;
  view.setUint32(at, header.type, true);
  view.setUint32(at + 4, header.flags, true);
  view.setBigUint64(at + 8, BigInt(header.fileOffset), true);
  view.setBigUint64(at + 16, BigInt(header.address), true);
  view.setBigUint64(at + 24, BigInt(header.address), true);
  view.setBigUint64(at + 32, BigInt(header.size), true);
  view.setBigUint64(at + 40, BigInt(header.size), true);
}

/** Registers in the order of Linux's user_regs_struct, which NT_PRSTATUS of x86-64 carries. */
const REGISTERS = [
  'r15',
  'r14',
  'r13',
  'r12',
  'rbp',
  'rbx',
  'r11',
  'r10',
  'r9',
  'r8',
  'rax',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
] as const;

/** An NT_PRSTATUS note: elf_prstatus of x86-64 is 336 bytes with the registers at 112 and the pid at 32. */
function prStatusNote(vcpu: VcpuRecord, index: number): Uint8Array {
  const name = 'CORE\0\0\0\0';
  const size = 336;
  const note = new Uint8Array(12 + name.length + size);
  const view = new DataView(note.buffer);
  view.setUint32(0, 5, true);
  view.setUint32(4, size, true);
  view.setUint32(8, 1, true); // NT_PRSTATUS
  for (let i = 0; i < name.length; i++) note[12 + i] = name.charCodeAt(i);
  const status = 12 + name.length;
  view.setUint32(status + 32, index + 1, true);
  let at = status + 112;
  const put = (value: bigint): void => {
    view.setBigUint64(at, value, true);
    at += 8;
  };
  for (const register of REGISTERS) put(vcpu.get(register));
  put(vcpu.get('rax')); // orig_rax
  put(vcpu.get('rip'));
  put(selector(vcpu, 'cs'));
  put(vcpu.get('rflags'));
  put(vcpu.get('rsp'));
  put(selector(vcpu, 'ss'));
  put(vcpu.get('fsBase'));
  put(vcpu.get('gsBase'));
  for (const segment of ['ds', 'es', 'fs', 'gs'] as const) put(selector(vcpu, segment));
  return note;
}

function selector(vcpu: VcpuRecord, name: SegmentName): bigint {
  return BigInt(vcpu.get32(`${name}Selector`));
}

function* regionBytes(source: DumpSource, region: MemoryRegion): Generator<Uint8Array> {
  for (let at = 0; at < region.size; at += CHUNK) {
    const chunk = new Uint8Array(Math.min(CHUNK, region.size - at));
    source.read(region.start + at, chunk);
    yield chunk;
  }
}

function sorted(regions: readonly MemoryRegion[]): MemoryRegion[] {
  return regions.toSorted((a, b) => a.start - b.start);
}
