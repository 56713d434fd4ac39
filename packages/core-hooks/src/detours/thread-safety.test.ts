import { type Gpa, type Gva, PAGE_SIZE } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { DetourGuest, FUNCTION, SLACK } from '../../test/detour-guest.js';
import { CODE, DATA, kernel, leafEntry, STACK } from '../../test/guest-layout.js';
import { code, get64, microMachine, put64 } from '../../test/sim-guest.js';
import type { RunningThread, WaitingThread } from '../index.js';
import { createThreadStates, type ThreadStatesData } from '../testing.js';

/** Prologue: push rbx; sub rsp, 0x20; and the function's end. */
const TWO_INSTRUCTIONS = '53 4883ec20 4883c420 5b 488d0411 c3';
/** Stacks of one page: the running thread's, and one of a thread that waits. */
const RUNNING = STACK - PAGE_SIZE;
const WAITING = STACK + PAGE_SIZE;
const range = (page: number): RunningThread['stack'] => ({ low: kernel(page), high: kernel(page + PAGE_SIZE) });
const waiting = (more: Partial<WaitingThread> = {}): WaitingThread => ({
  stack: range(WAITING),
  savedStackPointer: kernel(WAITING + 0x800),
  preempted: true,
  ...more,
});

function setUp(more: Partial<ThreadStatesData> = {}, vcpus = 1): { guest: DetourGuest; data: ThreadStatesData } {
  const guest = new DetourGuest({ function: TWO_INSTRUCTIONS, machine: microMachine({ vcpus }) });
  guest.detour();
  const data: ThreadStatesData = {
    running: [{ stack: range(RUNNING), savedStackPointer: undefined }],
    waiting: [waiting()],
    ...more,
  };
  guest.engine.threadStates = createThreadStates(data);
  guest.vcpu.set('rsp', kernel(RUNNING + 0x800));
  return { guest, data };
}

const check = (guest: DetourGuest): unknown => guest.engine.threadSafety.check({ mode: 'check' });
const move = (guest: DetourGuest): unknown => guest.engine.threadSafety.check({ mode: 'move' });
const SAFE = { status: 'safe', moved: 0 };

describe('checking threads', () => {
  it('finds a VCPU inside a handler, in the kernel only, and no more once it has left [P16.1]', () => {
    const { guest } = setUp();
    expect(check(guest)).toEqual(SAFE);
    guest.vcpu.set('rip', kernel(SLACK + 3));
    expect(check(guest)).toEqual({ status: 'in-use', at: kernel(SLACK + 3) });
    guest.vcpu.set('rip', BigInt(SLACK + 3));
    expect(check(guest)).toEqual(SAFE);
    guest.vcpu.set('rip', kernel(CODE));
    expect(check(guest)).toEqual(SAFE);
    expect(guest.engine.port.pauseCount).toBe(0);
  });

  it('finds a return address into a handler on the stack of an interrupted thread, not of one that waits by itself [P16.2]', () => {
    const { guest, data } = setUp();
    put64(guest.machine, WAITING + 0x900, kernel(SLACK + 4));
    expect(check(guest)).toEqual({ status: 'in-use', at: kernel(SLACK + 4) });
    data.waiting = [waiting({ preempted: false })];
    expect(check(guest)).toEqual(SAFE);
    // Below its stack pointer it is an old word.
    data.waiting = [waiting({ savedStackPointer: kernel(WAITING + 0x908) })];
    expect(check(guest)).toEqual(SAFE);
    put64(guest.machine, RUNNING + 0xff8, kernel(SLACK));
    expect(check(guest)).toMatchObject({ status: 'in-use' });
  });

  it('keeps the handlers when the engine closes while a thread is inside, and takes them back when none is', () => {
    for (const inside of [true, false]) {
      const { guest } = setUp();
      const before = guest.seen(CODE, PAGE_SIZE);
      if (inside) {
        put64(guest.machine, WAITING + 0x900, kernel(SLACK + 4));
      }
      guest.close();
      expect(guest.physical(SLACK, 1)[0]).toBe(inside ? 0x90 : 0);
      expect(guest.physical(FUNCTION, 13)).toEqual(Uint8Array.from(code(TWO_INSTRUCTIONS).subarray(0, 13)));
      expect(Buffer.compare(guest.physical(CODE, PAGE_SIZE), before)).toBe(inside ? 1 : 0);
    }
  });

  it('looks only at the code that is named [P16.4]', () => {
    const { guest } = setUp();
    const { threadSafety } = guest.engine;
    threadSafety.register({ name: 'agent', contains: (va) => va === kernel(DATA), relocate: () => undefined });
    guest.vcpu.set('rip', kernel(SLACK));
    expect(threadSafety.check({ mode: 'check', only: ['agent'] }).status).toBe('safe');
    expect(threadSafety.check({ mode: 'check', only: ['detours'] }).status).toBe('in-use');
    guest.vcpu.set('rip', kernel(DATA));
    expect(threadSafety.check({ mode: 'check', only: ['agent'] }).status).toBe('in-use');
    expect(threadSafety.check({ mode: 'check', only: ['detours'] }).status).toBe('safe');
    expect(threadSafety.check({ mode: 'check' }).status).toBe('in-use');
  });

  it('leaves out a VCPU without an address space, and looks at every other one [P16.5]', () => {
    const { guest } = setUp({}, 3);
    const second = guest.machine.vcpu(1);
    second.set('rip', kernel(SLACK));
    expect(check(guest)).toMatchObject({ status: 'in-use' });
    second.set('cr3', 0n);
    expect(check(guest)).toEqual(SAFE);
    guest.machine.vcpu(2).set('rip', kernel(SLACK));
    expect(check(guest)).toMatchObject({ status: 'in-use' });
  });

  it('ends at the first page of a stack that is not mapped, and at its end [P16.6]', () => {
    const { guest, data } = setUp();
    const third = STACK + 2 * PAGE_SIZE;
    put64(guest.machine, third + 8, kernel(SLACK));
    data.waiting = [waiting({ stack: { low: kernel(WAITING), high: kernel(third + PAGE_SIZE) } })];
    expect(check(guest)).toMatchObject({ status: 'in-use' });
    put64(guest.machine, leafEntry(third), 0n);
    expect(check(guest)).toEqual(SAFE);
    put64(guest.machine, leafEntry(third), BigInt(third) | 3n);
    data.waiting = [waiting({ stack: { low: kernel(WAITING), high: kernel(third + 8) } })];
    expect(check(guest)).toEqual(SAFE);
    // No stack of kernel code: not aligned, and of the user.
    data.waiting = [
      waiting({ savedStackPointer: kernel(WAITING + 0x801) }),
      waiting({ savedStackPointer: BigInt(WAITING) as Gva, stack: { low: 0n as Gva, high: 0x3_0000n as Gva } }),
    ];
    put64(guest.machine, WAITING + 0x900, kernel(SLACK));
    expect(check(guest)).toEqual(SAFE);
  });

  it('looks at another stack that a VCPU is on, such as that of a deferred call, and at the thread’s own [P16.7]', () => {
    const { guest, data } = setUp();
    const dpc = 0x8_0000;
    guest.vcpu.set('rsp', kernel(dpc + 0x10));
    data.running = [{ stack: range(RUNNING), savedStackPointer: kernel(RUNNING + 0x100) }];
    expect(check(guest)).toEqual(SAFE);
    put64(guest.machine, dpc + 15 * PAGE_SIZE, kernel(SLACK));
    expect(check(guest)).toMatchObject({ status: 'in-use' });
    put64(guest.machine, dpc + 15 * PAGE_SIZE, 0n);
    put64(guest.machine, dpc + 16 * PAGE_SIZE, kernel(SLACK));
    expect(check(guest)).toEqual(SAFE);
    put64(guest.machine, RUNNING + 0x100, kernel(SLACK));
    expect(check(guest)).toMatchObject({ status: 'in-use' });
  });

  it('of 32-bit code scans words of four bytes, from EBP too [P16.8]', () => {
    const { guest, data } = setUp({
      wordSize: 4,
      kernelStart: 0x1000n as Gva,
      running: [
        {
          stack: { low: BigInt(RUNNING) as Gva, high: BigInt(RUNNING + PAGE_SIZE) as Gva },
          savedStackPointer: undefined,
        },
      ],
      waiting: [],
    });
    guest.engine.threadSafety.register({
      name: '32',
      contains: (va) => va === 0x1234_5678n,
      relocate: () => undefined,
    });
    guest.vcpu.set('rip', BigInt(CODE));
    guest.vcpu.set('rsp', BigInt(RUNNING + 0x800));
    guest.vcpu.set('rbp', BigInt(RUNNING + 0x400));
    guest.machine.writePhysical((RUNNING + 0x404) as Gpa, Uint8Array.of(0x78, 0x56, 0x34, 0x12));
    expect(check(guest)).toEqual({ status: 'in-use', at: 0x1234_5678n });
    guest.vcpu.set('rbp', 0n);
    expect(check(guest)).toEqual(SAFE);
    data.wordSize = 8;
    guest.vcpu.set('rbp', BigInt(RUNNING + 0x400));
    expect(check(guest)).toEqual(SAFE);
  });

  it('calls nothing safe that it could not see [P16.9] [P16.10]', () => {
    const { guest, data } = setUp();
    const incomplete = { status: 'incomplete', moved: 0 };
    data.incomplete = true;
    expect(check(guest)).toEqual(incomplete);
    // What is found counts all the same.
    put64(guest.machine, WAITING + 0x900, kernel(SLACK));
    expect(check(guest)).toMatchObject({ status: 'in-use' });
    put64(guest.machine, WAITING + 0x900, 0n);
    data.incomplete = false;
    data.running = [];
    expect(check(guest)).toEqual(incomplete);
    data.running = [{ stack: range(RUNNING), savedStackPointer: undefined }];
    data.waiting = [waiting({ stack: { low: kernel(0), high: kernel(2 ** 30) } })];
    expect(check(guest)).toEqual(incomplete);
    expect(new DetourGuest().engine.threadSafety.check({ mode: 'check' })).toEqual(incomplete);
  });
});

describe('moving threads', () => {
  it('leads RIP and stack words inside the replaced instructions to where these are, not from their start [P16.3]', () => {
    const { guest } = setUp({}, 2);
    // VCPU 0 stands behind the PUSH, VCPU 1 at the start of the function.
    guest.vcpu.set('rip', kernel(FUNCTION + 1));
    guest.machine.vcpu(1).set('rip', kernel(FUNCTION));
    guest.machine.vcpu(1).set('rsp', kernel(RUNNING + 0xc00));
    const words: [number, bigint][] = [
      [RUNNING + 0x900, kernel(FUNCTION + 1)],
      [WAITING + 0xff8, kernel(FUNCTION + 4)],
      [WAITING + 0x800, kernel(FUNCTION)],
      [WAITING + 0x808, kernel(FUNCTION + 5)],
      [WAITING + 0x7f8, kernel(FUNCTION + 1)],
    ];
    for (const [gpa, value] of words) {
      put64(guest.machine, gpa, value);
    }
    expect(move(guest)).toEqual({ status: 'safe', moved: 3 });
    expect(guest.vcpu.get('rip')).toBe(kernel(SLACK + 4));
    expect(guest.machine.vcpu(1).get('rip')).toBe(kernel(FUNCTION));
    expect(words.map(([gpa]) => get64(guest.machine, gpa))).toEqual([
      kernel(SLACK + 4),
      kernel(SLACK + 7),
      kernel(FUNCTION),
      kernel(FUNCTION + 5),
      kernel(FUNCTION + 1),
    ]);
    expect(move(guest)).toEqual(SAFE);
  });

  it('lets a thread that was interrupted in the middle of the replaced instructions go on', () => {
    const { guest } = setUp();
    // After PUSH RBX, with 1 and 2 to be added; the return address leads to the HLT of the caller.
    guest.vcpu.set('rip', kernel(FUNCTION + 1));
    guest.vcpu.set('rcx', 1n);
    guest.vcpu.set('rdx', 2n);
    put64(guest.machine, RUNNING + 0x808, kernel(CODE + 19));
    expect(move(guest)).toMatchObject({ status: 'safe', moved: 1 });
    guest.run(100);
    expect(guest.rax).toBe(3n);
    expect(guest.vcpu.get('rsp')).toBe(kernel(RUNNING + 0x810));
    expect(guest.engine.counters.breakpoints).toBe(0);
  });
});
