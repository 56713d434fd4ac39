/**
 * The interface between the two halves of the lab guest: the *data* (page tables, PE image, kernel structures, processes)
 * and the *machine code* that runs on it. The data half lays everything out and hands the code half a {@link KernelPlan};
 * `assembleKernel(plan)` (in `assemble-kernel.ts`) answers with a {@link KernelCode}, whose bytes and labels the data half places.
 */
import type { Cr3, Gpa, Gva } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';

/** A range of guest virtual memory. */
export interface VirtualRange {
  /** First byte. */
  readonly va: Gva;
  /** Size in bytes, a multiple of 4096 unless said otherwise. */
  readonly size: number;
}

/** What one VCPU owns. */
export interface ProcessorPlan {
  /** Number of the VCPU, 0-based. */
  readonly index: number;
  /** KPCR: GS base in ring 0. `KPCR.CurrentPrcb` is `kpcr + offset(Prcb)`; `Prcb.CurrentThread` starts as the idle thread. */
  readonly kpcr: Gva;
  /** KPRCB inside the KPCR. */
  readonly prcb: Gva;
  /** GDT: selectors as Windows x64 has them (0x10 KGDT64_R0_CODE, 0x18 R0_DATA, 0x20 R3_CMCODE, 0x28 R3_DATA, 0x30 R3_CODE, 0x40 SYS_TSS). */
  readonly gdt: VirtualRange;
  /** IDT of 256 entries. */
  readonly idt: VirtualRange;
  /** KTSS64. RSP0 is at offset 4, and the scheduler keeps it at the current thread's stack top. */
  readonly tss: VirtualRange;
  /** Tops of the three IST stacks (IST1 double fault, IST2 NMI, IST3 machine check / debug), 16-byte aligned. */
  readonly istTops: readonly [Gva, Gva, Gva];
  /** The idle thread of this VCPU, an element of {@link KernelPlan.threads}. It runs from {@link KernelCode.bootEntry}. */
  readonly idleThread: ThreadPlan;
}

/** What a thread is for; the code half gives each kind its start routine. */
export type ThreadRole =
  /** Runs when nothing else does; on VCPU 0 it is what boot turns into. */
  | 'idle'
  /** Thread of System that polls the mailbox and runs attacks. */
  | 'attack-driver'
  /** Kernel thread of System that does background work. */
  | 'system-worker'
  /** Ring-3 thread of an ordinary process. */
  | 'user'
  /** Ring-3 thread of the process in which `target: 'ordinary'` attacks run. */
  | 'attack-user';

/** One thread. ETHREAD, TEB and stacks exist and are filled before the first instruction. */
export interface ThreadPlan {
  /** Position in {@link KernelPlan.threads}. */
  readonly index: number;
  readonly role: ThreadRole;
  readonly tid: number;
  /** ETHREAD = KTHREAD address. */
  readonly ethread: Gva;
  readonly process: ProcessPlan;
  /** VCPU that may run it. */
  readonly processor: number;
  /** First byte above the kernel stack (KTHREAD.InitialStack / StackBase). */
  readonly kernelStackTop: Gva;
  /** Lowest byte of the kernel stack (KTHREAD.StackLimit). */
  readonly kernelStackLimit: Gva;
  /** TEB: GS base in ring 3; 0 for kernel threads. */
  readonly teb: Gva;
  /** First byte above the user stack; 0 for kernel threads. */
  readonly userStackTop: Gva;
}

/** One process. */
export interface ProcessPlan {
  readonly pid: number;
  /** Image file name as EPROCESS holds it, e.g. `smss.exe`. */
  readonly name: string;
  readonly eprocess: Gva;
  /** Root of its page tables; every root has the same self-map index and the same kernel half. */
  readonly cr3: Cr3;
  /** PEB; 0 for Idle and System. */
  readonly peb: Gva;
  /** Where {@link KernelCode.userCode} of this process goes (ring-3 read/execute); absent for Idle and System. */
  readonly userCode: VirtualRange | undefined;
  /** Zeroed ring-3 read/write memory; absent for Idle and System. */
  readonly userData: VirtualRange | undefined;
}

/** Everything the code half needs to know about where things lie. */
export interface KernelPlan {
  readonly profile: GuestProfile;
  readonly kernelBase: Gva;
  /** 0x100..0x1FE */
  readonly selfMapIndex: number;
  /** Root of System (and of the kernel at boot). */
  readonly systemCr3: Cr3;
  /** Section `LABCODE` of the kernel image: ring-0 read/execute. */
  readonly code: VirtualRange;
  /** Section `LABDATA` of the kernel image: ring-0 read/write, not executable, zero but for {@link KernelCode.data}. */
  readonly data: VirtualRange;
  /** The mailbox through which the host starts a scenario: the first {@link MAILBOX_SIZE} bytes of {@link data}. */
  readonly mailbox: Gva;
  /** Physical frames nobody uses, contiguous, zeroed, and mapped ring-0 read/write at {@link spareVa}: for the attack driver's page tables and stub. */
  readonly sparePhysical: Gpa;
  readonly spareVa: Gva;
  /** Bytes of spare memory. */
  readonly spareSize: number;
  /** Virtual address in the user half that no process uses: where the driver maps its ring-3 stub in System. */
  readonly stubVa: Gva;
  readonly processors: readonly ProcessorPlan[];
  readonly processes: readonly ProcessPlan[];
  readonly threads: readonly ThreadPlan[];
  /** KUSER_SHARED_DATA in the kernel half (0xFFFFF78000000000); read-only at 0x7FFE0000 for ring 3. */
  readonly sharedUserData: Gva;
  /** Virtual address of a symbol of ntoskrnl. @throws when the profile has no such symbol. */
  symbol(name: string): Gva;
}

/** Size of the mailbox in bytes. Its fields are u64: see {@link MAILBOX}. */
export const MAILBOX_SIZE = 0x100;

/** Byte offsets of the mailbox's u64 fields. */
export const MAILBOX = {
  /** Host writes a new non-zero number (last, after the other fields); the driver acts when it differs from {@link MAILBOX.handled}. */
  sequence: 0x00,
  /** Driver writes the sequence number it has finished. */
  handled: 0x08,
  /** {@link ScenarioCode} */
  scenario: 0x10,
  /** 0 = System, 1 = the ordinary target process. */
  target: 0x18,
  /** {@link HostileCode}: what the attack driver does when it takes a scenario, right after the line `lab: run`. */
  hostile: 0x20,
} as const;

/** Numbers of the scenarios in the mailbox. */
export const ScenarioCode = {
  'self-map/mov': 1,
  'self-map/or': 2,
  'self-map/xchg': 3,
  'self-map/bts': 4,
  'self-map/lock-cmpxchg': 5,
  'self-map-benign': 6,
  'syscall-entry': 7,
  'syscall-entry-benign': 8,
  smep: 9,
  'smep-benign': 10,
  'interrupt-table': 11,
  'interrupt-table-benign': 12,
  remap: 13,
  'remap-benign': 14,
  overwrite: 15,
  'overwrite-benign': 16,
  push: 17,
  'push-benign': 18,
  'function-patch': 19,
  'function-patch-benign': 20,
} as const;
/** Name of a scenario: what the debug lines `lab: run` and `lab: done` carry, followed by `/system` or `/ordinary`. */
export type ScenarioName = keyof typeof ScenarioCode;

/** Numbers of the hostile variants in the mailbox. */
export const HostileCode = {
  /** No hostile behaviour. */
  none: 0,
  /** Load an empty IDT and divide by zero. */
  'triple-fault': 1,
  /** CLI and jump to itself. */
  loop: 2,
} as const;

/** One gate of the IDT. */
export interface InterruptGate {
  readonly vector: number;
  /** Handler. */
  readonly handler: Gva;
  /** 0 = no stack switch beyond TSS.RSP0, 1..3 = IST. */
  readonly ist: 0 | 1 | 2 | 3;
  /** Lowest privilege that may reach it by INT n: 0, or 3 (INT3). */
  readonly dpl: 0 | 3;
}

/** Bytes to be placed at a virtual address of a kernel stack (or other kernel memory). */
export interface InitialBytes {
  readonly va: Gva;
  readonly bytes: Uint8Array;
}

/** What the code half hands back. */
export interface KernelCode {
  /** Content of {@link KernelPlan.code} from its first byte. */
  readonly code: Uint8Array;
  /** Initial content of {@link KernelPlan.data} from its first byte (the mailbox included); may be shorter. */
  readonly data: Uint8Array;
  /** All labels, for tests and for people. */
  readonly labels: ReadonlyMap<string, Gva>;
  /** First RIP of VCPU 0, ring 0, interrupts off, on the idle thread's stack; GDT, IDT, TR, GS base and the syscall MSRs are set. */
  readonly bootEntry: Gva;
  /** First RIP of the other VCPUs, same state. */
  readonly secondaryEntry: Gva;
  /**
   * Symbol of ntoskrnl -> label to which a JMP at the symbol's address goes, e.g. `KiSystemCall64`, `KiPageFault`,
   * `KeBugCheckEx`. LSTAR is the address of `KiSystemCall64`, and gates may name `KiPageFault`'s address as the handler.
   */
  readonly stubs: ReadonlyMap<string, Gva>;
  /** All 256 gates are wanted; vectors without an element here are left not present. */
  readonly gates: readonly InterruptGate[];
  /** Initial content of the kernel stacks. */
  readonly stacks: readonly InitialBytes[];
  /** `KTHREAD.KernelStack` (saved RSP) of each thread by {@link ThreadPlan.index}. */
  readonly kernelStackPointers: readonly Gva[];
  /** Content of {@link ProcessPlan.userCode} by PID. */
  readonly userCode: ReadonlyMap<number, Uint8Array>;
  /** First ring-3 RIP of each user thread by {@link ThreadPlan.index} (`ETHREAD.StartAddress`); kernel threads: their routine. */
  readonly startAddresses: readonly Gva[];
}
