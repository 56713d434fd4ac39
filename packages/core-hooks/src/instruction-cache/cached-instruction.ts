import type { Bitness, DecodedInstruction } from '@introd/x86';
import { type Paging, rootAddress } from '../translation/paging-mode.js';
import type { CodeMapping } from './code-mapping.js';

/** Where an instruction is looked for. The halves are signed: a number outside of 32 signed bits costs an allocation. */
export interface InstructionKey {
  /** Linear address. */
  low: number;
  high: number;
  bitness: Bitness;
  /** CR3 for user code; 0 for kernel code, which is the same in every address space. */
  spaceLow: number;
  spaceHigh: number;
}

/** A decoded instruction in the cache. */
export class CachedInstruction {
  next: CachedInstruction | undefined;
  readonly low: number;
  readonly high: number;
  readonly bitness: Bitness;
  readonly spaceLow: number;
  readonly spaceHigh: number;
  /** Index of the mapping that {@link isGuardedIn} found last. */
  #guardedLast = 0;

  constructor(
    readonly instruction: DecodedInstruction,
    key: InstructionKey,
    readonly frame: number,
    /** Frame that holds its last bytes, when they lie on another page. */
    readonly spillFrame: number,
    /** The virtual pages that it was read through, one or two for each address space that it was met in, the oldest first. */
    readonly mappings: CodeMapping[],
    readonly bucket: number,
    readonly slot: number,
  ) {
    this.low = key.low;
    this.high = key.high;
    this.bitness = key.bitness;
    this.spaceLow = key.spaceLow;
    this.spaceHigh = key.spaceHigh;
  }

  isFor(key: InstructionKey): boolean {
    return (
      this.low === key.low &&
      this.high === key.high &&
      this.bitness === key.bitness &&
      this.spaceLow === key.spaceLow &&
      this.spaceHigh === key.spaceHigh
    );
  }

  /**
   * Whether its translation is guarded in an address space: in another one the same address may lead somewhere else at any time.
   * @param cr3Low signed, as `cr3High`
   */
  isGuardedIn(cr3Low: number, cr3High: number, paging: Paging): boolean {
    const root = rootAddress(paging, cr3Low, cr3High);
    const { mappings } = this;
    // Most often it is the space of the last time.
    if (isOf(mappings[this.#guardedLast], root, paging)) {
      return true;
    }
    for (let at = 0; at < mappings.length; at++) {
      if (isOf(mappings[at], root, paging)) {
        this.#guardedLast = at;
        return true;
      }
    }
    return false;
  }

  /**
   * Whether it begins on the page of an address, in an address space; kernel code is in every one.
   * @param space CR3 without its flag bits, `cr3 >> 5n`; undefined for any
   * @param va undefined for any
   */
  isIn(space: bigint | undefined, va: bigint | undefined): boolean {
    const mine = wordOf(this.spaceHigh, this.spaceLow) >> 5n;
    const kernel = mine === 0n;
    const page = wordOf(this.high, this.low) >> 12n;
    const inSpace = space === undefined || mine === space || (kernel && va !== undefined);
    return inSpace && (va === undefined || BigInt.asUintN(64, va) >> 12n === page);
  }
}

/** The 64-bit word that two halves make, signed or not. */
export function wordOf(high: number, low: number): bigint {
  return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
}

function isOf(mapping: CodeMapping | undefined, root: number, paging: Paging): boolean {
  return mapping !== undefined && mapping.hook.root === root && mapping.hook.paging === paging;
}
