import type { Machine } from '@introd/hv-sim';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import { faultMachine } from './fault-guest.js';
import { type FaultOutcome, FaultScenario, type PortOperation } from './fault-scenario.js';

/** Every call of the contract with a backend, and the properties that failing it shows. */
const OPERATIONS: Readonly<Record<PortOperation, string>> = {
  readPhysical: '',
  writePhysical: '[P13.11]',
  compareExchange: '',
  mapPage: '',
  vcpu: '',
  fetchRegisters: '',
  storeRegisters: '',
  readMsr: '',
  readXsaveArea: '',
  writeXsaveArea: '',
  pause: '[P13.11]',
  resume: '[P13.11]',
  next: '',
  reply: '',
  setExit: '[P10.9]',
  getPageAccess: '',
  setPageAccess: '[P4.15]',
  flushPageAccess: '',
  inject: '',
  close: '',
};
/** Those that can also fail by what they return. */
const REFUSABLE = ['readPhysical', 'writePhysical', 'compareExchange', 'mapPage', 'readMsr', 'next'] as const;

/** That there is no exit is nothing unusual: one call in so many is made to say so. */
const IDLE_STEP = inject('scale') >= 100 ? 1 : 8;

/** Every kind of callback that the scenario must reach. */
const KINDS = [
  'border',
  'breakpoint',
  'cloak',
  'cr3',
  'cr4',
  'descriptor table',
  'detour by int3',
  'detour by vmcall',
  'execute',
  'hash',
  'injected',
  'integrity',
  'large page',
  'large page committed',
  'msr',
  'msr read',
  'page table',
  'page table committed',
  'paused',
  'port',
  'read',
  'region',
  'removed by itself',
  'string',
  'tick',
  'translation',
  'translation committed',
  'vector',
  'virtual',
  'virtual in a large page',
  'vmcall',
  'write',
  'write by the second VCPU',
  'xcr',
];
/** Codes of what may be told as the cause of a problem. */
const CAUSES = ['ERR_GLUE_INJECTED_FAULT', 'ERR_CORE_HOOKS_NO_MEMORY'];

describe('one fault of the backend under everything that the engine has', () => {
  let machine: Machine;
  let faultless: FaultOutcome;

  beforeAll(() => {
    machine = faultMachine();
    faultless = new FaultScenario(machine, undefined).run();
  });

  it('is not needed for the guest to end where it should, and every call of the contract is made', () => {
    const { problems, returned, own, calls, asked, restricted, exitsOn, halted } = faultless;
    expect({ problems, returned, own, restricted, exitsOn, halted }).toEqual({
      problems: [],
      returned: 0,
      own: 0,
      restricted: [],
      exitsOn: [],
      halted: true,
    });
    expect([...asked.keys()].toSorted()).toEqual(KINDS);
    expect([...calls.keys()].toSorted()).toEqual(Object.keys(OPERATIONS).toSorted());
    expect([...calls.values()].reduce((sum, count) => sum + count, 0)).toBeGreaterThan(300);
  });

  /** Runs the scenario once for each call of an operation, with that call failing. */
  function failEach(operation: PortOperation, by: 'throw' | 'refuse'): void {
    const calls = faultless.calls.get(operation)!;
    const step = operation === 'next' && by === 'refuse' ? IDLE_STEP : 1;
    for (let nth = 1; nth <= calls; nth += step) {
      const outcome = new FaultScenario(machine, { operation, nth, by } as never).run();
      const { problems, returned, own, memory, restricted, exitsOn, halted } = outcome;
      const told = problems.filter(({ cause }) =>
        CAUSES.includes((cause as { code?: string } | undefined)?.code ?? ''),
      );
      const call = `${operation} ${nth}`;
      expect({ call, halted, restricted, exitsOn }).toEqual({ call, halted: true, restricted: [], exitsOn: [] });
      expect(Buffer.compare(memory, faultless.memory), `what the guest left in memory, ${call}`).toBe(0);
      expect(
        problems.filter((problem) => !told.includes(problem)),
        call,
      ).toEqual([]);
      if (by === 'throw') {
        expect(told.length + returned + own, `who was told of ${call}`).toBeGreaterThan(0);
      }
    }
  }

  for (const [operation, property] of Object.entries(OPERATIONS) as [PortOperation, string][]) {
    const tags = `[1.2.2] [P18.1] ${property}`.trim();
    it(`that each call of ${operation} throws in turn changes nothing for the guest; all rights come back and no pause is left ${tags}`, () =>
      failEach(operation, 'throw'));
  }
  for (const operation of REFUSABLE) {
    it(`that each call of ${operation} fails by its result in turn changes nothing for the guest either [1.2.2] [P18.1]`, () =>
      failEach(operation, 'refuse'));
  }
});
