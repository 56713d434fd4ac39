import {
  type Access,
  accessText,
  ExitCause,
  ExitKind,
  type Gpa,
  type Gva,
  gfnOf,
  hex64,
  Reply,
  type VcpuRecord,
} from '@introd/abi';
import { GlueError, type GlueErrorCode } from '../../error.js';
import { type FullPort, NO_EXIT, type PortBase } from '../../port.js';
import type { ConformanceGuest } from './guest.js';
import { Mailbox, windowOf } from './layout.js';

/** A started conformance guest, as the backend under test hands it to the suite. */
export interface ConformanceTarget {
  /** A port on the guest; nothing has run yet. */
  readonly port: PortBase;
  /** Lets the guest run for about this many milliseconds of its time without a port; absent when it cannot. */
  runUnattended?(milliseconds: number): void;
  /** Opens another port on the same guest after the first was closed; absent when it cannot. */
  reopen?(): PortBase;
  /** Releases the guest. */
  dispose?(): void;
}

/** What a case expects of an EPT violation. */
export interface ExpectedViolation {
  readonly vcpu?: number;
  readonly cause?: ExitCause;
  readonly gpa: Gpa;
  readonly access: Access;
  /** RIP at the exit. */
  readonly rip?: Gva;
  readonly gla?: Gva;
}

/** Milliseconds of guest time of one wait; the contract allows up to 100. */
const WAIT = 20;
/** Waits before an exit counts as missing. */
const WAITS = 250;

const KIND_NAMES = Object.fromEntries(Object.entries(ExitKind).map(([name, kind]) => [kind, name]));

function broken(message: string): GlueError {
  return new GlueError('ERR_GLUE_NOT_CONFORMING', message);
}

/** Fails the case unless the condition holds. */
export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw broken(message);
}

/** Fails the case unless both are the same value. */
export function equal<T>(actual: T, expected: T, what: string): void {
  if (!Object.is(actual, expected)) throw broken(`${what}: expected ${show(expected)}, got ${show(actual)}`);
}

/** Fails the case unless the call throws the error of the code. */
export function throws(code: GlueErrorCode, call: () => unknown, what: string): void {
  try {
    call();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === code) return;
    throw new GlueError('ERR_GLUE_NOT_CONFORMING', `${what}: expected ${code}, got ${String(error)}`, { cause: error });
  }
  throw broken(`${what}: expected ${code}, but nothing was thrown`);
}

function show(value: unknown): string {
  return typeof value === 'bigint' || (typeof value === 'number' && value > 9) ? hex64(value) : String(value);
}

/** One case's view of the guest: its port, memory access by value, and waiting. */
export class ConformanceSession {
  /** Typed as a full port; a case uses only the capabilities that it names in `needs`. */
  port: FullPort;

  constructor(
    readonly target: ConformanceTarget,
    readonly guest: ConformanceGuest,
  ) {
    this.port = target.port as FullPort;
  }

  /** Address of a labelled instruction of the guest's programs. */
  label(name: string): Gva {
    return this.guest.label(name);
  }

  /** Eight bytes of guest memory. */
  read64(address: Gpa): bigint {
    const bytes = new Uint8Array(8);
    check(this.port.readPhysical(address, bytes), `readPhysical(${hex64(address)}) of RAM must succeed`);
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }

  /** Writes eight bytes of guest memory. */
  write64(address: Gpa, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    check(this.port.writePhysical(address, bytes), `writePhysical(${hex64(address)}) of RAM must succeed`);
  }

  /** Sets rights of the frame that holds an address, and flushes. */
  protect(address: Gpa, access: Access): void {
    this.port.setPageAccess(gfnOf(address), access);
    this.port.flushPageAccess();
  }

  /** The record that {@link FullPort.next} names. */
  record(index: number): VcpuRecord {
    return index === this.port.vcpuCount ? this.port.guestRecord : this.port.vcpu(index);
  }

  /** Waits for the next exit that is not a tick. */
  nextExit(): VcpuRecord {
    for (let i = 0; i < WAITS; i++) {
      const index = this.port.next(WAIT);
      if (index === NO_EXIT) continue;
      const record = this.record(index);
      if (record.exitKind !== ExitKind.TICK) return record;
      this.port.reply(index, Reply.RETRY);
    }
    throw broken(`no exit within ${WAIT * WAITS} ms of guest time; ${this.#mailboxText()}`);
  }

  /** Waits for an exit of a kind. */
  expectExit(kind: ExitKind, vcpu = 0): VcpuRecord {
    const record = this.nextExit();
    if (record.exitKind !== kind) throw broken(`expected exit ${KIND_NAMES[kind]}, got ${describe(record)}`);
    if (kind !== ExitKind.SHUTDOWN) equal(record.get32('index'), vcpu, 'VCPU of the exit');
    return record;
  }

  /** Waits for an EPT violation and checks all that is said about it. */
  expectViolation(expected: ExpectedViolation): VcpuRecord {
    const record = this.expectExit(ExitKind.EPT_VIOLATION, expected.vcpu ?? 0);
    const cause = expected.cause ?? ExitCause.DATA;
    equal(record.exitCause, cause, `cause of ${describe(record)}`);
    equal(record.exitGpa, expected.gpa, `GPA of ${describe(record)}`);
    // A read-modify-write may be reported with its read bit, a write with a read beside it; what is refused must be there.
    equal(record.exitAccess & expected.access, expected.access, `access of ${describe(record)}`);
    const needsGla = cause === ExitCause.DATA || cause === ExitCause.FETCH;
    if (needsGla) equal(record.get32('exitGlaValid'), 1, `linear address known at ${describe(record)}`);
    if (record.get32('exitGlaValid') === 1) {
      const gla = expected.gla ?? (cause === ExitCause.DATA ? windowOf(expected.gpa) : undefined);
      if (gla !== undefined) equal(record.exitGla, gla, `linear address of ${describe(record)}`);
    }
    if (expected.rip !== undefined) equal(record.rip, expected.rip, `RIP of ${describe(record)}`);
    return record;
  }

  /** Replies to VCPU 0 (or another). */
  reply(action: Reply, vcpu = 0): void {
    this.port.reply(vcpu, action);
  }

  /** Lets the guest run until its program has ended; any exit but ticks fails the case. */
  runToEnd(flag: Gpa = Mailbox.DONE): void {
    for (let i = 0; i < WAITS; i++) {
      if (this.#flag(flag)) return;
      const index = this.port.next(WAIT);
      if (index === NO_EXIT) continue;
      const record = this.record(index);
      if (record.exitKind !== ExitKind.TICK) throw broken(`unexpected exit: ${describe(record)}`);
      this.port.reply(index, Reply.RETRY);
    }
    throw broken(`the program did not end within ${WAIT * WAITS} ms of guest time`);
  }

  /** Lets the program end, and checks that it took no exception. */
  runToPlainEnd(flag: Gpa = Mailbox.DONE): void {
    this.runToEnd(flag);
    equal(this.read64(Mailbox.VECTOR), 0xffff_ffff_ffff_ffffn, 'vector of an exception that the guest took');
  }

  #flag(address: Gpa): boolean {
    const bytes = new Uint8Array(4);
    return this.port.readPhysical(address, bytes) && bytes[0] === 1;
  }

  #mailboxText(): string {
    return `program ended: ${this.#flag(Mailbox.DONE)}, exception: ${hex64(this.read64(Mailbox.VECTOR))}`;
  }
}

/** An exit in one line, for messages. */
export function describe(record: VcpuRecord): string {
  const kind = KIND_NAMES[record.exitKind] ?? `kind ${record.exitKind}`;
  if (record.exitKind !== ExitKind.EPT_VIOLATION) {
    return `${kind} (register ${record.get32('exitRegister')}, VCPU ${record.get32('index')}, RIP ${hex64(record.rip)})`;
  }
  const access = accessText(record.exitAccess);
  return `${kind} (${access} at ${hex64(record.exitGpa)}, cause ${record.exitCause}, RIP ${hex64(record.rip)})`;
}
