import { buildLabGuest, LabError, labMemory } from '@introd/guest-lab';
import { Machine } from '@introd/hv-sim';
import { describe, expect, test } from 'vitest';
import { runToPhase } from './guest-run.js';

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof LabError) return error.code;
    throw error;
  }
  return 'no error';
}

describe('a lab guest', () => {
  test('boots within 300,000 instructions and says how far it is', () => {
    const guest = buildLabGuest({ seed: 1 });
    expect(guest.phase).toBe('booting');
    expect(guest.lines).toEqual([]);
    runToPhase(guest, 'ready', 300_000);
    expect(guest.lines.some((line) => /^lab: boot \S/.test(line))).toBe(true);
    expect(guest.lines).toContain('lab: ready');
  });

  test('is the same for the same seed, in a new machine or a used one', () => {
    const first = buildLabGuest({ seed: 11 });
    runToPhase(first, 'ready');
    const memory = Buffer.concat([...first.rawImage()]);
    const used = buildLabGuest({ seed: 12 });
    runToPhase(used, 'ready');
    const again = buildLabGuest({ seed: 11, machine: used.machine });
    expect(again.truth).toEqual(first.truth);
    runToPhase(again, 'ready');
    expect(again.lines).toEqual(first.lines);
    expect(again.machine.instructions).toBe(first.machine.instructions);
    expect(Buffer.concat([...again.rawImage()]).equals(memory)).toBe(true);
    expect(buildLabGuest({ seed: 12 }).truth).not.toEqual(first.truth);
  });

  test('runs scenarios one after the other, on one VCPU and on several', () => {
    for (const vcpus of [1, 3]) {
      const guest = buildLabGuest({ seed: 21, vcpus });
      runToPhase(guest, 'ready');
      guest.start({ name: 'self-map-benign', target: 'ordinary' });
      expect(guest.phase).toBe('running');
      runToPhase(guest, 'done');
      guest.start({ name: 'self-map', form: 'bts', target: 'system' });
      expect(guest.phase).toBe('running');
      runToPhase(guest, 'done');
      expect(guest.lines.filter((line) => /^lab: (run|done) /.test(line))).toEqual([
        'lab: run self-map-benign/ordinary',
        'lab: done self-map-benign/ordinary',
        'lab: run self-map/bts/system',
        'lab: done self-map/bts/system',
      ]);
    }
  });

  test('keeps its lines when somebody clears the debug text', () => {
    const guest = buildLabGuest({ seed: 2 });
    runToPhase(guest, 'ready');
    const before = [...guest.lines];
    guest.machine.clearDebugText();
    guest.start({ name: 'self-map-benign', target: 'system' });
    runToPhase(guest, 'done');
    expect(guest.lines.slice(0, before.length)).toEqual(before);
    expect(guest.lines.length).toBeGreaterThan(before.length);
  });

  test('refuses what it cannot do, and says why', () => {
    const guest = buildLabGuest({ seed: 3 });
    const scenario = { name: 'self-map', form: 'mov', target: 'system' } as const;
    expect(codeOf(() => guest.start(scenario))).toBe('ERR_GUEST_LAB_BAD_OPTION');
    runToPhase(guest, 'ready');
    const unknown = { name: 'self-map', form: 'imul', target: 'system' } as unknown as typeof scenario;
    expect(codeOf(() => guest.start(unknown))).toBe('ERR_GUEST_LAB_BAD_OPTION');
    guest.start(scenario);
    expect(codeOf(() => guest.start(scenario))).toBe('ERR_GUEST_LAB_BAD_OPTION');
    expect(codeOf(() => buildLabGuest({ seed: 1.5 }))).toBe('ERR_GUEST_LAB_BAD_OPTION');
    expect(codeOf(() => buildLabGuest({ seed: 1, vcpus: 9 }))).toBe('ERR_GUEST_LAB_BAD_OPTION');
    expect(codeOf(() => buildLabGuest({ seed: 1, vcpus: 4, machine: guest.machine }))).toBe('ERR_GUEST_LAB_MACHINE');
    const small = new Machine({ memory: [labMemory[0]!] });
    expect(codeOf(() => buildLabGuest({ seed: 1, machine: small }))).toBe('ERR_GUEST_LAB_MACHINE');
  });
});

describe('a hostile lab guest', () => {
  test('triple-faults when told to run a scenario', () => {
    const guest = buildLabGuest({ seed: 5, hostile: 'triple-fault' });
    runToPhase(guest, 'ready');
    guest.start({ name: 'self-map-benign', target: 'system' });
    runToPhase(guest, 'crashed');
    expect(guest.machine.shutdownReason).toBeDefined();
    expect(guest.machine.unsupported).toBeUndefined();
  });

  test('loops with interrupts off when told to run a scenario', () => {
    const guest = buildLabGuest({ seed: 5, hostile: 'loop' });
    runToPhase(guest, 'ready');
    guest.start({ name: 'self-map-benign', target: 'system' });
    guest.machine.run(500_000);
    const { rip } = guest.machine.vcpu(0);
    guest.machine.run(500_000);
    expect(guest.phase).toBe('running');
    // The loop is one instruction long.
    expect(guest.machine.vcpu(0).rip).toBe(rip);
    expect(guest.machine.vcpu(0).get('rflags') & 0x200n).toBe(0n);
  });

  test('runs although its process list is a circle', () => {
    const guest = buildLabGuest({ seed: 5, hostile: 'cyclic-processes' });
    runToPhase(guest, 'ready');
    guest.start({ name: 'self-map-benign', target: 'system' });
    runToPhase(guest, 'done');
    expect(guest.lines).toContain('lab: done self-map-benign/system');
  });
});
