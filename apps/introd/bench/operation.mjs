/**
 * @typedef {object} Operation
 * @property {string} group
 * @property {string} op
 * @property {() => void} [begin] makes ready for the first run; not measured
 * @property {(count: number) => void} run does the operation `count` times; throws when a result is wrong
 * @property {number} [unit] how many units (instructions, processes) one operation is; the result is per unit
 */

/** Throws unless the condition holds: an operation with a wrong result has no time. */
export function assert(condition, message) {
  if (!condition) throw new BenchAssertionError(message);
}

/** A wrong result of a measured operation. */
export class BenchAssertionError extends Error {
  name = 'BenchAssertionError';
}
