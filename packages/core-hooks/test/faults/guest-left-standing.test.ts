import { type Cr3, type Gpa, PAGE_SIZE } from '@introd/abi';
import { createMockPort } from '@introd/glue/testing';
import { describe, expect, it } from 'vitest';
import { Engine, type EngineProblem } from '../../src/index.js';
import { CODE, DATA, kernel, leafEntry, PML4 } from '../guest-layout.js';
import { code, get64, microMachine, prepare } from '../sim-guest.js';

const CR3 = BigInt(PML4) as Cr3;
const OTHER = DATA + 0x1000;
const ENTRY = leafEntry(DATA);
const HIDDEN = new Uint8Array(8).fill(0xcc);

/** A guest that maps a page elsewhere: mov [rbx], rax; mov r15d, 7; hlt. */
function remapGuest() {
  const machine = microMachine();
  prepare(machine);
  machine.writePhysical(CODE as Gpa, code('488903 41bf07000000 f4'));
  machine.vcpu(0).set('rbx', kernel(ENTRY));
  machine.vcpu(0).set('rax', BigInt(OTHER) | 7n);
  const mock = createMockPort(machine.openPort());
  const engine = new Engine(mock.port);
  const problems: EngineProblem[] = [];
  engine.onProblem((problem) => problems.push(problem));
  const run = (steps: number): boolean => {
    for (let step = 0; step < steps; step++) {
      if (engine.step(1) === 'shutdown') {
        return true;
      }
    }
    return false;
  };
  return { machine, mock, engine, problems, run };
}

describe('a guest whose page moves', () => {
  for (const times of [1, 2, 3]) {
    it(`goes on though the backend refuses ${times} times to resume it [1.2.2] [P18.2]`, () => {
      const { machine, mock, engine, problems, run } = remapGuest();
      let told = 0;
      engine.hooks.translation.set({
        cr3: CR3,
        va: kernel(DATA),
        priority: 'high',
        committed: () => {
          told++;
        },
      });
      mock.fail({ operation: 'resume', times });
      expect(run(200)).toBe(true);
      expect(told).toBe(1);
      expect(machine.vcpu(0).get('r15')).toBe(7n);
      expect(mock.port.pauseCount).toBe(0);
      expect(problems.map(({ kind }) => kind)).toEqual(Array.from({ length: times }, () => 'backend'));
      engine.close();
    });
  }

  it('has its exit replied to though neither the new page nor a pause is to be had at first [1.2.2] [P13.4]', () => {
    const { machine, mock, engine, problems, run } = remapGuest();
    engine.cloaks.hide({
      cr3: CR3,
      va: kernel(DATA),
      length: 8,
      original: undefined,
      patched: HIDDEN,
      apply: true,
    });
    const { port } = mock;
    const setPageAccess = port.setPageAccess.bind(port);
    let refused = false;
    port.setPageAccess = (frame, access) => {
      if (frame === OTHER / PAGE_SIZE && !refused) {
        refused = true;
        throw new Error('refused');
      }
      setPageAccess(frame, access);
    };
    mock.fail({ operation: 'pause', times: 3 });
    expect(run(200)).toBe(true);
    // The page is hooked without its being stopped first, which is refused as well.
    expect(problems.map(({ message }) => message)).toContain('trying again what the backend refused failed');
    expect(problems.filter(({ kind }) => kind === 'rights')).toHaveLength(1);
    expect(machine.vcpu(0).get('r15')).toBe(7n);
    expect(get64(machine, OTHER)).toBe(0xcccc_cccc_cccc_ccccn);
    expect(get64(machine, DATA)).toBe(0n);
    expect(port.pauseCount).toBe(0);
    engine.close();
  });

  it('is let go by a close, whoever stopped it, also when the backend refuses that once [1.2.2]', () => {
    const { mock, engine } = remapGuest();
    engine.port.pause();
    engine.port.pause();
    const resumed: number[] = [];
    mock.fail({ operation: 'resume' });
    engine.close();
    for (const call of mock.calls('resume', 'close')) {
      resumed.push(call.operation === 'close' ? -1 : call.thrown === undefined ? 1 : 0);
    }
    expect(resumed).toEqual([0, 1, 1, -1]);
  });
});
