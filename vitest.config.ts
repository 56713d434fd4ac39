import { defineConfig } from 'vitest/config';
import { typiaTransform } from './scripts/vitest-typia.mjs';

/**
 * How many times the default counts the tests run; `inject('scale')` gives it to a test. Anything but a number of at
 * least 1 is refused, because with no work to do a test that counts its runs would pass.
 */
function testScale(): number {
  const text = process.env.INTROD_TEST_SCALE;
  if (text === undefined) return 1;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!Number.isFinite(value) || value < 1) {
    throw new Error(`INTROD_TEST_SCALE is '${text}'; it must be a number of at least 1 (CONTRIBUTING.md).`);
  }
  return value;
}

/** Time limits grow with the counts. */
const scale = testScale();

export default defineConfig({
  plugins: [typiaTransform()],
  // Tests run against the sources of every package; what is published resolves to dist.
  resolve: { conditions: ['@introd/source'] },
  ssr: { resolve: { conditions: ['@introd/source', 'node', 'import', 'module', 'default'] } },
  test: {
    include: [
      'packages/*/src/**/*.test.ts',
      'packages/*/test/**/*.test.ts',
      'apps/*/src/**/*.test.ts',
      'apps/*/test/**/*.test.ts',
    ],
    // The embedded machine is compiled when its sources have changed.
    globalSetup: ['packages/hv-sim/scripts/vitest-setup.mjs'],
    provide: { scale },
    testTimeout: 120_000 * scale,
    hookTimeout: 120_000 * scale,
    pool: 'forks',
    maxWorkers: 2,
  },
});
