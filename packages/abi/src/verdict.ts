/**
 * What the engine decided about an event. The numbers are those of the original's INTRO_ACTION (behaviour 1.2.3), and
 * the stronger of two verdicts is always the larger number.
 */
export const Verdict = {
  /** Let it happen. */
  ALLOWED: 0,
  /** The engine has emulated it and moved RIP. */
  ALLOWED_VIRTUAL: 1,
  /** Let it happen with the data that the engine supplied. */
  ALLOWED_PATCHED: 2,
  /** Block it. */
  NOT_ALLOWED: 3,
  /** Re-enter at the same RIP. */
  RETRY: 5,
} as const;
/** One of the {@link Verdict} numbers. */
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

/** The stronger of two verdicts. */
export function strongerVerdict(a: Verdict, b: Verdict): Verdict {
  return a > b ? a : b;
}
