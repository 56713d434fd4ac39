import { Access, ExitKind, type Gfn, type Gpa, PAGE_SIZE, Reply, u32Index, type VcpuRecord } from '@introd/abi';
import {
  type Capability,
  checkExchange,
  checkInjectedEvent,
  checkPageAccess,
  checkReply,
  checkSwitchedExit,
  type FullPort,
  GlueError,
  hasErrorCode,
  type MemoryRegion,
  NO_ERROR_CODE,
  NO_EXIT,
  type RegisterGroup,
  readXsaveState,
  type SwitchedExit,
  writeXsaveState,
} from '@introd/glue';
import { ChaosDraw, type ChaosOptions } from './chaos.js';
import { EXIT_SWITCHES } from './exit-switches.js';
import { FaultyRights } from './faulty-rights.js';
import { GUEST_BLOCK, type MachineCore } from './machine-core.js';
import { MACHINE_LIMITS } from './memory-map.js';
import { type RaceOptions, Races } from './races.js';

/** Longest wait of `next`, in milliseconds of guest time. */
const LONGEST_WAIT = 100;
/** Microseconds in a millisecond: a microsecond is one instruction. */
const PER_MILLISECOND = 1000;

const XCR0 = u32Index('xcr0');
const WITH_ENGINE = 2;
const RAN_SHUTDOWN = 2;

/** What tells the streams of random numbers of one seed apart. */
const RIGHTS_STREAM = 0x5269_6768;
const INJECTION_STREAM = 0x496e_6a65;

/** The machine as a backend: every capability, deterministically. */
export class SimPort implements FullPort {
  readonly backend = 'hv-sim';
  readonly capabilities: ReadonlySet<Capability> = new Set<Capability>([
    'memory',
    'write',
    'map',
    'registers',
    'pause',
    'exits',
    'page-access',
    'inject',
  ]);
  readonly vcpuCount: number;
  readonly memoryRegions: readonly MemoryRegion[];
  readonly guestRecord: VcpuRecord;
  pauseCount = 0;
  readonly #races: Races;
  readonly #rights: FaultyRights;
  readonly #injections: ChaosDraw;
  readonly #injectionWinner: 'interrupt' | number;
  /** Injections that lost against an exception; the machine counts the others. */
  #lostInjections = 0;
  #closed = false;
  readonly #xsave: readonly Uint8Array[];

  constructor(
    readonly core: MachineCore,
    readonly clockOrigin: number,
    { race, chaos, seed }: { readonly race: RaceOptions; readonly chaos: ChaosOptions; readonly seed: number },
    private readonly released: () => void,
  ) {
    this.vcpuCount = core.records.length;
    this.memoryRegions = core.physical.regions;
    this.guestRecord = core.guestRecord;
    this.#xsave = core.records.map((_, index) => core.xsave(index));
    this.#races = new Races(core, race, seed);
    // Streams of their own: what is lost does not depend on what is raced with.
    this.#rights = new FaultyRights(core, new ChaosDraw(chaos.loseRightsChanges ?? 0, seed ^ RIGHTS_STREAM));
    this.#injections = new ChaosDraw(chaos.loseInjections ?? 0, seed ^ INJECTION_STREAM);
    this.#injectionWinner = chaos.injectionWinner ?? 'interrupt';
    core.cpu.attach(1);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.core.cpu.attach(0);
    this.core.clearRights();
    this.released();
  }

  /** What every call of the engine begins with: the other VCPUs go on meanwhile. */
  #enter(): void {
    if (this.#closed) throw new GlueError('ERR_GLUE_CLOSED', 'the port is closed');
    if (this.pauseCount === 0) this.#races.insideCall();
  }

  /** Copies between guest memory and the engine's, in two parts where the other VCPUs may get in between. */
  #copy(address: Gpa, bytes: Uint8Array, write: boolean): boolean {
    const { core } = this;
    const part = (from: number, to: number) =>
      write
        ? core.write(address + from, bytes.subarray(from, to))
        : core.read(address + from, bytes.subarray(from, to));
    const torn = this.pauseCount === 0 ? this.#races.tear(bytes.length) : 0;
    if (torn === 0 || !core.physical.covers(address, bytes.length)) return part(0, bytes.length);
    part(0, torn);
    this.#races.insideCall();
    return part(torn, bytes.length);
  }

  readPhysical(address: Gpa, target: Uint8Array): boolean {
    this.#enter();
    return this.#copy(address, target, false);
  }

  writePhysical(address: Gpa, source: Uint8Array): boolean {
    this.#enter();
    return this.#copy(address, source, true);
  }

  compareExchange(
    address: Gpa,
    size: 1 | 2 | 4 | 8,
    expectedLow: number,
    expectedHigh: number,
    newLow: number,
    newHigh: number,
  ): boolean {
    this.#enter();
    checkExchange(address, size);
    const position = this.core.physical.position(address);
    if (position < 0) {
      throw new GlueError('ERR_GLUE_NO_MEMORY', 'compare-exchange outside of RAM', {
        address: `0x${address.toString(16)}`,
      });
    }
    const { bytes } = this.core;
    const at = this.core.ram + position;
    for (let i = 0; i < size; i++) {
      if (bytes[at + i] !== (((i < 4 ? expectedLow : expectedHigh) >>> ((i & 3) * 8)) & 0xff)) return false;
    }
    this.core.beforeWrite(position);
    for (let i = 0; i < size; i++) bytes[at + i] = (i < 4 ? newLow : newHigh) >>> ((i & 3) * 8);
    return true;
  }

  mapPage(frame: Gfn): Uint8Array | undefined {
    this.#enter();
    return this.core.page(frame);
  }

  vcpu(index: number): VcpuRecord {
    const record = this.core.records[index];
    if (!record) throw new GlueError('ERR_GLUE_NO_SUCH_VCPU', `the guest has no VCPU ${index}`);
    return record;
  }

  fetchRegisters(index: number, _groups: RegisterGroup): void {
    this.#enter();
    this.vcpu(index);
  }

  storeRegisters(index: number, _groups: RegisterGroup): void {
    this.#enter();
    this.vcpu(index);
    // The record is the register file; only what was derived from it must be found again.
    this.core.markStale();
  }

  readMsr(index: number, msr: number): bigint | undefined {
    this.#enter();
    this.vcpu(index);
    if (this.core.cpu.readVcpuMsr(index, msr) === 0) return undefined;
    return (BigInt(this.core.cpu.msrHigh() >>> 0) << 32n) | BigInt(this.core.cpu.msrLow() >>> 0);
  }

  readXsaveArea(index: number, target: Uint8Array): number {
    this.#enter();
    return readXsaveState(this.#xsave[index]!, this.vcpu(index).u32[XCR0]!, target);
  }

  writeXsaveArea(index: number, source: Uint8Array): void {
    this.#enter();
    writeXsaveState(this.#xsave[index]!, this.vcpu(index).u32[XCR0]!, source);
  }

  pause(): void {
    this.#enter();
    this.pauseCount++;
  }

  resume(): void {
    if (this.#closed) throw new GlueError('ERR_GLUE_CLOSED', 'the port is closed');
    if (this.pauseCount === 0) throw new GlueError('ERR_GLUE_NOT_PAUSED', 'resume without pause');
    this.pauseCount--;
    this.#enter();
  }

  next(timeout: number): number {
    this.#enter();
    if (this.core.cpu.waitingExit() < 0 && this.pauseCount === 0) {
      const budget = Math.floor(Math.max(0, Math.min(timeout, LONGEST_WAIT)) * PER_MILLISECOND);
      if (this.core.run(budget, true) === RAN_SHUTDOWN) return this.#shutdown();
    }
    const waiting = this.core.cpu.waitingExit();
    if (waiting < 0) return this.core.cpu.currentShutdown() === 0 ? NO_EXIT : this.#shutdown();
    if (waiting !== GUEST_BLOCK && this.pauseCount === 0) this.#races.beforeDelivery(waiting);
    const index = this.core.cpu.takeExit();
    return index === GUEST_BLOCK ? this.vcpuCount : index;
  }

  /** The guest has stopped: exits that still wait come first, then the shutdown, again and again. */
  #shutdown(): number {
    const index = this.core.cpu.takeExit();
    if (index >= 0 && index !== GUEST_BLOCK) return index;
    this.guestRecord.set32('exitKind', ExitKind.SHUTDOWN);
    this.guestRecord.set32('exitRegister', this.core.cpu.currentShutdown());
    this.guestRecord.set('exitTime', BigInt(this.core.cpu.currentTime()));
    return this.vcpuCount;
  }

  reply(index: number, action: Reply): void {
    this.#enter();
    checkReply(action);
    const block = index === this.vcpuCount ? GUEST_BLOCK : index;
    const record = block === GUEST_BLOCK ? this.guestRecord : this.core.records[block];
    if (!record) throw new GlueError('ERR_GLUE_NO_SUCH_VCPU', `the guest has no record ${index}`);
    const state = this.core.words[this.core.sideIndex(block, 'exitState')];
    if (state !== WITH_ENGINE || record.exitKind === ExitKind.SHUTDOWN) {
      throw new GlueError('ERR_GLUE_NOT_AT_EXIT', `record ${index} stands at no exit`);
    }
    this.core.cpu.reply(block, block === GUEST_BLOCK ? Reply.RETRY : action);
    if (block !== GUEST_BLOCK) this.#races.afterReply(block);
  }

  setExit(exit: SwitchedExit, on: boolean): void {
    this.#enter();
    checkSwitchedExit(exit);
    const register = 'register' in exit ? exit.register : 0;
    if (this.core.cpu.setExit(EXIT_SWITCHES[exit.kind], register, on ? 1 : 0) === 0) {
      throw new GlueError('ERR_GLUE_NOT_SUPPORTED', `at most ${MACHINE_LIMITS.MSR_EXITS} MSRs can be watched`);
    }
  }

  getPageAccess(frame: Gfn): Access {
    this.#enter();
    const position = this.core.framePosition(frame);
    return position < 0 ? Access.ALL : this.#rights.get(position);
  }

  setPageAccess(frame: Gfn, access: Access): void {
    this.#enter();
    checkPageAccess(frame, access);
    const position = this.core.framePosition(frame);
    if (position < 0) {
      throw new GlueError('ERR_GLUE_NO_MEMORY', 'the frame is not RAM', {
        address: `0x${(frame * PAGE_SIZE).toString(16)}`,
      });
    }
    this.#rights.set(position, access);
  }

  flushPageAccess(): void {
    this.#enter();
    this.core.markStale();
  }

  inject(index: number, vector: number, errorCode: number, cr2: bigint): void {
    this.#enter();
    this.vcpu(index);
    checkInjectedEvent(vector, errorCode);
    const { words } = this.core;
    const pending = this.core.sideIndex(index, 'injectPending');
    if (words[pending] === 1) {
      throw new GlueError('ERR_GLUE_INJECTION_PENDING', `an event already waits to be injected into VCPU ${index}`);
    }
    const { core } = this;
    const loses = this.#injections.next();
    const loser = { vector, errorCode, cr2 };
    const event = loses && this.#injectionWinner !== 'interrupt' ? this.#winner(index, this.#injectionWinner) : loser;
    if (event !== loser) this.#lostInjections++;
    words[pending] = 1;
    words[core.sideIndex(index, 'injectLoses')] = loses && event === loser ? 1 : 0;
    words[core.sideIndex(index, 'injectVector')] = event.vector;
    words[core.sideIndex(index, 'injectError')] = event.errorCode;
    const low = core.sideIndex(index, 'injectCr2');
    words[low] = Number(BigInt.asUintN(32, event.cr2));
    words[low + 1] = Number(BigInt.asUintN(32, event.cr2 >> 32n));
  }

  /** The exception that is delivered in place of a lost injection. */
  #winner(index: number, vector: number): { vector: number; errorCode: number; cr2: bigint } {
    const errorCode = hasErrorCode(vector) ? 0 : NO_ERROR_CODE;
    return { vector, errorCode, cr2: this.core.records[index]!.get('cr2') };
  }

  /** Changes of rights lost so far. */
  get lostRightsChanges(): number {
    return this.#rights.lostChanges;
  }

  /** Injections lost so far. */
  get lostInjections(): number {
    return this.#lostInjections + this.core.cpu.currentLostInjections();
  }
}
