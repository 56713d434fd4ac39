import type { PauseCapability } from '@introd/glue';
import type { EngineProblemKind } from './engine-problem.js';

/** What {@link whilePaused} needs of the engine. */
export interface PauseContext {
  readonly port: PauseCapability;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/**
 * Does something while every VCPU stands still. Pauses nest.
 * @throws what the backend throws when it cannot stop the guest, and nothing is done then; what `action` throws
 */
export function whilePaused<T>({ port, report }: PauseContext, action: () => T): T {
  port.pause();
  try {
    return action();
  } finally {
    try {
      port.resume();
    } catch (cause) {
      report('backend', 'the backend refused to resume the guest', cause);
      try {
        // A guest must not be left standing.
        port.resume();
      } catch (again) {
        report('backend', 'the backend refused twice to resume the guest', again);
      }
    }
  }
}
