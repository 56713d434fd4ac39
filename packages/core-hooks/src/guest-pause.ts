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

/**
 * Takes one pause back. A refusal is reported, and it is tried once more: a guest must not be left standing.
 * @returns whether the backend took it
 */
export function resumeGuest({ port, report }: PauseContext): boolean {
  for (let attempt = 1; attempt <= 2; attempt++) {
    try {
      port.resume();
      return true;
    } catch (cause) {
      report('backend', 'the backend refused to resume the guest', cause);
    }
  }
  return false;
}

/** Takes every pause back that is left, whoever made it: after this nobody could. */
export function releaseGuest(context: PauseContext): void {
  for (let left = context.port.pauseCount; left > 0; left--) {
    resumeGuest(context);
  }
}
