import { type Access, type Gpa, type Gva, u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import type { DecodedInstruction } from '@introd/x86';
import type { PageHook } from '../page-hooks/page-hooks.js';
import type { PageTableWrite } from './page-table-write.js';

const RIP = u32Index('rip');

/** What an ordinary write hook may ask about the bytes of an access. */
export interface AccessValues {
  /** Bytes at the accessed address as they are in memory now. */
  oldBytes(event: AccessEvent): Uint8Array;
  /** Bytes that the instruction will leave there. */
  newBytes(event: AccessEvent): Uint8Array | undefined;
  /** Shows the guest other bytes than memory holds. */
  overlay(event: AccessEvent, gpa: number, bytes: Uint8Array): boolean;
}

/**
 * One access to a hooked range, as its hooks see it. There is one object for all accesses: a callback that wants to
 * keep something copies it.
 */
export class AccessEvent {
  /** Registers of the VCPU; RIP is at the instruction. */
  vcpu!: VcpuRecord;
  vcpuIndex = 0;
  /** The hook whose callback runs. */
  hook!: PageHook;
  /** First physical address of the access on this page. */
  gpa = 0 as Gpa;
  /** Bytes of the access on this page. */
  size = 0;
  /** The one {@link Access} bit that is asked about. */
  access: Access = 0;
  /** Low half of the linear address. */
  glaLow = 0;
  /** High half of the linear address. */
  glaHigh = 0;
  /**
   * The instruction at RIP. Undefined when the processor made the access by itself (delivering an event), and when the
   * instruction cannot be read or decoded.
   */
  instruction: DecodedInstruction | undefined;
  /**
   * For hooks with `pagingStructure`: the entry and its values before and after the write, which is not yet in memory.
   * Undefined for other hooks.
   */
  pageTableWrite: PageTableWrite | undefined;

  /** To be set by the callback: what shall happen. The strongest verdict of all hooks wins. */
  verdict: Verdict = Verdict.ALLOWED;
  /** To be set by the callback: the hook is not needed any more. */
  removeHook = false;
  /**
   * To be set by the callback along with NOT_ALLOWED: no policy may soften this verdict. The engine counts it; it is for those who
   * protect the engine's own code in the guest, where letting the write pass is no option in any mode.
   */
  forceVerdict = false;
  /**
   * To be set by the callback: the other users' hooks of this access and type need not be asked. What the engine itself guards is not
   * among them: cached code, watched page tables, hidden bytes.
   */
  skipOthers = false;

  readonly #values: AccessValues;

  /** @internal */
  constructor(values: AccessValues) {
    this.#values = values;
  }

  /** Linear address of the access. Allocates; see {@link glaLow}. */
  get gla(): Gva {
    return ((BigInt(this.glaHigh) << 32n) | BigInt(this.glaLow)) as Gva;
  }

  /** RIP of the instruction. Allocates. */
  get rip(): Gva {
    const registers = this.vcpu.u32;
    return ((BigInt(registers[RIP + 1]!) << 32n) | BigInt(registers[RIP]!)) as Gva;
  }

  /**
   * For read hooks: the guest sees other bytes than memory holds. Sets the verdict ALLOWED_PATCHED. Where several hooks cover the same
   * byte the one that was called last wins.
   * @param gpa where `bytes` begin; what lies outside of the access does not count
   * @param bytes what the guest sees; copied
   * @returns false, and nothing is changed, when this is no read or `bytes` lie outside of it altogether
   */
  overlay(gpa: Gpa, bytes: Uint8Array): boolean {
    return this.#values.overlay(this, gpa, bytes);
  }

  /** The accessed bytes as they are in memory now: a copy. Empty when they are not RAM. */
  oldBytes(): Uint8Array {
    return this.#values.oldBytes(this);
  }

  /** The bytes that a write will leave at {@link gpa}: a copy. Undefined for other accesses, and when they are not known. */
  newValue(): { readonly bytes: Uint8Array } | undefined {
    const bytes = this.#values.newBytes(this);
    return bytes === undefined ? undefined : { bytes };
  }
}
