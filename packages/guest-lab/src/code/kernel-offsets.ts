/**
 * Offsets of the NT structures that the lab kernel's code touches, taken from the profile by the names of the symbols.
 */
import type { GuestProfile } from '@introd/windows-profiles';
import { LabError } from '../error.js';

/** Byte offsets by `structure.field`, as the code templates use them. */
export interface KernelOffsets {
  /** From GS base (KPCR) in ring 0, the KPRCB included. */
  readonly pcr: {
    readonly TssBase: number;
    readonly UserRsp: number;
    readonly CurrentThread: number;
    readonly IdleThread: number;
    readonly Number: number;
    readonly RspBase: number;
    readonly SystemCalls: number;
    readonly ContextSwitches: number;
    readonly InterruptCount: number;
  };
  /** From an ETHREAD. */
  readonly thread: {
    readonly InitialStack: number;
    readonly KernelStack: number;
    readonly Running: number;
    readonly State: number;
    readonly Teb: number;
    readonly Process: number;
    readonly ContextSwitches: number;
  };
  /** From an EPROCESS. */
  readonly process: { readonly DirectoryTableBase: number; readonly UniqueProcessId: number };
  /** From a KTRAP_FRAME. */
  readonly frame: {
    readonly Rax: number;
    readonly Rcx: number;
    readonly Rdx: number;
    readonly R8: number;
    readonly R9: number;
    readonly R10: number;
    readonly R11: number;
    readonly Rbx: number;
    readonly Rdi: number;
    readonly Rsi: number;
    readonly Rbp: number;
    readonly Xmm0: number;
    readonly FaultAddress: number;
    readonly ErrorCode: number;
    readonly Rip: number;
    readonly SegCs: number;
    readonly EFlags: number;
    readonly Rsp: number;
  };
  /** From KUSER_SHARED_DATA. */
  readonly shared: { readonly InterruptTime: number; readonly SystemTime: number; readonly TickCount: number };
  /** RSP0 in a TSS. */
  readonly rsp0: number;
}

/** Values of `KTHREAD.State` (KTHREAD_STATE) that the lab uses. */
export const ThreadState = { READY: 1, RUNNING: 2, TERMINATED: 4, WAITING: 5 } as const;

/** Selectors of Windows x64, with the requested privilege level of ring 3 where they are pushed for it. */
export const Selector = { KERNEL_CODE: 0x10, KERNEL_DATA: 0x18, USER_DATA: 0x2b, USER_CODE: 0x33, TSS: 0x40 } as const;

/**
 * Reads the offsets.
 * @throws LabError ERR_GUEST_LAB_LAYOUT when KTRAP_FRAME does not end in what the processor pushes.
 */
export function kernelOffsets(profile: GuestProfile): KernelOffsets {
  const offsets = <N extends string>(struct: string, names: readonly N[], base = 0): Record<N, number> => {
    const layout = profile.struct(struct);
    return Object.fromEntries(names.map((name) => [name, base + layout.offset(name)])) as Record<N, number>;
  };
  const prcb = profile.struct('_KPCR').offset('Prcb');
  const statistics = profile.struct('_KPRCB');
  const frame = offsets('_KTRAP_FRAME', [
    ...(['Rax', 'Rcx', 'Rdx', 'R8', 'R9', 'R10', 'R11', 'Rbx', 'Rdi', 'Rsi', 'Rbp', 'Xmm0', 'FaultAddress'] as const),
    ...(['ErrorCode', 'Rip', 'SegCs', 'EFlags', 'Rsp'] as const),
  ]);
  // The processor pushes SS, RSP, RFLAGS, CS, RIP and the error code, and the handlers push RBP behind it.
  const pushed = [frame.Rbp, frame.ErrorCode, frame.Rip, frame.SegCs, frame.EFlags, frame.Rsp];
  if (pushed.some((offset, i) => offset !== frame.Rbp + 8 * i)) {
    throw new LabError('ERR_GUEST_LAB_LAYOUT', 'KTRAP_FRAME does not end in the frame that the processor pushes');
  }
  return {
    pcr: {
      ...offsets('_KPCR', ['TssBase', 'UserRsp']),
      ...offsets('_KPRCB', ['CurrentThread', 'IdleThread', 'Number', 'RspBase', 'InterruptCount'], prcb),
      SystemCalls: prcb + statistics.offset('KeSystemCalls'),
      ContextSwitches: prcb + statistics.offset('KeContextSwitches'),
    },
    thread: offsets('_KTHREAD', [
      ...(['InitialStack', 'KernelStack', 'Running', 'State', 'Teb', 'Process', 'ContextSwitches'] as const),
    ]),
    process: {
      DirectoryTableBase: profile.struct('_KPROCESS').offset('DirectoryTableBase'),
      UniqueProcessId: profile.struct('_EPROCESS').offset('UniqueProcessId'),
    },
    frame,
    shared: offsets('_KUSER_SHARED_DATA', ['InterruptTime', 'SystemTime', 'TickCount']),
    rsp0: profile.struct('_KTSS64').offset('Rsp0'),
  };
}
