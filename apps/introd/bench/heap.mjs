import { commonExit } from './groups/events.mjs';

/** Most bytes that the heap may grow by over ten million exits: the common exit allocates nothing. */
const MOST_GROWTH = 1 << 20;

/**
 * How much the heap grows over many common exits: nothing is allocated on that path, so what it prints is near zero.
 * Needs `--expose-gc` for exact numbers; without, garbage counts as growth until it is collected.
 * @returns whether the growth is within its bound
 */
export function printHeapGrowth(exits = 10_000_000) {
  const operation = commonExit();
  operation.begin();
  operation.run(200_000);
  globalThis.gc?.();
  const before = process.memoryUsage();
  operation.run(exits);
  const dirty = process.memoryUsage();
  globalThis.gc?.();
  const after = process.memoryUsage();
  const growth = dirty.heapUsed - before.heapUsed;
  const perExit = (growth / exits).toFixed(3);
  console.log(`${exits.toLocaleString('en')} exits (EPT write on a hooked page, no hook in range):`);
  console.log(`  heap while they ran: ${growth} bytes, ${perExit} per exit`);
  if (globalThis.gc) console.log(`  heap kept after them: ${after.heapUsed - before.heapUsed} bytes`);
  console.log(`  resident set: ${((after.rss - before.rss) / 1024).toFixed(0)} KiB more`);
  if (growth > MOST_GROWTH) console.error(`bench: the heap grew by more than ${MOST_GROWTH} bytes`);
  return growth <= MOST_GROWTH;
}
