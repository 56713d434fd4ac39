/**
 * Attacks on the registers that decide where the kernel is entered and what ring 0 may execute: LSTAR, CR4.SMEP, IDTR. Each says
 * whether it took effect and then puts back what was there. Each twin writes the same register in a way that changes nothing
 * that matters, and checks that its write happened.
 */
import { Msr } from '../boot.js';
import { SparePage } from './page-mapping.js';

/** CR4.SMEP (SDM vol. 3A, 2.5). */
const SMEP_BIT = 20;
/** CR4.TSD: RDTSC is for ring 0 only. */
const TSD_BIT = 2;
/** Bytes of an IDT of 256 gates. */
const IDT_SIZE = 0x1000;
/** Bytes of a gate. */
const GATE_SIZE = 16;

/** RAX = LSTAR. */
const readSyscallEntry = `
    mov ecx, ${Msr.LSTAR}
    rdmsr
    shl rdx, 32
    or rax, rdx
`;

/** LSTAR = RAX. */
const writeSyscallEntry = `
    mov rdx, rax
    shr rdx, 32
    mov ecx, ${Msr.LSTAR}
    wrmsr
`;

/** Code of the attacks and their twins. */
export const hookedRegistersCode = `
LabSyscallEntryAttack:
    ${readSyscallEntry}
    mov rbx, rax
    lea rax, [LabSyscallEntryAttack]
    ${writeSyscallEntry}
    ${readSyscallEntry}
    xor r14d, r14d
    cmp rax, rbx
    setne r14b
    mov rax, rbx
    ${writeSyscallEntry}
    jmp LabReportEffect

; Writing what is there already is what every processor does when it wakes from sleep.
LabSyscallEntryBenign:
    xor r15d, r15d
    ${readSyscallEntry}
    mov rbx, rax
    ${writeSyscallEntry}
    ${readSyscallEntry}
    cmp rax, rbx
    setne r15b
    jmp LabReportBenign

LabSmepAttack:
    mov rbx, cr4
    mov rax, rbx
    btr rax, ${SMEP_BIT}
    mov cr4, rax
    mov rax, cr4
    xor r14d, r14d
    bt rax, ${SMEP_BIT}
    setae r14b
    mov cr4, rbx
    jmp LabReportEffect

LabSmepBenign:
    xor r15d, r15d
    mov rbx, cr4
    mov rax, rbx
    btc rax, ${TSD_BIT}
    mov cr4, rax
    mov rcx, cr4
    cmp rax, rcx
    setne r15b
    mov cr4, rbx
    jmp LabReportBenign

; The same gates at another address: whoever hooks the table sees no write to it.
LabInterruptTableAttack:
    sidt [LabIdtr+6]
    mov rbx, [LabIdtr+8]
    mov rsi, rbx
    mov rdi, SpareVa
    add rdi, ${SparePage.ROGUE_IDT * 0x1000}
    mov r8, rdi
    mov ecx, ${IDT_SIZE}
    rep movsb
    mov [LabIdtr+8], r8
    lidt [LabIdtr+6]
    sidt [LabIdtr+6]
    xor r14d, r14d
    cmp rbx, [LabIdtr+8]
    setne r14b
    mov [LabIdtr+8], rbx
    lidt [LabIdtr+6]
    jmp LabReportEffect

; The same table, shorter by its last gate, which nothing uses.
LabInterruptTableBenign:
    xor r15d, r15d
    sidt [LabIdtr+6]
    mov rbx, [LabIdtr+8]
    movzx r8d, word [LabIdtr+6]
    sub word [LabIdtr+6], ${GATE_SIZE}
    lidt [LabIdtr+6]
    mov qword [LabIdtr+8], 0
    sidt [LabIdtr+6]
    cmp rbx, [LabIdtr+8]
    setne r15b
    movzx eax, word [LabIdtr+6]
    add eax, ${GATE_SIZE}
    cmp eax, r8d
    setne al
    movzx eax, al
    add r15, rax
    mov [LabIdtr+6], r8w
    lidt [LabIdtr+6]
    jmp LabReportBenign

; r14 = 1 when the attack took effect
LabReportEffect:
    lea rcx, [TextEffect]
    mov rdx, r14
    jmp DbgPrintValue

; r15 = how many benign writes were lost
LabReportBenign:
    lea rcx, [TextBenignOk]
    test r15, r15
    je DbgPrintLine
    lea rcx, [TextBenignLost]
    mov rdx, r15
    jmp DbgPrintValue
`;

/** Room for a descriptor-table operand, for LABDATA; its base is aligned. */
export const hookedRegistersData = 'align 8\nLabIdtr: dq 0, 0';
