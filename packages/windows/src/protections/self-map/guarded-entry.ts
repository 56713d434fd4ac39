import { type Cr3, type Gpa, gfnOf, PAGE_SIZE } from '@introd/abi';
import type { PageHook } from '@introd/core-hooks';
import type { MapCapability } from '@introd/glue';
import type { WindowsProcess } from '../../objects/process.js';
import { entryAddress, OPEN_BITS } from './entry.js';

/** One self-map entry: that of a process's kernel page tables, or of its user ones. */
export class GuardedEntry {
  readonly address: Gpa;
  /**
   * Why the entry may be open to user mode without being told again: a rule allows it, or it was told already and is
   * not to be closed. `undefined` when it was closed at the last look.
   */
  knownOpen: 'allowed-by-rule' | 'told' | undefined;
  /** The write hook on it; only the System process has one. */
  hook: PageHook | undefined;

  /** The page of the entry as 32-bit words, live; `undefined` when it is not RAM. */
  readonly #words: Uint32Array | undefined;
  /** Number of the entry's low half in its page. */
  readonly #low: number;
  #lastLow = 0;
  #lastHigh = 0;

  constructor(
    readonly process: WindowsProcess,
    readonly table: 'kernel' | 'user',
    readonly cr3: Cr3,
    index: number,
    port: MapCapability,
  ) {
    this.address = entryAddress(cr3, index);
    const page = port.mapPage(gfnOf(this.address));
    this.#words = page && new Uint32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
    this.#low = index * 2;
  }

  /** The entry as it is now; `undefined` when it is not RAM. */
  get value(): bigint | undefined {
    return this.#words && join(this.#words[this.#low]!, this.#words[this.#low + 1]!);
  }

  /** The entry as it was when it was last looked at. */
  get lastValue(): bigint {
    return join(this.#lastLow, this.#lastHigh);
  }

  set lastValue(value: bigint) {
    this.#lastLow = Number(BigInt.asUintN(32, value));
    this.#lastHigh = Number(BigInt.asUintN(32, value >> 32n));
  }

  /** Looks at an entry that should be closed, at the price of three loads: whether that is so. */
  isClosed(): boolean {
    const words = this.#words;
    if (words === undefined) return true;
    const low = words[this.#low]!;
    if ((low & OPEN_BITS) === OPEN_BITS) return false;
    this.knownOpen = undefined;
    this.#lastLow = low;
    this.#lastHigh = words[this.#low + 1]!;
    return true;
  }
}

function join(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}
