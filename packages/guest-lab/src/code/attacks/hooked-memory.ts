/**
 * Attacks on a page that somebody guards: the page `LabGuardedPage`, of which the first 16 bytes from {@link GUARDED_OFFSET} on are
 * meant to stay. Each says whether it took effect and then puts back what was there. Each twin touches the same bytes, or the same
 * page-table entry, and leaves them as they are.
 */
import { entryAddress, SparePage } from './page-mapping.js';

/** Offset in the page of what is guarded: the middle. */
const GUARDED_OFFSET = 0x800;
/** Bytes before the guarded ones at which a copy begins, and bytes that it copies. */
const COPY = { before: 0x10, length: 0x30 } as const;
/** R/W of a page-table entry. */
const WRITABLE_BIT = 1;
/** Bits of an entry that are not its frame. */
const ENTRY_FLAGS = 0xfff;
/** XD. */
const NO_EXECUTE_BIT = 63;

/** RDI = the page-table entry of the guarded page, RBX = its value. */
const guardedEntry = `
    lea rcx, [LabGuardedPage]
    ${entryAddress('PteBase', 12)}
    mov rdi, r8
    mov rbx, [rdi]
    lea rsi, [LabGuardedPage+${GUARDED_OFFSET}]
`;

/** Code of the attacks and their twins. */
export const hookedMemoryCode = `
; The page appears to lie elsewhere: whoever guards the frame sees no write to it.
LabRemapAttack:
    ${guardedEntry}
    mov r9, [rsi]
    mov rax, SparePhysical
    add rax, ${SparePage.REMAPPED * 0x1000}
    mov rcx, rbx
    and ecx, ${ENTRY_FLAGS}
    or rax, rcx
    bts rax, ${NO_EXECUTE_BIT}
    mov [rdi], rax
    invlpg [rsi]
    xor r14d, r14d
    cmp [rsi], r9
    setne r14b
    mov [rdi], rbx
    invlpg [rsi]
    jmp LabReportEffect

; The entry changes, its frame does not.
LabRemapBenign:
    xor r15d, r15d
    ${guardedEntry}
    mov rax, rbx
    btc rax, ${WRITABLE_BIT}
    mov [rdi], rax
    mov rcx, [rdi]
    xor rcx, rax
    bt rcx, ${WRITABLE_BIT}
    setb r15b
    mov [rdi], rbx
    invlpg [rsi]
    jmp LabReportBenign

; A repeated move that begins before the guarded bytes and ends behind them.
LabOverwriteAttack:
    lea rsi, [LabGuardedPage+${GUARDED_OFFSET - COPY.before}]
    mov rdi, SpareVa
    add rdi, ${SparePage.SAVED * 0x1000}
    mov ecx, ${COPY.length}
    rep movsb
    mov rbx, [LabGuardedPage+${GUARDED_OFFSET}]
    lea rsi, [LabSyscallEntryAttack]
    lea rdi, [LabGuardedPage+${GUARDED_OFFSET - COPY.before}]
    mov ecx, ${COPY.length}
    rep movsb
    xor r14d, r14d
    cmp rbx, [LabGuardedPage+${GUARDED_OFFSET}]
    setne r14b
    mov rsi, SpareVa
    add rsi, ${SparePage.SAVED * 0x1000}
    lea rdi, [LabGuardedPage+${GUARDED_OFFSET - COPY.before}]
    mov ecx, ${COPY.length}
    rep movsb
    jmp LabReportEffect

; The same move of the same bytes onto themselves.
LabOverwriteBenign:
    xor r15d, r15d
    lea rsi, [LabGuardedPage+${GUARDED_OFFSET - COPY.before}]
    mov rdi, rsi
    mov rbx, [LabGuardedPage+${GUARDED_OFFSET}]
    mov ecx, ${COPY.length}
    rep movsb
    lea rax, [LabGuardedPage+${GUARDED_OFFSET - COPY.before + COPY.length}]
    cmp rdi, rax
    setne r15b
    cmp rbx, [LabGuardedPage+${GUARDED_OFFSET}]
    setne al
    movzx eax, al
    add r15, rax
    jmp LabReportBenign

; Reads one guarded page and writes another: the stack lies on the guarded bytes.
LabPushAttack:
    lea rsi, [LabSecretPage]
    mov rbx, [LabGuardedPage+${GUARDED_OFFSET}]
    mov r8, rsp
    lea rsp, [LabGuardedPage+${GUARDED_OFFSET + 8}]
    push qword [rsi]
    mov rsp, r8
    xor r14d, r14d
    cmp rbx, [LabGuardedPage+${GUARDED_OFFSET}]
    setne r14b
    mov [LabGuardedPage+${GUARDED_OFFSET}], rbx
    jmp LabReportEffect

; The same instruction with the value that is there already.
LabPushBenign:
    xor r15d, r15d
    lea rsi, [LabSecretPage+8]
    mov rbx, [LabGuardedPage+${GUARDED_OFFSET}]
    mov r8, rsp
    lea rsp, [LabGuardedPage+${GUARDED_OFFSET + 8}]
    push qword [rsi]
    mov rcx, rsp
    mov rsp, r8
    lea rax, [LabGuardedPage+${GUARDED_OFFSET}]
    cmp rax, rcx
    setne r15b
    cmp rbx, [LabGuardedPage+${GUARDED_OFFSET}]
    setne al
    movzx eax, al
    add r15, rax
    jmp LabReportBenign
`;

/** Value of the guarded bytes. */
const GUARDED_VALUE = '0x5555aaaa5555aaaa';

/** The guarded page, and a page of which the first value is another one and the second the guarded one, for LABDATA. */
export const hookedMemoryData = `
align 4096
LabGuardedPage: zero ${GUARDED_OFFSET}
dq ${GUARDED_VALUE}, ${GUARDED_VALUE}
align 4096
LabSecretPage: dq 0x1122334455667788, ${GUARDED_VALUE}
align 4096
`;
