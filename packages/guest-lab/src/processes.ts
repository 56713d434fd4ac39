import { type Cr3, type Gva, gva } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import type { AddressSpace } from './address-space.js';
import type { ThreadPlan } from './code/plan.js';
import type { Pool } from './pool.js';
import { ascii, type GuestStruct, linkList, structAt, utf16 } from './struct-writer.js';
import type { UserModule } from './user-space.js';

/** Dispatcher object types (KOBJECTS). */
const PROCESS_OBJECT = 3;
const THREAD_OBJECT = 6;
/** STATUS_PENDING: exit status of what still runs. */
const STATUS_PENDING = 0x103;
const NORMAL_PRIORITY = 8;
/** KTHREAD_STATE */
const ThreadState = { ready: 1, running: 2 } as const;

/** What an EPROCESS says beyond its plan. */
export interface ProcessContent {
  readonly pid: number;
  readonly parentPid: number;
  readonly name: string;
  readonly cr3: Cr3;
  readonly peb: bigint;
  /** FILETIME */
  readonly createTime: bigint;
  readonly token: Gva;
  readonly objectTable: Gva;
  readonly vadRoot: bigint;
  readonly vadCount: number;
  /** Main module; absent for Idle and System. */
  readonly image: UserModule | undefined;
  readonly threads: readonly ThreadPlan[];
}

/** Fills an EPROCESS, all but its place in the process list. */
export function writeProcess(process: GuestStruct, pool: Pool, content: ProcessContent): void {
  process
    .setAll({
      'Pcb.Header.Type': PROCESS_OBJECT,
      'Pcb.DirectoryTableBase': content.cr3,
      'Pcb.BasePriority': NORMAL_PRIORITY,
      'Pcb.QuantumReset': 6,
      'Pcb.Affinity.Count': 1,
      'Pcb.Affinity.Size': 20,
      'Pcb.StackCount.StackCount': content.threads.length,
      UniqueProcessId: content.pid,
      InheritedFromUniqueProcessId: content.parentPid,
      CreateTime: content.createTime,
      HasAddressSpace: 1,
      CreateReported: 1,
      AddressSpaceInitialized: 2,
      PriorityClass: 2,
      // The low bits of a fast reference count references that are handed out without touching the object.
      'Token.Value': content.token | 0xfn,
      ObjectTable: content.objectTable,
      Peb: content.peb,
      SectionBaseAddress: content.image?.base ?? 0n,
      'VadRoot.Root': content.vadRoot,
      VadCount: content.vadCount,
      ActiveThreads: content.threads.length,
      ActiveThreadsHighWatermark: content.threads.length,
      ExitStatus: STATUS_PENDING,
    })
    // 15 bytes: 14 characters and a NUL, as the kernel cuts it.
    .bytes('ImageFileName', ascii(content.name.slice(0, 14)));
  process.emptyList('Pcb.ReadyListHead').emptyList('Pcb.ProfileListHead').emptyList('Pcb.Header.WaitListHead');
  const path = content.image?.path.replace(/^C:/, '\\Device\\HarddiskVolume1') ?? '';
  const name = pool.struct('SeOn', '_OBJECT_NAME_INFORMATION');
  name.unicode('Name', path, pool.bytes('SeOn', utf16(path)));
  process.set('SeAuditProcessCreationInfo.ImageFileName', name.va);
}

/** Fills an ETHREAD, all but its saved stack pointer and start address, which the code decides. */
export function writeThread(
  space: AddressSpace,
  profile: GuestProfile,
  thread: ThreadPlan,
  createTime: bigint,
  running: boolean,
): void {
  const kernelThread = thread.teb === 0n;
  structAt(space, profile, '_ETHREAD', thread.ethread)
    .setAll({
      'Tcb.Header.Type': THREAD_OBJECT,
      'Tcb.InitialStack': thread.kernelStackTop,
      'Tcb.StackLimit': thread.kernelStackLimit,
      'Tcb.StackBase': thread.kernelStackTop,
      'Tcb.Process': thread.process.eprocess,
      'Tcb.ApcState.Process': thread.process.eprocess,
      'Tcb.Teb': thread.teb,
      'Tcb.State': running ? ThreadState.running : ThreadState.ready,
      'Tcb.Running': running ? 1 : 0,
      'Tcb.Priority': thread.role === 'idle' ? 0 : NORMAL_PRIORITY,
      'Tcb.BasePriority': thread.role === 'idle' ? 0 : NORMAL_PRIORITY,
      'Tcb.NextProcessor': thread.processor,
      'Tcb.Affinity.Mask': 1n << BigInt(thread.processor),
      'Tcb.UserAffinity.Mask': 1n << BigInt(thread.processor),
      'Tcb.PreviousMode': kernelThread ? 0 : 1,
      'Tcb.SystemThread': kernelThread ? 1 : 0,
      'Tcb.KernelStackResident': 1,
      'Cid.UniqueProcess': thread.process.pid,
      'Cid.UniqueThread': thread.tid,
      CreateTime: createTime,
      ExitStatus: STATUS_PENDING,
    })
    .emptyList('Tcb.Header.WaitListHead')
    .emptyList('Tcb.ApcState.ApcListHead')
    .emptyList('Tcb.MutantListHead')
    .emptyList('IrpList')
    .emptyList('ActiveTimerListHead');
  // ApcListHead is an array of two lists, for kernel and user mode.
  const second = profile.struct('_ETHREAD').offset('Tcb.ApcState.ApcListHead') + 16;
  linkList(space, [gva(thread.ethread + BigInt(second))]);
}

/** Links the threads of a process into its two lists. */
export function linkThreads(process: GuestStruct, profile: GuestProfile, threads: readonly ThreadPlan[]): void {
  const at = (path: string): Gva[] =>
    threads.map((thread) => structAt(process.space, profile, '_ETHREAD', thread.ethread).at(path));
  linkList(process.space, [process.at('ThreadListHead'), ...at('ThreadListEntry')]);
  linkList(process.space, [process.at('Pcb.ThreadListHead'), ...at('Tcb.ThreadListEntry')]);
}

/** Makes an empty handle table of one page. */
export function writeHandleTable(pool: Pool, pid: number, process: Gva): GuestStruct {
  // The lowest bits of TableCode are the number of levels above the leaf: none.
  return pool.struct('Obtb', '_HANDLE_TABLE').setAll({
    TableCode: pool.allocate('Obtb', 4096),
    QuotaProcess: pid === 4 ? 0n : process,
    UniqueProcessId: pid,
    NextHandleNeedingPool: 0x400,
  });
}
