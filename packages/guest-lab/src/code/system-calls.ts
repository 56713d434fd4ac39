/**
 * System calls, and the way from ring 0 to ring 3 and back. The number is in RAX, arguments in R10 and RDX, the answer
 * in RAX, as Windows has it; interrupts stay off.
 */
import { type KernelOffsets, Selector, ThreadState } from './kernel-offsets.js';
import { ThreadRecord } from './scheduler.js';

/** Numbers of the system calls. */
export const SystemCall = {
  /** Gives up the rest of the time slice. */
  YIELD: 0,
  /** Prints R10 as `lab: value`. */
  PRINT_VALUE: 1,
  /** Hands over what ring 3 read from a page table, R10; `lab: user read` when RDX is not 0. */
  PAGE_TABLE_ENTRY: 2,
  /** Ends a user-mode call of the kernel; R10 is its result. */
  CALLBACK_RETURN: 3,
  /** Process id of the caller. */
  PROCESS_ID: 4,
  /** Adds R10 to the thread's counter and gives the sum. */
  COUNT: 5,
  /** Sleeps for R10 time slices. */
  DELAY: 6,
  /** Asks the vulnerable driver for service: runs an attack in the caller's address space when one is wanted. */
  DRIVER: 7,
  /** Ends the thread. */
  EXIT: 8,
} as const;

/** RFLAGS with which ring 3 begins: IF, and bit 1 that is always set. */
const USER_FLAGS = 0x202;
/** Answer to an unknown number (STATUS_INVALID_SYSTEM_SERVICE). */
const STATUS_INVALID_SYSTEM_SERVICE = 0xc000_001c;

/** Routines in the order of {@link SystemCall}, for the service table in LABDATA. */
export const SERVICE_TABLE: readonly string[] = [
  'NtYieldExecution',
  'LabPrintValue',
  'LabPageTableEntry',
  'NtCallbackReturn',
  'LabProcessId',
  'LabCount',
  'NtDelayExecution',
  'LabDriverControl',
  'NtTerminateThread',
];

const KEPT = ['rbx', 'rbp', 'rsi', 'rdi', 'r12', 'r13', 'r14', 'r15'] as const;

/** Code of the system calls. */
export function systemCallCode(o: KernelOffsets): string {
  const { frame } = o;
  return `
; Ring 3 arrives here on its own stack. The pushes make the upper part of a KTRAP_FRAME.
KiSystemCall64Entry:
    swapgs
    mov gs:[${o.pcr.UserRsp}], rsp
    mov rsp, gs:[${o.pcr.RspBase}]
    push ${Selector.USER_DATA}
    push qword gs:[${o.pcr.UserRsp}]
    push r11
    push ${Selector.USER_CODE}
    push rcx
    mov rcx, r10
    sub rsp, 8
    push rbp
    sub rsp, ${frame.Rbp}
    mov [rsp+${frame.Rbx}], rbx
    mov [rsp+${frame.Rdi}], rdi
    mov [rsp+${frame.Rsi}], rsi
    mov rbp, rsp
    inc dword gs:[${o.pcr.SystemCalls}]
    cmp rax, ${SERVICE_TABLE.length}
    jae KiUnknownSystemCall
    lea r11, [LabServiceTable]
    call qword [r11+rax*8]
KiSystemServiceExitEntry:
    cli
    mov rbx, [rsp+${frame.Rbx}]
    mov rdi, [rsp+${frame.Rdi}]
    mov rsi, [rsp+${frame.Rsi}]
    mov rcx, [rsp+${frame.Rip}]
    mov r11, [rsp+${frame.EFlags}]
    mov rbp, [rsp+${frame.Rbp}]
    mov rsp, [rsp+${frame.Rsp}]
    ; Nothing of the kernel may be left in a register.
    xor edx, edx
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    swapgs
    sysretq

KiUnknownSystemCall:
    mov eax, ${STATUS_INVALID_SYSTEM_SERVICE}
    jmp KiSystemServiceExitEntry

; SYSCALL from 32-bit code, which the lab does not run.
KiSystemCall32Entry:
    swapgs
    mov rsp, gs:[${o.pcr.RspBase}]
    mov ecx, ${STATUS_INVALID_SYSTEM_SERVICE}
    jmp KeBugCheckEx

NtYieldExecution:
    mov al, ${ThreadState.READY}
    call KiSwapThread
    xor eax, eax
    ret

LabPrintValue:
    mov rdx, rcx
    lea rcx, [TextValue]
    call DbgPrintValue
    xor eax, eax
    ret

LabPageTableEntry:
    test rdx, rdx
    je .silent
    mov rdx, rcx
    lea rcx, [TextUserRead]
    call DbgPrintValue
.silent:
    xor eax, eax
    ret

LabProcessId:
    mov rax, gs:[${o.pcr.CurrentThread}]
    mov rax, [rax+${o.thread.Process}]
    mov rax, [rax+${o.process.UniqueProcessId}]
    ret

LabCount:
    mov rdx, rcx
    call KiCurrentRecord
    add rdx, [rax+${ThreadRecord.counter}]
    mov [rax+${ThreadRecord.counter}], rdx
    mov rax, rdx
    ret

NtDelayExecution:
    call KeDelayExecutionThreadEntry
    xor eax, eax
    ret

NtTerminateThread:
    jmp KiTerminateThread

; Ends the running user-mode call with rcx as its result; without one the caller gets an error.
NtCallbackReturn:
    mov rdx, rcx
    call KiCurrentRecord
    mov rdi, rax
    mov rcx, rdx
    cmp qword [rdi+${ThreadRecord.callback}], 0
    jne KiReturnToCallback
    mov eax, ${STATUS_INVALID_SYSTEM_SERVICE}
    ret

; Runs code in ring 3 from a kernel thread: rcx = RIP, rdx = RSP, r8 and r9 = its arguments in RCX and RDX.
; Returns what it passes to NtCallbackReturn, or the vector of the exception that ended it.
; Until then the kernel stack of the thread begins below what it holds now.
KiCallUserModeEntry:
    pushfq
    cli
    ${KEPT.map((name) => `push ${name}`).join('\n')}
    mov rsi, rcx
    mov rdi, rdx
    call KiCurrentRecord
    mov rdx, gs:[${o.pcr.CurrentThread}]
    push qword [rax+${ThreadRecord.callback}]
    push qword [rdx+${o.thread.InitialStack}]
    mov [rax+${ThreadRecord.callback}], rsp
    mov rbx, rsp
    and rbx, -16
    mov [rdx+${o.thread.InitialStack}], rbx
    mov rbx, r8
    call KiSetStackBase
    mov r8, rbx
    mov rcx, rsi
    mov rdx, rdi
    ; falls through

; rcx = RIP, rdx = RSP, r8 and r9 = the first two arguments of the ring-3 code
KiEnterUserMode:
    cli
    push ${Selector.USER_DATA}
    push rdx
    push ${USER_FLAGS}
    push ${Selector.USER_CODE}
    push rcx
    mov rcx, r8
    mov rdx, r9
    ${['eax', 'ebx', 'esi', 'edi', 'ebp', ...[8, 9, 10, 11, 12, 13, 14, 15].map((n) => `r${n}d`)]
      .map((name) => `xor ${name}, ${name}`)
      .join('\n')}
    swapgs
    iretq

; rcx = result, rdi = thread record. Continues behind KiCallUserMode.
KiReturnToCallback:
    mov rsp, [rdi+${ThreadRecord.callback}]
    mov rdx, gs:[${o.pcr.CurrentThread}]
    pop qword [rdx+${o.thread.InitialStack}]
    pop qword [rdi+${ThreadRecord.callback}]
    call KiSetStackBase
    mov rax, rcx
    ${KEPT.toReversed()
      .map((name) => `pop ${name}`)
      .join('\n')}
    popfq
    ret
`;
}
