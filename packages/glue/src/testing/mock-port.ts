import { GlueError } from '../error.js';
import { type FullPort, NO_EXIT, type PortBase } from '../port.js';
import { decoratePort, type PortOperation } from '../port-decorator.js';

/** What a call returns when it is made to fail by its own outcome, for the calls that have one. */
const REFUSALS = {
  readPhysical: false,
  writePhysical: false,
  compareExchange: false,
  mapPage: undefined,
  readMsr: undefined,
  next: NO_EXIT,
} as const;

/** A call that can fail without throwing. */
export type RefusableOperation = keyof typeof REFUSALS;

/** One logged call. Bytes that were read or written are copies, taken after the call. */
export type PortCall<O extends PortOperation = PortOperation> = {
  [K in O]: {
    /** Position in the log, from 0, over all operations; dropped calls count. */
    readonly sequence: number;
    readonly operation: K;
    readonly args: Readonly<Parameters<FullPort[K]>>;
    /** What it returned; `undefined` also when it threw. */
    readonly returned: ReturnType<FullPort[K]> | undefined;
    /** What it threw, if it did. */
    readonly thrown: unknown;
    /** Whether the mock made it fail. */
    readonly injected: boolean;
  };
}[O];

/** How a call is made to fail. */
export interface MockFault<O extends PortOperation = PortOperation> {
  readonly operation: O;
  /** Which call from now on, 1 (default) being the next. */
  readonly nth?: number;
  /** How many calls in a row fail, default 1; `Infinity` for all. */
  readonly times?: number;
  /**
   * `throw` (default): GlueError ERR_GLUE_INJECTED_FAULT. `refuse`: the failure that the call's own result can express
   * (false, undefined, no exit). Either way the inner port is not called.
   */
  readonly by?: O extends RefusableOperation ? 'throw' | 'refuse' : 'throw';
}

/** Options of {@link createMockPort}. */
export interface MockPortOptions {
  /** Calls that the log keeps, default 10,000; the oldest go first. */
  readonly logLimit?: number;
  /** Faults armed from the start. */
  readonly faults?: readonly MockFault[];
}

interface ArmedFault {
  skip: number;
  left: number;
  readonly by: 'throw' | 'refuse';
}

/** A port with its call log and its faults. */
export class MockPort<P extends PortBase> {
  /** The decorated port: the capabilities of the inner one, no more and no less. */
  readonly port: P;
  readonly #limit: number;
  readonly #faults = new Map<PortOperation, ArmedFault[]>();
  #log: PortCall[] = [];
  #sequence = 0;
  #dropped = 0;

  constructor(inner: P, options: MockPortOptions = {}) {
    this.#limit = options.logLimit ?? 10_000;
    this.port = decoratePort(
      inner,
      (operation, call) =>
        (...args) =>
          this.#call(operation, args, () => call(...args)),
    );
    for (const fault of options.faults ?? []) this.#arm(fault.operation, fault);
  }

  /** Logged calls, oldest first; only those of the operations named, when some are. */
  calls(): readonly PortCall[];
  calls<O extends PortOperation>(...operations: O[]): readonly PortCall<O>[];
  calls(...operations: PortOperation[]): readonly PortCall[] {
    if (operations.length === 0) return [...this.#log];
    return this.#log.filter((call) => operations.includes(call.operation));
  }

  /** Calls that the log lost because it was full. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Empties the log. Armed faults stay. */
  clearCalls(): void {
    this.#log = [];
  }

  /** Arms a fault. Several of one operation work independently of each other. */
  fail<O extends PortOperation>(fault: MockFault<O>): void {
    this.#arm(fault.operation, fault as MockFault);
  }

  /** Disarms every fault that has not happened yet. */
  clearFaults(): void {
    this.#faults.clear();
  }

  #arm(operation: PortOperation, fault: MockFault): void {
    const list = this.#faults.get(operation) ?? [];
    list.push({ skip: (fault.nth ?? 1) - 1, left: fault.times ?? 1, by: fault.by ?? 'throw' });
    this.#faults.set(operation, list);
  }

  #call(operation: PortOperation, args: unknown[], run: () => unknown): unknown {
    const fault = this.#dueFault(operation);
    let returned: unknown;
    let thrown: unknown;
    try {
      if (fault === 'throw') {
        throw new GlueError('ERR_GLUE_INJECTED_FAULT', `the test made this call of ${operation} fail`);
      }
      returned = fault === 'refuse' ? REFUSALS[operation as RefusableOperation] : run();
      return returned;
    } catch (error) {
      thrown = error;
      throw error;
    } finally {
      this.#append(operation, args, returned, thrown, fault !== undefined);
    }
  }

  #append(operation: PortOperation, args: unknown[], returned: unknown, thrown: unknown, injected: boolean): void {
    this.#log.push({
      sequence: this.#sequence++,
      operation,
      args: args.map((arg) => (arg instanceof Uint8Array ? arg.slice() : arg)),
      returned,
      thrown,
      injected,
    } as unknown as PortCall);
    if (this.#log.length > this.#limit) {
      this.#log.shift();
      this.#dropped++;
    }
  }

  #dueFault(operation: PortOperation): 'throw' | 'refuse' | undefined {
    const armed = this.#faults.get(operation);
    if (armed === undefined) return undefined;
    let due: 'throw' | 'refuse' | undefined;
    for (const fault of armed) {
      if (fault.skip > 0) fault.skip--;
      else if (fault.left > 0) {
        fault.left--;
        due ??= fault.by;
      }
    }
    return due;
  }
}

/**
 * Wraps any port so that every call is logged and chosen calls fail: with it each error path above a port can be reached
 * in a test. The wrapped port has exactly the capabilities of the inner one.
 */
export function createMockPort<P extends PortBase>(inner: P, options: MockPortOptions = {}): MockPort<P> {
  return new MockPort(inner, options);
}
