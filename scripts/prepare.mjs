// Brings a checkout to the point where it can run: installs what is missing, builds what has changed.
// Uses nothing but Node and npm, so that `npm run demo` and `npm test` work right after `git clone`.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** Runs a command, its output shown on stderr, and ends this process with its exit code when it fails. */
function run(command, args, env) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ['inherit', 2, 2],
    env: { ...process.env, TURBO_TELEMETRY_DISABLED: '1', ...env },
    // npx and npm are .cmd files on Windows.
    shell: process.platform === 'win32',
  });
  if (result.error) throw result.error;
  if (result.status !== 0) process.exit(result.status ?? 1);
}

/** Path of an installed command. */
export function bin(name) {
  return path.join(root, 'node_modules', '.bin', name);
}

/** pnpm leaves this file behind when an install is complete. */
function isInstalled() {
  const marker = path.join(root, 'node_modules', '.modules.yaml');
  return existsSync(marker) && statSync(marker).mtimeMs >= statSync(path.join(root, 'pnpm-lock.yaml')).mtimeMs;
}

/**
 * Installs and builds. What it says goes to stderr, so that a command's own output stays clean.
 * @param build false when only the dependencies are needed
 */
export function prepare({ build = true } = {}) {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    console.error(`introd needs Node.js 20.19 or later; this is ${process.version}.`);
    process.exit(1);
  }
  if (!isInstalled()) {
    const { packageManager } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
    console.error(`Installing dependencies with ${packageManager} (once, about half a minute) ...`);
    run('npx', ['-y', packageManager, 'install', '--frozen-lockfile'], { npm_config_yes: 'true' });
  }
  if (build) {
    console.error('Building the packages (about a minute at first; what has not changed is taken from the cache) ...');
    // A line for each package as it is begun, and all that a build says.
    run(bin('turbo'), ['run', 'build', '--output-logs=new-only'], {
      PATH: `${path.join(root, 'node_modules', '.bin')}${path.delimiter}${process.env.PATH}`,
    });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) prepare();
