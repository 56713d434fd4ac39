import 'vitest';

declare module 'vitest' {
  /** What vitest.config.ts hands to every test file. */
  interface ProvidedContext {
    /** `INTROD_TEST_SCALE`, validated: how many times the default counts a test runs. At least 1. */
    scale: number;
  }
}
