/**
 * Exceptions and interrupts. Each handler builds a KTRAP_FRAME on the kernel stack: the processor pushes its upper part,
 * the handler RBP and the registers that the calling convention lets it change. RBX, RSI and RDI are saved as well; R12
 * to R15 are kept by all kernel code, and SwapContext saves them when the thread changes.
 */
import { CLOCK_VECTOR, Msr, SPURIOUS_VECTOR, TIME_SLICE } from './boot.js';
import { type KernelOffsets, ThreadState } from './kernel-offsets.js';
import { ThreadRecord } from './scheduler.js';

/** An exception that the lab kernel has a gate for. */
export interface Exception {
  readonly vector: number;
  /** Name that the symbols of ntoskrnl give the handler. */
  readonly handler: string;
  /** Whether the processor pushes an error code (SDM vol. 3A, table 6-1). */
  readonly errorCode: boolean;
  readonly ist: 0 | 1 | 2 | 3;
  /** Whether ring 3 may raise it with INT n. */
  readonly user: boolean;
}

function exception(vector: number, handler: string, details: Partial<Exception> = {}): Exception {
  return { vector, handler, errorCode: false, ist: 0, user: false, ...details };
}

/** All exceptions, by vector. */
export const EXCEPTIONS: readonly Exception[] = [
  exception(0, 'KiDivideErrorFault'),
  exception(1, 'KiDebugTrapOrFault'),
  exception(2, 'KiNmiInterrupt', { ist: 2 }),
  exception(3, 'KiBreakpointTrap', { user: true }),
  exception(4, 'KiOverflowTrap', { user: true }),
  exception(5, 'KiBoundFault'),
  exception(6, 'KiInvalidOpcodeFault'),
  exception(7, 'KiNpxNotAvailableFault'),
  exception(8, 'KiDoubleFaultAbort', { ist: 1, errorCode: true }),
  exception(9, 'KiNpxSegmentOverrunAbort'),
  exception(10, 'KiInvalidTssFault', { errorCode: true }),
  exception(11, 'KiSegmentNotPresentFault', { errorCode: true }),
  exception(12, 'KiStackFault', { errorCode: true }),
  exception(13, 'KiGeneralProtectionFault', { errorCode: true }),
  exception(14, 'KiPageFault', { errorCode: true }),
  exception(16, 'KiFloatingErrorFault'),
  exception(17, 'KiAlignmentFault', { errorCode: true }),
  exception(18, 'KiMcheckAbort', { ist: 3 }),
  exception(19, 'KiXmmException'),
  exception(20, 'KiVirtualizationException'),
  exception(21, 'KiControlProtectionFault', { errorCode: true }),
];

/** Vectors of device interrupts and their handlers. */
export const INTERRUPTS: readonly { readonly vector: number; readonly handler: string }[] = [
  { vector: CLOCK_VECTOR, handler: 'HalpTimerClockInterrupt' },
  { vector: SPURIOUS_VECTOR, handler: 'HalpSpuriousInterrupt' },
];

/** Bug-check codes of Windows. */
const BugCheck = {
  KMODE_EXCEPTION_NOT_HANDLED: 0x1e,
  PAGE_FAULT_IN_NONPAGED_AREA: 0x50,
  UNEXPECTED_KERNEL_MODE_TRAP: 0x7f,
} as const;

const PAGE_FAULT = 14;

const SAVED = ['Rax', 'Rcx', 'Rdx', 'R8', 'R9', 'R10', 'R11', 'Rbx', 'Rdi', 'Rsi'] as const;

/** Saves all that the handler may change and leaves RSP at the frame; GS is the KPCR afterwards. */
function trapEntry(o: KernelOffsets, errorCode: boolean): string {
  const { frame } = o;
  const xmm = [0, 1, 2, 3, 4, 5].map((n) => `movups [rsp+${frame.Xmm0 + 16 * n}], xmm${n}`);
  return `
    ${errorCode ? '' : 'push 0'}
    push rbp
    sub rsp, ${frame.Rbp}
    ${SAVED.map((name) => `mov [rsp+${frame[name]}], ${name.toLowerCase()}`).join('\n')}
    cld
    test byte [rsp+${frame.SegCs}], 3
    je .kernel
    swapgs
    ; The kernel itself uses no XMM register, so only those of ring 3 need a place. Its programs use the first six.
    ${xmm.join('\n')}
.kernel:
`;
}

/** The way back from every trap: \`KiTrapExit\` with RSP at the frame. */
function trapExit(o: KernelOffsets): string {
  const { frame } = o;
  const xmm = [0, 1, 2, 3, 4, 5].map((n) => `movups xmm${n}, [rsp+${frame.Xmm0 + 16 * n}]`);
  return `
KiTrapExit:
    cli
    test byte [rsp+${frame.SegCs}], 3
    je .kernel
    ${xmm.join('\n')}
    swapgs
.kernel:
    ${SAVED.map((name) => `mov ${name.toLowerCase()}, [rsp+${frame[name]}]`).join('\n')}
    mov rbp, [rsp+${frame.Rbp}]
    add rsp, ${frame.Rip}
    iretq
`;
}

function exceptionHandler(o: KernelOffsets, { vector, handler, errorCode }: Exception): string {
  return `
${handler}Entry:
    ${trapEntry(o, errorCode)}
    mov r8d, ${vector}
    mov rdx, cr2
    ${vector === PAGE_FAULT ? `mov [rsp+${o.frame.FaultAddress}], rdx` : ''}
    jmp KiDispatchTrap
`;
}

/** Windows counts time in units of 100 ns. */
const UNITS_PER_MICROSECOND = 10;

/**
 * Advances a KSYSTEM_TIME of KUSER_SHARED_DATA, at R8. Its high half is there twice, and written first and last, so that
 * a reader without a lock notices when it reads in between.
 */
function advance(offset: number, units: number): string {
  return `
    mov rax, [r8+${offset}]
    add rax, ${units}
    mov rcx, rax
    shr rcx, 32
    mov [r8+${offset + 8}], ecx
    mov [r8+${offset}], eax
    mov [r8+${offset + 4}], ecx
`;
}

/** Code of all handlers; the label of a handler is its name and \`Entry\`. */
export function trapCode(o: KernelOffsets): string {
  return `
${EXCEPTIONS.map((entry) => exceptionHandler(o, entry)).join('')}

; r8d = vector, rdx = CR2, rsp = frame. A fault of ring 3 ends what ran there; one of ring 0 ends the machine.
KiDispatchTrap:
    mov rbp, rsp
    and rsp, -16
    mov ebx, r8d
    mov rsi, rdx
    test byte [rbp+${o.frame.SegCs}], 3
    je .kernel
    call KiCurrentRecord
    mov rdi, rax
    cmp qword [rdi+${ThreadRecord.callback}], 0
    jne KiCallbackFault
    lea rcx, [TextThreadFault]
    mov rdx, rsi
    call DbgPrintValue
    jmp KiTerminateThread
.kernel:
    lea rcx, [TextTrapAt]
    mov rdx, [rbp+${o.frame.Rip}]
    call DbgPrintValue
    lea rcx, [TextTrapAddress]
    mov rdx, rsi
    call DbgPrintValue
    mov ecx, ${BugCheck.PAGE_FAULT_IN_NONPAGED_AREA}
    cmp ebx, ${PAGE_FAULT}
    je KeBugCheckEx
    mov ecx, ${BugCheck.UNEXPECTED_KERNEL_MODE_TRAP}
    cmp ebx, 8
    je KeBugCheckEx
    mov ecx, ${BugCheck.KMODE_EXCEPTION_NOT_HANDLED}
    jmp KeBugCheckEx

; A fault inside of KiCallUserMode: the call returns with the vector. rbx = vector, rsi = CR2, rdi = record
KiCallbackFault:
    cmp ebx, ${PAGE_FAULT}
    jne .return
    lea rcx, [TextUserFault]
    mov rdx, rsi
    call DbgPrintValue
.return:
    mov ecx, ebx
    jmp KiReturnToCallback

HalpTimerClockInterruptEntry:
    ${trapEntry(o, false)}
    mov ecx, ${Msr.X2APIC_EOI}
    xor eax, eax
    xor edx, edx
    wrmsr
    inc dword gs:[${o.pcr.InterruptCount}]
    mov eax, gs:[${o.pcr.Number}]
    test eax, eax
    jne .schedule
    inc qword [KiTicks]
    mov r8, PlanSharedUserData
${advance(o.shared.InterruptTime, TIME_SLICE * UNITS_PER_MICROSECOND)}
${advance(o.shared.SystemTime, TIME_SLICE * UNITS_PER_MICROSECOND)}
${advance(o.shared.TickCount, 1)}
.schedule:
    mov al, ${ThreadState.READY}
    call KiSwapThread
    jmp KiTrapExit

HalpSpuriousInterruptEntry:
    iretq

${trapExit(o)}
`;
}
