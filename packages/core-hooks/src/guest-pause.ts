import type { PauseCapability } from '@introd/glue';
import type { EngineProblemKind } from './engine-problem.js';

/** What {@link whilePaused} needs of the engine. */
export interface PauseContext {
  readonly port: PauseCapability;
  report(kind: EngineProblemKind, message: string, cause?: unknown): void;
}

/**
 * Does something while every VCPU stands still. Nothing is asked of the backend when they do already, so what has begun inside of another
 * pause cannot be left half done by a pause that the backend refuses.
 * @throws what the backend throws when it cannot stop the guest, and nothing is done then; what `action` throws
 */
export function whilePaused<T>(context: PauseContext, action: () => T): T {
  const { port } = context;
  if (port.pauseCount > 0) {
    return action();
  }
  port.pause();
  try {
    return action();
  } finally {
    resumeGuest(context);
  }
}

/** Takes one pause back. A refusal is reported, and it is tried once more: a guest must not be left standing. */
export function resumeGuest({ port, report }: PauseContext): void {
  try {
    port.resume();
  } catch (cause) {
    report('backend', 'the backend refused to resume the guest', cause);
    try {
      port.resume();
    } catch (again) {
      report('backend', 'the backend refused twice to resume the guest', again);
    }
  }
}
