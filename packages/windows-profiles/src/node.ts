import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { ProfileError } from './error.js';

/** Largest symbol file that is read, in bytes of JSON: kernels have about 6 MB. */
const MAX_ISF_SIZE = 256 * 1024 * 1024;

/**
 * Reads a symbol file in ISF: plain JSON, or a `.xz` one, for which the program `xz` must be installed.
 * @returns the parsed document, for `profileFromIsf`
 * @throws ProfileError ERR_PROFILES_FILE when it cannot be read or decompressed, ERR_PROFILES_NOT_JSON
 */
export function readIsfFile(path: string): unknown {
  const text = path.endsWith('.xz') ? decompress(path) : read(path);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ProfileError('ERR_PROFILES_NOT_JSON', `${path} is not JSON`, { cause });
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ProfileError('ERR_PROFILES_FILE', `cannot read ${path}`, { cause });
  }
}

function decompress(path: string): string {
  const result = spawnSync('xz', ['--decompress', '--stdout', '--', path], {
    encoding: 'utf8',
    maxBuffer: MAX_ISF_SIZE,
  });
  if (result.error || result.status !== 0) {
    throw new ProfileError('ERR_PROFILES_FILE', `cannot decompress ${path}: ${result.stderr ?? ''}`.trim(), {
      hint: 'install the program xz, or give the decompressed JSON',
      cause: result.error,
    });
  }
  return result.stdout;
}
