import type { Bitness, DecodedInstruction } from '@introd/x86';
import type { Paging } from '../translation/paging-mode.js';
import type { CodeMapping } from './code-mapping.js';

/** Where an instruction is looked for. */
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

  /** Whether its translation is guarded in an address space: in another one the same address may lead somewhere else at any time. */
  isGuardedIn(root: number, paging: Paging): boolean {
    const { mappings } = this;
    for (let at = 0; at < mappings.length; at++) {
      const { hook } = mappings[at]!;
      if (hook.root === root && hook.paging === paging) {
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
    const mine = ((BigInt(this.spaceHigh) << 32n) | BigInt(this.spaceLow)) >> 5n;
    const kernel = mine === 0n;
    const page = ((BigInt(this.high) << 32n) | BigInt(this.low)) >> 12n;
    const inSpace = space === undefined || mine === space || (kernel && va !== undefined);
    return inSpace && (va === undefined || BigInt.asUintN(64, va) >> 12n === page);
  }
}
