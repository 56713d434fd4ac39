import {
  Access,
  createVcpuRecord,
  ExitCause,
  ExitKind,
  type Gfn,
  type Gpa,
  type Gva,
  gpa,
  type Reply,
  type ShutdownReason,
  u32Index,
  type VcpuRecord,
  XSAVE_AREA,
} from '@introd/abi';
import { checkExchange, checkPageAccess, checkReply, checkSwitchedExit } from '../argument-checks.js';
import { GlueError } from '../error.js';
import { checkInjectedEvent } from '../injected-event.js';
import type { Capability, FullPort, MemoryRegion, RegisterGroup, SwitchedExit } from '../port.js';
import { initXsaveState, readXsaveState, writeXsaveState } from '../xsave-state.js';
import { SyntheticExits } from './synthetic-exits.js';
import { SyntheticMemory } from './synthetic-memory.js';

/** Options of {@link createSyntheticPort}. */
export interface SyntheticPortOptions {
  /** Number of VCPUs, default 1. */
  readonly vcpus?: number;
  /** RAM, ascending and page aligned; default 16 MiB at 0. */
  readonly memory?: readonly MemoryRegion[];
  /** Unix time in milliseconds of guest time 0, default 2024-01-01. */
  readonly clockOrigin?: number;
}

/** An exception that the code under test injected. */
export interface SyntheticInjection {
  readonly index: number;
  readonly vector: number;
  readonly errorCode: number;
  readonly cr2: bigint;
}

/** Details of an EPT violation to raise. */
export interface SyntheticViolation {
  readonly gpa: Gpa;
  readonly gla?: Gva;
  readonly access: Access;
  /** Default DATA, or FETCH when the access is exactly EXECUTE. */
  readonly cause?: ExitCause;
  /** Bytes, default 0 (unknown). */
  readonly size?: number;
}

const ALL_CAPABILITIES: readonly Capability[] = [
  'memory',
  'write',
  'map',
  'registers',
  'pause',
  'exits',
  'page-access',
  'inject',
];

const XCR0 = u32Index('xcr0');
const KIND = u32Index('exitKind');
const CAUSE = u32Index('exitCause');
const ACCESS = u32Index('exitAccess');
const SIZE = u32Index('exitSize');
const GPA = u32Index('exitGpa');
const GLA_VALID = u32Index('exitGlaValid');
const REGISTER = u32Index('exitRegister');
const VECTOR = u32Index('exitVector');
const ERROR_CODE = u32Index('exitErrorCode');
const OLD_VALUE = u32Index('exitOldValue');
const NEW_VALUE = u32Index('exitNewValue');
const REPLY_VALUE = u32Index('replyValue');

/**
 * A port with every capability and no processor behind it: RAM in an array, VCPU records that the test fills, exits that
 * the test raises. For unit tests of what sits on a port, and for benchmarks: nothing on the way of an exit allocates.
 */
export class SyntheticPort implements FullPort {
  readonly backend = 'synthetic';
  readonly capabilities: ReadonlySet<Capability> = new Set(ALL_CAPABILITIES);
  readonly vcpuCount: number;
  readonly clockOrigin: number;
  readonly memoryRegions: readonly MemoryRegion[];
  readonly guestRecord: VcpuRecord;

  /** Guest time in microseconds that the next exit carries; the test moves it. */
  time = 0;
  /** Calls of `setPageAccess` so far. */
  pageAccessSets = 0;
  /** Calls of `flushPageAccess` so far. */
  pageAccessFlushes = 0;
  /** Calls of `storeRegisters` so far. */
  registerStores = 0;
  /** Calls of `reply` so far. */
  replies = 0;
  /** What was injected, oldest first. The injection of a VCPU stays pending until {@link reportInjection}. */
  readonly injections: SyntheticInjection[] = [];
  /** MSRs outside the record that `readMsr` knows. */
  readonly msrs = new Map<number, bigint>();

  readonly #memory: SyntheticMemory;
  readonly #records: VcpuRecord[] = [];
  readonly #xsave: Uint8Array[] = [];
  readonly #exits: SyntheticExits;
  readonly #pendingInjection: Uint8Array;
  readonly #exitsOn = new Set<string>();
  #pauses = 0;
  #closed = false;

  constructor(options: SyntheticPortOptions = {}) {
    this.vcpuCount = options.vcpus ?? 1;
    this.clockOrigin = options.clockOrigin ?? Date.UTC(2024, 0, 1);
    this.memoryRegions = options.memory ?? [{ start: gpa(0), size: 16 * 1024 * 1024 }];
    this.#memory = new SyntheticMemory(this.memoryRegions);
    for (let index = 0; index <= this.vcpuCount; index++) this.#records.push(createVcpuRecord(index));
    this.guestRecord = this.#records[this.vcpuCount]!;
    for (let index = 0; index < this.vcpuCount; index++) {
      const state = new Uint8Array(XSAVE_AREA.size);
      initXsaveState(state);
      this.#xsave.push(state);
    }
    this.#exits = new SyntheticExits(this.#records);
    this.#pendingInjection = new Uint8Array(this.vcpuCount);
  }

  // --- what the test does ---

  /** Queues the exit that the record `index` holds (`vcpuCount`: the guest record); {@link next} returns it. */
  raise(index: number): void {
    this.#exits.raise(index, this.time);
  }

  /** Fills the record of a VCPU with an EPT violation and queues it. */
  raiseViolation(index: number, violation: SyntheticViolation): void {
    const record = this.#records[index]!;
    const words = record.u32;
    words[KIND] = ExitKind.EPT_VIOLATION;
    words[CAUSE] = violation.cause ?? (violation.access === Access.EXECUTE ? ExitCause.FETCH : ExitCause.DATA);
    words[ACCESS] = violation.access;
    words[SIZE] = violation.size ?? 0;
    words[GPA] = violation.gpa % 2 ** 32;
    words[GPA + 1] = violation.gpa / 2 ** 32;
    words[GLA_VALID] = violation.gla === undefined ? 0 : 1;
    record.set('exitGla', violation.gla ?? 0n);
    this.raise(index);
  }

  /** Fills the record of a VCPU with a CR, MSR or XCR write and queues it. */
  raiseRegisterWrite(
    index: number,
    kind: typeof ExitKind.CR_WRITE | typeof ExitKind.MSR_WRITE | typeof ExitKind.XCR_WRITE,
    register: number,
    oldValue: bigint,
    newValue: bigint,
  ): void {
    const record = this.#records[index]!;
    record.u32[KIND] = kind;
    record.u32[REGISTER] = register;
    record.set('exitOldValue', oldValue);
    record.set('exitNewValue', newValue);
    record.u32[REPLY_VALUE] = record.u32[NEW_VALUE]!;
    record.u32[REPLY_VALUE + 1] = record.u32[NEW_VALUE + 1]!;
    this.raise(index);
  }

  /**
   * Queues the exit that the reply SINGLE_STEP asks for; the test has moved the record's RIP.
   * @throws GlueError ERR_GLUE_NOT_AT_EXIT when that reply was not given, or its exit was raised already
   */
  raiseSingleStep(index: number): void {
    this.#exits.raiseSingleStep(index, this.time);
  }

  /** Queues a tick of the guest. Time is what the test set. */
  raiseTick(): void {
    this.guestRecord.u32[KIND] = ExitKind.TICK;
    this.raise(this.vcpuCount);
  }

  /** Queues the end of the guest. */
  raiseShutdown(reason: ShutdownReason): void {
    this.guestRecord.u32[KIND] = ExitKind.SHUTDOWN;
    this.guestRecord.u32[REGISTER] = reason;
    this.raise(this.vcpuCount);
  }

  /** Queues the report that an event was delivered to a VCPU, and takes back the pending injection. */
  reportInjection(index: number, vector: number, errorCode: number, cr2: bigint): void {
    const record = this.#records[index]!;
    record.u32[KIND] = ExitKind.EVENT_INJECTED;
    record.u32[VECTOR] = vector;
    record.u32[ERROR_CODE] = errorCode;
    record.u32[OLD_VALUE] = 0;
    record.u32[OLD_VALUE + 1] = 0;
    record.set('exitNewValue', cr2);
    this.#pendingInjection[index] = 0;
    this.raise(index);
  }

  /** The last reply that a record got, `undefined` before the first. */
  lastReply(index: number): Reply | undefined {
    return this.#exits.lastReply(index);
  }

  /** Whether a kind of exit is switched on. */
  isExitOn(exit: SwitchedExit): boolean {
    return this.#exitsOn.has(switchName(exit));
  }

  // --- the port ---

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#memory.allowAll();
    this.#exitsOn.clear();
    this.#exits.clear();
  }

  readPhysical(address: Gpa, target: Uint8Array): boolean {
    this.#assertOpen();
    return this.#memory.read(address, target);
  }

  writePhysical(address: Gpa, source: Uint8Array): boolean {
    this.#assertOpen();
    return this.#memory.write(address, source);
  }

  compareExchange(
    address: Gpa,
    size: 1 | 2 | 4 | 8,
    expectedLow: number,
    expectedHigh: number,
    newLow: number,
    newHigh: number,
  ): boolean {
    this.#assertOpen();
    checkExchange(address, size);
    return this.#memory.compareExchange(address, size, expectedLow, expectedHigh, newLow, newHigh);
  }

  mapPage(frame: Gfn): Uint8Array | undefined {
    this.#assertOpen();
    return this.#memory.page(frame);
  }

  vcpu(index: number): VcpuRecord {
    this.#assertOpen();
    this.#assertVcpu(index);
    return this.#records[index]!;
  }

  fetchRegisters(index: number, _groups: RegisterGroup): void {
    this.#assertOpen();
    this.#assertVcpu(index);
  }

  storeRegisters(index: number, _groups: RegisterGroup): void {
    this.#assertOpen();
    this.#assertVcpu(index);
    this.registerStores++;
  }

  readMsr(index: number, msr: number): bigint | undefined {
    this.#assertOpen();
    this.#assertVcpu(index);
    return this.msrs.get(msr);
  }

  readXsaveArea(index: number, target: Uint8Array): number {
    this.#assertOpen();
    this.#assertVcpu(index);
    return readXsaveState(this.#xsave[index]!, this.#records[index]!.u32[XCR0]!, target);
  }

  writeXsaveArea(index: number, source: Uint8Array): void {
    this.#assertOpen();
    this.#assertVcpu(index);
    writeXsaveState(this.#xsave[index]!, this.#records[index]!.u32[XCR0]!, source);
  }

  get pauseCount(): number {
    return this.#pauses;
  }

  pause(): void {
    this.#assertOpen();
    this.#pauses++;
  }

  resume(): void {
    this.#assertOpen();
    if (this.#pauses === 0) throw new GlueError('ERR_GLUE_NOT_PAUSED', 'resume without pause');
    this.#pauses--;
  }

  next(_timeout: number): number {
    this.#assertOpen();
    return this.#exits.next();
  }

  reply(index: number, action: Reply): void {
    this.#assertOpen();
    checkReply(action);
    if (index !== this.vcpuCount) this.#assertVcpu(index);
    this.#exits.reply(index, action);
    this.replies++;
  }

  setExit(exit: SwitchedExit, on: boolean): void {
    this.#assertOpen();
    checkSwitchedExit(exit);
    if (on) this.#exitsOn.add(switchName(exit));
    else this.#exitsOn.delete(switchName(exit));
  }

  getPageAccess(frame: Gfn): Access {
    this.#assertOpen();
    return this.#memory.access(frame);
  }

  setPageAccess(frame: Gfn, access: Access): void {
    this.#assertOpen();
    checkPageAccess(frame, access);
    this.#memory.setAccess(frame, access);
    this.pageAccessSets++;
  }

  flushPageAccess(): void {
    this.#assertOpen();
    this.pageAccessFlushes++;
  }

  inject(index: number, vector: number, errorCode: number, cr2: bigint): void {
    this.#assertOpen();
    this.#assertVcpu(index);
    checkInjectedEvent(vector, errorCode);
    if (this.#pendingInjection[index] !== 0) {
      throw new GlueError('ERR_GLUE_INJECTION_PENDING', `VCPU ${index} already has an event to take`);
    }
    this.#pendingInjection[index] = 1;
    this.injections.push({ index, vector, errorCode, cr2 });
  }

  #assertOpen(): void {
    if (this.#closed) throw new GlueError('ERR_GLUE_CLOSED', 'the port is closed');
  }

  #assertVcpu(index: number): void {
    if (!(Number.isInteger(index) && index >= 0 && index < this.vcpuCount)) {
      throw new GlueError('ERR_GLUE_NO_SUCH_VCPU', `no VCPU ${index}; the guest has ${this.vcpuCount}`);
    }
  }
}

/** A {@link SyntheticPort}. */
export function createSyntheticPort(options: SyntheticPortOptions = {}): SyntheticPort {
  return new SyntheticPort(options);
}

function switchName(exit: SwitchedExit): string {
  return 'register' in exit ? `${exit.kind} ${exit.register}` : exit.kind;
}
