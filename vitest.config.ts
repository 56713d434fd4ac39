import { defineConfig } from 'vitest/config';
import { typiaTransform } from './scripts/vitest-typia.mjs';

/** Full counts take as many times longer as they are larger (CONTRIBUTING.md). */
const scale = Math.max(1, Number(process.env.INTROD_TEST_SCALE ?? 1));

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
    testTimeout: 120_000 * scale,
    hookTimeout: 120_000 * scale,
    pool: 'forks',
    maxWorkers: 2,
  },
});
