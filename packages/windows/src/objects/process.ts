import { type AlertProcess, type Cr3, type Gva, hex64, rootOf } from '@introd/abi';

/** What `_EPROCESS` says about a process now. */
export interface ProcessFields {
  readonly eprocess: Gva;
  readonly pid: number;
  readonly parentPid: number;
  readonly name: string;
  readonly cr3: Cr3;
  readonly userCr3: Cr3;
  readonly createTime: bigint;
  readonly hasAddressSpace: boolean;
  readonly exiting: boolean;
  readonly outswapped: boolean;
}

/** Number of the System process in every Windows. */
const SYSTEM_PID = 4;

/** A process of the guest, as it was when the list of processes was last read. One object per process, for as long as it lives. */
export class WindowsProcess {
  /** Address of its `_EPROCESS`. */
  readonly eprocess: Gva;
  readonly pid: number;
  /** Process that started it; 0 for System. It may have ended, and its number may have been given anew. */
  readonly parentPid: number;
  /** Image name as the kernel keeps it: at most 15 characters, what is not printable ASCII is `?`. */
  readonly name: string;
  /** CR3 of its (kernel) page tables. */
  readonly cr3: Cr3;
  /** CR3 of its user page tables under KPTI; equal to {@link cr3} where it has none of its own. */
  readonly userCr3: Cr3;
  /** When it started, as Windows counts: units of 100 ns since 1601; 0 for System. */
  readonly createTime: bigint;
  /** Whether its memory is swapped out, page tables included. */
  outswapped: boolean;
  /** Whether it is about to end. */
  exiting: boolean;

  constructor(fields: ProcessFields) {
    this.eprocess = fields.eprocess;
    this.pid = fields.pid;
    this.parentPid = fields.parentPid;
    this.name = fields.name;
    this.cr3 = fields.cr3;
    this.userCr3 = fields.userCr3;
    this.createTime = fields.createTime;
    this.outswapped = fields.outswapped;
    this.exiting = fields.exiting;
  }

  /** Whether it is the System process, in which kernel threads run. */
  get isSystem(): boolean {
    return this.pid === SYSTEM_PID;
  }

  /** Whether it has user page tables of its own. */
  get hasUserTables(): boolean {
    return rootOf(this.cr3) !== rootOf(this.userCr3);
  }

  /** Whether fields read later are those of the same process. */
  is(fields: ProcessFields): boolean {
    return (
      fields.eprocess === this.eprocess &&
      fields.pid === this.pid &&
      fields.cr3 === this.cr3 &&
      fields.userCr3 === this.userCr3 &&
      fields.createTime === this.createTime
    );
  }

  /** The process as alerts name it. */
  toAlert(): AlertProcess {
    return {
      pid: this.pid,
      name: this.name,
      eprocess: hex64(this.eprocess),
      cr3: hex64(this.cr3),
      ...(this.hasUserTables ? { userCr3: hex64(this.userCr3) } : {}),
    };
  }
}
