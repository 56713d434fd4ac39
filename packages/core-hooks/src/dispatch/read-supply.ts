import { Access, ExitCause, PAGE_SIZE, REPLY_DATA_SIZE, u32Index, type VcpuRecord } from '@introd/abi';
import type { AccessList } from '@introd/x86';
import type { PageCache } from '../translation/page-cache.js';
import type { ReadOverlay } from './read-overlay.js';
import type { Resolve } from './store-plan.js';

const EXIT_CAUSE = u32Index('exitCause');
const EXIT_ACCESS = u32Index('exitAccess');
const EXIT_SIZE = u32Index('exitSize');
const EXIT_GLA = u32Index('exitGla');
const EXIT_GLA_VALID = u32Index('exitGlaValid');
const REPLY_DATA_LENGTH = u32Index('replyDataLength');

/** What {@link ReadSupply.prepare} found. */
export const Supply = {
  /** The reply's data shows the guest what it shall see on the page of the exit. */
  READY: 0,
  /** The exit is not about a page with hidden bytes: reading those is an exit of its own. */
  ELSEWHERE: 1,
  /** What is hidden on the page of the exit does not fit into a reply. */
  IMPOSSIBLE: 2,
} as const;
/** One of the {@link Supply} numbers. */
export type Supply = (typeof Supply)[keyof typeof Supply];

/**
 * Makes the data of a reply of what read hooks laid over memory. A reply gives the guest at most 64 bytes from the exit's linear address
 * on, and lets it read the whole frame for this instruction: all that is hidden from it there must be in these bytes.
 */
export class ReadSupply {
  readonly #pages: PageCache;
  readonly #overlay: ReadOverlay;

  constructor(pages: PageCache, overlay: ReadOverlay) {
    this.#pages = pages;
    this.#overlay = overlay;
  }

  /**
   * Fills the reply of a VCPU that stands at an EPT violation.
   * @param list what the instruction touches; empty when only the hardware's report is known
   * @param exitFrame frame of the violation
   */
  prepare(vcpu: VcpuRecord, list: AccessList, exitFrame: number, resolve: Resolve): Supply {
    const registers = vcpu.u32;
    registers[REPLY_DATA_LENGTH] = 0;
    if ((registers[EXIT_ACCESS]! & Access.READ) === 0) {
      return Supply.ELSEWHERE;
    }
    const size = Math.max(registers[EXIT_SIZE]!, 1);
    if (registers[EXIT_CAUSE] !== ExitCause.DATA || registers[EXIT_GLA_VALID] !== 1) {
      // What the processor reads to deliver an event cannot be replaced.
      return this.#overlay.touches(vcpu.exitGpa, size) ? Supply.IMPOSSIBLE : Supply.ELSEWHERE;
    }
    const low = registers[EXIT_GLA]!;
    const high = registers[EXIT_GLA + 1]!;
    // Bytes from the exit's address on that the reply must hold, and those that it had better hold.
    let needed = 0;
    let useful = Math.min(registers[EXIT_SIZE]!, REPLY_DATA_SIZE);
    let isOperand = false;
    for (let operand = 0; operand < list.count; operand++) {
      if ((list.access[operand]! & Access.READ) === 0) {
        continue;
      }
      const size = list.size[operand]!;
      for (let done = 0; done < size; ) {
        const sum = list.low[operand]! + done;
        const atLow = sum >>> 0;
        const atHigh = sum > 0xffff_ffff ? (list.high[operand]! + 1) >>> 0 : list.high[operand]!;
        const count = Math.min(size - done, PAGE_SIZE - (atLow & (PAGE_SIZE - 1)));
        const gpa = resolve(vcpu, atLow, atHigh);
        if (gpa >= 0 && Math.floor(gpa / PAGE_SIZE) === exitFrame) {
          const hidden = this.#overlay.extent(gpa, count);
          const ahead = atLow - low + (atHigh - high) * 2 ** 32;
          if (hidden.first < hidden.end) {
            if (ahead + hidden.first < 0 || ahead + hidden.end > REPLY_DATA_SIZE) {
              return Supply.IMPOSSIBLE;
            }
            needed = Math.max(needed, ahead + hidden.end);
          }
          if (ahead <= 0 && ahead + count > 0) {
            isOperand = true;
            // The operand that the processor asks for: a backend may want all of it.
            useful = Math.max(useful, Math.min(ahead + size - done, REPLY_DATA_SIZE));
          }
        }
        done += count;
      }
    }
    if (!isOperand && this.#overlay.touches(vcpu.exitGpa, size)) {
      // A descriptor or a TSS: the processor takes it as it is.
      return Supply.IMPOSSIBLE;
    }
    if (needed === 0) {
      return Supply.ELSEWHERE;
    }
    return this.#fill(vcpu, low, high, Math.max(needed, useful), resolve);
  }

  #fill(vcpu: VcpuRecord, low: number, high: number, length: number, resolve: Resolve): Supply {
    let done = 0;
    while (done < length) {
      const sum = low + done;
      const atLow = sum >>> 0;
      const gpa = resolve(vcpu, atLow, sum > 0xffff_ffff ? (high + 1) >>> 0 : high);
      const offset = atLow & (PAGE_SIZE - 1);
      const count = Math.min(length - done, PAGE_SIZE - offset);
      const page = gpa < 0 ? undefined : this.#pages.get(Math.floor(gpa / PAGE_SIZE));
      if (page === undefined) {
        break;
      }
      for (let at = 0; at < count; at++) {
        vcpu.replyData[done + at] = page.bytes[offset + at]!;
      }
      this.#overlay.apply(gpa, vcpu.replyData, done, count);
      done += count;
    }
    vcpu.u32[REPLY_DATA_LENGTH] = done;
    return done > 0 ? Supply.READY : Supply.IMPOSSIBLE;
  }
}
