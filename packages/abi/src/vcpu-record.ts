import { Access } from './access.js';
import type { Cr3, Gpa, Gva } from './address.js';
import type { ExitCause, ExitKind } from './exit.js';
import { defineRecord, type FieldsOf, type FieldType } from './record-layout.js';

/** Version of {@link VCPU_RECORD}; a backend writes it into each record when it opens, and the engine refuses another. */
export const VCPU_RECORD_VERSION = 2;

/** Number of bytes a reply can supply for one read. */
export const REPLY_DATA_SIZE = 64;

/** The general registers in the order of their encoding (SDM vol. 2, table 2-2 and, with REX, 2.2.1.2). In 32-bit code the first eight. */
export const GENERAL_REGISTERS = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;
/** Name of a general register, in 32-bit code as well. */
export type GeneralRegister = (typeof GENERAL_REGISTERS)[number];

/** The six segment registers, LDTR and TR in the order of their encoding (SDM vol. 2, table 2-2, then LDTR, TR). */
export const SEGMENT_NAMES = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const;
/** Name of a segment register. */
export type SegmentName = (typeof SEGMENT_NAMES)[number];

type SegmentFields = { [S in SegmentName as `${S}Base`]: 'u64' } & {
  [S in SegmentName as `${S}Limit` | `${S}Attributes`]: 'u32';
} & { [S in SegmentName as `${S}Selector`]: 'u32' };

function segmentFields(): SegmentFields {
  const fields: Record<string, FieldType> = {};
  for (const name of SEGMENT_NAMES) {
    fields[`${name}Base`] = 'u64';
    fields[`${name}Limit`] = 'u32';
    // Access rights in VMX form: type 0..3, S 4, DPL 5..6, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16 (SDM vol. 3C, table 25-2).
    fields[`${name}Attributes`] = 'u32';
    fields[`${name}Selector`] = 'u32';
  }
  return fields as SegmentFields;
}

/**
 * The record of one VCPU: its registers, the exit it stands at, and the reply. It lies in memory that a backend and the
 * engine share; this list *is* the ABI between them. General registers are in the order of their encoding.
 */
export const VCPU_RECORD = defineRecord({
  version: 'u32',
  index: 'u32',
  ...(Object.fromEntries(GENERAL_REGISTERS.map((name) => [name, 'u64'])) as { [R in GeneralRegister]: 'u64' }),
  rip: 'u64',
  rflags: 'u64',
  cr0: 'u64',
  cr2: 'u64',
  cr3: 'u64',
  cr4: 'u64',
  cr8: 'u64',
  xcr0: 'u64',
  dr0: 'u64',
  dr1: 'u64',
  dr2: 'u64',
  dr3: 'u64',
  dr6: 'u64',
  dr7: 'u64',
  efer: 'u64',
  star: 'u64',
  lstar: 'u64',
  cstar: 'u64',
  sfmask: 'u64',
  kernelGsBase: 'u64',
  sysenterCs: 'u64',
  sysenterEsp: 'u64',
  sysenterEip: 'u64',
  pat: 'u64',
  tscAux: 'u64',
  apicBase: 'u64',
  /** The PDPTE registers of PAE paging, which loads of CR3 fill from memory (SDM vol. 3A, 4.4.1); in other modes they mean nothing */
  pdpte0: 'u64',
  pdpte1: 'u64',
  pdpte2: 'u64',
  pdpte3: 'u64',
  gdtBase: 'u64',
  idtBase: 'u64',
  gdtLimit: 'u32',
  idtLimit: 'u32',
  ...segmentFields(),
  /** {@link ExitKind} */
  exitKind: 'u32',
  /** {@link ExitCause}, for EPT violations */
  exitCause: 'u32',
  /** {@link Access} bits of the access that was refused */
  exitAccess: 'u32',
  /** Size of the access in bytes, 0 when the backend does not know */
  exitSize: 'u32',
  /** Guest physical address of the access */
  exitGpa: 'u64',
  /** Guest linear address of the access, when `exitGlaValid` is 1 */
  exitGla: 'u64',
  exitGlaValid: 'u32',
  /** Length of the instruction at RIP, 0 when the backend does not know */
  exitInstructionLength: 'u32',
  /** Number of the CR, MSR or XCR; {@link DescriptorTable} bits; {@link ShutdownReason} */
  exitRegister: 'u32',
  exitVector: 'u32',
  exitErrorCode: 'u32',
  exitReserved: 'u32',
  exitOldValue: 'u64',
  exitNewValue: 'u64',
  /** Guest time of the exit in microseconds since the machine started */
  exitTime: 'u64',
  /** Value to be written in place of `exitNewValue` by {@link Reply}.ALLOW_ONCE; a backend sets it to `exitNewValue` at the exit */
  replyValue: 'u64',
  replyDataLength: 'u32',
  replyReserved: 'u32',
  replyData: `bytes:${64}`,
});

type Fields = typeof VCPU_RECORD.fields;
/** A 64-bit field of the record. */
export type Field64 = FieldsOf<Fields, 'u64'>;
/** A 32-bit field of the record. */
export type Field32 = FieldsOf<Fields, 'u32'>;

/** Index of a field in the record's {@link VcpuRecord.u32} view; of a 64-bit field, its low half (the high half follows). */
export function u32Index(field: Field32 | Field64): number {
  return VCPU_RECORD.offset[field] >>> 2;
}

const EXIT_KIND = u32Index('exitKind');
const EXIT_CAUSE = u32Index('exitCause');
const EXIT_ACCESS = u32Index('exitAccess');
const EXIT_GPA = u32Index('exitGpa');
const EXIT_TIME = u32Index('exitTime');

/**
 * View of one VCPU record. Valid while the VCPU stands still (at an exit, or paused). The properties that return
 * `bigint` allocate; the common exit path reads {@link u32} by {@link u32Index} instead.
 */
export class VcpuRecord {
  /** The record as 32-bit words, little endian as the host is. */
  readonly u32: Uint32Array;
  /** The record as 64-bit words. */
  readonly u64: BigUint64Array;
  /** The bytes that {@link Reply}.SUPPLY_READ gives to the guest. */
  readonly replyData: Uint8Array;

  /**
   * @param buffer memory that holds the record
   * @param byteOffset where it begins, a multiple of 8
   */
  constructor(
    readonly buffer: ArrayBufferLike,
    readonly byteOffset: number,
  ) {
    this.u32 = new Uint32Array(buffer, byteOffset, VCPU_RECORD.size / 4);
    this.u64 = new BigUint64Array(buffer, byteOffset, VCPU_RECORD.size / 8);
    this.replyData = new Uint8Array(buffer, byteOffset + VCPU_RECORD.offset.replyData, REPLY_DATA_SIZE);
  }

  /** Value of a 64-bit field. */
  get(field: Field64): bigint {
    return this.u64[VCPU_RECORD.offset[field] >>> 3]!;
  }

  /** Sets a 64-bit field. */
  set(field: Field64, value: bigint): void {
    this.u64[VCPU_RECORD.offset[field] >>> 3] = value;
  }

  /** Value of a 32-bit field. */
  get32(field: Field32): number {
    return this.u32[VCPU_RECORD.offset[field] >>> 2]!;
  }

  /** Sets a 32-bit field. */
  set32(field: Field32, value: number): void {
    this.u32[VCPU_RECORD.offset[field] >>> 2] = value;
  }

  /** Kind of the exit that the record holds. */
  get exitKind(): ExitKind {
    return this.u32[EXIT_KIND] as ExitKind;
  }

  /** Cause of an EPT violation. */
  get exitCause(): ExitCause {
    return this.u32[EXIT_CAUSE] as ExitCause;
  }

  /** Access bits of an EPT violation. */
  get exitAccess(): Access {
    return this.u32[EXIT_ACCESS]!;
  }

  /** Physical address of an EPT violation. */
  get exitGpa(): Gpa {
    return (this.u32[EXIT_GPA]! + this.u32[EXIT_GPA + 1]! * 2 ** 32) as Gpa;
  }

  /** Linear address of an EPT violation. */
  get exitGla(): Gva {
    return this.get('exitGla') as Gva;
  }

  /** Guest time of the exit in microseconds since the machine started. */
  get exitTime(): number {
    return this.u32[EXIT_TIME]! + this.u32[EXIT_TIME + 1]! * 2 ** 32;
  }

  /** The VCPU's CR3. */
  get cr3(): Cr3 {
    return this.get('cr3') as Cr3;
  }

  /** The VCPU's RIP. */
  get rip(): Gva {
    return this.get('rip') as Gva;
  }

  /** Current privilege level, 0..3: the DPL of SS (SDM vol. 3C, 25.4.1). */
  get cpl(): number {
    return (this.get32('ssAttributes') >>> 5) & 3;
  }
}

/** Bytes that `count` records need, each at a multiple of 64. */
export function recordsSize(count: number): number {
  return VCPU_RECORD.size * count;
}

/** An empty record in memory of its own, with version and index set. */
export function createVcpuRecord(index: number): VcpuRecord {
  const record = new VcpuRecord(new ArrayBuffer(VCPU_RECORD.size), 0);
  record.set32('version', VCPU_RECORD_VERSION);
  record.set32('index', index);
  record.set32('exitAccess', Access.NONE);
  return record;
}
