/**
 * The attack driver: a kernel thread of System that looks into the mailbox once per time slice and runs what the host put
 * there. Attacks on an ordinary process run in its own address space: one of its threads asks the driver for service all
 * the time, and the driver, vulnerable as it is, then runs the attack for it.
 */
import { MAILBOX, ScenarioCode, type ScenarioName } from '../plan.js';
import { SparePage } from './page-mapping.js';

/** Scenarios in the order of their numbers, which begin with 1. */
const SCENARIOS = (Object.keys(ScenarioCode) as ScenarioName[]).toSorted((a, b) => ScenarioCode[a] - ScenarioCode[b]);
const TARGETS = ['system', 'ordinary'] as const;

/** No-execute bit of a page-table entry. */
const NO_EXECUTE = 63;
/** Present, user. */
const PRESENT_USER = 5;
/** Present, writable, user. */
const PRESENT_WRITABLE_USER = 7;

/** Lines that say what begins and ends, with a table of each: element `(scenario - 1) * 2 + target`. */
export function scenarioTexts(): string {
  const texts: string[] = [];
  for (const [table, verb] of [
    ['LabRunTexts', 'run'],
    ['LabDoneTexts', 'done'],
  ] as const) {
    const labels: string[] = [];
    for (const scenario of SCENARIOS) {
      for (const target of TARGETS) {
        const label = `${table}${labels.length}`;
        texts.push(`${label}: db "lab: ${verb} ${scenario}/${target}", 0`);
        labels.push(label);
      }
    }
    texts.push('align 8', `${table}: dq ${labels.join(', ')}`);
  }
  return texts.join('\n');
}

/** Routine of each scenario. */
const ROUTINES: Readonly<Record<ScenarioName, string>> = {
  'self-map/mov': 'LabSelfMapAttack',
  'self-map/or': 'LabSelfMapAttack',
  'self-map/xchg': 'LabSelfMapAttack',
  'self-map/bts': 'LabSelfMapAttack',
  'self-map/lock-cmpxchg': 'LabSelfMapAttack',
  'self-map-benign': 'LabSelfMapBenign',
  'syscall-entry': 'LabSyscallEntryAttack',
  'syscall-entry-benign': 'LabSyscallEntryBenign',
  smep: 'LabSmepAttack',
  'smep-benign': 'LabSmepBenign',
  'interrupt-table': 'LabInterruptTableAttack',
  'interrupt-table-benign': 'LabInterruptTableBenign',
  remap: 'LabRemapAttack',
  'remap-benign': 'LabRemapBenign',
  overwrite: 'LabOverwriteAttack',
  'overwrite-benign': 'LabOverwriteBenign',
  push: 'LabPushAttack',
  'push-benign': 'LabPushBenign',
  'function-patch': 'LabFunctionPatchAttack',
  'function-patch-benign': 'LabFunctionPatchBenign',
};

/** Routines of the scenarios by number, for LABDATA. */
export const scenarioTable = `LabScenarioTable: dq ${SCENARIOS.map((name) => ROUTINES[name]).join(', ')}`;

/** Code of the driver. */
export const driverCode = `
LabAttackDriver:
    lea rcx, [TextReady]
    call DbgPrintLine
.poll:
    mov ecx, 1
    call KeDelayExecutionThreadEntry
    mov rbx, [Mailbox+${MAILBOX.sequence}]
    cmp rbx, [Mailbox+${MAILBOX.handled}]
    je .poll
    ; What the host wrote is not believed before it is checked.
    mov rax, [Mailbox+${MAILBOX.scenario}]
    dec rax
    cmp rax, ${SCENARIOS.length}
    jae .handled
    mov rdx, [Mailbox+${MAILBOX.target}]
    cmp rdx, ${TARGETS.length}
    jae .handled
    lea rbp, [rdx+rax*2]
    lea rcx, [LabRunTexts]
    mov rcx, [rcx+rbp*8]
    call DbgPrintLine
    call LabCheckHostile
    test ebp, 1
    jne .ordinary
    call LabMapStub
    mov r12, StubVa
    lea r13, [r12+0x2000]
    call LabRunScenario
    jmp .done
.ordinary:
    mov dword [LabRequest], 1
.wait:
    mov ecx, 1
    call KeDelayExecutionThreadEntry
    cmp dword [LabRequest], 0
    jne .wait
.done:
    lea rcx, [LabDoneTexts]
    mov rcx, [rcx+rbp*8]
    call DbgPrintLine
.handled:
    mov [Mailbox+${MAILBOX.handled}], rbx
    jmp .poll

; System call: the attack on an ordinary process, in its address space and with its stub.
LabDriverControl:
    cmp dword [LabRequest], 1
    jne .nothing
    mov dword [LabRequest], 2
    push r12
    push r13
    mov r12, OrdinaryStub
    mov r13, OrdinaryStubStack
    call LabRunScenario
    pop r13
    pop r12
    mov dword [LabRequest], 0
.nothing:
    xor eax, eax
    ret

; r12 = ring-3 stub, r13 = its stack. Keeps what the calling convention keeps.
LabRunScenario:
    pushfq
    cli
    push rbx
    push rbp
    push rsi
    push rdi
    push r14
    push r15
    mov rax, [Mailbox+${MAILBOX.scenario}]
    lea rcx, [LabScenarioTable]
    call qword [rcx+rax*8-8]
    pop r15
    pop r14
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    popfq
    ret

; Maps the ring-3 stub and a page for its stack into the user half of System.
LabMapStub:
    push rsi
    push rdi
    lea rsi, [LabSystemStub]
    mov rdi, SpareVa
    add rdi, ${SparePage.STUB_CODE * 0x1000}
    lea rcx, [LabSystemStubEnd]
    sub rcx, rsi
    rep movsb
    mov rcx, StubVa
    mov rdx, SparePhysical
    add rdx, ${SparePage.STUB_CODE * 0x1000 + PRESENT_USER}
    call MiMapPage
    mov rcx, StubVa
    add rcx, 0x1000
    mov rdx, SparePhysical
    add rdx, ${SparePage.STUB_STACK * 0x1000 + PRESENT_WRITABLE_USER}
    bts rdx, ${NO_EXECUTE}
    call MiMapPage
    pop rdi
    pop rsi
    ret
`;
