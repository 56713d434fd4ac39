/**
 * Builds the native helper of the differential test (native/host_cpu.cc) when this host can, and says in one line why
 * not otherwise. Never fails: the package works without it, and the test replays recorded vectors then.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const output = join(root, 'build/Release/host_cpu.node');
const sources = ['CMakeLists.txt', 'native/host_cpu.cc'].map((name) => join(root, name));

/** Why the helper cannot be built here, or undefined. */
function reasonToSkip() {
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

function build() {
  const manifest = createRequire(join(root, 'package.json')).resolve('cmake-js/package.json');
  const command = join(dirname(manifest), JSON.parse(readFileSync(manifest, 'utf8')).bin['cmake-js']);
  return spawnSync(
    process.execPath,
    [command, 'build', '--directory', root, '--out', join(root, 'build'), '--config', 'Release'],
    {
      encoding: 'utf8',
    },
  );
}

if (!isUpToDate()) {
  try {
    const reason = reasonToSkip();
    if (reason !== undefined) {
      console.log(`hv-sim: native reference of the differential test skipped: ${reason}`);
    } else {
      const result = build();
      if (result.status !== 0 || !existsSync(output)) {
        const text = `${result.stdout ?? ''}${result.stderr ?? ''}${result.error ?? ''}`;
        const line = text.split('\n').find((candidate) => /error/i.test(candidate)) ?? 'cmake-js failed';
        console.log(`hv-sim: native reference of the differential test skipped: ${line.trim()}`);
      }
    }
  } catch (error) {
    console.log(`hv-sim: native reference of the differential test skipped: ${error.message}`);
  }
}
