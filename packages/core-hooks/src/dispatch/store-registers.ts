import type { RegisterGroup, RegistersCapability } from '@introd/glue';
import type { EngineProblemKind } from '../engine-problem.js';

/** What {@link storeRegisters} needs of the engine. */
export interface StoreRegistersContext {
  readonly port: Pick<RegistersCapability, 'storeRegisters'>;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/** What failed once may have been a passing fault. */
const ATTEMPTS = 2;

/**
 * Has a VCPU take over its record where nothing can be taken back: what its instruction did is in memory already, or the record holds the
 * new values. A refusal of the backend is reported, and it is tried once more.
 * @returns false when it refused twice
 */
export function storeRegisters({ port, report }: StoreRegistersContext, index: number, groups: RegisterGroup): boolean {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    try {
      port.storeRegisters(index, groups);
      return true;
    } catch (cause) {
      report('backend', 'the backend refused the registers of a VCPU', cause);
    }
  }
  return false;
}
