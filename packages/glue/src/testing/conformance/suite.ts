import type { Capability } from '../../port.js';
import type { ConformanceCase } from './case.js';
import { type ConformanceGuest, conformanceGuest } from './guest.js';
import { guestCases } from './guest-cases.js';
import { lifecycleCases } from './lifecycle-cases.js';
import { memoryCases } from './memory-cases.js';
import { repetitionCases } from './repetition-cases.js';
import { replyCases } from './reply-cases.js';
import { ConformanceSession, type ConformanceTarget, check } from './session.js';
import { singleStepCases } from './single-step-cases.js';
import { switchedExitCases } from './switched-exit-cases.js';
import { vectorCases } from './vector-cases.js';
import { violationCases } from './violation-cases.js';

/** Every case, in the order in which the suite runs them. */
export const conformanceCases: readonly ConformanceCase[] = [
  ...memoryCases,
  ...violationCases,
  ...replyCases,
  ...repetitionCases,
  ...singleStepCases,
  ...switchedExitCases,
  ...guestCases,
  ...vectorCases,
  ...lifecycleCases,
];

/** The functions of a test framework that the suite uses; those of vitest, jest and node:test fit. */
export interface ConformanceFramework {
  describe(name: string, body: () => void): void;
  /** Without `skip`, cases that do not apply to the backend are left out instead of reported. */
  it: ((name: string, body: () => void) => void) & { skip?(name: string, body: () => void): void };
}

/** Options of {@link conformanceSuite}. */
export interface ConformanceOptions {
  /** Name of the backend. */
  readonly name: string;
  /** What its ports can do; a case of the suite checks that they say the same. */
  readonly capabilities: readonly Capability[];
  /** How many VCPUs it can run, default 1. */
  readonly vcpus?: number;
  /** Whether the guest's code runs at all (not for ports without a processor), default true. */
  readonly executes?: boolean;
  /** Loads a guest into a machine of its own and opens a port on it. */
  start(guest: ConformanceGuest): ConformanceTarget;
  readonly framework: ConformanceFramework;
}

/** Why a case cannot run on a backend; undefined when it can. */
function reasonToSkip(item: ConformanceCase, options: ConformanceOptions): string | undefined {
  const missing = item.needs.filter((capability) => !options.capabilities.includes(capability));
  if (missing.length > 0) return `no ${missing.join(', ')}`;
  if (item.program !== undefined && options.executes === false) return 'no processor';
  if (item.secondProgram !== undefined && (options.vcpus ?? 1) < 2) return 'one VCPU only';
  return undefined;
}

/**
 * Registers one test per promise of the contract. Each starts a guest of its own; its machine code and page tables are in
 * this package, so that every backend runs the same bytes.
 */
export function conformanceSuite(options: ConformanceOptions): void {
  const { describe, it } = options.framework;
  describe(`${options.name} keeps the contract of a port`, () => {
    for (const item of conformanceCases) {
      const reason = reasonToSkip(item, options);
      if (reason !== undefined) {
        it.skip?.(`${item.name} (${reason})`, () => {});
        continue;
      }
      it(item.name, () => {
        const guest = conformanceGuest(item.program ?? 'spin', item.secondProgram);
        const target = options.start(guest);
        try {
          const declared = [...options.capabilities].toSorted().join(', ');
          const found = [...target.port.capabilities].toSorted().join(', ');
          check(declared === found, `the port says it can do "${found}", its backend declared "${declared}"`);
          item.run(new ConformanceSession(target, guest));
        } finally {
          target.port.close();
          target.dispose?.();
        }
      });
    }
  });
}
