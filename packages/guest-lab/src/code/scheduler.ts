/**
 * Threads. Each thread belongs to one processor; each processor goes round its own threads, one time slice each, and runs
 * its idle thread when none is ready.
 *
 * A *thread record* in LABDATA carries what the lab adds to a KTHREAD; a *processor record* lists the threads of a
 * processor. Both are laid out by {@link threadRecords} and {@link processorRecords}.
 */
import { Msr } from './boot.js';
import { type KernelOffsets, ThreadState } from './kernel-offsets.js';
import type { KernelPlan, ThreadPlan } from './plan.js';

/** Byte offsets in a thread record. */
export const ThreadRecord = {
  /** ETHREAD */
  thread: 0x00,
  /** Tick at which a waiting thread becomes ready. */
  wake: 0x08,
  /** What the thread has counted by system call. */
  counter: 0x10,
  /** RSP to which a user-mode call of the kernel returns, 0 when there is none. */
  callback: 0x18,
} as const;

/** Byte offsets in a processor record. */
const ProcessorRecord = { current: 0x00, count: 0x08, position: 0x10, idle: 0x18, threads: 0x20 } as const;

/** Registers that SwapContext keeps, in the order in which it pushes them. */
const KEPT = ['rbp', 'rbx', 'r12', 'r13', 'r14', 'r15', 'rsi', 'rdi'] as const;

/** Label of the record of a thread. */
const recordLabel = (thread: ThreadPlan): string => `ThreadRecord${thread.index}`;

/** Text of all thread records. */
export function threadRecords(plan: KernelPlan): string {
  return plan.threads.map((thread) => `${recordLabel(thread)}: dq ${thread.ethread}, 0, 0, 0`).join('\n');
}

/** Text of all processor records, and of the table of their addresses. */
export function processorRecords(plan: KernelPlan): string {
  const records = plan.processors.map(({ index, idleThread }) => {
    const own = plan.threads.filter((thread) => thread.processor === index && thread.role !== 'idle');
    const idle = recordLabel(idleThread);
    // The round begins behind the last thread: the threads of System, which come first, run first.
    const position = Math.max(own.length - 1, 0);
    return `ProcessorRecord${index}: dq ${[idle, own.length, position, idle, ...own.map(recordLabel)].join(', ')}`;
  });
  return `${records.join('\n')}\nKiProcessorTable: dq ${plan.processors.map(({ index }) => `ProcessorRecord${index}`).join(', ')}`;
}

/** What a new thread's kernel stack holds: the registers that SwapContext pops, then where it returns to. */
export function initialStack(values: { readonly r12: bigint; readonly r13: bigint }, start: bigint): bigint[] {
  const registers = KEPT.toReversed().map((name) => (name === 'r12' ? values.r12 : name === 'r13' ? values.r13 : 0n));
  return [...registers, start];
}

/** Code of the scheduler. */
export function schedulerCode(o: KernelOffsets): string {
  return `
; rax = record of the running thread
KiCurrentRecord:
    mov eax, gs:[${o.pcr.Number}]
    lea rcx, [KiProcessorTable]
    mov rax, [rcx+rax*8]
    mov rax, [rax+${ProcessorRecord.current}]
    ret

; Gives the processor to the next thread that is ready. al = state in which the running thread is left behind.
; Interrupts are off. Returns when the thread runs again.
KiSwapThread:
    push rbx
    push rsi
    push rdi
    mov ecx, gs:[${o.pcr.Number}]
    lea rdx, [KiProcessorTable]
    mov rbx, [rdx+rcx*8]
    mov rdi, [rbx+${ProcessorRecord.current}]
    mov rcx, [rdi+${ThreadRecord.thread}]
    mov [rcx+${o.thread.State}], al
    mov r8, [rbx+${ProcessorRecord.count}]
    mov r9, [rbx+${ProcessorRecord.position}]
    mov r10, r8
.look:
    test r10, r10
    je .idle
    dec r10
    inc r9
    cmp r9, r8
    jb .inside
    xor r9d, r9d
.inside:
    mov rsi, [rbx+r9*8+${ProcessorRecord.threads}]
    mov rcx, [rsi+${ThreadRecord.thread}]
    cmp byte [rcx+${o.thread.State}], ${ThreadState.READY}
    je .found
    cmp byte [rcx+${o.thread.State}], ${ThreadState.WAITING}
    jne .look
    mov rdx, [KiTicks]
    cmp rdx, [rsi+${ThreadRecord.wake}]
    jb .look
.found:
    mov [rbx+${ProcessorRecord.position}], r9
    jmp .swap
.idle:
    mov rsi, [rbx+${ProcessorRecord.idle}]
.swap:
    mov [rbx+${ProcessorRecord.current}], rsi
    mov rdx, [rsi+${ThreadRecord.thread}]
    mov rcx, [rdi+${ThreadRecord.thread}]
    mov byte [rdx+${o.thread.State}], ${ThreadState.RUNNING}
    cmp rcx, rdx
    je .same
    call KiSwapContextEntry
.same:
    pop rdi
    pop rsi
    pop rbx
    ret

; rcx = ETHREAD that ran, rdx = ETHREAD that runs now. Interrupts are off.
KiSwapContextEntry:
    ${KEPT.map((name) => `push ${name}`).join('\n')}
    mov [rcx+${o.thread.KernelStack}], rsp
    mov byte [rcx+${o.thread.Running}], 0
    mov byte [rdx+${o.thread.Running}], 1
    inc dword [rdx+${o.thread.ContextSwitches}]
    inc dword gs:[${o.pcr.ContextSwitches}]
    mov rsp, [rdx+${o.thread.KernelStack}]
    mov gs:[${o.pcr.CurrentThread}], rdx
    mov rbx, rdx
    call KiSetStackBase
    mov rax, [rbx+${o.thread.Process}]
    cmp rax, [rcx+${o.thread.Process}]
    je .space
    mov rax, [rax+${o.process.DirectoryTableBase}]
    mov cr3, rax
.space:
    ; GS base of ring 3 is the TEB; SWAPGS will exchange it for the KPCR.
    mov rax, [rbx+${o.thread.Teb}]
    mov rdx, rax
    shr rdx, 32
    mov ecx, ${Msr.KERNEL_GS_BASE}
    wrmsr
    ${KEPT.toReversed()
      .map((name) => `pop ${name}`)
      .join('\n')}
    ret

; Where the processor and SYSCALL find the kernel stack of rdx = ETHREAD. Changes rax and r8 only.
KiSetStackBase:
    mov rax, [rdx+${o.thread.InitialStack}]
    mov gs:[${o.pcr.RspBase}], rax
    mov r8, gs:[${o.pcr.TssBase}]
    mov [r8+${o.rsp0}], rax
    ret

; Waits for rcx time slices.
KeDelayExecutionThreadEntry:
    pushfq
    cli
    mov rdx, rcx
    call KiCurrentRecord
    add rdx, [KiTicks]
    mov [rax+${ThreadRecord.wake}], rdx
    mov al, ${ThreadState.WAITING}
    call KiSwapThread
    popfq
    ret

KiTerminateThread:
    cli
    mov al, ${ThreadState.TERMINATED}
    call KiSwapThread
    jmp KiTerminateThread

KiIdleLoopEntry:
    sti
    hlt
    jmp KiIdleLoopEntry

; First code of a kernel thread: r12 = its routine
KiStartSystemThreadEntry:
    sti
    call r12
    jmp KiTerminateThread

; First code of a ring-3 thread: r12 = its RIP, r13 = its RSP. It enters ring 3 as if it returned there.
KiStartUserThreadEntry:
    mov rcx, r12
    mov rdx, r13
    xor r8d, r8d
    xor r9d, r9d
    jmp KiEnterUserMode

; Thread of System that does a little work in ring 0: it counts, and sleeps for two slices.
LabSystemWorker:
    mov ebx, 200
.work:
    lock inc qword [LabSystemWork]
    dec ebx
    jne .work
    mov ecx, 2
    call KeDelayExecutionThreadEntry
    jmp LabSystemWorker
`;
}
