// Checks what would be published: publint on every package, and the types as a consumer resolves them (attw).
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { bin, root } from './prepare.mjs';

const folders = ['packages', 'apps'].flatMap((top) =>
  readdirSync(path.join(root, top)).map((name) => path.join(top, name)),
);
let failed = 0;
for (const folder of folders) {
  for (const [tool, ...args] of [
    ['publint', '--strict'],
    ['attw', '--pack', '--profile', 'esm-only'],
  ]) {
    const result = spawnSync(bin(tool), [...args, '.'], {
      cwd: path.join(root, folder),
      encoding: 'utf8',
      shell: process.platform === 'win32',
    });
    if (result.status !== 0) {
      failed++;
      console.error(`${folder}: ${tool} found problems\n${result.stdout}${result.stderr}`);
    }
  }
}
if (failed > 0) process.exit(1);
console.log(`publint and attw: ${folders.length} packages clean`);
