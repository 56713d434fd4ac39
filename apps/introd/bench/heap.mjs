import { commonExits } from './groups/events.mjs';

/** Most bytes that the heap may grow by over ten million exits of a kind: they allocate nothing. */
const MOST_GROWTH = 1 << 20;

/** How much the heap grows while an operation is done many times. */
function growthOf(operation, exits) {
  operation.begin?.();
  for (let round = 0; round < 4; round++) operation.run(250_000);
  globalThis.gc?.();
  const before = process.memoryUsage();
  operation.run(exits);
  const dirty = process.memoryUsage();
  globalThis.gc?.();
  const after = process.memoryUsage();
  return {
    growth: dirty.heapUsed - before.heapUsed,
    kept: after.heapUsed - before.heapUsed,
    resident: (after.rss - before.rss) / 1024,
  };
}

/**
 * How much the heap grows over many exits of each common kind: nothing is allocated on their path, so what it prints is near zero.
 * Needs `--expose-gc` for exact numbers; without, garbage counts as growth until it is collected.
 * @returns whether every growth is within its bound
 */
export function printHeapGrowth(exits = 10_000_000) {
  console.log(
    `${exits.toLocaleString('en')} exits of each kind: bytes of heap while they ran, kept after a collection, resident set`,
  );
  let within = true;
  for (const operation of commonExits()) {
    const { growth, kept, resident } = growthOf(operation, exits);
    const numbers = [growth, globalThis.gc ? kept : '?', `${resident.toFixed(0)} KiB`];
    console.log(operation.op.padEnd(50) + numbers.map((number) => String(number).padStart(12)).join(''));
    if (growth > MOST_GROWTH) {
      within = false;
      console.error(`bench: the heap grew by more than ${MOST_GROWTH} bytes`);
    }
  }
  return within;
}
