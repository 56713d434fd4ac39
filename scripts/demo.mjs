// `npm run demo`: from a fresh clone to the first alert.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { prepare, root } from './prepare.mjs';

prepare();
const args = process.argv.slice(2);
const result = spawnSync(process.execPath, [path.join(root, 'apps', 'introd', 'dist', 'main.js'), 'demo', ...args], {
  stdio: 'inherit',
});
process.exit(result.status ?? 1);
