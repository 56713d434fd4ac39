import { type Cr3, type Gpa, type Gva, PAGE_SIZE } from '@introd/abi';
import { enterLongMode, Machine, type MachineOptions } from '@introd/hv-sim';
import { type PdbIdentity, ProfileStore } from '@introd/windows-profiles';
import { assembleKernel } from './code/assemble-kernel.js';
import { HostileCode, MAILBOX, type ProcessPlan, type ThreadRole } from './code/plan.js';
import { elfCore, rawImage } from './dump.js';
import { LabError } from './error.js';
import { KERNEL_SIZE } from './kernel-image.js';
import { buildLabImage, type LabImage } from './lab-image.js';
import { labMemory } from './layout.js';
import { GDT_LIMIT, IDT_LIMIT, SELECTOR, START_STATE, TSS_LIMIT } from './processors.js';
import { type LabScenario, mailboxBytes, type ScenarioTarget, scenarioId, scenarioMessage } from './scenario.js';
import { SeededRandom } from './seeded-random.js';

/** Windows build that the lab guest imitates. */
export const LAB_BUILD = 19041;

/** Unix time in ms at which the lab guest boots, unless a given machine has another. */
const BOOT_TIME = Date.UTC(2024, 0, 1);
/** FILETIME counts 100 ns since 1601; this many ms lie between that and 1970. */
const FILETIME_EPOCH_MS = 11_644_473_600_000;

/** Ways in which a lab guest can misbehave, to show that its host survives it. */
export type HostileVariant =
  /** Triple-faults when it is told to run a scenario. */
  | 'triple-fault'
  /** Loops with interrupts off when it is told to run a scenario. */
  | 'loop'
  /** Its process list runs in a circle that does not come back to the head. */
  | 'cyclic-processes';

/** Options of {@link buildLabGuest}. */
export interface LabGuestOptions {
  /** Decides where everything lies, and the ids: an integer. */
  readonly seed: number;
  /** 1..8, default 1. */
  readonly vcpus?: number;
  /** A machine to use again: it is reset. It must have the memory of {@link labMemory} and enough VCPUs. */
  readonly machine?: Machine;
  /** Races of a machine that is made for the guest; see `MachineOptions` of `@introd/hv-sim`. */
  readonly race?: MachineOptions['race'];
  readonly hostile?: HostileVariant;
}

/** A process as the lab made it. */
export interface LabProcess {
  readonly pid: number;
  readonly name: string;
  readonly eprocess: Gva;
  readonly cr3: Cr3;
}

/** What is true of a lab guest: what introspection and forensic tools must find. */
export interface LabTruth {
  readonly build: number;
  readonly kernelBase: Gva;
  /** SizeOfImage of ntoskrnl.exe. */
  readonly kernelSize: number;
  readonly systemCr3: Cr3;
  readonly selfMapIndex: number;
  readonly pdb: PdbIdentity;
  /** Processes in the process list, System first; Idle is in no list. */
  readonly processes: readonly LabProcess[];
  readonly modules: readonly { readonly name: string; readonly base: Gva; readonly size: number }[];
  /** The process in which a scenario of each target runs. */
  readonly targets: Readonly<Record<ScenarioTarget, LabProcess>>;
}

/** How far a lab guest is, as its debug lines tell. */
export type LabPhase = 'booting' | 'ready' | 'running' | 'done' | 'crashed';

/**
 * Builds a guest into a machine, ready for its first instruction.
 * @throws LabError ERR_GUEST_LAB_BAD_OPTION, ERR_GUEST_LAB_MACHINE
 */
export function buildLabGuest(options: LabGuestOptions): LabGuest {
  const vcpus = options.vcpus ?? 1;
  if (!Number.isSafeInteger(options.seed)) {
    throw new LabError('ERR_GUEST_LAB_BAD_OPTION', `the seed ${options.seed} is not an integer`);
  }
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > 8) {
    throw new LabError('ERR_GUEST_LAB_BAD_OPTION', `a lab guest has 1 to 8 VCPUs, not ${vcpus}`);
  }
  const machine = prepareMachine(options.machine, vcpus, options.race);
  const profile = ProfileStore.bundled().byBuild(LAB_BUILD)!;
  const image = buildLabImage(new SeededRandom(options.seed), {
    profile,
    vcpus,
    bootTime: BigInt(machine.clockOrigin + FILETIME_EPOCH_MS) * 10_000n,
    assemble: assembleKernel,
  });
  for (const [frame, page] of image.pages) machine.writePhysical((frame * PAGE_SIZE) as Gpa, page);
  for (let i = 0; i < vcpus; i++) startVcpu(machine, image, i);
  const guest = new LabGuest(machine, image, truthOf(image));
  if (options.hostile === 'cyclic-processes') closeProcessCycle(machine, image);
  else if (options.hostile !== undefined) guest.setHostile(options.hostile);
  return guest;
}

/** A small NT-like guest in a machine. Running the machine (or an engine on its port) runs the guest. */
export class LabGuest {
  readonly #image: LabImage;
  readonly #lines: string[] = [];
  #seen = 0;
  #sequence = 0;
  #current: string | undefined;
  #linesAtStart = 0;

  /** Made by {@link buildLabGuest}. */
  constructor(
    readonly machine: Machine,
    image: LabImage,
    readonly truth: LabTruth,
  ) {
    this.#image = image;
  }

  /** Complete lines that the guest has written to the debug port. */
  get lines(): readonly string[] {
    const text = this.machine.debugText;
    // Somebody else may have cleared the text.
    if (text.length < this.#seen) this.#seen = 0;
    for (let end = text.indexOf('\n', this.#seen); end >= 0; end = text.indexOf('\n', this.#seen)) {
      this.#lines.push(text.slice(this.#seen, end));
      this.#seen = end + 1;
    }
    return this.#lines;
  }

  /** How far the guest is. `running` from {@link start} on until the scenario is done. */
  get phase(): LabPhase {
    const lines = this.lines;
    if (this.machine.shutdownReason !== undefined) return 'crashed';
    if (lines.some((line) => line.startsWith('lab: bugcheck'))) return 'crashed';
    if (!lines.includes('lab: ready')) return 'booting';
    if (this.#current === undefined) return 'ready';
    return this.#doneLines > 0 ? 'done' : 'running';
  }

  /**
   * Tells the attack driver to run a scenario; the guest does so when it next runs.
   * @throws LabError ERR_GUEST_LAB_BAD_OPTION when the guest is not ready, or there is no such scenario
   */
  start(scenario: LabScenario): void {
    const phase = this.phase;
    if (phase !== 'ready' && phase !== 'done') {
      throw new LabError('ERR_GUEST_LAB_BAD_OPTION', `the lab guest cannot start a scenario: it is ${phase}`);
    }
    const message = scenarioMessage(scenario);
    this.#current = scenarioId(scenario);
    this.#linesAtStart = this.#lines.length;
    this.#sequence++;
    this.#writeMailbox('scenario', message.scenario);
    this.#writeMailbox('target', message.target);
    // Last, because this is what the driver looks at.
    this.#writeMailbox('sequence', this.#sequence);
  }

  /** Makes the next scenario end in misbehaviour. */
  setHostile(hostile: keyof typeof HostileCode): void {
    this.#writeMailbox('hostile', HostileCode[hostile]);
  }

  /** Labels of the guest's machine code, for tests and people who read traces. */
  get labels(): ReadonlyMap<string, Gva> {
    return this.#image.code.labels;
  }

  /** Physical memory as one image: byte n is physical address n. In pieces of at most 1 MiB. */
  rawImage(): Iterable<Uint8Array> {
    return rawImage(this.#dumpSource());
  }

  /** Physical memory and registers as an ELF64 core file. In pieces of at most 1 MiB. */
  elfCore(): Iterable<Uint8Array> {
    return elfCore(this.#dumpSource());
  }

  get #doneLines(): number {
    const done = `lab: done ${this.#current}`;
    return this.#lines.slice(this.#linesAtStart).filter((line) => line === done).length;
  }

  #writeMailbox(field: keyof typeof MAILBOX, value: number): void {
    const offset = MAILBOX[field];
    const bytes = mailboxBytes({ [field]: value }).subarray(offset, offset + 8);
    this.machine.writePhysical((this.#image.mailboxPhysical + offset) as Gpa, bytes);
  }

  #dumpSource(): Parameters<typeof rawImage>[0] {
    return {
      memory: labMemory,
      vcpus: Array.from({ length: this.machine.vcpuCount }, (_, i) => this.machine.vcpu(i)),
      read: (address, target) => {
        this.machine.readPhysical(address as Gpa, target);
      },
    };
  }
}

function prepareMachine(machine: Machine | undefined, vcpus: number, race: MachineOptions['race']): Machine {
  if (!machine) {
    return new Machine({ vcpus, memory: labMemory, clockOrigin: BOOT_TIME, ...(race ? { race } : {}) });
  }
  for (const { start, size } of labMemory) {
    const within = machine.memoryRegions.some((ram) => ram.start <= start && start + size <= ram.start + ram.size);
    if (!within) {
      throw new LabError('ERR_GUEST_LAB_MACHINE', 'the machine lacks memory that the lab guest needs', {
        address: `0x${start.toString(16)}`,
        hint: 'make it with the regions of labMemory',
      });
    }
  }
  if (machine.vcpuCount < vcpus) {
    throw new LabError('ERR_GUEST_LAB_MACHINE', `the machine has ${machine.vcpuCount} VCPUs, ${vcpus} are wanted`);
  }
  machine.reset();
  return machine;
}

function startVcpu(machine: Machine, image: LabImage, index: number): void {
  const { plan, code } = image;
  const processor = plan.processors[index]!;
  const record = machine.vcpu(index);
  enterLongMode(record, {
    cr3: plan.systemCr3,
    rip: index === 0 ? code.bootEntry : code.secondaryEntry,
    rsp: (processor.idleThread.kernelStackTop - 8n) as Gva,
  });
  record.set('cr0', START_STATE.cr0);
  record.set('cr4', START_STATE.cr4);
  record.set('efer', START_STATE.efer);
  record.set('star', START_STATE.star);
  record.set('lstar', plan.symbol('KiSystemCall64'));
  record.set('cstar', plan.symbol('KiSystemCall32'));
  record.set('sfmask', START_STATE.sfmask);
  record.set('gsBase', processor.kpcr);
  record.set('kernelGsBase', 0n);
  record.set('gdtBase', processor.gdt.va);
  record.set32('gdtLimit', GDT_LIMIT);
  record.set('idtBase', processor.idt.va);
  record.set32('idtLimit', IDT_LIMIT);
  record.set32('trSelector', SELECTOR.tss);
  record.set('trBase', processor.tss.va);
  record.set32('trLimit', TSS_LIMIT);
  // Present, busy 64-bit TSS.
  record.set32('trAttributes', 0x8b);
  machine.setActive(index, true);
}

function truthOf(image: LabImage): LabTruth {
  const { plan, modules } = image;
  const processOf = ({ pid, name, eprocess, cr3 }: ProcessPlan): LabProcess => ({ pid, name, eprocess, cr3 });
  const processRunning = (role: ThreadRole): LabProcess =>
    processOf(plan.threads.find((thread) => thread.role === role)!.process);
  return {
    build: LAB_BUILD,
    kernelBase: plan.kernelBase,
    kernelSize: KERNEL_SIZE,
    systemCr3: plan.systemCr3,
    selfMapIndex: plan.selfMapIndex,
    pdb: plan.profile.pdb,
    processes: plan.processes.filter((process) => process.pid !== 0).map(processOf),
    modules: modules.map(({ name, base, size }) => ({ name, base, size })),
    targets: { system: processRunning('attack-driver'), ordinary: processRunning('attack-user') },
  };
}

/**
 * Lets the list run in a circle that the head is not part of: from the head to System and on, then from the sixth process
 * back to the third. The head and its neighbours still look right, so that it is found; only a walk notices.
 */
function closeProcessCycle(machine: Machine, image: LabImage): void {
  const { plan } = image;
  const listed = plan.processes.filter((process) => process.pid !== 0);
  const links = BigInt(plan.profile.struct('_EPROCESS').offset('ActiveProcessLinks'));
  const flink = new Uint8Array(8);
  new DataView(flink.buffer).setBigUint64(0, listed[2]!.eprocess + links, true);
  machine.writePhysical(image.physicalOf((listed[5]!.eprocess + links) as Gva) as Gpa, flink);
}
