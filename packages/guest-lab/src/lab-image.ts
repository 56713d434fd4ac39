import { type Gva, gva, PAGE_SIZE } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import { AddressSpace, type FrameUse } from './address-space.js';
import type { KernelCode, KernelPlan, ProcessPlan, ThreadPlan, ThreadRole } from './code/plan.js';
import { type KernelModule, kernelModule, mapDrivers, writeModuleList } from './drivers.js';
import { writeGlobals, writePfnDatabase, writeSharedUserData } from './kernel-globals.js';
import { kernelSection, mapKernelImage, writeKernelImage } from './kernel-image.js';
import { chooseLayout, type LabLayout, labMemory, POOL_SIZE, SPARE_SIZE } from './layout.js';
import { PhysicalImage } from './physical-image.js';
import { OBJECT_KINDS, Pool } from './pool.js';
import { type ProcessSpec, processSpecs } from './process-specs.js';
import { linkThreads, writeHandleTable, writeProcess, writeThread } from './processes.js';
import { allocateProcessor, writeGates, writeProcessor } from './processors.js';
import type { SeededRandom } from './seeded-random.js';
import { type GuestStruct, linkList, structAt } from './struct-writer.js';
import { SystemRegion } from './system-region.js';
import { writeToken } from './token.js';
import { buildUserSpace, makeSharedModule, type SharedModule, type UserSpace } from './user-space.js';
import { ModuleSections, writeVadTree } from './vad-tree.js';

/** KUSER_SHARED_DATA in the kernel half, at the same place in every x64 Windows. */
const SHARED_DATA = gva(0xffff_f780_0000_0000n);
/** Size of a kernel stack (KERNEL_STACK_SIZE on x64). */
const KERNEL_STACK_SIZE = 6 * PAGE_SIZE;
/** FILETIME of the first process is this long after boot, and each further one as much later: 100 ns units. */
const CREATE_INTERVAL = 1_500_000n;

/** What the lab guest is built from. */
export interface LabImageOptions {
  readonly profile: GuestProfile;
  readonly vcpus: number;
  /** FILETIME at power-on. */
  readonly bootTime: bigint;
  readonly assemble: (plan: KernelPlan) => KernelCode;
}

/** A complete guest in memory, before its first instruction. */
export interface LabImage {
  /** Pages that are not zero, by frame number. */
  readonly pages: ReadonlyMap<number, Uint8Array>;
  readonly plan: KernelPlan;
  readonly code: KernelCode;
  readonly modules: readonly KernelModule[];
  /** Where the mailbox lies in physical memory. */
  readonly mailboxPhysical: number;
  /** Physical address of a kernel address. */
  readonly physicalOf: (va: Gva) => number;
}

/** Builds the guest of a seed. */
export function buildLabImage(random: SeededRandom, options: LabImageOptions): LabImage {
  return new Builder(random, options).build();
}

/** A process under construction. */
interface Draft {
  readonly spec: ProcessSpec;
  readonly pid: number;
  readonly struct: GuestStruct;
  readonly space: AddressSpace;
  readonly user: UserSpace | undefined;
  readonly plan: ProcessPlan;
  readonly threads: ThreadPlan[];
}

class Builder {
  readonly #profile: GuestProfile;
  readonly #layout: LabLayout;
  readonly #physical: PhysicalImage;
  readonly #uses = new Map<number, FrameUse>();
  readonly #kernel: AddressSpace;
  readonly #pool: Pool;
  readonly #region: SystemRegion;
  readonly #threads: ThreadPlan[] = [];
  #nextId = 8;

  constructor(
    private readonly random: SeededRandom,
    private readonly options: LabImageOptions,
  ) {
    this.#profile = options.profile;
    this.#layout = chooseLayout(random);
    this.#physical = new PhysicalImage(this.#layout.freeFrames);
    this.#kernel = new AddressSpace(
      this.#physical,
      this.#layout.systemRoot / PAGE_SIZE,
      this.#layout.selfMapIndex,
      this.#uses,
    );
    this.#kernel.map(this.#layout.pool, POOL_SIZE, { write: true });
    this.#pool = new Pool(this.#kernel, this.#profile, this.#layout.pool, POOL_SIZE, this.#layout.objectCookie);
    this.#region = new SystemRegion(this.#kernel, this.#layout.systemPtes);
  }

  build(): LabImage {
    const { kernelBase, kernelPhysical } = this.#layout;
    mapKernelImage(this.#kernel, kernelBase, kernelPhysical);
    const modules = [kernelModule(this.#profile, kernelBase), ...mapDrivers(this.#kernel, this.#layout.driverBases)];
    writeModuleList(this.#kernel, this.#pool, this.#symbol('PsLoadedModuleList'), modules);
    this.#kernel.map(SHARED_DATA, PAGE_SIZE, { write: true });
    const vcpus = this.options.vcpus;
    writeSharedUserData(this.#kernel, this.#profile, SHARED_DATA, this.options.bootTime, vcpus);

    const drafts = this.#draftProcesses();
    const processors = Array.from({ length: vcpus }, (_, index) => ({
      ...allocateProcessor(this.#region, this.#profile, index),
      idleThread: drafts[0]!.threads[index]!,
    }));
    const plan = this.#plan(drafts, processors);
    const code = this.options.assemble(plan);

    writeGlobals(this.#kernel, this.#profile, this.#pool, {
      kernelBase,
      selfMapIndex: this.#layout.selfMapIndex,
      pfnDatabase: this.#layout.pfnDatabase,
      objectCookie: this.#layout.objectCookie,
      systemProcess: drafts[1]!.struct.va,
      idleProcess: drafts[0]!.struct.va,
      processors,
    });
    for (const processor of processors) {
      writeProcessor(this.#kernel, this.#profile, processor, {
        systemCr3: this.#kernel.cr3,
        symbol: (name) => this.#symbol(name),
      });
      writeGates(this.#kernel, this.#profile, processor.idt.va, code.gates);
    }
    this.#fillProcesses(drafts);
    this.#placeCode(plan, code, drafts);

    const frames = labMemory.reduce((end, region) => Math.max(end, region.start + region.size), 0) / PAGE_SIZE;
    this.#kernel.map(this.#layout.pfnDatabase, frames * this.#profile.struct('_MMPFN').size, { write: true });
    writePfnDatabase(this.#kernel, this.#profile, this.#layout.pfnDatabase, this.#uses);
    for (const draft of drafts) draft.space.shareKernelHalf();
    const physicalOf = (va: Gva): number => this.#kernel.frameOf(va) * PAGE_SIZE + Number(va & 0xfffn);
    return {
      pages: this.#physical.pages,
      plan,
      code,
      modules,
      mailboxPhysical: physicalOf(plan.mailbox),
      physicalOf,
    };
  }

  #symbol(name: string): Gva {
    return gva(this.#layout.kernelBase + BigInt(this.#profile.symbol(name)));
  }

  /** Process and thread ids come from one table in Windows: multiples of 4, never the same. */
  #id(): number {
    const id = this.#nextId;
    this.#nextId += 4 * (1 + this.random.below(16));
    return id;
  }

  #draftProcesses(): Draft[] {
    const dllSlot = this.random.below(0x7000);
    let dlls: SharedModule[] | undefined;
    const drafts: Draft[] = [];
    for (const spec of processSpecs(this.options.vcpus)) {
      const pid = spec.pid ?? this.#id();
      const struct =
        spec.pid === 0
          ? structAt(this.#kernel, this.#profile, '_EPROCESS', this.#symbol('KiInitialProcess'))
          : this.#pool.object(OBJECT_KINDS.Process, '_EPROCESS');
      const tids = spec.threads.map(() => (spec.pid === 0 ? 0 : this.#id()));
      let space = this.#kernel;
      let user: UserSpace | undefined;
      if (spec.program) {
        space = new AddressSpace(
          this.#physical,
          this.#physical.allocate(),
          this.#layout.selfMapIndex,
          this.#uses,
          this.#kernel,
        );
        dlls ??= ['ntdll.dll', 'KERNEL32.DLL', 'KERNELBASE.dll'].map((name, i) =>
          makeSharedModule(space, name, gva(0x7ffa_0000_0000n + BigInt(dllSlot + i * 0x20) * 0x1_0000n)),
        );
        const program = {
          name: spec.name,
          commandLine: spec.program.commandLine,
          pid,
          tids,
          sessionId: spec.program.sessionId,
          dlls: spec.program.native ? dlls.slice(0, 1) : dlls,
        };
        const sharedFrame = this.#kernel.frameOf(SHARED_DATA);
        user = buildUserSpace(space, this.#profile, this.random, program, sharedFrame);
      }
      const plan: ProcessPlan = {
        pid,
        name: spec.name,
        eprocess: struct.va,
        cr3: space.cr3,
        peb: user?.peb ?? gva(0n),
        userCode: user?.code,
        userData: user?.data,
      };
      const threads = spec.threads.map((role, i) => this.#draftThread(plan, role, tids[i]!, i, user));
      drafts.push({ spec, pid, struct, space, user, plan, threads });
    }
    return drafts;
  }

  #draftThread(
    process: ProcessPlan,
    role: ThreadRole,
    tid: number,
    i: number,
    user: UserSpace | undefined,
  ): ThreadPlan {
    const stack = this.#region.stack(KERNEL_STACK_SIZE);
    const ethread =
      role === 'idle' && i === 0
        ? this.#symbol('KiInitialThread')
        : this.#pool.object(OBJECT_KINDS.Thread, '_ETHREAD').va;
    const index = this.#threads.length;
    const thread: ThreadPlan = {
      index,
      role,
      tid,
      ethread,
      process,
      // Ordinary threads are spread over the processors; the attack driver and its victim stay on the first.
      processor: role === 'idle' ? i : role === 'user' ? index % this.options.vcpus : 0,
      kernelStackTop: stack.top,
      kernelStackLimit: stack.limit,
      teb: user?.threads[i]?.teb ?? gva(0n),
      userStackTop: user?.threads[i]?.stackTop ?? gva(0n),
    };
    this.#threads.push(thread);
    return thread;
  }

  #plan(drafts: readonly Draft[], processors: KernelPlan['processors']): KernelPlan {
    const { kernelBase, sparePhysical } = this.#layout;
    const data = kernelSection(kernelBase, 'LABDATA');
    return {
      profile: this.#profile,
      kernelBase,
      selfMapIndex: this.#layout.selfMapIndex,
      systemCr3: this.#kernel.cr3,
      code: kernelSection(kernelBase, 'LABCODE'),
      data,
      mailbox: data.va,
      sparePhysical: sparePhysical as KernelPlan['sparePhysical'],
      spareVa: this.#region.mapFrames(sparePhysical / PAGE_SIZE, SPARE_SIZE),
      spareSize: SPARE_SIZE,
      stubVa: this.#layout.stubVa,
      processors,
      processes: drafts.map((draft) => draft.plan),
      threads: this.#threads,
      sharedUserData: SHARED_DATA,
      symbol: (name) => this.#symbol(name),
    };
  }

  #fillProcesses(drafts: readonly Draft[]): void {
    const sections = new ModuleSections(this.#pool);
    const pids = new Map(drafts.map((draft) => [draft.spec.name, draft.pid] as const));
    const handleTables: Gva[] = [];
    drafts.forEach((draft, i) => {
      const createTime = this.options.bootTime + BigInt(i) * CREATE_INTERVAL;
      const table = writeHandleTable(this.#pool, draft.pid, draft.struct.va);
      handleTables.push(table.at('HandleTableList'));
      writeProcess(draft.struct, this.#pool, {
        pid: draft.pid,
        parentPid: draft.spec.parent === undefined ? 0 : pids.get(draft.spec.parent)!,
        name: draft.spec.name,
        cr3: draft.plan.cr3,
        peb: draft.plan.peb,
        createTime: draft.pid === 0 ? 0n : createTime,
        token: writeToken(this.#kernel, this.#pool, 0x1000 + i * 0x100, draft.spec.token),
        objectTable: table.va,
        vadRoot: writeVadTree(this.#pool, sections, draft.user?.ranges ?? []),
        vadCount: draft.user?.ranges.length ?? 0,
        image: draft.user?.modules[0],
        threads: draft.threads,
      });
      linkThreads(draft.struct, this.#profile, draft.threads);
      for (const thread of draft.threads) {
        writeThread(this.#kernel, this.#profile, thread, createTime, thread.role === 'idle');
      }
    });
    linkList(this.#kernel, [this.#symbol('HandleTableListHead'), ...handleTables]);
    // Idle has an EPROCESS but is in neither list.
    const listed = drafts.filter((draft) => draft.pid !== 0);
    const links = (path: string): Gva[] => listed.map((draft) => draft.struct.at(path));
    linkList(this.#kernel, [this.#symbol('PsActiveProcessHead'), ...links('ActiveProcessLinks')]);
    linkList(this.#kernel, [this.#symbol('KiProcessListHead'), ...links('Pcb.ProcessListEntry')]);
  }

  #placeCode(plan: KernelPlan, code: KernelCode, drafts: readonly Draft[]): void {
    writeKernelImage(this.#kernel, this.#profile, plan.kernelBase, code.stubs);
    this.#kernel.write(plan.code.va, code.code);
    this.#kernel.write(plan.data.va, code.data);
    for (const stack of code.stacks) this.#kernel.write(stack.va, stack.bytes);
    for (const thread of this.#threads) {
      const start = code.startAddresses[thread.index] ?? gva(0n);
      structAt(this.#kernel, this.#profile, '_ETHREAD', thread.ethread).setAll({
        'Tcb.KernelStack': code.kernelStackPointers[thread.index] ?? thread.kernelStackTop,
        StartAddress: start,
        Win32StartAddress: start,
      });
    }
    for (const draft of drafts) {
      const bytes = code.userCode.get(draft.pid);
      if (bytes && draft.plan.userCode) draft.space.write(draft.plan.userCode.va, bytes);
    }
  }
}
