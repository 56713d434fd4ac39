import { type ChildProcess, execFile, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  applyPatches,
  initialMemory,
  initialRegisters,
  LAYOUT,
  memoryDifferences,
  type Outcome,
  SELECTORS,
  type TestCase,
} from './test-case.js';

const ADDON = fileURLToPath(new URL('../../build/Release/host_cpu.node', import.meta.url));
const BUILD = fileURLToPath(new URL('../../scripts/build-native.mjs', import.meta.url));
const RUNNER = fileURLToPath(new URL('./host-runner.mjs', import.meta.url));

/** Cases sent to the child at once. */
const BATCH = 500;
/** A batch takes some milliseconds; this is for code that does not come back. */
const BATCH_TIMEOUT_MS = 60_000;

/** CPUID leaves that tell what the host has (SDM vol. 2A, CPUID). */
const LEAVES = [
  [1, 0],
  [7, 0],
  [0x8000_0001, 0],
  [0xd, 1],
] as const;

/** Instruction set extensions by iced's names that a form may need, and where CPUID tells of them: leaf, word, bit. */
const FEATURE_BITS: Readonly<Record<string, readonly [leaf: number, word: number, bit: number]>> = {
  SSE3: [0, 2, 0],
  SSSE3: [0, 2, 9],
  CMPXCHG16B: [0, 2, 13],
  SSE4_1: [0, 2, 19],
  SSE4_2: [0, 2, 20],
  MOVBE: [0, 2, 22],
  POPCNT: [0, 2, 23],
  // CPUID tells OSXSAVE, too: that the host's kernel has switched it on.
  XSAVE: [0, 2, 27],
  AVX: [0, 2, 28],
  BMI1: [1, 1, 3],
  BMI2: [1, 1, 8],
  ADX: [1, 1, 19],
  CLFLUSHOPT: [1, 1, 23],
  CLWB: [1, 1, 24],
  LZCNT: [2, 2, 5],
  PREFETCHW: [2, 2, 8],
  XSAVEOPT: [3, 0, 0],
  XSAVEC: [3, 0, 1],
  XSAVES: [3, 0, 3],
};

interface RunnerOutcome extends Omit<Outcome, 'after' | 'memory'> {
  gpr: BigUint64Array;
  rflags: number;
  xmm: BigUint64Array;
  memory: Uint8Array | undefined;
}

/** Builds the native reference when that is needed; returns why there is none here, or undefined when there is. */
export async function hostCpuMissing(): Promise<string | undefined> {
  const { stdout } = await promisify(execFile)(process.execPath, [BUILD]);
  return stdout.trim() || undefined;
}

/** The processor this runs on, as the reference of the differential test. It lives in a child process. */
export class HostCpu {
  #child: ChildProcess;
  #lacking: ReadonlySet<string>;
  readonly #memory = initialMemory();

  private constructor(child: ChildProcess, lacking: ReadonlySet<string>) {
    this.#child = child;
    this.#lacking = lacking;
  }

  /** Starts the child process. */
  static async open(): Promise<HostCpu> {
    const { child, lacking } = await start();
    return new HostCpu(child, lacking);
  }

  /** Which of these extensions (names of iced's `CpuidFeature`) the host lacks. */
  lacks(features: readonly string[]): string[] {
    return features.filter((feature) => this.#lacking.has(feature));
  }

  /**
   * Runs cases.
   *
   * @returns what each did, in order; `'died'` for one that took the process with it
   */
  async run(cases: readonly TestCase[]): Promise<(Outcome | 'died')[]> {
    const outcomes: (Outcome | 'died')[] = [];
    for (let i = 0; i < cases.length; i += BATCH) outcomes.push(...(await this.#batch(cases.slice(i, i + BATCH))));
    return outcomes;
  }

  /** Why this host's kernel lets no process run 32-bit code, or undefined when it does. */
  async refuses32BitCode(): Promise<string | undefined> {
    // INC EAX, which is a REX prefix in 64-bit code.
    const before = initialRegisters(1, 32);
    const test = { form: 'Inc_r32', rip: LAYOUT.code, bitness: 32, code: Uint8Array.of(0x40), before } as const;
    const [outcome] = await this.run([{ ...test, instructions: 1, seed: 1, patches: [], undefinedFlags: 0 }]);
    if (outcome === undefined || outcome === 'died') return 'a process that enters the segment for it dies';
    const wanted = BigInt.asUintN(32, (before.gpr[0] as bigint) + 1n);
    return outcome.after.gpr[0] === wanted ? undefined : `vector ${outcome.vector} at its first instruction`;
  }

  /** Ends the child process. */
  close(): void {
    this.#child.kill('SIGKILL');
  }

  async #batch(cases: readonly TestCase[]): Promise<(Outcome | 'died')[]> {
    try {
      const results = (await ask(this.#child, { kind: 'run', cases: cases.map(toRunner) })) as RunnerOutcome[];
      return results.map((result, i) => this.#toOutcome(cases[i] as TestCase, result));
    } catch {
      this.close();
      this.#child = (await start()).child;
      if (cases.length === 1) return ['died'];
      const half = cases.length >> 1;
      return [...(await this.#batch(cases.slice(0, half))), ...(await this.#batch(cases.slice(half)))];
    }
  }

  #toOutcome(test: TestCase, result: RunnerOutcome): Outcome {
    const before = applyPatches(this.#memory, test.patches);
    const memory =
      result.memory === undefined ? [] : memoryDifferences(before.subarray(0, LAYOUT.dataSize), result.memory);
    const { vector, error, cr2, rip, gpr, rflags, xmm } = result;
    return { vector, error: vector === undefined ? 0 : error, cr2, rip, after: { gpr, rflags, xmm }, memory };
  }
}

function toRunner({ rip, bitness, code, before, patches }: TestCase) {
  return { rip, bitness, code, ...before, patches };
}

interface Started {
  readonly child: ChildProcess;
  readonly lacking: ReadonlySet<string>;
}

/** How often starting the child is tried. */
const STARTS = 8;

/** The kernel places a process's heap at random, and now and then right where the test's window must be: then another child is tried. */
async function start(): Promise<Started> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce();
    } catch (cause) {
      if (attempt === STARTS) throw cause;
    }
  }
}

async function startOnce(): Promise<Started> {
  const child = fork(RUNNER, [ADDON], {
    execArgv: [],
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const answer = (await ask(child, { kind: 'open', layout: LAYOUT, memory: initialMemory(), leaves: LEAVES })) as {
    selectors: number[];
    cpuid: number[][];
  };
  const [es, cs, ss, ds, fs, gs] = answer.selectors;
  if (cs !== SELECTORS.code || ss !== SELECTORS.stack || (es ?? 1) + (ds ?? 1) + (fs ?? 1) + (gs ?? 1) !== 0) {
    child.kill('SIGKILL');
    throw new Error(`the host's selectors are not those of Linux on x86-64: ${answer.selectors.join(', ')}`);
  }
  const lacking = Object.entries(FEATURE_BITS)
    .filter(([, [leaf, word, bit]]) => (((answer.cpuid[leaf]?.[word] ?? 0) >>> bit) & 1) === 0)
    .map(([name]) => name);
  return { child, lacking: new Set(lacking) };
}

/** Sends a message and waits for the answer; rejects when the child ends instead. */
function ask(child: ChildProcess, message: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), BATCH_TIMEOUT_MS);
    const onExit = (): void => {
      finish();
      reject(new Error('the native runner ended'));
    };
    const onMessage = (answer: unknown): void => {
      finish();
      resolve(answer);
    };
    const finish = (): void => {
      clearTimeout(timer);
      child.off('exit', onExit);
      child.off('message', onMessage);
    };
    child.once('exit', onExit);
    child.once('message', onMessage);
    child.send(message, (error) => {
      if (error !== null) onExit();
    });
  });
}
