/**
 * From the first instruction to the idle loop. The host starts every VCPU in long mode, in ring 0 with interrupts off, on
 * the stack of its idle thread, with the page tables of System; what follows is what a kernel does once it runs there.
 */
import { GDT_LIMIT, IDT_LIMIT, START_STATE } from '../processors.js';
import { type KernelOffsets, Selector } from './kernel-offsets.js';
import { HostileCode, MAILBOX, type ProcessorPlan } from './plan.js';

/** Model-specific registers (SDM vol. 4, table 2-2). */
export const Msr = {
  APIC_BASE: 0x1b,
  EFER: 0xc000_0080,
  STAR: 0xc000_0081,
  LSTAR: 0xc000_0082,
  CSTAR: 0xc000_0083,
  SFMASK: 0xc000_0084,
  GS_BASE: 0xc000_0101,
  KERNEL_GS_BASE: 0xc000_0102,
  X2APIC_EOI: 0x80b,
  X2APIC_SVR: 0x80f,
  X2APIC_TIMER: 0x832,
  X2APIC_INITIAL_COUNT: 0x838,
  X2APIC_DIVIDE: 0x83e,
} as const;

/** Vector of the clock interrupt, as Windows uses it. */
export const CLOCK_VECTOR = 0xd1;
/** Vector of spurious APIC interrupts. */
export const SPURIOUS_VECTOR = 0xdf;
/** Length of a time slice in microseconds. */
export const TIME_SLICE = 5_000;

/** Selectors that SYSRET (bits 48..63) and SYSCALL (32..47) derive CS and SS from (SDM vol. 3A, 5.8.8). */
const STAR_HIGH = Number(START_STATE.star >> 32n);
/** What SYSCALL clears in RFLAGS. */
const SFMASK = Number(START_STATE.sfmask);
/** EFER.SCE and NXE. */
const EFER_SET = 0x801;
/** CR4.SMEP. */
const CR4_SMEP = 1 << 20;
/** APIC enable and x2APIC enable. */
const APIC_BASE_SET = 0xc00;
/** LVT timer, periodic (bit 17). */
const TIMER_PERIODIC = 0x2_0000;

function wrmsr(msr: number, low: string, high: string): string {
  return `mov ecx, ${msr}\n mov eax, ${low}\n mov edx, ${high}\n wrmsr\n`;
}

/** WRMSR of the 64-bit value in RAX. */
function wrmsrRax(msr: number): string {
  return `mov rdx, rax\n shr rdx, 32\n mov ecx, ${msr}\n wrmsr\n`;
}

/** Names of the boot steps in the order in which they are printed. */
const BOOT_STEPS = ['descriptors', 'traps', 'system-calls', 'clock', 'processors', 'threads'] as const;

const step = (name: (typeof BOOT_STEPS)[number]): string =>
  `lea rcx, [TextBoot${BOOT_STEPS.indexOf(name)}]\n call DbgPrintLine\n`;

/** Lines of the boot steps by label, for LABDATA. */
export const bootTexts: Readonly<Record<string, string>> = Object.fromEntries(
  BOOT_STEPS.map((name, i) => [`TextBoot${i}`, `lab: boot ${name}`]),
);

/** Table of the processors' entries, for LABDATA. */
export function processorEntries(processors: readonly ProcessorPlan[]): string {
  return `KiProcessorEntries: dq ${processors.map(({ index }) => `KiProcessorEntry${index}`).join(', ')}`;
}

/** Descriptor-table operands of one processor, for LABDATA. */
export function processorTables({ index, gdt, idt }: ProcessorPlan): string {
  return `
    align 8
    zero 6
    Gdtr${index}: dw ${GDT_LIMIT}
    dq ${gdt.va}
    align 8
    zero 6
    Idtr${index}: dw ${IDT_LIMIT}
    dq ${idt.va}
  `;
}

/** The boot entry of one processor: it differs from the others in its tables only. `PlanGdt0`.. and `PlanKpcr0`.. are addresses of the plan. */
function processorEntry({ index }: ProcessorPlan): string {
  return `
KiProcessorEntry${index}:
    lgdt [Gdtr${index}]
    lidt [Idtr${index}]
    ; The host may have loaded TR already: LTR wants the descriptor available, not busy.
    mov rax, PlanGdt${index}
    and byte [rax+${Selector.TSS + 5}], 0xfd
    mov eax, ${Selector.TSS}
    ltr ax
    mov rax, PlanKpcr${index}
    jmp KiInitializeProcessor
`;
}

/** Code of the boot, for all processors. */
export function bootCode(o: KernelOffsets, processors: readonly ProcessorPlan[]): string {
  return `
KiSystemStartup:
    mov rax, cr3
    mov cr3, rax
    ${step('descriptors')}
    jmp KiProcessorEntry0

; The host has pointed GS at the KPCR already, which says what processor this is.
KiSecondaryStartup:
    mov eax, gs:[${o.pcr.Number}]
    lea rcx, [KiProcessorEntries]
    jmp qword [rcx+rax*8]
${processors.map(processorEntry).join('')}

; rax = KPCR of this processor
KiInitializeProcessor:
    mov rbx, rax
    ; Data segments are flat; in long mode only FS and GS have a base, and GS base comes last.
    mov eax, ${Selector.USER_DATA}
    mov ds, ax
    mov es, ax
    mov ecx, ${Msr.GS_BASE}
    mov rax, rbx
    mov rdx, rbx
    shr rdx, 32
    wrmsr
    ${wrmsr(Msr.KERNEL_GS_BASE, '0', '0')}
    mov rax, cr4
    or eax, ${CR4_SMEP}
    mov cr4, rax
    mov rax, cr3
    mov cr3, rax
    mov ecx, ${Msr.EFER}
    rdmsr
    or eax, ${EFER_SET}
    wrmsr
    mov eax, gs:[${o.pcr.Number}]
    test eax, eax
    jne .calls
    ${step('traps')}
.calls:
    ${wrmsr(Msr.STAR, '0', String(STAR_HIGH))}
    mov rax, SystemCallEntry
    ${wrmsrRax(Msr.LSTAR)}
    mov rax, SystemCallEntry32
    ${wrmsrRax(Msr.CSTAR)}
    ${wrmsr(Msr.SFMASK, String(SFMASK), '0')}
    mov rax, cr3
    mov cr3, rax
    mov eax, gs:[${o.pcr.Number}]
    test eax, eax
    jne .clock
    ${step('system-calls')}
.clock:
    mov ecx, ${Msr.APIC_BASE}
    rdmsr
    or eax, ${APIC_BASE_SET}
    wrmsr
    ${wrmsr(Msr.X2APIC_SVR, String(0x100 + SPURIOUS_VECTOR), '0')}
    mov eax, gs:[${o.pcr.Number}]
    test eax, eax
    jne KiSecondaryReady
    ${step('clock')}
    ; The other processors wait for this flag before they take interrupts.
    mov dword [KiBootFinished], 1
.processors:
    pause
    mov eax, [KiReadyProcessors]
    cmp eax, ${processors.length - 1}
    jne .processors
    ${step('processors')}
    mov rax, cr3
    mov cr3, rax
    ${step('threads')}
    jmp KiStartClock

KiSecondaryReady:
    lock inc dword [KiReadyProcessors]
.wait:
    pause
    mov eax, [KiBootFinished]
    test eax, eax
    je .wait
    ; falls through

; The boot thread becomes the idle thread of its processor.
KiStartClock:
    ${wrmsr(Msr.X2APIC_DIVIDE, '0xb', '0')}
    ${wrmsr(Msr.X2APIC_TIMER, String(TIMER_PERIODIC | CLOCK_VECTOR), '0')}
    ${wrmsr(Msr.X2APIC_INITIAL_COUNT, String(TIME_SLICE), '0')}
    jmp KiIdleLoopEntry

; Reads the mailbox: a hostile guest misbehaves instead of running a scenario.
LabCheckHostile:
    mov rax, [Mailbox+${MAILBOX.hostile}]
    cmp rax, ${HostileCode['triple-fault']}
    je LabTripleFault
    cmp rax, ${HostileCode.loop}
    je LabEndlessLoop
    ret

; Without a single gate the breakpoint is a #GP, which is a double fault, which is the end.
LabTripleFault:
    lidt [EmptyIdtr]
    int3
    jmp LabTripleFault

LabEndlessLoop:
    cli
.forever:
    jmp .forever
`;
}
