/**
 * Attack on a kernel function: its first bytes are read, as a tool does that looks for hooks, and replaced. The function is called
 * before and after, and says whether it still does what it did. The twin reads and writes beside it on the same page.
 */

/** CR0.WP: with it clear ring 0 writes to read-only pages (SDM vol. 3A, 2.5). */
const WRITE_PROTECT_BIT = 16;
/** What the function answers to 5. */
const ANSWER = 5 * 3 + 1;

/** Runs code with write protection off. Changes RAX. */
const unprotected = (code: string): string => `
    mov rax, cr0
    btr rax, ${WRITE_PROTECT_BIT}
    mov cr0, rax
    ${code}
    mov rax, cr0
    bts rax, ${WRITE_PROTECT_BIT}
    mov cr0, rax
`;

/** Code of the function, the attack and its twin. */
export const functionPatchCode = `
align 16
; A function as a compiler makes it: eax = ecx * 3 + 1
LabPatchTarget:
    push rbx
    sub rsp, 32
    mov ebx, ecx
    lea eax, [rbx+rbx*2]
    inc eax
    add rsp, 32
    pop rbx
    ret
align 16
LabPatchNeighbour:
    dq 0x1234567812345678

LabFunctionPatchAttack:
    lea rdi, [LabPatchTarget]
    mov rbx, [rdi]
    lea rcx, [TextValue]
    mov rdx, rbx
    call DbgPrintValue
    ${unprotected('mov byte [rdi], 0xc3')}
    mov ecx, 5
    xor eax, eax
    call LabPatchTarget
    xor r14d, r14d
    cmp eax, ${ANSWER}
    setne r14b
    cmp rbx, [rdi]
    setne al
    or r14b, al
    ${unprotected('mov [rdi], bl')}
    jmp LabReportEffect

LabFunctionPatchBenign:
    xor r15d, r15d
    lea rdi, [LabPatchNeighbour]
    mov rbx, [rdi]
    lea rcx, [TextValue]
    mov rdx, rbx
    call DbgPrintValue
    ${unprotected('not qword [rdi]')}
    mov rcx, rbx
    not rcx
    cmp rcx, [rdi]
    setne r15b
    ${unprotected('mov [rdi], rbx')}
    mov ecx, 5
    call LabPatchTarget
    cmp eax, ${ANSWER}
    setne al
    movzx eax, al
    add r15, rax
    jmp LabReportBenign
`;
