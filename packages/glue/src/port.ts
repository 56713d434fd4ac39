import type { Access, Gfn, Gpa, Reply, VcpuRecord } from '@introd/abi';

/**
 * What a backend may be able to do. A port is the intersection of what its backend really can: code that needs more
 * narrows it with {@link supports}, and does not compile without.
 *
 * ```text
 * memory ── read guest-physical memory                   every backend
 *   ├── write ── write it, compare-exchange it           not an image
 *   └── map ── look at a frame without a copy            where memory is shared
 * registers ── VCPU records, read and written            a live guest, some images (read)
 * pause ── stop all VCPUs, counted                       a live guest
 * exits ── next(), reply(), which exits are raised       blocking introspection
 *   ├── page-access ── second-level rights of frames
 *   └── inject ── exceptions into a VCPU
 * ```
 */
export type Capability = 'memory' | 'write' | 'map' | 'registers' | 'pause' | 'exits' | 'page-access' | 'inject';

/** A contiguous range of guest RAM. */
export interface MemoryRegion {
  /** First address, a multiple of 4096. */
  readonly start: Gpa;
  /** Length in bytes, a multiple of 4096. */
  readonly size: number;
}

/** What every port has. */
export interface PortBase {
  /** Name of the backend, for people: `hv-sim`. */
  readonly backend: string;
  /** What this port can do. */
  readonly capabilities: ReadonlySet<Capability>;
  /** Number of VCPUs, 1 or more. */
  readonly vcpuCount: number;
  /** Unix time in milliseconds at which guest time is 0. Exit times count in microseconds from here. */
  readonly clockOrigin: number;
  /** Lets the guest go on untouched and releases everything. A second call does nothing. */
  close(): void;
}

/** Reading guest-physical memory. */
export interface MemoryCapability {
  /** The guest's RAM, ascending, without overlaps. */
  readonly memoryRegions: readonly MemoryRegion[];
  /**
   * Fills `target` with the bytes at `address`. May cross pages.
   * @returns false, and `target` is unspecified, when some byte of the range is not RAM.
   */
  readPhysical(address: Gpa, target: Uint8Array): boolean;
}

/** Writing guest-physical memory. Second-level rights do not apply to the engine. */
export interface WriteCapability {
  /**
   * Writes `source` at `address`. May cross pages.
   * @returns false, and nothing is written, when some byte of the range is not RAM.
   */
  writePhysical(address: Gpa, source: Uint8Array): boolean;
  /**
   * Replaces a value of 1, 2, 4 or 8 bytes if memory still holds the expected one, in one step that no VCPU can see
   * half of. Values are given as two unsigned 32-bit halves; `address` is a multiple of `size`.
   * @returns whether memory held the expected value and now holds the new one.
   * @throws GlueError ERR_GLUE_BAD_EXCHANGE for another size or a misaligned address, ERR_GLUE_NO_MEMORY when the address
   *   is not RAM
   */
  compareExchange(
    address: Gpa,
    size: 1 | 2 | 4 | 8,
    expectedLow: number,
    expectedHigh: number,
    newLow: number,
    newHigh: number,
  ): boolean;
}

/** Looking at guest memory without a copy. */
export interface MapCapability {
  /**
   * The 4096 live bytes of a frame: the guest's writes show in it. Its `byteOffset` is a multiple of 8. To be read only;
   * writes go through {@link WriteCapability}.
   * @returns undefined when the frame is not RAM.
   */
  mapPage(frame: Gfn): Uint8Array | undefined;
}

/** Groups of registers that a backend may fetch and store separately; bits that combine. */
export const RegisterGroup = {
  /** RAX..R15, RIP, RFLAGS */
  GENERAL: 1,
  /** CR0, CR2, CR3, CR4, CR8, the PDPTE registers, XCR0, DR0..DR7, EFER and the other MSRs of the record */
  CONTROL: 2,
  /** Segment registers, LDTR, TR, GDTR, IDTR */
  SEGMENTS: 4,
  ALL: 7,
} as const;
/** A combination of the {@link RegisterGroup} bits. */
export type RegisterGroup = number;

/** Registers of a VCPU. */
export interface RegistersCapability {
  /**
   * The record of a VCPU. Always the same object for the same number. What it holds is current while the VCPU stands at
   * an exit; at other times after {@link fetchRegisters}.
   * @throws GlueError ERR_GLUE_NO_SUCH_VCPU
   */
  vcpu(index: number): VcpuRecord;
  /** Brings registers of a VCPU into its record. Meaningful while it is paused or at an exit. */
  fetchRegisters(index: number, groups: RegisterGroup): void;
  /** Makes the VCPU take over what its record holds. */
  storeRegisters(index: number, groups: RegisterGroup): void;
  /** Value of an MSR that the record has no field for. `undefined` when the VCPU has no such MSR. */
  readMsr(index: number, msr: number): bigint | undefined;
  /**
   * Copies the x87, XMM and further vector registers of a VCPU as an XSAVE area in standard form (XSAVE_AREA of
   * @introd/abi, SDM vol. 1, 13.4), as far as `target` reaches: components of XCR0, and x87 and SSE always. Components in
   * their initial configuration are written out too; XSTATE_BV names the others. Current when `vcpu`'s record is.
   * @returns size in bytes of the whole area for the VCPU's XCR0, 576 or more
   * @throws GlueError ERR_GLUE_NO_SUCH_VCPU
   */
  readXsaveArea(index: number, target: Uint8Array): number;
  /**
   * Makes the VCPU take over an area that {@link readXsaveArea} has filled. As XRSTOR does, a component without its bit in
   * XSTATE_BV goes to its initial configuration, MXCSR is taken always.
   * @throws GlueError ERR_GLUE_NO_SUCH_VCPU, and ERR_GLUE_BAD_XSAVE_AREA, with nothing changed, when the area is shorter
   *   than its components, compacted, or holds bits that the processor would refuse
   */
  writeXsaveArea(index: number, source: Uint8Array): void;
}

/** Stopping the whole guest. */
export interface PauseCapability {
  /** Stops every VCPU; they stand still when it returns. Counted: as many {@link resume} are needed. */
  pause(): void;
  /**
   * Takes back one {@link pause}.
   * @throws GlueError ERR_GLUE_NOT_PAUSED
   */
  resume(): void;
  /** Pauses not yet taken back. */
  readonly pauseCount: number;
}

/** Value of {@link ExitsCapability.next} when the time was over without an exit. */
export const NO_EXIT = -1;

/** Exits that are raised only while they are switched on. EPT violations, ticks and shutdowns always are. */
export type SwitchedExit =
  | { readonly kind: 'cr-write'; readonly register: 0 | 3 | 4 | 8 }
  | { readonly kind: 'msr-write'; readonly register: number }
  | { readonly kind: 'xcr-write' }
  | { readonly kind: 'descriptor-table' }
  | { readonly kind: 'breakpoint' }
  | { readonly kind: 'vmcall' }
  | { readonly kind: 'event-injected' }
  /** Second-level violations by the page walker's accessed and dirty updates, which a backend otherwise resolves itself. */
  | { readonly kind: 'page-walk-updates' }
  /**
   * How much of a repeated string instruction ALLOW_ONCE and SUPPLY_READ let through. Off: all remaining elements on the
   * pages of the current one (with SUPPLY_READ, as far as the data reaches), as an emulator does in one exit. On: one
   * element, so that each iteration exits.
   */
  | { readonly kind: 'rep-iterations' };

/** Waiting for exits and answering them. */
export interface ExitsCapability {
  /** The record in which exits of the guest as a whole arrive (ticks, shutdown); {@link next} names it by `vcpuCount`. */
  readonly guestRecord: VcpuRecord;
  /**
   * Waits for an exit. VCPUs that stand at one already delivered and not yet replied to do not run.
   * @param timeout at most this many milliseconds of guest time (hv-sim) or host time (the others); never more than 100
   * @returns number of the record that holds the exit, or {@link NO_EXIT}
   */
  next(timeout: number): number;
  /**
   * Lets a VCPU go on. The reply's details (`replyValue`, `replyData`) are in its record. For the guest record the action is
   * {@link Reply}.RETRY; a shutdown has no reply.
   * @throws GlueError ERR_GLUE_BAD_REPLY for an action that is none of {@link Reply}, ERR_GLUE_NO_SUCH_VCPU,
   *   ERR_GLUE_NOT_AT_EXIT; the VCPU then stays where it is
   */
  reply(index: number, action: Reply): void;
  /**
   * Switches a kind of exit on or off.
   * @throws GlueError ERR_GLUE_BAD_EXIT for an unknown kind, or a register that it does not have; ERR_GLUE_NOT_SUPPORTED
   *   when the backend cannot watch that many registers
   */
  setExit(exit: SwitchedExit, on: boolean): void;
}

/** Second-level rights of guest frames, the same for all VCPUs, separate from the guest's own tables. */
export interface PageAccessCapability {
  /** Rights of a frame; {@link Access}.ALL unless set, and of what is not RAM. */
  getPageAccess(frame: Gfn): Access;
  /**
   * Sets the rights of a frame. They hold for every VCPU after {@link flushPageAccess}, and may hold before.
   * @throws GlueError ERR_GLUE_BAD_ACCESS for what is no {@link Access}, ERR_GLUE_ACCESS_NOT_EXPRESSIBLE for write without
   *   read, ERR_GLUE_NO_MEMORY when the frame is not RAM
   */
  setPageAccess(frame: Gfn, access: Access): void;
  /**
   * Makes all rights set so far hold for every VCPU: one batch, one invalidation. With it every VCPU forgets what it remembers of
   * linear addresses too, as INVEPT has it (SDM vol. 3C, 29.4.3.1): the next access walks the guest's tables. It does so even when no
   * right has changed.
   */
  flushPageAccess(): void;
}

/** `errorCode` of {@link InjectCapability.inject} for exceptions that have none. */
export const NO_ERROR_CODE = -1;

/** Exceptions for the guest. */
export interface InjectCapability {
  /**
   * Makes a VCPU take an exception before its next instruction. One may wait per VCPU. That it was really delivered (or
   * that another event was, in its place) is told by an exit, when that is switched on.
   * @param vector 0..31
   * @param errorCode 16 bits for exceptions that have one (8, 10..14, 17, 21), {@link NO_ERROR_CODE} for the others
   * @param cr2 loaded into CR2 when the vector is 14
   * @throws GlueError ERR_GLUE_BAD_EVENT, ERR_GLUE_INJECTION_PENDING
   */
  inject(index: number, vector: number, errorCode: number, cr2: bigint): void;
}

interface CapabilityMembers {
  memory: MemoryCapability;
  write: WriteCapability;
  map: MapCapability;
  registers: RegistersCapability;
  pause: PauseCapability;
  exits: ExitsCapability;
  'page-access': PageAccessCapability;
  inject: InjectCapability;
}

type Intersection<U> = (U extends unknown ? (member: U) => void : never) extends (member: infer I) => void ? I : never;

/** A port with the capabilities `C`. */
export type Port<C extends Capability = 'memory'> = PortBase & Intersection<CapabilityMembers[C]>;

/** A port with every capability. */
export type FullPort = Port<Capability>;

/** Whether a port has all the capabilities named; narrows it when it does. */
export function supports<P extends PortBase, C extends Capability>(port: P, ...needed: C[]): port is P & Port<C> {
  return needed.every((capability) => port.capabilities.has(capability));
}
