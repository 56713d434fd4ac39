import { describe, expect, test } from 'vitest';
import { buildLabGuest, type HookedThing } from '../src/index.js';
import { labMachine, readVirtual64, runScenario, runToPhase } from './guest-run.js';

const THINGS: readonly HookedThing[] = [
  'syscall-entry',
  'smep',
  'interrupt-table',
  'remap',
  'overwrite',
  'push',
  'function-patch',
];
const machine = labMachine();

describe.each(['system', 'ordinary'] as const)('attacks on hooked things that nobody guards, in %s', (target) => {
  test.each(THINGS)('%s takes effect and is taken back, again and again, and its twin changes nothing', (name) => {
    const guest = buildLabGuest({ seed: 3, machine });
    runToPhase(guest, 'ready');
    const page = guest.labels.get('LabGuardedPage')!;
    const guarded = (): bigint => readVirtual64(guest, guest.truth.systemCr3, page + 0x800n);
    const registers = () => [machine.vcpu(0).get('lstar'), machine.vcpu(0).get('cr4'), machine.vcpu(0).get('idtBase')];
    const before = [guarded(), ...registers()];
    for (let run = 0; run < 2; run++) {
      expect(runScenario(guest, { name, target })).toContain('lab: effect 0000000000000001');
      expect([guarded(), ...registers()]).toEqual(before);
      expect(runScenario(guest, { name: `${name}-benign`, target })).toContain('lab: benign ok');
      expect([guarded(), ...registers()]).toEqual(before);
    }
  });
});

test('the function that is patched shows its bytes to whoever reads them', () => {
  const guest = buildLabGuest({ seed: 3, machine });
  runToPhase(guest, 'ready');
  const at = guest.labels.get('LabPatchTarget')!;
  const bytes = readVirtual64(guest, guest.truth.systemCr3, at).toString(16).padStart(16, '0');
  expect(runScenario(guest, { name: 'function-patch', target: 'system' })).toContain(`lab: value ${bytes}`);
});
