import { defineConfig } from 'vitest/config';
import { typiaTransform } from './scripts/vitest-typia.mjs';

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
    testTimeout: 120_000,
    hookTimeout: 120_000,
    pool: 'forks',
    maxWorkers: 2,
  },
});
