import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { C_FIGURES } from './c-figures.mjs';
import { printHeapGrowth } from './heap.mjs';
import { referenceFolder } from './inputs.mjs';
import { FULL, measure, QUICK } from './measure.mjs';
import { BenchAssertionError } from './operation.mjs';

const GROUPS = ['events', 'memory', 'hooks', 'decoder', 'windows', 'shemu', 'sim'];

const USAGE = `usage: npm run bench -- [--group NAME]... [--quick] [--heap]
  --group NAME  only this group (${GROUPS.join(', ')}); may be repeated
  --quick       short runs: to see that it works, not to compare
  --heap        print how much the heap grows over many exits, and measure nothing else
Writes [{"group","op","median","min"}] in nanoseconds per operation to the file that $BENCH_JSON names.`;

function fail(message) {
  console.error(`bench: ${message}`);
  process.exit(2);
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        group: { type: 'string', multiple: true },
        quick: { type: 'boolean', default: false },
        heap: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    for (const group of values.group ?? []) {
      if (!GROUPS.includes(group)) fail(`no group ${group}\n${USAGE}`);
    }
    return values;
  } catch (error) {
    return fail(`${error.message}\n${USAGE}`);
  }
}

/** A figure with three significant digits, whole from 1,000 on. */
function figure(nanoseconds) {
  return nanoseconds >= 1000 ? Math.round(nanoseconds).toLocaleString('en') : nanoseconds.toPrecision(3);
}

function line(cells) {
  const widths = [9, 46, 10, 10, 9, 7];
  return cells
    .map((cell, i) => (i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
    .join(' ')
    .trimEnd();
}

async function main() {
  const { group: wanted = GROUPS, quick, heap, help } = options();
  if (help) {
    console.log(USAGE);
    return;
  }
  if (heap) {
    process.exitCode = printHeapGrowth(quick ? 1_000_000 : undefined) ? 0 : 1;
    return;
  }
  if (referenceFolder === undefined) {
    console.log(
      'INTROD_REFERENCE_DATA is not set: the bench uses inputs of its own, of the same kind as those of the C figures.\n',
    );
  }
  const results = [];
  console.log(line(['group', 'operation', 'median ns', 'min ns', 'C ns', 'ratio']));
  for (const name of GROUPS.filter((group) => wanted.includes(group))) {
    const { operations } = await import(`./groups/${name}.mjs`);
    for (const operation of await operations()) {
      const { group, op } = operation;
      const { median, min } = measure(operation, quick ? QUICK : FULL);
      results.push({ group, op, median, min });
      const c = C_FIGURES[group]?.[op];
      const peer = c === undefined ? ['', ''] : [String(c), `${(median / c).toFixed(2)}x`];
      const rate = group === 'sim' ? `  ${(1000 / median).toFixed(1)} million instructions per second` : '';
      console.log(line([group, op, figure(median), figure(min), ...peer]) + rate);
    }
  }
  if (process.env.BENCH_JSON) writeFileSync(process.env.BENCH_JSON, `${JSON.stringify(results, undefined, 1)}\n`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof BenchAssertionError)) throw error;
  console.error(`bench: a measured operation gave a wrong result: ${error.message}`);
  process.exit(1);
}
