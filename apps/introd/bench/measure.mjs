/** How much is measured. The C figures are the best median of about ten runs; so are ours. */
export const FULL = { warmUpMs: 400, runs: 10, samples: 21, sampleMs: 4 };
export const QUICK = { warmUpMs: 60, runs: 2, samples: 7, sampleMs: 2 };

function timed(operation, count) {
  const start = process.hrtime.bigint();
  operation.run(count);
  return Number(process.hrtime.bigint() - start);
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

/**
 * Measures an operation: after a warm-up, several runs of several samples, each a batch that lasts a few milliseconds.
 * @param {import('./operation.mjs').Operation} operation
 * @returns {{median: number, min: number}} nanoseconds per unit: the best run's median, and the best sample
 */
export function measure(operation, effort) {
  operation.begin?.();
  let count = 1;
  let elapsed = timed(operation, count);
  for (const end = Date.now() + effort.warmUpMs; Date.now() < end; ) {
    if (elapsed < effort.sampleMs * 1e6) count *= 2;
    elapsed = timed(operation, count);
  }
  count = Math.max(1, Math.round((count * effort.sampleMs * 1e6) / elapsed));
  const perUnit = 1 / (count * (operation.unit ?? 1));
  let best = Number.POSITIVE_INFINITY;
  let min = Number.POSITIVE_INFINITY;
  for (let run = 0; run < effort.runs; run++) {
    const samples = Array.from({ length: effort.samples }, () => timed(operation, count) * perUnit);
    best = Math.min(best, median(samples));
    min = Math.min(min, ...samples);
  }
  return { median: best, min };
}
