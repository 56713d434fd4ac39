import { ProfileStore } from '@introd/windows-profiles';
import { describe, expect, it } from 'vitest';
import { LabError } from '../error.js';
import { buildLabImage, type LabImage } from '../lab-image.js';
import { SeededRandom } from '../seeded-random.js';
import { assembleKernel } from './assemble-kernel.js';
import type { KernelCode, KernelPlan } from './plan.js';

const profile = ProfileStore.bundled().byBuild(19041)!;

function image(seed: number, vcpus = 1, assemble: (plan: KernelPlan) => KernelCode = assembleKernel): LabImage {
  return buildLabImage(new SeededRandom(seed), { profile, vcpus, bootTime: 0n, assemble });
}

describe('assembleKernel', () => {
  it('gives every exception a gate inside of the kernel image, and no gate twice', () => {
    const { code, plan } = image(1);
    const vectors = code.gates.map((gate) => gate.vector);
    expect(new Set(vectors).size).toBe(vectors.length);
    expect(vectors).toEqual(expect.arrayContaining([0, 3, 6, 8, 13, 14, 0xd1]));
    for (const { handler } of code.gates) {
      expect(handler > plan.kernelBase && handler < plan.kernelBase + 0x200_0000n).toBe(true);
    }
    // The page-fault gate names the symbol, as in Windows, and the symbol leads to the handler.
    expect(code.gates.find((gate) => gate.vector === 14)!.handler).toBe(plan.symbol('KiPageFault'));
    expect(code.stubs.get('KiPageFault')).toBe(code.labels.get('KiPageFaultEntry'));
    // IST stacks for what can come at any moment, and user breakpoints.
    expect(code.gates.filter((gate) => gate.ist > 0).map((gate) => gate.vector)).toEqual([2, 8, 18]);
    expect(code.gates.filter((gate) => gate.dpl === 3).map((gate) => gate.vector)).toEqual([3, 4]);
  });

  it('prepares the stack of every thread but the idle ones', () => {
    const { code, plan } = image(2, 4);
    for (const thread of plan.threads) {
      const pointer = code.kernelStackPointers[thread.index]!;
      expect(pointer <= thread.kernelStackTop && pointer >= thread.kernelStackLimit).toBe(true);
      const stack = code.stacks.find(({ va }) => va === pointer);
      expect(stack === undefined).toBe(thread.role === 'idle');
      if (stack !== undefined) {
        expect(stack.va + BigInt(stack.bytes.length)).toBe(thread.kernelStackTop);
      }
      const start = code.startAddresses[thread.index]!;
      const { userCode } = thread.process;
      const home = thread.role.endsWith('user') ? userCode! : plan.code;
      expect(start >= home.va && start < home.va + BigInt(home.size)).toBe(true);
    }
  });

  it('is the same code for every seed but for addresses', () => {
    const lengths = new Set([1, 2, 3, 4].map((seed) => image(seed).code.code.length));
    expect(lengths.size).toBe(1);
  });

  it.each([
    ['code', (plan: KernelPlan) => ({ ...plan, code: { ...plan.code, size: 0x100 } })],
    ['data', (plan: KernelPlan) => ({ ...plan, data: { ...plan.data, size: 0x100 } })],
    [
      'attack thread',
      (plan: KernelPlan) => ({ ...plan, threads: plan.threads.filter((t) => t.role !== 'attack-user') }),
    ],
  ])('refuses a plan without room or reason for its %s', (_, change) => {
    expect(() => image(1, 1, (plan) => assembleKernel(change(plan)))).toThrow(LabError);
  });
});
