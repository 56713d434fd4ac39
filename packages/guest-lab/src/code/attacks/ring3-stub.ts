/**
 * The ring-3 stub of the attacks: code that runs wherever it lies, so that the driver can copy it into System's user half
 * and ordinary processes can have it in their program.
 */
import { SystemCall } from '../system-calls.js';

/** What the stub returns when it only computes. */
export const STUB_RESULT = 5050;

/**
 * Text of the stub.
 * RCX = address of a page-table entry to read, or 0 to compute something that touches no page table;
 * RDX = 1 when the kernel is to print what was read.
 */
export function ring3Stub(label: string): string {
  return `
${label}:
    test rcx, rcx
    je .compute
    mov r10, [rcx]
    mov eax, ${SystemCall.PAGE_TABLE_ENTRY}
    syscall
    xor r10d, r10d
    jmp .return
.compute:
    mov ecx, 100
    xor r10d, r10d
.add:
    add r10, rcx
    mov [rsp-8], r10
    dec ecx
    jne .add
.return:
    mov eax, ${SystemCall.CALLBACK_RETURN}
    syscall
    ud2
${label}End:
`;
}
