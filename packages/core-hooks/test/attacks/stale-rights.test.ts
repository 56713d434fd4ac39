import { Access, type Gpa, Verdict } from '@introd/abi';
import { describe, expect, it } from 'vitest';
import { CODE, DATA, kernel } from '../guest-layout.js';
import { code, get64, microMachine, prepare, SimGuest } from '../sim-guest.js';

/** mov [rbx], rcx; dec rcx; jnz; hlt */
const COUNT_DOWN = '48 89 0b 48 ff c9 75 f8 f4';

describe('rights that a backend says it lifted and did not', () => {
  it('are set anew at the exit that they cause, once; the guest gets on [1.2.5]', () => {
    let repairs = 0;
    const reasons = new Set<string>();
    for (let lost = 1; lost <= 16; lost++) {
      const machine = microMachine({ chaos: { loseRightsChanges: [lost] } });
      prepare(machine);
      machine.writePhysical(CODE as Gpa, code(COUNT_DOWN));
      const guest = new SimGuest(machine);
      guest.vcpu.set('rbx', kernel(DATA));
      guest.vcpu.set('rcx', 50n);
      guest.engine.hooks.page.set({
        gpa: DATA as Gpa,
        length: 8,
        access: Access.WRITE,
        callback: (event) => {
          event.removeHook = true;
        },
      });
      for (let step = 0; guest.engine.step(10) !== 'shutdown'; step++) {
        expect(step).toBeLessThan(200);
        reasons.add(guest.engine.lastExit.reason);
      }
      expect(get64(machine, DATA)).toBe(1n);
      expect(guest.engine.counters.rightsRepairs).toBeLessThanOrEqual(1);
      repairs += guest.engine.counters.rightsRepairs;
      guest.close();
    }
    expect(repairs).toBeGreaterThan(0);
    expect(reasons).toContain('rights-repaired');
  });
});

describe('a verdict that a callback insists on', () => {
  it('is counted, and the strongest one wins all the same [1.2.10] [1.2.3]', () => {
    const machine = microMachine();
    prepare(machine);
    machine.writePhysical(CODE as Gpa, code(COUNT_DOWN));
    const guest = new SimGuest(machine);
    guest.vcpu.set('rbx', kernel(DATA));
    guest.vcpu.set('rcx', 3n);
    for (const forced of [true, false]) {
      guest.engine.hooks.page.set({
        gpa: DATA as Gpa,
        length: 8,
        access: Access.WRITE,
        callback: (event) => {
          expect(event.forceVerdict).toBe(false);
          event.forceVerdict = forced;
          event.verdict = forced ? Verdict.NOT_ALLOWED : Verdict.ALLOWED;
        },
      });
    }
    guest.run(50);
    expect(guest.engine.counters.forcedVerdicts).toBe(3);
    expect(get64(machine, DATA)).toBe(0n);
    guest.close();
  });
});
