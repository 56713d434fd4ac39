import { type Gpa, gva } from '@introd/abi';
import { describe, expect, test } from 'vitest';
import { createCodeImages } from '../../src/testing.js';
import { GuardedLab } from './guarded-lab.js';

/** INT3 and two NOPs. */
const HANDLER = Uint8Array.of(0xcc, 0x90, 0x90);
/** RVA of the section that holds the lab's own code. */
const LABCODE = 0xe0_2000n;

/** A lab guest whose function `LabPatchTarget` is detoured. */
class DetouredLab extends GuardedLab {
  calls = 0;
  writes = 0;
  readonly #function: Gpa;
  readonly #before: Uint8Array;

  constructor(options: ConstructorParameters<typeof GuardedLab>[0]) {
    super(options);
    const { kernelBase, kernelSize, systemCr3 } = this.guest.truth;
    const start = gva(kernelBase + LABCODE);
    this.engine.addressSpaces = { systemCr3, isKnown: () => true };
    this.engine.codeImages = createCodeImages(this.engine.memory, systemCr3, {
      build: this.guest.truth.build,
      images: [
        {
          name: 'ntoskrnl.exe',
          base: kernelBase,
          size: kernelSize,
          sections: [{ name: 'LABCODE', start, size: Number(this.label('LabSystemStubEnd') - start) }],
          symbols: { LabPatchTarget: this.label('LabPatchTarget') },
        },
      ],
    });
    this.#function = this.physical('LabPatchTarget');
    this.#before = this.#bytes();
    const result = this.engine.detours.set({
      name: 'patch target',
      function: { by: 'symbol', name: 'LabPatchTarget' },
      handlers: [{ code: HANDLER, hypercall: { kind: 'int3', offset: 0 } }],
      callback: () => {
        this.calls++;
      },
      onWrite: () => {
        this.writes++;
      },
    });
    expect(result.status).toBe('set');
  }

  /** The function as it is in memory. */
  #bytes(): Uint8Array {
    const bytes = new Uint8Array(32);
    expect(this.guest.machine.readPhysical(this.#function, bytes)).toBe(true);
    return bytes;
  }

  get isDetoured(): boolean {
    return this.#bytes()[0] === 0xe9;
  }

  /** First 8 bytes of the function before the detour, as the guest prints them. */
  get original(): string {
    return new DataView(this.#before.buffer).getBigUint64(0, true).toString(16).padStart(16, '0');
  }

  expectRestored(): void {
    expect(this.#bytes()).toEqual(this.#before);
  }
}

describe.each([{ vcpus: 1 }, { vcpus: 4, race: { betweenFaultAndDelivery: 200, insideCalls: 50 } }])(
  'a detour of a function of the lab guest with $vcpus VCPUs',
  (setting) => {
    test.each(['system', 'ordinary'] as const)(
      '%s: whoever reads it sees the function, whoever overwrites it changes nothing, and it still works',
      (target) => {
        const lab = new DetouredLab({ seed: 5, ...setting });
        expect(lab.isDetoured).toBe(true);
        const lines = lab.play('function-patch', target);
        expect(lines).toContain(`lab: value ${lab.original}`);
        expect(lines).toContain('lab: effect 0000000000000000');
        expect(lab.writes).toBeGreaterThan(0);
        expect(lab.calls).toBe(1);
        expect(lab.isDetoured).toBe(true);

        // The twin reads and writes the same page beside it, and calls the function.
        const { writes } = lab;
        const benign = lab.play('function-patch-benign', target);
        expect(benign).toContain('lab: value 1234567812345678');
        expect(benign).toContain('lab: benign ok');
        expect(lab.writes).toBe(writes);
        expect(lab.calls).toBe(2);
        expect(lab.problems).toEqual([]);
        lab.close();
        lab.expectRestored();
      },
    );
  },
);
