import { commonExit } from './groups/events.mjs';

/**
 * How much the heap grows over many common exits: nothing is allocated on that path, so what it prints is near zero.
 * Needs `--expose-gc` for exact numbers; without, garbage counts as growth until it is collected.
 */
export function printHeapGrowth(exits = 5_000_000) {
  const operation = commonExit();
  operation.begin();
  operation.run(200_000);
  globalThis.gc?.();
  const before = process.memoryUsage();
  operation.run(exits);
  const dirty = process.memoryUsage();
  globalThis.gc?.();
  const after = process.memoryUsage();
  const perExit = ((dirty.heapUsed - before.heapUsed) / exits).toFixed(3);
  console.log(`${exits.toLocaleString('en')} exits (EPT write on a hooked page, no hook in range):`);
  console.log(`  heap while they ran: ${dirty.heapUsed - before.heapUsed} bytes, ${perExit} per exit`);
  if (globalThis.gc) console.log(`  heap kept after them: ${after.heapUsed - before.heapUsed} bytes`);
  console.log(`  resident set: ${((after.rss - before.rss) / 1024).toFixed(0)} KiB more`);
}
