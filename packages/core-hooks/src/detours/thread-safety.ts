import { type Gva, PAGE_SIZE, type VcpuRecord } from '@introd/abi';
import { RegisterGroup, type RegistersCapability } from '@introd/glue';
import { storeRegisters } from '../dispatch/store-registers.js';
import { type PauseContext, whilePaused } from '../guest-pause.js';
import type { RunningThread, StackRange, ThreadStates } from '../guest-system/thread-states.js';
import { requireOneOf } from '../option-checks.js';
import type { GuestMemory } from '../translation/guest-memory.js';

/** Code of the guest that the engine placed or replaced. */
export interface PatchedCode {
  /** What {@link ThreadCheckOptions.only} names it by. */
  readonly name: string;
  /** Whether an address is in code that would go away. */
  contains(va: Gva): boolean;
  /** Where an address in replaced code has gone; undefined for all others. */
  relocate(va: Gva): Gva | undefined;
}

/** How to look at threads. */
export interface ThreadCheckOptions {
  /** `check`: tell whether a thread is inside. `move`: lead threads inside replaced code to where it went. */
  readonly mode: 'check' | 'move';
  /** Names of the code to look at; default all. */
  readonly only?: readonly string[] | undefined;
}

/** What {@link ThreadSafety.check} found. */
export type ThreadCheck =
  /** No thread is inside (`check`), or `moved` addresses were changed (`move`). */
  | { readonly status: 'safe'; readonly moved: number }
  /** A thread is, or seems to be: an old word on a stack looks the same. */
  | { readonly status: 'in-use'; readonly at: Gva }
  /** Some threads could not be seen, so nothing may be relied on. */
  | { readonly status: 'incomplete'; readonly moved: number };

/** What it needs of the engine. */
export interface ThreadSafetyContext extends PauseContext {
  readonly port: PauseContext['port'] & RegistersCapability;
  readonly vcpus: readonly VcpuRecord[];
  readonly memory: Pick<GuestMemory, 'readVirtual' | 'writeVirtual'>;
  threadStates(): ThreadStates;
  systemCr3(): VcpuRecord['cr3'] | undefined;
}

/** Longest stack; a longer one is an invention of the guest. */
const MAX_STACK = 256 * 1024;
/** Most threads looked at. */
const MAX_THREADS = 65_536;
/** Pages scanned of a stack that is not the thread's own (deferred calls, double faults), by word size. */
const FOREIGN_STACK_PAGES: Readonly<Record<4 | 8, number>> = { 4: 8, 8: 16 };

/** What one pass has found so far. */
class Findings {
  moved = 0;
  found: Gva | undefined;
  incomplete = false;
}

/**
 * Looks where the guest's threads stand before code under them is changed or taken away (core-hooks.md section 16): at RIP and the stack of
 * every VCPU in the kernel, and at the stacks of threads that were interrupted.
 */
export class ThreadSafety {
  readonly #context: ThreadSafetyContext;
  readonly #code: PatchedCode[] = [];

  /** @internal */
  constructor(context: ThreadSafetyContext) {
    this.#context = context;
  }

  /** Has `code` looked at too, from now on. */
  register(code: PatchedCode): void {
    this.#code.push(code);
  }

  /**
   * Looks at every thread while all VCPUs stand still.
   * @throws CoreHooksError ERR_CORE_HOOKS_OPTIONS; what `pause`, and in mode `move` a write, throw
   */
  check({ mode, only }: ThreadCheckOptions): ThreadCheck {
    requireOneOf('the mode', mode ?? 'none', ['check', 'move']);
    const pass = new ThreadPass(
      this.#context,
      this.#code.filter(({ name }) => only?.includes(name) ?? true),
      mode === 'move',
    );
    const { found, moved, incomplete } = whilePaused(this.#context, () => pass.run());
    if (found !== undefined) {
      return { status: 'in-use', at: found };
    }
    return { status: incomplete ? 'incomplete' : 'safe', moved };
  }
}

/** One look at all threads. */
class ThreadPass {
  readonly #context: ThreadSafetyContext;
  readonly #code: readonly PatchedCode[];
  readonly #move: boolean;
  readonly #states: ThreadStates;
  readonly #findings = new Findings();

  constructor(context: ThreadSafetyContext, code: readonly PatchedCode[], move: boolean) {
    this.#context = context;
    this.#code = code;
    this.#move = move;
    this.#states = context.threadStates();
  }

  run(): Findings {
    for (const [index, vcpu] of this.#context.vcpus.entries()) {
      this.#context.port.fetchRegisters(index, RegisterGroup.ALL);
      // An inactive VCPU has no address space; one in user code is in no code of ours.
      if (vcpu.get('cr3') !== 0n && this.#states.isKernelAddress(vcpu.rip)) {
        this.#checkRunning(vcpu, index);
      }
    }
    let seen = 0;
    const walk = this.#states.visitWaiting((thread) => {
      seen++;
      if (thread.preempted) {
        this.#scan(thread.savedStackPointer, thread.stack);
      }
      return seen < MAX_THREADS && !this.#isDone;
    });
    if (walk === 'incomplete' || (walk === 'stopped' && !this.#isDone)) {
      this.#findings.incomplete = true;
    }
    return this.#findings;
  }

  get #isDone(): boolean {
    return this.#findings.found !== undefined;
  }

  #checkRunning(vcpu: VcpuRecord, index: number): void {
    const moved = this.#look(vcpu.rip);
    if (moved !== undefined) {
      const { rip } = vcpu;
      vcpu.set('rip', moved);
      if (storeRegisters(this.#context, index, RegisterGroup.GENERAL)) {
        this.#findings.moved++;
      } else {
        vcpu.set('rip', rip);
        this.#findings.incomplete = true;
      }
    }
    const thread = this.#states.running(vcpu);
    if (thread === undefined) {
      this.#findings.incomplete = true;
      return;
    }
    this.#checkStacks(vcpu, thread);
  }

  /** The lowest pointer on the thread's stack is scanned from; of others each is a stack of its own. */
  #checkStacks(vcpu: VcpuRecord, { stack, savedStackPointer }: RunningThread): void {
    const { wordSize } = this.#states;
    const pointers = [vcpu.get('rsp'), savedStackPointer, wordSize === 4 ? vcpu.get('rbp') : undefined]
      .filter((pointer): pointer is Gva => pointer !== undefined && this.#states.isKernelAddress(pointer as Gva))
      .toSorted((one, other) => (one < other ? -1 : one > other ? 1 : 0));
    let ownStack = false;
    for (const pointer of pointers) {
      if (pointer >= stack.low && pointer < stack.high) {
        if (!ownStack) {
          ownStack = true;
          this.#scan(pointer, stack);
        }
      } else {
        const first = pointer & ~BigInt(PAGE_SIZE - 1);
        const high = (first + BigInt(FOREIGN_STACK_PAGES[wordSize] * PAGE_SIZE)) as Gva;
        this.#scan(pointer, { low: pointer, high });
      }
    }
  }

  /** Looks at every word from a stack pointer up, to the end of the stack or the first page that is not mapped. */
  #scan(from: Gva, { low, high }: StackRange): void {
    const { wordSize } = this.#states;
    const cr3 = this.#context.systemCr3();
    if (cr3 === undefined || high - low > MAX_STACK || from < low) {
      this.#findings.incomplete = true;
      return;
    }
    if (from % BigInt(wordSize) !== 0n || !this.#states.isKernelAddress(from)) {
      // No stack of kernel code.
      return;
    }
    const page = new Uint8Array(PAGE_SIZE);
    for (let at: bigint = from; at < high && !this.#isDone; ) {
      const next = (at | BigInt(PAGE_SIZE - 1)) + 1n;
      const end = next < high ? next : high;
      const bytes = page.subarray(0, Number(end - at));
      if (this.#context.memory.readVirtual(cr3, at as Gva, bytes).status !== 'ok') {
        return;
      }
      this.#scanWords(cr3, at, bytes, wordSize);
      at = end;
    }
  }

  #scanWords(cr3: VcpuRecord['cr3'], at: bigint, bytes: Uint8Array, wordSize: 4 | 8): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let offset = 0; offset + wordSize <= bytes.length && !this.#isDone; offset += wordSize) {
      const word = wordSize === 8 ? view.getBigUint64(offset, true) : BigInt(view.getUint32(offset, true));
      const moved = this.#look(word as Gva);
      if (moved !== undefined) {
        const value = new Uint8Array(8);
        new DataView(value.buffer).setBigUint64(0, moved, true);
        const { status } = this.#context.memory.writeVirtual(
          cr3,
          (at + BigInt(offset)) as Gva,
          value.subarray(0, wordSize),
        );
        if (status === 'ok') {
          this.#findings.moved++;
        } else {
          this.#findings.incomplete = true;
        }
      }
    }
  }

  /** @returns where the address has to point instead, in mode `move` */
  #look(va: Gva): Gva | undefined {
    for (const code of this.#code) {
      if (this.#move) {
        const moved = code.relocate(va);
        if (moved !== undefined) {
          return moved;
        }
      } else if (code.contains(va)) {
        this.#findings.found = va;
        return undefined;
      }
    }
    return undefined;
  }
}
