import { type Gva, isCanonical, type VcpuRecord } from '@introd/abi';
import type { RunningThread, ThreadStates, WaitingThread } from '../guest-system/thread-states.js';

/** The threads of a test guest as plain data. The object may be changed at any time. */
export interface ThreadStatesData {
  /** Default 8. */
  wordSize?: 4 | 8;
  /** First address of the kernel; default the upper half of 64-bit addresses. */
  kernelStart?: Gva;
  /** What the VCPUs run, found by the VCPU's stack pointer, else the first one. */
  running: readonly RunningThread[];
  waiting: readonly WaitingThread[];
  /** Whether the list of waiting threads breaks off after the last one. */
  incomplete?: boolean;
}

/** Thread states of plain data. */
export function createThreadStates(data: ThreadStatesData): ThreadStates {
  return {
    get wordSize() {
      return data.wordSize ?? 8;
    },
    isKernelAddress: (va) => (data.kernelStart === undefined ? isUpperHalf(va) : va >= data.kernelStart),
    running: (vcpu) => runningOf(data, vcpu),
    visitWaiting(visit) {
      for (const thread of data.waiting) {
        if (!visit(thread)) {
          return 'stopped';
        }
      }
      return data.incomplete === true ? 'incomplete' : 'complete';
    },
  };
}

function isUpperHalf(va: Gva): boolean {
  return isCanonical(va) && va >> 63n === 1n;
}

function runningOf(data: ThreadStatesData, vcpu: VcpuRecord): RunningThread | undefined {
  const rsp = vcpu.get('rsp');
  return data.running.find(({ stack }) => rsp >= stack.low && rsp < stack.high) ?? data.running[0];
}
