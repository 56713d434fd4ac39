import type { Capability } from '../../port.js';
import type { ProgramName } from './programs.js';
import type { ConformanceSession } from './session.js';

/** One promise of the contract, and how to see whether a backend keeps it. */
export interface ConformanceCase {
  /** The promise, as a sentence about the backend. */
  readonly name: string;
  /** Capabilities that the case uses; it is skipped on a backend without them. */
  readonly needs: readonly Capability[];
  /** What VCPU 0 runs; absent when the case needs no running guest. */
  readonly program?: ProgramName;
  /** What VCPU 1 runs; the case is skipped on a backend with one VCPU. */
  readonly secondProgram?: ProgramName;
  /** @throws GlueError ERR_GLUE_NOT_CONFORMING */
  run(session: ConformanceSession): void;
}
