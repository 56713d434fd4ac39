/**
 * Why a VCPU stopped, and how it goes on. The numbers are part of the ABI: native backends write and read them.
 * Every exit is raised before anything is committed, CR and MSR writes too.
 */
export const ExitKind = {
  /** The record holds no exit. */
  NONE: 0,
  /** An access that the second-level rights of a frame do not allow. */
  EPT_VIOLATION: 1,
  /** MOV to CR0, CR3, CR4 or CR8 (register number in `exitRegister`). */
  CR_WRITE: 2,
  /** WRMSR to an MSR whose exit is on (`exitRegister`). */
  MSR_WRITE: 3,
  /** XSETBV (`exitRegister` is the XCR number). */
  XCR_WRITE: 4,
  /** LIDT, LGDT, LLDT, LTR and the four stores (`exitRegister`: {@link DescriptorTable} bits). */
  DESCRIPTOR_TABLE: 5,
  /** INT3. RIP is at the INT3. */
  BREAKPOINT: 6,
  /** VMCALL. RIP is at the VMCALL. */
  VMCALL: 7,
  /** One second of guest time has passed. Belongs to the guest, not to a VCPU. */
  TICK: 8,
  /** An injected event was really delivered (`exitVector`, `exitErrorCode`, `exitNewValue` = CR2). */
  EVENT_INJECTED: 9,
  /** The guest stopped for good (`exitRegister`: {@link ShutdownReason}). Belongs to the guest; nothing can be replied. */
  SHUTDOWN: 10,
  /**
   * One instruction was completed, or an event delivered, after the reply {@link Reply}.SINGLE_STEP. RIP is at the next one.
   * To be replied with RETRY or SINGLE_STEP.
   */
  SINGLE_STEP: 11,
} as const;
/** One of the {@link ExitKind} numbers. */
export type ExitKind = (typeof ExitKind)[keyof typeof ExitKind];

/** What the processor was doing when it met a second-level violation. */
export const ExitCause = {
  /** A data access of the instruction at RIP. */
  DATA: 0,
  /** The fetch of the instruction at RIP. */
  FETCH: 1,
  /** The page walker, reading an entry of the guest's own tables or setting its accessed or dirty bit. */
  PAGE_WALK: 2,
  /** The delivery of an exception or interrupt: IDT, GDT or TSS read, stack write. */
  EVENT_DELIVERY: 3,
} as const;
/** One of the {@link ExitCause} numbers. */
export type ExitCause = (typeof ExitCause)[keyof typeof ExitCause];

/** Which descriptor table an instruction touches, and how (behaviour 1.2.8). */
export const DescriptorTable = { IDTR: 1, GDTR: 2, TR: 4, LDTR: 8, READ: 0x10, WRITE: 0x20 } as const;

/** Why a guest stopped for good. */
export const ShutdownReason = {
  /** An exception while a double fault was delivered. */
  TRIPLE_FAULT: 1,
  /** Every VCPU halted with interrupts off, or without any source of interrupts. */
  HALTED: 2,
  /** The guest switched itself off. */
  POWER_OFF: 3,
  /** The guest used something that this machine does not have; the backend's log says what. */
  UNSUPPORTED: 4,
} as const;
/** One of the {@link ShutdownReason} numbers. */
export type ShutdownReason = (typeof ShutdownReason)[keyof typeof ShutdownReason];

/** How a VCPU goes on after an exit. */
export const Reply = {
  /** Re-enter at the RIP in the record, with the rights as they are now. Also right after the engine moved RIP itself. */
  RETRY: 0,
  /** Execute the instruction this once (of a repeated string instruction, the elements on the same pages), for this VCPU only, although the violated rights forbid it; commit a CR, MSR or XCR write (with `replyValue`). */
  ALLOW_ONCE: 1,
  /** Do not execute it: RIP goes past the instruction, nothing else changes. */
  SKIP: 2,
  /** Execute it, with `replyData` in place of the bytes it reads at the exit's GLA (`replyDataLength` of them). */
  SUPPLY_READ: 3,
  /**
   * Re-enter as RETRY does, for one instruction (of a repeated string instruction, one element) or one event, then exit with
   * {@link ExitKind}.SINGLE_STEP. Exits of the instruction itself come first and do not take the step back.
   */
  SINGLE_STEP: 4,
} as const;
/** One of the {@link Reply} numbers. */
export type Reply = (typeof Reply)[keyof typeof Reply];
