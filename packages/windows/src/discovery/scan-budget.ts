/**
 * How much guest memory one attempt of discovery may look through. A guest can offer thousands of pages that look like
 * the begin of a kernel; without a limit each of them would cost a search of its sections.
 */
export class ScanBudget {
  #left: number;

  /** @param bytes that may be read, all together */
  constructor(bytes: number) {
    this.#left = bytes;
  }

  /** Takes bytes off the budget; false when there are not enough left. */
  take(bytes: number): boolean {
    this.#left -= bytes;
    return this.#left >= 0;
  }
}
