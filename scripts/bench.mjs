// Runs the benchmark of the built checkout. It lives in apps/introd, the one place that may import every package.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const missing = ['abi', 'glue', 'x86', 'core-hooks', 'exceptions', 'windows', 'hv-sim'].filter(
  (name) => !existsSync(path.join(root, 'packages', name, 'dist', 'index.js')),
);
if (missing.length > 0) {
  console.error(`bench: not built: ${missing.join(', ')}. Run \`npm run build\` first.`);
  process.exit(2);
}
await import('../apps/introd/bench/main.mjs');
