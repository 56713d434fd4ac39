/**
 * Lines on the debug port. All routines follow the x64 calling convention as far as they say: arguments in RCX and RDX,
 * RAX, RCX, RDX and R8..R11 may be changed, everything else is kept.
 */

/** I/O port that collects text. */
const DEBUG_PORT = 0xe9;
/** I/O port that turns the machine off; the byte written is the code. */
const POWER_OFF_PORT = 0xf4;
/** Code with which a bug check powers off. */
const BUGCHECK_POWER_OFF_CODE = 1;

/**
 * `DbgPrintLine(rcx = text)`, `DbgPrintValue(rcx = text, rdx = value)`: a zero-terminated text, then 16 hex digits or
 * nothing, then a line feed. A lock keeps the lines of several processors apart; interrupts are off while it is held,
 * or the timer could switch to a thread that waits for it forever.
 *
 * `KeBugCheckEx(rcx = code)`: `lab: bugcheck <code>`, then power off.
 */
export const debugPortCode = `
DbgPrintLine:
    pushfq
    cli
    call DbgAcquireLock
    call DbgWriteText
    jmp DbgEndLine

DbgPrintValue:
    pushfq
    cli
    call DbgAcquireLock
    call DbgWriteText
    call DbgWriteHex
DbgEndLine:
    mov al, 10
    out ${DEBUG_PORT}, al
    mov dword [DbgLock], 0
    popfq
    ret

DbgAcquireLock:
    mov eax, 1
.try:
    xchg [DbgLock], eax
    test eax, eax
    je .taken
.wait:
    pause
    mov eax, [DbgLock]
    test eax, eax
    jne .wait
    mov eax, 1
    jmp .try
.taken:
    ret

; rcx = text; keeps rdx
DbgWriteText:
    mov al, [rcx]
    test al, al
    je .end
    out ${DEBUG_PORT}, al
    inc rcx
    jmp DbgWriteText
.end:
    ret

; rdx = value, as 16 digits
DbgWriteHex:
    mov ecx, 16
.digit:
    rol rdx, 4
    mov eax, edx
    and eax, 15
    cmp eax, 10
    jb .decimal
    add eax, 'a' - 10 - '0'
.decimal:
    add eax, '0'
    out ${DEBUG_PORT}, al
    dec ecx
    jne .digit
    ret

KeBugCheckEx:
    cli
    mov rdx, rcx
    lea rcx, [TextBugCheck]
    call DbgPrintValue
    mov al, ${BUGCHECK_POWER_OFF_CODE}
    out ${POWER_OFF_PORT}, al
.halt:
    hlt
    jmp .halt
`;
