import { defineRecord, VCPU_RECORD, XSAVE_AREA } from '@introd/abi';

/**
 * What the machine keeps beside each VCPU record: state that the record, as ABI between backends and engine, has no
 * field for. It follows the record directly, so that the instruction core reaches both from one base address.
 */
export const VCPU_SIDE = defineRecord({
  /** Always 0: what a memory operand without base, index or segment base adds. */
  zero: 'u64',
  /** x87 and vector registers, laid out as XSAVE_AREA; its header is always 0. */
  xsave: `bytes:${XSAVE_AREA.size}`,
  /** 1 when the VCPU takes part in the machine. */
  active: 'u32',
  /** 1 after HLT, until an interrupt arrives. */
  halted: 'u32',
  /** Where the VCPU's exit is: 0 there is none, 1 waiting for the engine, 2 with the engine. */
  exitState: 'u32',
  /** Orders the exits that wait. */
  exitSequence: 'u32',
  /** 1 for the one instruction after STI or a load of SS, during which no interrupt is taken (SDM vol. 3A, 6.8.3). */
  shadow: 'u32',
  /** 1 while an injected exception waits; then its vector, error code (-1 for none) and CR2. */
  injectPending: 'u32',
  injectVector: 'u32',
  injectError: 'u32',
  injectCr2: 'u64',
  /** Bits of DR6 for a debug trap that waits (SDM vol. 3B, 17.2.3). */
  pendingDebug: 'u64',
  /** How many `allowances` and `supplies` there are. */
  allowCount: 'u32',
  supplyCount: 'u32',
  /** The exit that the running instruction must not raise again: ExitKind, register, value to commit. */
  passKind: 'u32',
  passRegister: 'u32',
  passValue: 'u64',
  /** 1 when the next instruction is to be skipped instead of executed. */
  skipNext: 'u32',
  /** What is being delivered when an event's delivery exits: 0 nothing, 1 the instruction's own event, 2 an injected one, 3 a debug trap, 4 an interrupt. */
  delivery: 'u32',
  /** Kind of code and of paging that the VCPU's TLBs are filled for: numbers of `CodeMode` and of assembly/mode.ts. */
  codeMode: 'u32',
  pagingMode: 'u32',
  /** 1 while the PDPTE registers of PAE paging are loaded, and the CR3 they were loaded for. */
  pdptesLoaded: 'u32',
  pdptesReserved: 'u32',
  pdptesCr3: 'u64',
  /** 1 when SMAP did not apply to the entries of the supervisor's TLB (EFLAGS.AC was set). */
  smapOpen: 'u32',
  /** Reply SINGLE_STEP: 0 none, 1 an instruction or event is to be completed, 2 it is and its exit is due. */
  singleStep: 'u32',
  /** 1 when the injected exception that waits is to lose against an interrupt, if there is one to take. */
  injectLoses: 'u32',
  /** Time until which the VCPU waits so that others run before it, after a reply. */
  heldUntil: 'u64',
  /** Added to the machine's clock to give the time-stamp counter. */
  tscOffset: 'u64',
  /** Local APIC (SDM vol. 3A, 10.12): time of the next timer interrupt in microseconds, 0 for none. */
  timerDeadline: 'u64',
  timerInitial: 'u32',
  lvtTimer: 'u32',
  spuriousVector: 'u32',
  /** Interrupt request and in-service registers, 256 bits each. */
  irr: 'bytes:32',
  isr: 'bytes:32',
  /** Violations that the running instruction may commit, MACHINE_LIMITS.ALLOWANCES of them: frame number (u64), access (u32), 0. */
  allowances: 'bytes:6256',
  /** Reads for which data was supplied, MACHINE_LIMITS.SUPPLIES of them: address (u64), length (u64), 64 bytes. */
  supplies: 'bytes:640',
});

/** Distance from one VCPU's record to the next one's, in bytes: the record and its side area. */
export const VCPU_BLOCK_SIZE = VCPU_RECORD.size + VCPU_SIDE.size;
