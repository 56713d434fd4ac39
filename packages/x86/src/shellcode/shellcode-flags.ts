/**
 * What a piece of code does that code of a program hardly does (behaviour section 4, shellcode; the bits are those of
 * policies and alerts). The first ten are looked for in user and kernel mode, those from 0x10000 on in ring 0 only.
 */
export const ShellcodeFlag = {
  /** Mostly NOP instructions from the entry to the limit. */
  NOP_SLED: 0x1,
  /** A saved instruction pointer is loaded: CALL and POP; FNSTENV, FNSAVE, FXSAVE or XSAVE and a load. */
  LOAD_RIP: 0x2,
  /** Bytes that the code wrote are executed. */
  WRITE_SELF: 0x4,
  /** The pointer to the PEB is read from the TIB through its segment: FS:[30h], GS:[60h] in 64-bit code. */
  TIB_ACCESS: 0x8,
  /** SYSCALL, SYSENTER, INT 2Eh or INT 80h with a number below 1000h. */
  SYSCALL: 0x10,
  /** The address of a string built on the stack is used. */
  STACK_STR: 0x20,
  /** 32-bit code reads Wow32Reserved, FS:[0C0h], the way to the 64-bit system calls. */
  TIB_WOW32: 0x40,
  /** 32-bit code goes to the 64-bit code segment 33h. */
  HEAVENS_GATE: 0x80,
  /** XCHG makes the stack pointer point to other memory of the code or the stack. */
  STACK_PIVOT: 0x100,
  /** KdDebuggerEnabled, SystemCall or Cookie of KUSER_SHARED_DATA is read. */
  SUD_ACCESS: 0x200,
  /** Ring 0 reads the current thread from the KPCR: FS:[124h], GS:[188h] in 64-bit code. */
  KPCR_ACCESS: 0x1_0000,
  /** SWAPGS. */
  SWAPGS: 0x2_0000,
  /** The register with the address of the system call handler is read. */
  SYSCALL_MSR_READ: 0x4_0000,
  /** The register with the address of the system call handler is written. */
  SYSCALL_MSR_WRITE: 0x8_0000,
  /** SIDT in ring 0. */
  SIDT: 0x10_0000,
} as const;

/**
 * How an emulation ended. None of them says that the code is harmless or not: that is what the flags are for.
 * - `limit`: as many instructions as were allowed.
 * - `halted`: at an instruction that is known but goes where the emulation does not follow (interrupts, system calls,
 *   far transfers, SIDT, and in ring 0 SWAPGS, RDMSR and WRMSR), or that faults (a division, a bound, an address that is not aligned,
 *   a reserved bit).
 * - `memory-outside`: an access outside code and stack that nobody answered.
 * - `rip-outside`: the next instruction is not, or not all, in the code.
 * - `unsupported-instruction`: an instruction that the emulator does not know.
 * - `unsupported-operand`: one that it knows, with a register that it does not keep.
 * - `invalid-instruction`: bytes that are no instruction.
 * - `no-privilege`: a privileged instruction outside ring 0.
 * - `invalid-selector`: a segment register would be loaded with a selector that cannot be right.
 * - `detected`: a flag was raised and `stopOnDetection` is set.
 */
export type ShellcodeStatus =
  | 'limit'
  | 'halted'
  | 'memory-outside'
  | 'rip-outside'
  | 'unsupported-instruction'
  | 'unsupported-operand'
  | 'invalid-instruction'
  | 'no-privilege'
  | 'invalid-selector'
  | 'detected';
