import { type Gva, gva } from '@introd/abi';
import { Assembler } from '@introd/x86/encoder';
import { LabError } from '../error.js';
import { driverCode } from './attacks/driver.js';
import { functionPatchCode } from './attacks/function-patch.js';
import { hookedMemoryCode } from './attacks/hooked-memory.js';
import { hookedRegistersCode } from './attacks/hooked-registers.js';
import { pageMappingCode, pageTableSymbols } from './attacks/page-mapping.js';
import { ring3Stub } from './attacks/ring3-stub.js';
import { selfMapCode } from './attacks/self-map.js';
import { selfMapBenignCode } from './attacks/self-map-benign.js';
import { bootCode } from './boot.js';
import { debugPortCode } from './debug-port.js';
import { kernelData } from './kernel-data.js';
import { kernelOffsets } from './kernel-offsets.js';
import type { InitialBytes, InterruptGate, KernelCode, KernelPlan, ThreadPlan, VirtualRange } from './plan.js';
import { initialStack, schedulerCode } from './scheduler.js';
import { systemCallCode } from './system-calls.js';
import { EXCEPTIONS, INTERRUPTS, trapCode } from './traps.js';
import { assembleUserProgram, type UserProgramCode } from './user-programs.js';

/** Symbols of ntoskrnl whose code is ours, with our labels. The exception handlers come from {@link EXCEPTIONS}. */
const STUBS: readonly (readonly [symbol: string, label: string])[] = [
  ...EXCEPTIONS.map(({ handler }) => [handler, `${handler}Entry`] as const),
  ['KiSystemStartup', 'KiSystemStartup'],
  ['KiSystemCall64', 'KiSystemCall64Entry'],
  ['KiSystemCall32', 'KiSystemCall32Entry'],
  ['KiSystemServiceExit', 'KiSystemServiceExitEntry'],
  ['KiSwapContext', 'KiSwapContextEntry'],
  ['KiSwapThread', 'KiSwapThread'],
  ['KeDelayExecutionThread', 'KeDelayExecutionThreadEntry'],
  ['KiIdleLoop', 'KiIdleLoopEntry'],
  ['KiStartSystemThread', 'KiStartSystemThreadEntry'],
  ['KiStartUserThread', 'KiStartUserThreadEntry'],
  ['KiCallUserMode', 'KiCallUserModeEntry'],
  ['KeBugCheckEx', 'KeBugCheckEx'],
];

/** Routine of each kind of kernel thread. */
const KERNEL_ROUTINES = {
  idle: 'KiIdleLoopEntry',
  'attack-driver': 'LabAttackDriver',
  'system-worker': 'LabSystemWorker',
};

/**
 * Assembles the kernel and the user programs for a guest that is laid out.
 * @throws LabError ERR_GUEST_LAB_LAYOUT when something does not fit where the plan puts it.
 */
export function assembleKernel(plan: KernelPlan): KernelCode {
  const offsets = kernelOffsets(plan.profile);
  const programs = assemblePrograms(plan);
  const asm = new Assembler();
  defineAddresses(asm, plan, programs);
  asm
    .section('code', plan.code.va)
    .assemble(bootCode(offsets, plan.processors))
    .assemble(trapCode(offsets))
    .assemble(systemCallCode(offsets))
    .assemble(schedulerCode(offsets))
    .assemble(debugPortCode)
    .assemble(pageMappingCode)
    .assemble(driverCode)
    .assemble(selfMapCode)
    .assemble(selfMapBenignCode(plan.selfMapIndex))
    .assemble(hookedRegistersCode)
    .assemble(hookedMemoryCode)
    .assemble(functionPatchCode)
    .assemble(`align 16\n${ring3Stub('LabSystemStub')}`)
    .section('data', plan.data.va, { pad: 0 })
    .assemble(kernelData(plan));
  const { sections, labels } = asm.link();
  const at = (label: string): Gva => gva(labels.get(label)!);
  const code = fitting(sections.get('code')!.bytes, plan.code, 'the code of the lab kernel');
  const data = fitting(sections.get('data')!.bytes, plan.data, 'the data of the lab kernel');

  const stacks: InitialBytes[] = [];
  const kernelStackPointers: Gva[] = [];
  const startAddresses: Gva[] = [];
  for (const thread of plan.threads) {
    const { start, stack } = firstStack(thread, at, programs);
    const pointer = gva(thread.kernelStackTop - BigInt(stack.length * 8));
    startAddresses.push(start);
    kernelStackPointers.push(pointer);
    if (stack.length > 0) {
      stacks.push({ va: pointer, bytes: new Uint8Array(BigUint64Array.from(stack).buffer) });
    }
  }
  return {
    code,
    data,
    labels: new Map([...labels].map(([name, address]) => [name, gva(address)])),
    bootEntry: at('KiSystemStartup'),
    secondaryEntry: at('KiSecondaryStartup'),
    stubs: new Map(
      STUBS.filter(([symbol]) => plan.profile.hasSymbol(symbol)).map(([symbol, label]) => [symbol, at(label)]),
    ),
    gates: gates(plan, at),
    stacks,
    kernelStackPointers,
    userCode: new Map([...programs].map(([pid, program]) => [pid, program.bytes])),
    startAddresses,
  };
}

function assemblePrograms(plan: KernelPlan): Map<number, UserProgramCode> {
  const programs = new Map<number, UserProgramCode>();
  for (const process of plan.processes) {
    if (process.userCode !== undefined) {
      const program = assembleUserProgram(plan, process, programs.size);
      fitting(program.bytes, process.userCode, `the program of ${process.name}`);
      programs.set(process.pid, program);
    }
  }
  return programs;
}

/** Addresses that differ from guest to guest are symbols, so that the text and its encoding stay the same. */
function defineAddresses(asm: Assembler, plan: KernelPlan, programs: ReadonlyMap<number, UserProgramCode>): void {
  for (const [name, address] of Object.entries(pageTableSymbols(plan))) {
    asm.define(name, address);
  }
  for (const { index, kpcr, gdt } of plan.processors) {
    asm.define(`PlanKpcr${index}`, kpcr).define(`PlanGdt${index}`, gdt.va);
  }
  asm
    .define('PlanSharedUserData', plan.sharedUserData)
    .define('SystemCallEntry', plan.symbol('KiSystemCall64'))
    .define('SystemCallEntry32', plan.symbol('KiSystemCall32'));
  const target = plan.threads.find((thread) => thread.role === 'attack-user');
  const stub = target === undefined ? undefined : programs.get(target.process.pid)?.stub;
  const data = target?.process.userData;
  if (stub === undefined || data === undefined) {
    throw new LabError('ERR_GUEST_LAB_LAYOUT', 'no ordinary process has a thread for attacks');
  }
  asm.define('OrdinaryStub', stub).define('OrdinaryStubStack', data.va + BigInt(data.size));
}

/** What a thread finds on its kernel stack when it runs first; the idle threads run already. */
function firstStack(
  thread: ThreadPlan,
  at: (label: string) => Gva,
  programs: ReadonlyMap<number, UserProgramCode>,
): { start: Gva; stack: bigint[] } {
  if (thread.role === 'user' || thread.role === 'attack-user') {
    const start = gva(programs.get(thread.process.pid)!.starts.get(thread.index)!);
    // As after a CALL: 8 below a multiple of 16.
    const stack = initialStack({ r12: start, r13: thread.userStackTop - 8n }, at('KiStartUserThreadEntry'));
    return { start, stack };
  }
  const start = at(KERNEL_ROUTINES[thread.role]);
  return {
    start,
    stack: thread.role === 'idle' ? [] : initialStack({ r12: start, r13: 0n }, at('KiStartSystemThreadEntry')),
  };
}

function gates(plan: KernelPlan, at: (label: string) => Gva): InterruptGate[] {
  return [
    ...EXCEPTIONS.map(
      ({ vector, handler, ist, user }): InterruptGate => ({
        vector,
        handler: plan.profile.hasSymbol(handler) ? plan.symbol(handler) : at(`${handler}Entry`),
        ist,
        dpl: user ? 3 : 0,
      }),
    ),
    ...INTERRUPTS.map(
      ({ vector, handler }): InterruptGate => ({ vector, handler: at(`${handler}Entry`), ist: 0, dpl: 0 }),
    ),
  ];
}

function fitting(bytes: Uint8Array, range: VirtualRange, what: string): Uint8Array {
  if (bytes.length > range.size) {
    throw new LabError('ERR_GUEST_LAB_LAYOUT', `${what} takes ${bytes.length} bytes, there is room for ${range.size}`);
  }
  return bytes;
}
