import { Access, DescriptorTable } from '@introd/abi';
import type { HookedThing } from '@introd/guest-lab';
import { describe, expect, test } from 'vitest';
import { GuardedLab } from './guarded-lab.js';

/** Offset of the guarded bytes in `LabGuardedPage`, and how many they are. */
const GUARDED = 0x800;
const GUARDED_SIZE = 16;
/** IA32_LSTAR (SDM vol. 4, table 2-2). */
const LSTAR = 0xc000_0082;
/** CR4.SMEP. */
const SMEP = 1n << 20n;

/** Sets the hooks that guard a thing. With `enforce` false they only look. */
type Guard = (lab: GuardedLab, enforce: boolean) => void;

const guardedBytes: Guard = (lab, enforce) => {
  lab.engine.hooks.page.set({
    gpa: lab.physical('LabGuardedPage', GUARDED),
    length: GUARDED_SIZE,
    access: Access.WRITE,
    callback: (event) => {
      const written = event.newValue();
      const same = written !== undefined && Buffer.from(written.bytes).equals(event.oldBytes());
      event.verdict = lab.judge('write', enforce && !same);
    },
  });
};

const GUARDS: readonly { readonly thing: HookedThing; readonly hook: string; readonly guard: Guard }[] = [
  {
    thing: 'syscall-entry',
    hook: 'lstar',
    guard: (lab, enforce) => {
      lab.engine.hooks.msr.set(LSTAR, (event) => {
        event.verdict = lab.judge('lstar', enforce && event.newValue !== event.oldValue);
      });
    },
  },
  {
    thing: 'interrupt-table',
    hook: 'idtr',
    guard: (lab, enforce) => {
      lab.engine.hooks.descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, (event) => {
        event.verdict = lab.judge('idtr', enforce && event.newBase !== event.oldBase);
      });
    },
  },
  {
    thing: 'smep',
    hook: 'cr4',
    guard: (lab, enforce) => {
      lab.engine.hooks.cr.set(4, (event) => {
        event.verdict = lab.judge('cr4', enforce && (event.oldValue & ~event.newValue & SMEP) !== 0n);
      });
    },
  },
  {
    thing: 'remap',
    hook: 'translation',
    guard: (lab, enforce) => {
      const { systemCr3 } = lab.guest.truth;
      lab.engine.addressSpaces = { systemCr3, isKnown: () => true };
      lab.engine.hooks.translation.set({
        cr3: systemCr3,
        va: lab.label('LabGuardedPage'),
        callback: (event) => {
          event.verdict = lab.judge('translation', enforce && event.newGpa !== event.oldGpa);
        },
      });
    },
  },
  { thing: 'overwrite', hook: 'write', guard: guardedBytes },
  {
    thing: 'push',
    hook: 'write',
    guard: (lab, enforce) => {
      guardedBytes(lab, enforce);
      lab.engine.hooks.page.set({
        gpa: lab.physical('LabSecretPage'),
        length: 16,
        access: Access.READ,
        callback: (event) => {
          event.verdict = lab.judge('read', false);
        },
      });
    },
  },
];

const SETTINGS = [
  { vcpus: 1 },
  { vcpus: 2 },
  { vcpus: 4, race: { betweenFaultAndDelivery: 200, insideCalls: 50 } },
] as const;

describe.each(SETTINGS)('in the lab guest with $vcpus VCPUs', (setting) => {
  describe.each(['system', 'ordinary'] as const)('in %s', (target) => {
    test.each(GUARDS)('$thing: the attack is blocked, its twin reaches the same hook and passes', (entry) => {
      const lab = new GuardedLab({ seed: 11, ...setting });
      entry.guard(lab, true);
      expect(lab.play(entry.thing, target)).toContain('lab: effect 0000000000000000');
      expect(lab.seen(entry.hook).denied).toBe(true);
      expect(lab.play(`${entry.thing}-benign`, target)).toContain('lab: benign ok');
      expect(lab.seen(entry.hook)).toEqual({ denied: false, allowed: true });
      expect(lab.problems).toEqual([]);
      lab.close();
    });

    test.each(GUARDS)('$thing: the same hook that denies nothing sees it take effect', (entry) => {
      const lab = new GuardedLab({ seed: 11, ...setting });
      entry.guard(lab, false);
      expect(lab.play(entry.thing, target)).toContain('lab: effect 0000000000000001');
      expect(lab.seen(entry.hook)).toEqual({ denied: false, allowed: true });
      lab.close();
    });
  });
});
