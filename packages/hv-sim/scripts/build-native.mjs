/**
 * Builds the native helper of the differential test (native/host_cpu.cc) when this host can, and prints in one line why
 * there is none otherwise; prints nothing when there is one. Never fails: the test replays recorded vectors then. The
 * test runs it; no build does, because what it gives depends on the tools of the host and not only on the sources.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const output = join(root, 'build/Release/host_cpu.node');
const sources = ['CMakeLists.txt', 'native/host_cpu.cc'].map((name) => join(root, name));

/** cmake-js may have to fetch the headers of Node.js; without a network it must not wait for ever. */
const TIMEOUT_MS = 120_000;

/** Which tool is lacking here, or undefined. */
function lackingTool() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return `needs Linux on x86-64, this is ${process.platform} on ${process.arch}`;
  }
  if (!runs('cmake', ['--version'])) return 'no cmake';
  const compiler =
    process.env.CXX?.trim().split(/\s+/)[0] || ['c++', 'g++', 'clang++'].find((name) => runs(name, ['--version']));
  if (compiler === undefined || !runs(compiler, ['--version'])) return 'no C++ compiler';
  if (!['make', 'ninja'].some((name) => runs(name, ['--version']))) return 'neither make nor ninja';
  return undefined;
}

function runs(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

function isUpToDate() {
  if (!existsSync(output)) return false;
  const built = statSync(output).mtimeMs;
  return sources.every((source) => statSync(source).mtimeMs <= built);
}

/** Builds; returns why that failed, or undefined. */
function build() {
  const manifest = createRequire(join(root, 'package.json')).resolve('cmake-js/package.json');
  const command = join(dirname(manifest), JSON.parse(readFileSync(manifest, 'utf8')).bin['cmake-js']);
  mkdirSync(dirname(output), { recursive: true });
  // Two builds may run at once: each has a folder of its own, and its result appears complete.
  const folder = mkdtempSync(join(root, 'build/native-'));
  try {
    const result = spawnSync(
      process.execPath,
      [command, 'build', '--directory', root, '--out', folder, '--config', 'Release'],
      { encoding: 'utf8', timeout: TIMEOUT_MS },
    );
    const built = join(folder, 'Release/host_cpu.node');
    if (result.status === 0 && existsSync(built)) {
      renameSync(built, output);
      return undefined;
    }
    if (result.error) return `cmake-js: ${result.error.message}`;
    const lines = `${result.stdout}${result.stderr}`.split('\n');
    const line = lines.find((text) => /\berror:/i.test(text)) ?? lines.find((text) => /error/i.test(text));
    return line === undefined ? 'cmake-js failed' : `compile error: ${line.replace(`${root}/`, '').trim()}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Why there is no helper, or undefined when there is an up-to-date one. */
function reasonForNone() {
  try {
    return isUpToDate() ? undefined : (lackingTool() ?? build());
  } catch (error) {
    return error.message;
  }
}

const reason = reasonForNone();
if (reason !== undefined) console.log(reason);
