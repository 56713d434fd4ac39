/**
 * What runs in ring 3. Every thread has a page of data: a counter of its rounds, the counter that the kernel keeps for
 * it, and room to work in. A program checks its own results and stops with UD2 when the machine gets one wrong.
 */
import { Assembler } from '@introd/x86/encoder';
import { ring3Stub } from './attacks/ring3-stub.js';
import type { KernelPlan, ProcessPlan } from './plan.js';
import { SystemCall } from './system-calls.js';

/** Byte offsets in a thread's page of data. */
const UserData = {
  /** Rounds that the program has finished. */
  rounds: 0x00,
  /** Sum that the kernel answered to the last `COUNT`. */
  counted: 0x08,
  /** Result of the last round. */
  result: 0x10,
  source: 0x100,
  destination: 0x300,
} as const;

/** Bytes of data that one thread has. */
const THREAD_DATA_SIZE = 0x1000;

/** Fills 256 bytes, copies them in three ways and compares. */
const COPY = `
Work:
    lea rdi, [r15+${UserData.source}]
    mov rax, [r15+${UserData.rounds}]
    xor ecx, ecx
.fill:
    lea edx, [rax+rcx*4]
    xor dl, cl
    mov [rdi+rcx], dl
    inc ecx
    cmp ecx, 256
    jne .fill
    lea rsi, [r15+${UserData.source}]
    lea rdi, [r15+${UserData.destination}]
    mov ecx, 128
    rep movsb
    mov ecx, 8
    rep movsq
    movups xmm0, [rsi]
    movups xmm1, [rsi+16]
    movdqu xmm2, [rsi+32]
    movdqu xmm3, [rsi+48]
    movups [rdi], xmm0
    movups [rdi+16], xmm1
    movdqu [rdi+32], xmm2
    movdqu [rdi+48], xmm3
    lea rsi, [r15+${UserData.source}]
    lea rdi, [r15+${UserData.destination}]
    mov ecx, 256
    repe cmpsb
    jne Wrong
    movzx eax, byte [rsi-1]
    ret
`;

/** Recursion: the 12th Fibonacci number. */
const RECURSION = `
Work:
    mov ecx, 12
    call Fibonacci
    cmp eax, 144
    jne Wrong
    ret
Fibonacci:
    cmp ecx, 2
    ja .deeper
    mov eax, 1
    ret
.deeper:
    push rbx
    push rcx
    dec ecx
    call Fibonacci
    mov ebx, eax
    mov ecx, [rsp]
    sub ecx, 2
    call Fibonacci
    add eax, ebx
    pop rcx
    pop rbx
    ret
`;

/** Sorts 24 pseudo-random numbers by insertion and checks the order. */
const SORT = `
Work:
    mov eax, [r15+${UserData.rounds}]
    lea rdi, [r15+${UserData.source}]
    xor ecx, ecx
.random:
    imul eax, eax, 1103515245
    add eax, 12345
    mov [rdi+rcx*4], eax
    inc ecx
    cmp ecx, 24
    jne .random
    mov ecx, 1
.insert:
    mov eax, [rdi+rcx*4]
    mov edx, ecx
.shift:
    mov r8d, [rdi+rdx*4-4]
    cmp r8d, eax
    jbe .place
    mov [rdi+rdx*4], r8d
    dec edx
    jne .shift
.place:
    mov [rdi+rdx*4], eax
    inc ecx
    cmp ecx, 24
    jne .insert
    mov ecx, 1
.check:
    mov eax, [rdi+rcx*4-4]
    cmp eax, [rdi+rcx*4]
    ja Wrong
    inc ecx
    cmp ecx, 24
    jne .check
    ret
`;

/** Hashes a text, twice, and compares. */
const HASH = `
Work:
    call Hash
    mov rbx, rax
    call Hash
    cmp rax, rbx
    jne Wrong
    ret
Hash:
    mov rax, 0xcbf29ce484222325
    mov r8, 0x100000001b3
    lea rsi, [Text]
    xor ecx, ecx
.next:
    movzx edx, byte [rsi+rcx]
    xor rax, rdx
    imul rax, r8
    rol rax, 7
    inc ecx
    cmp ecx, TextLength
    jne .next
    ret
`.replaceAll('TextLength', '64');

const PROGRAMS = [COPY, RECURSION, SORT, HASH];

/** The round of every program: work, then system calls; it sleeps after every fourth round. */
function mainLoop(driver: boolean, clientId: number): string {
  return `
Main:
    call Work
    mov [r15+${UserData.result}], rax
    ; The process id that the kernel answers is the one that the TEB says.
    mov eax, ${SystemCall.PROCESS_ID}
    syscall
    cmp rax, gs:[${clientId}]
    jne Wrong
    mov r10d, 1
    mov eax, ${SystemCall.COUNT}
    syscall
    mov [r15+${UserData.counted}], rax
    inc qword [r15+${UserData.rounds}]
    ${driver ? `mov eax, ${SystemCall.DRIVER}\n syscall` : ''}
    mov eax, ${SystemCall.YIELD}
    test byte [r15+${UserData.rounds}], 3
    jne .pause
    mov r10d, 1
    mov eax, ${SystemCall.DELAY}
.pause:
    syscall
    jmp Main
Wrong:
    ud2
`;
}

/** First code of the `n`-th thread of a process. */
function threadEntry(n: number): string {
  return `
Start${n}:
    mov r15, Data${n}
    jmp Main
`;
}

/** The assembled program of a process. */
export interface UserProgramCode {
  readonly bytes: Uint8Array;
  /** First RIP by `ThreadPlan.index`. */
  readonly starts: ReadonlyMap<number, bigint>;
  /** The attack stub, in the process that attacks run in. */
  readonly stub: bigint | undefined;
}

/** Data of the `n`-th thread of a process. */
function threadData(process: ProcessPlan, n: number): bigint {
  return process.userData!.va + BigInt(n * THREAD_DATA_SIZE);
}

/** Assembles the program of a process; processes differ by what they work on. */
export function assembleUserProgram(plan: KernelPlan, process: ProcessPlan, number: number): UserProgramCode {
  const threads = plan.threads.filter((thread) => thread.process === process);
  const driver = threads.some((thread) => thread.role === 'attack-user');
  const clientId = plan.profile.struct('_TEB').offset('ClientId.UniqueProcess');
  const asm = new Assembler().section('code', process.userCode!.va);
  threads.forEach((_, n) => {
    asm.define(`Data${n}`, threadData(process, n));
  });
  asm
    .assemble(threads.map((_, n) => threadEntry(n)).join(''))
    .assemble(mainLoop(driver, clientId))
    .assemble(PROGRAMS[number % PROGRAMS.length]!)
    .assemble('Text: db "Everything should be made as simple as possible, but not simpler."');
  if (driver) {
    asm.assemble(`align 16\n${ring3Stub('Stub')}`);
  }
  const { sections, labels } = asm.link();
  return {
    bytes: sections.get('code')!.bytes,
    starts: new Map(threads.map((thread, n) => [thread.index, labels.get(`Start${n}`)!])),
    stub: labels.get('Stub'),
  };
}
