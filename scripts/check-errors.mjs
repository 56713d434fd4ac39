// Every error code of the sources has a line in docs/errors.md, and the other way round.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { root } from './prepare.mjs';

const codes = (text) => text.match(/\bERR_[A-Z0-9]+(?:_[A-Z0-9]+)+\b/g) ?? [];
const files = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts'], {
  cwd: root,
  encoding: 'utf8',
}).stdout.split('\n');
const used = new Set(
  files
    .filter((file) => /^(packages|apps)\/[^/]+\/src\/.*\.ts$/.test(file) && !file.endsWith('.test.ts'))
    .flatMap((file) => codes(readFileSync(path.join(root, file), 'utf8'))),
);
const told = new Set(codes(readFileSync(path.join(root, 'docs', 'errors.md'), 'utf8')));

const missing = [...used].filter((code) => !told.has(code)).sort();
const stale = [...told].filter((code) => !used.has(code)).sort();
for (const code of missing) console.error(`${code}: no line in docs/errors.md`);
for (const code of stale) console.error(`${code}: in docs/errors.md, but nothing throws it`);
process.exit(missing.length + stale.length > 0 ? 1 : 0);
