// `npm test`: from a fresh clone to all tests. Arguments go to vitest (`npm test -- packages/abi`). A run of all tests also compares
// docs/conformance.md with what the tests showed; `npm run conformance` writes it, from the tests that say what they show.
// The last line is always `N passed, N failed, N skipped`.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { conformance, conformanceTests } from './conformance.mjs';
import { bin, prepare, root } from './prepare.mjs';

prepare();

const writeConformance = process.argv.includes('--write-conformance');
const selection = process.argv.slice(2).filter((argument) => argument !== '--write-conformance');

const files = writeConformance && selection.length === 0 ? conformanceTests() : selection;

const folder = mkdtempSync(path.join(os.tmpdir(), 'introd-test-'));
const file = path.join(folder, 'results.json');
const result = spawnSync(
  bin('vitest'),
  ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${file}`, ...files],
  { cwd: root, stdio: 'inherit', shell: process.platform === 'win32' },
);

let report;
try {
  report = JSON.parse(readFileSync(file, 'utf8'));
} catch {
  console.error('vitest ended without a report.');
  process.exit(result.status || 1);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

const tests = report.testResults.flatMap((suite) => suite.assertionResults);
const skipped = tests.filter(
  (test) => test.status === 'skipped' || test.status === 'pending' || test.status === 'todo',
);
if (skipped.length > 0) {
  console.log('Skipped, with the reason in the name:');
  for (const test of skipped) console.log(`  ${test.fullName}`);
}
const passed = tests.filter((test) => test.status === 'passed').length;
// A file that fails to load has no tests to count, and is a failure all the same.
const brokenFiles = report.testResults.filter(
  (suite) => suite.status === 'failed' && suite.assertionResults.length === 0,
).length;
let failed = tests.filter((test) => test.status === 'failed').length + brokenFiles;
if (selection.length === 0) {
  const problems = conformance(report, writeConformance);
  for (const problem of problems) console.error(`Conformance: ${problem}`);
  failed += problems.length > 0 ? 1 : 0;
}
console.log(`${passed} passed, ${failed} failed, ${skipped.length} skipped`);
process.exit(result.status || (failed > 0 ? 1 : 0));
