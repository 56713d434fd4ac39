import { type Gpa, PAGE_SIZE } from '@introd/abi';
import { enterLongMode } from '@introd/hv-sim';
import { describe, expect, inject, it } from 'vitest';
import { CR3, DetourGuest, FUNCTION, SLACK, SUM } from './detour-guest.js';
import { CODE, kernel, STACK } from './guest-layout.js';
import { code, get64, microMachine } from './sim-guest.js';

const SEEDS = 4 * inject('scale');
/** Code and results of the attackers, on pages of their own. */
const READER = 0x5_0000;
const WRITER = 0x5_1000;
const RESULTS = 0x6_0000;
/** Words on the code page that belong to nobody. */
const ELSEWHERE = CODE + 0x900;
const ROUNDS = 30n;

/** mov rcx, 30; mov rdx, 12; call FUNCTION; cmp eax, 42; jne out; dec r15; jnz back; out: hlt */
function callerProgram(): string {
  const call = Buffer.alloc(5);
  call[0] = 0xe8;
  call.writeInt32LE(FUNCTION - (CODE + 14) - 5, 1);
  return `48c7c11e000000 48c7c20c000000 ${call.toString('hex')} 83f82a 7505 49ffcf 75e3 f4`;
}

/**
 * mov rax, [rsi]; cmp rax, rbx; jne found; mov rax, [rdi] (handler); test rax, rax; jnz found; mov rax, [r9] (elsewhere);
 * cmp rax, r8; jne found; dec r15; jnz back; hlt; found: mov [r10], rax; mov qword [r10 + 8], 1; hlt
 */
const READ =
  '488b06 4839d8 751b 488b07 4885c0 7513 498b01 4c39c0 750b 49ffcf 75e3 f4 9090909090 498902 49c7420801000000 f4';
/**
 * mov [rsi], rax (the originals over the branch); mov byte [rdi], 0x90 (over the INT3); push-like write of a second operand: xchg [rsi], rcx;
 * mov [r9], r15 (elsewhere); dec r15; jnz back; hlt
 */
const WRITE = '488906 c60790 48870e 4d8939 49ffcf 75ef f4';

describe('a detour under attack from other VCPUs', () => {
  it('is neither seen nor overwritten, calls go through it, and the rest of its page is the guest’s', () => {
    let invalidReads = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const machine = microMachine({
        vcpus: 3,
        seed,
        quantum: 11,
        race: { betweenFaultAndDelivery: 5, insideCalls: 4 },
      });
      // Nobody runs before the detour is there: in every call of the engine the others go on.
      machine.setActive(0, false);
      const guest = new DetourGuest({ machine, caller: callerProgram() });
      machine.writePhysical(READER as Gpa, code(READ));
      machine.writePhysical(WRITER as Gpa, code(WRITE));
      machine.writePhysical((ELSEWHERE + 64) as Gpa, code('1122334455667788'));
      const original = Buffer.from(guest.physical(FUNCTION, 8)).readBigUInt64LE();
      const before = guest.physical(CODE, PAGE_SIZE);
      const caller = machine.vcpu(0);
      caller.set('r15', ROUNDS);
      for (const [index, rip] of [
        [1, READER],
        [2, WRITER],
      ] as const) {
        const vcpu = machine.vcpu(index);
        enterLongMode(vcpu, { cr3: CR3, rip: kernel(rip), rsp: kernel(STACK + 0x800 * index) });
        vcpu.set('rsi', kernel(FUNCTION));
        vcpu.set('rdi', kernel(SLACK));
        vcpu.set('r15', ROUNDS);
      }
      const reader = machine.vcpu(1);
      reader.set('rbx', original);
      reader.set('r8', 0x8877_6655_4433_2211n);
      reader.set('r9', kernel(ELSEWHERE + 64));
      reader.set('r10', kernel(RESULTS));
      const writer = machine.vcpu(2);
      writer.set('rax', original);
      writer.set('r9', kernel(ELSEWHERE));
      let calls = 0;
      let denied = 0;
      const detour = guest.detour({ callback: () => calls++, onWrite: () => denied++ });
      const patched = guest.physical(CODE, PAGE_SIZE);
      guest.engine.hooks.page.flush();
      for (const index of [0, 1, 2]) {
        machine.setActive(index, true);
      }
      guest.run(200_000);
      // Attack: no byte of the detour changed, and every call went through it.
      expect(caller.get('r15'), `seed ${seed}`).toBe(0n);
      expect(calls).toBe(Number(ROUNDS));
      expect(detour.hits).toBe(Number(ROUNDS));
      expect(denied).toBeGreaterThanOrEqual(3 * Number(ROUNDS));
      // Attack: the reader saw nothing of it.
      invalidReads += Number(get64(machine, RESULTS + 8));
      expect(reader.get('r15')).toBe(0n);
      // Benign twins: the same instructions elsewhere on the page read and write what is there.
      expect(writer.get('r15')).toBe(0n);
      expect(get64(machine, ELSEWHERE)).toBe(1n);
      const after = guest.physical(CODE, PAGE_SIZE);
      after.set(patched.subarray(0x900, 0x908), 0x900);
      expect(Buffer.compare(after, patched)).toBe(0);
      expect(guest.problems).toEqual([]);
      guest.engine.detours.removeAll();
      const restored = guest.physical(CODE, PAGE_SIZE);
      restored.set(before.subarray(0x900, 0x908), 0x900);
      expect(Buffer.compare(restored, before)).toBe(0);
    }
    expect(invalidReads).toBe(0);
  });

  it('would be seen and lost if it were not hidden', () => {
    const guest = new DetourGuest({ caller: `${READ.replaceAll(' ', '')}` });
    // The same reader, without a cloak: the branch is there for all to see.
    guest.machine.writePhysical(FUNCTION as Gpa, code(SUM));
    const original = Buffer.from(guest.physical(FUNCTION, 8)).readBigUInt64LE();
    guest.machine.writePhysical(FUNCTION as Gpa, code('e900010000'));
    const { vcpu } = guest;
    vcpu.set('rsi', kernel(FUNCTION));
    vcpu.set('rbx', original);
    vcpu.set('r10', kernel(RESULTS));
    guest.run(1000);
    expect(get64(guest.machine, RESULTS + 8)).toBe(1n);
  });

  it('that is set while the others call the function loses no call and breaks none', () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const machine = microMachine({
        vcpus: 2,
        seed,
        quantum: 3,
        race: { betweenFaultAndDelivery: 5, insideCalls: 7 },
      });
      const guest = new DetourGuest({ machine, caller: callerProgram() });
      // The second caller runs the same code, on its own stack.
      for (const index of [0, 1]) {
        machine.vcpu(index).set('r15', 200n);
        machine.setActive(index, true);
      }
      machine.run(50 + seed * 13);
      let calls = 0;
      const detour = guest.detour({ callback: () => calls++ });
      for (let step = 0; step < 40; step++) {
        guest.engine.step(10);
      }
      expect(calls).toBeGreaterThan(0);
      detour.disable();
      guest.run(100_000);
      expect([machine.vcpu(0).get('r15'), machine.vcpu(1).get('r15')], `seed ${seed}`).toEqual([0n, 0n]);
      expect(guest.problems).toEqual([]);
    }
  });
});
