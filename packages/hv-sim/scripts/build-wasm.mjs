// Builds wasm/cpu.wasm from assembly/: quick when nothing has changed since the last build.
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateLayout } from './generate-layout.mjs';

const packageRoot = fileURLToPath(new URL('..', import.meta.url));
const output = path.join(packageRoot, 'wasm/cpu.wasm');
const stamp = path.join(packageRoot, 'wasm/cpu.hash');

const OPTIONS = [
  '--optimizeLevel',
  '3',
  '--noAssert',
  '--runtime',
  'stub',
  '--importMemory',
  '--enable',
  'simd',
  '--disableWarning',
  '201',
];

/** Files that decide what the build gives. */
async function inputs() {
  const files = [];
  for (const folder of ['assembly', 'src', 'scripts', '../abi/src']) {
    for (const name of await readdir(path.join(packageRoot, folder))) {
      if (/\.(ts|mjs)$/.test(name) && !name.endsWith('.test.ts')) files.push(path.join(packageRoot, folder, name));
    }
  }
  return files.sort();
}

async function hashOf(files) {
  const hash = createHash('sha256').update(OPTIONS.join(' '));
  for (const file of files) hash.update(await readFile(file));
  return hash.digest('hex');
}

/** Builds the machine's WebAssembly if its sources have changed. */
export async function buildWasm() {
  const hash = await hashOf(await inputs());
  const built = await readFile(stamp, 'utf8').catch(() => '');
  if (built === hash && (await readFile(output).catch(() => undefined))) return;
  await generateLayout();
  // Only now, because loading the compiler takes longer than finding that nothing has changed.
  const asc = await import('assemblyscript/asc');
  await mkdir(path.dirname(output), { recursive: true });
  const { error, stderr } = await asc.main(
    ['assembly/machine.ts', '--outFile', `wasm/cpu.${process.pid}.wasm`, ...OPTIONS],
    {
      readFile: async (name, base) => readFile(path.resolve(packageRoot, base, name), 'utf8').catch(() => null),
      writeFile: async (name, contents, base) => {
        // Two builds may run at once: each file appears complete.
        const file = path.resolve(packageRoot, base, name);
        await writeFile(file, contents);
        await rename(file, output);
      },
      listFiles: async () => [],
    },
  );
  if (error) throw new Error(`assembly/ does not compile:\n${stderr.toString()}`);
  await writeFile(stamp, hash);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildWasm();
