// Refuses file and folder names that say nothing about what they hold (CONTRIBUTING.md, "Names").
import { spawnSync } from 'node:child_process';
import { root } from './prepare.mjs';

const forbidden = /^(utils?|common|shared|misc|helpers?)(\..*)?$/;
const files = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', 'packages', 'apps'], {
  cwd: root,
  encoding: 'utf8',
});
if (files.status !== 0) {
  console.error('check-names needs git.');
  process.exit(1);
}
const bad = files.stdout.split('\n').filter((file) => file.split('/').some((part) => forbidden.test(part)));
for (const file of bad) console.error(`${file}: name it after the concept it holds`);
process.exit(bad.length > 0 ? 1 : 0);
