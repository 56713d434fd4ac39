/**
 * Records what this host's processor does with a fixed set of cases into test/differential/vectors. Needs the native
 * helper (scripts/build-native.mjs). The cases are seeded: the files change only when the cases do, or where processors
 * differ.
 */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..');
const result = spawnSync('npx', ['vitest', 'run', 'packages/hv-sim/test/differential/live', '-t', 'recording'], {
  cwd: root,
  env: { ...process.env, INTROD_RECORD_VECTORS: '1' },
  stdio: 'inherit',
});
process.exitCode = result.status ?? 1;
