import { type Cr3, type Gva, gva } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import { printable } from '../image/pe-headers.js';
import type { VirtualMemory } from '../virtual-memory.js';
import type { ProcessFields } from './process.js';

/** Fields of a process that are read, by the names of the profile. */
export const PROCESS_FIELDS = [
  '_EPROCESS.ActiveProcessLinks',
  '_EPROCESS.UniqueProcessId',
  '_EPROCESS.InheritedFromUniqueProcessId',
  '_EPROCESS.ImageFileName',
  '_EPROCESS.CreateTime',
  '_EPROCESS.ProcessDelete',
  '_EPROCESS.ProcessExiting',
  '_EPROCESS.VmDeleted',
  '_EPROCESS.Outswapped',
  '_EPROCESS.HasAddressSpace',
  '_EPROCESS.Pcb.DirectoryTableBase',
] as const;

const USER_CR3 = 'Pcb.UserDirectoryTableBase';
/** The field of the user page tables, needed where the kernel keeps some (KPTI). */
export const USER_CR3_FIELD = `_EPROCESS.${USER_CR3}`;
/** Windows stores a value below this for processes that run on the kernel's page tables in user mode too (behaviour 1.3). */
const MIN_USER_CR3 = 4096n;
/** Process that has no name in some builds. */
const SYSTEM_PID = 4;

/** Reads `_EPROCESS` structures of one kernel. */
export class ProcessReader {
  readonly #struct;
  readonly #buffer: Uint8Array;
  readonly #linkOffset: bigint;
  readonly #nameOffset: number;
  readonly #nameSize: number;
  readonly #kptiActive: boolean;

  constructor(profile: GuestProfile, kptiActive: boolean) {
    this.#struct = profile.struct('_EPROCESS');
    const fields = PROCESS_FIELDS.map((name) => this.#struct.field(name.slice('_EPROCESS.'.length)));
    this.#kptiActive = kptiActive;
    if (kptiActive) fields.push(this.#struct.field(USER_CR3));
    // Only as much as is looked at: the end of the structure may lie on a page that is not there.
    this.#buffer = new Uint8Array(Math.max(...fields.map((field) => field.offset + field.size)));
    this.#linkOffset = BigInt(this.#struct.offset('ActiveProcessLinks'));
    const name = this.#struct.field('ImageFileName');
    this.#nameOffset = name.offset;
    this.#nameSize = name.size;
  }

  /** Address of the process that a list entry belongs to. */
  processOf(entry: Gva): Gva {
    return gva(entry - this.#linkOffset);
  }

  /** Reads a process; `undefined` when its memory is not there. */
  read(memory: VirtualMemory, eprocess: Gva): ProcessFields | undefined {
    const bytes = this.#buffer;
    if (!memory.read(eprocess, bytes)) return undefined;
    const struct = this.#struct;
    const flag = (name: string) => struct.number(bytes, name) !== 0;
    const pid = this.#id(bytes, 'UniqueProcessId');
    const cr3 = struct.u64(bytes, 'Pcb.DirectoryTableBase') as Cr3;
    return {
      eprocess,
      pid,
      parentPid: this.#id(bytes, 'InheritedFromUniqueProcessId'),
      name: this.#name(bytes, pid),
      cr3,
      userCr3: this.#userCr3(bytes, cr3),
      createTime: pid === SYSTEM_PID ? 0n : struct.u64(bytes, 'CreateTime'),
      hasAddressSpace: flag('HasAddressSpace') && !flag('VmDeleted'),
      exiting: flag('ProcessExiting') || flag('ProcessDelete'),
      outswapped: flag('Outswapped'),
    };
  }

  /** Process ids are handles, far below 2^32 in every Windows; a guest that says otherwise gets the low half. */
  #id(bytes: Uint8Array, field: string): number {
    return Number(BigInt.asUintN(32, this.#struct.u64(bytes, field)));
  }

  #name(bytes: Uint8Array, pid: number): string {
    const field = bytes.subarray(this.#nameOffset, this.#nameOffset + this.#nameSize);
    const end = field.indexOf(0);
    const name = printable(end < 0 ? field : field.subarray(0, end));
    return name === '' && pid === SYSTEM_PID ? 'System' : name;
  }

  #userCr3(bytes: Uint8Array, cr3: Cr3): Cr3 {
    if (!this.#kptiActive) return cr3;
    const value = this.#struct.u64(bytes, USER_CR3);
    return value < MIN_USER_CR3 ? cr3 : (value as Cr3);
  }
}
