import { Access, type Cr3, DescriptorTable, type Gfn, type Gpa, PAGE_SIZE, Verdict, XSAVE_AREA } from '@introd/abi';
import type { FullPort } from '@introd/glue';
import { createMockPort, type MockFault, type MockPort } from '@introd/glue/testing';
import type { Machine } from '@introd/hv-sim';
import { expect } from 'vitest';
import { type AccessEvent, type Cloak, Engine, type EngineProblem, type HookedObject } from '../../src/index.js';
import { createCodeImages, createThreadStates } from '../../src/testing.js';
import { CODE, DATA, kernel, leafEntry, PML4, STACK } from '../guest-layout.js';
import {
  AT,
  EVIL,
  GOOD,
  HIDDEN_LENGTH,
  HIDDEN_ORIGINAL,
  label,
  memoryOf,
  prepareFaultGuest,
  SHOWN,
  TEXT_SIZE,
} from './fault-guest.js';

const CR3 = BigInt(PML4) as Cr3;
const LSTAR = 0xc000_0082;
const CR4_TSD = 4n;
const MAX_STEPS = 20_000;

/** A call of a port. */
export type PortOperation = MockFault['operation'];

/** What one run of the scenario came to. */
export interface FaultOutcome {
  readonly problems: readonly EngineProblem[];
  /** Calls of each operation. */
  readonly calls: ReadonlyMap<PortOperation, number>;
  /** How often each kind of callback was called. */
  readonly asked: ReadonlyMap<string, number>;
  /** Faults that came back to who called the engine, as an error or as a status. */
  readonly returned: number;
  /** Faults of calls that a callback made by itself. */
  readonly own: number;
  readonly memory: Buffer;
  /** Frames whose rights were not all when the engine closed its port. */
  readonly restricted: readonly number[];
  /** Exits that were still on then. */
  readonly exitsOn: readonly string[];
  readonly halted: boolean;
}

/** Whether a hook found its page not mapped, because the backend denied that some frame is RAM; it is removed then. */
function isBlind(hook: { readonly gpa: Gpa | undefined; remove(): void }): boolean {
  if (hook.gpa === undefined) hook.remove();
  return hook.gpa === undefined;
}

/** Runs everything that the engine has over a guest on the machine, with at most one fault. */
export class FaultScenario {
  readonly #machine: Machine;
  readonly #mock: MockPort<FullPort>;
  readonly #engine: Engine;
  readonly #problems: EngineProblem[] = [];
  readonly #asked = new Map<string, number>();
  readonly #restricted: number[] = [];
  #returned = 0;
  #own = 0;
  #phase = 0;
  #object!: HookedObject;
  #early!: { remove(): void };
  #late!: { remove(): void };
  #cloak!: Cloak;

  constructor(machine: Machine, fault: MockFault | undefined) {
    this.#machine = machine;
    prepareFaultGuest(machine);
    const inner = machine.openPort();
    const close = inner.close.bind(inner);
    // The port's own close lifts every restriction; what counts is what the engine has left until then.
    inner.close = () => {
      this.#noteRights(inner);
      close();
    };
    this.#mock = createMockPort<FullPort>(inner, { logLimit: 100_000 });
    if (fault !== undefined) this.#mock.fail(fault);
    this.#engine = this.#attempt(() => new Engine(this.#mock.port));
    this.#engine.onProblem((problem) => this.#problems.push(problem));
  }

  run(): FaultOutcome {
    const { engine } = this;
    this.#describeGuest();
    this.#setHooks();
    this.#engine.hooks.page.flush();
    for (const index of [0, 1]) this.#machine.setActive(index, true);
    let halted = false;
    for (let step = 0; step < MAX_STEPS && !halted; step++) {
      halted = engine.step(100) === 'shutdown';
      expect(this.#mock.port.pauseCount, 'pauses after a step').toBe(0);
      this.#afterPhase();
    }
    engine.close();
    expect(this.#mock.port.pauseCount, 'pauses after close').toBe(0);
    // The port is really closed: there is one at a time.
    this.#machine.openPort().close();
    return {
      problems: this.#problems,
      calls: this.#calls(),
      asked: this.#asked,
      returned: this.#returned,
      own: this.#own,
      memory: memoryOf(this.#machine),
      restricted: this.#restricted,
      exitsOn: this.#exitsOn(),
      halted,
    };
  }

  get engine(): Engine {
    return this.#engine;
  }

  #noteRights(port: FullPort): void {
    for (const { start, size } of port.memoryRegions) {
      for (let frame = start / PAGE_SIZE; frame < (start + size) / PAGE_SIZE; frame++) {
        if (port.getPageAccess(frame as Gfn) !== Access.ALL) this.#restricted.push(frame);
      }
    }
  }

  #calls(): Map<PortOperation, number> {
    const calls = new Map<PortOperation, number>();
    for (const { operation } of this.#mock.calls()) calls.set(operation, (calls.get(operation) ?? 0) + 1);
    return calls;
  }

  #exitsOn(): string[] {
    const on = new Set<string>();
    for (const { args, thrown } of this.#mock.calls('setExit')) {
      const [exit, wanted] = args;
      const name = 'register' in exit ? `${exit.kind} ${exit.register}` : exit.kind;
      if (thrown === undefined && wanted) on.add(name);
      else if (thrown === undefined) on.delete(name);
    }
    return [...on];
  }

  /** What there is of the engine in all, removed hooks left out; not the guards of code that it may drop at any time. */
  #census(): readonly number[] {
    const { hooks, cloaks, detours, slack, integrity } = this.#engine;
    return [
      hooks.virtual.count,
      hooks.regions.count,
      cloaks.count,
      detours.all.length,
      slack.count,
      integrity.count,
      this.#mock.port.pauseCount,
    ];
  }

  /**
   * Calls the engine; when that fails nothing may be left of it, and it is called again. There is one fault only.
   * @param failed whether what it returned tells of a failure
   */
  #attempt<T>(act: () => T, failed?: (value: T) => boolean): T {
    for (let attempt = 1; ; attempt++) {
      const before = this.#engine === undefined ? [] : this.#census();
      try {
        const value = act();
        if (failed?.(value) !== true) return value;
        this.#returned++;
      } catch (cause) {
        expect(['ERR_GLUE_INJECTED_FAULT', 'ERR_CORE_HOOKS_NO_MEMORY']).toContain((cause as { code?: string }).code);
        this.#returned++;
      }
      expect(attempt, 'one fault makes a call fail once').toBe(1);
      expect(this.#engine === undefined ? [] : this.#census(), 'what a failed call leaves').toEqual(before);
    }
  }

  /** A callback that uses the port by itself, and leaves what that throws to the engine. */
  #ownCall(act: () => void): void {
    const before = this.#injected;
    try {
      act();
    } finally {
      this.#own += this.#injected - before;
    }
  }

  /** Calls that were made to fail. */
  get #injected(): number {
    return this.#mock.calls().filter((call) => call.injected).length;
  }

  #note(kind: string): void {
    this.#asked.set(kind, (this.#asked.get(kind) ?? 0) + 1);
  }

  #describeGuest(): void {
    const { engine } = this;
    engine.addressSpaces = { systemCr3: CR3, isKnown: () => true, pagingMode: '4-level' };
    engine.codeImages = createCodeImages(engine.memory, CR3, {
      build: 19041,
      images: [
        {
          name: 'ntoskrnl.exe',
          base: kernel(AT.functions),
          size: PAGE_SIZE,
          sections: [{ name: '.text', start: kernel(AT.functions), size: TEXT_SIZE }],
          exports: { Sum: label('sum') as never, Difference: label('difference') as never },
        },
      ],
    });
    const stack = { low: kernel(STACK - PAGE_SIZE), high: kernel(STACK) };
    const second = { low: kernel(STACK + PAGE_SIZE), high: kernel(STACK + 2 * PAGE_SIZE) };
    engine.threadStates = createThreadStates({
      running: [
        { stack, savedStackPointer: undefined },
        { stack: second, savedStackPointer: undefined },
      ],
      waiting: [],
    });
  }

  #setHooks(): void {
    this.#setPageHooks();
    this.#setTableHooks();
    this.#setVirtualHooks();
    this.#setRegisterHooks();
    this.#cloak = this.#attempt(() =>
      this.engine.cloaks.hide({
        cr3: CR3,
        va: kernel(AT.hidden),
        length: HIDDEN_LENGTH,
        original: HIDDEN_ORIGINAL,
        patched: new Uint8Array(HIDDEN_LENGTH).fill(0xee),
        apply: true,
        onWrite: () => this.#note('cloak'),
      }),
    );
    this.#setDetours();
    this.#attempt(
      () =>
        this.engine.integrity.add({
          va: kernel(AT.watched),
          length: 64,
          callback: ({ region }) => {
            this.#note('integrity');
            this.#ownCall(() => region.restore());
          },
        }),
      ({ status }) => status !== 'ok',
    );
  }

  /** Denies {@link EVIL}. */
  readonly #judge = (kind: string) => (event: AccessEvent) => {
    this.#note(kind);
    const bytes = event.newValue()?.bytes;
    if (bytes !== undefined && bytes[0] === (EVIL & 0xff)) event.verdict = Verdict.NOT_ALLOWED;
  };

  #setPageHooks(): void {
    const { page } = this.engine.hooks;
    const set = (gpa: number, length: number, access: Access, callback: (event: AccessEvent) => void) =>
      this.#attempt(() => page.set({ gpa: gpa as Gpa, length, access, callback }));
    set(DATA, 8, Access.WRITE, this.#judge('write'));
    set(DATA + 8, 8, Access.WRITE, (event) => {
      this.#note('removed by itself');
      event.removeHook = true;
    });
    set(DATA + 0x10, 8, Access.WRITE, (event) => {
      this.#note('vector');
      expect(event.newValue()?.bytes[0] ?? 0xff).toBe(0xff);
    });
    set(DATA + 0x40, 8, Access.READ, (event) => {
      this.#note('read');
      const shown = new Uint8Array(8);
      new DataView(shown.buffer).setUint32(0, SHOWN, true);
      event.overlay((DATA + 0x40) as Gpa, shown);
    });
    set(DATA + 0x80, 8, Access.WRITE, this.#judge('write by the second VCPU'));
    set(CODE, PAGE_SIZE, Access.EXECUTE, ({ hook }) => {
      this.#note('execute');
      hook.remove();
    });
    set(AT.stringTarget + 0x800, 8, Access.WRITE, (event) => {
      this.#note('string');
      event.verdict = Verdict.NOT_ALLOWED;
    });
    set(AT.border, 8, Access.WRITE, () => this.#note('border'));
    const area = new Uint8Array(XSAVE_AREA.size);
    set(AT.results + 0x900, 8, Access.WRITE, ({ vcpuIndex, gpa }) => {
      // What a layer above may use of the port by itself.
      this.#note('port');
      const { port } = this.engine;
      this.#ownCall(() => port.readXsaveArea(vcpuIndex, area));
      this.#ownCall(() => port.writeXsaveArea(vcpuIndex, area));
      this.#ownCall(() => port.readPhysical(gpa, new Uint8Array(8)));
      this.#ownCall(() => port.getPageAccess(Math.floor(gpa / PAGE_SIZE) as Gfn));
    });
  }

  #setTableHooks(): void {
    const { pageTable, translation } = this.engine.hooks;
    this.#attempt(() =>
      pageTable.set({
        gpa: leafEntry(AT.swappedSpare),
        entrySize: 8,
        callback: (event) => {
          this.#note('page table');
          // Never for user code.
          event.replace(event.new & ~4n);
        },
        committed: () => this.#note('page table committed'),
      }),
    );
    for (const [va, name] of [
      [AT.swapped, 'translation'],
      [AT.large, 'large page'],
    ] as const) {
      this.#attempt(
        () =>
          translation.set({
            cr3: CR3,
            va: kernel(va),
            callback: () => this.#note(name),
            committed: () => this.#note(`${name} committed`),
          }),
        isBlind,
      );
    }
    this.#early = this.#attempt(
      () =>
        translation.set({
          cr3: CR3,
          va: kernel(AT.virtual),
          priority: 'high',
          committed: () => this.#note('paused'),
        }),
      isBlind,
    );
  }

  #setVirtualHooks(): void {
    const { virtual, regions } = this.engine.hooks;
    this.#attempt(
      () =>
        virtual.set({
          cr3: CR3,
          va: kernel(AT.virtual + 0x10),
          length: 8,
          access: Access.WRITE,
          hash: true,
          onHashMismatch: () => this.#note('hash'),
          callback: this.#judge('virtual'),
        }),
      isBlind,
    );
    this.#attempt(
      () =>
        virtual.set({
          cr3: CR3,
          va: kernel(AT.large),
          length: 8,
          access: Access.WRITE,
          callback: this.#judge('virtual in a large page'),
        }),
      isBlind,
    );
    this.#object = regions.create({ cr3: CR3 });
    this.#attempt(
      () =>
        this.#object.hook({
          va: kernel(AT.region),
          length: PAGE_SIZE,
          access: Access.WRITE,
          callback: this.#judge('region'),
        }),
      (region) => {
        const blind = region.hooks.some(({ gpa }) => gpa === undefined);
        if (blind) region.remove();
        return blind;
      },
    );
  }

  #setRegisterHooks(): void {
    const { msr, cr, xcr, descriptorTable, breakpoint, vmcall, injected, tick } = this.engine.hooks;
    this.#attempt(() =>
      msr.set(LSTAR, (event) => {
        this.#note('msr');
        if (event.newValue === BigInt(EVIL)) event.verdict = Verdict.NOT_ALLOWED;
      }),
    );
    this.#attempt(() =>
      msr.set(LSTAR, ({ vcpuIndex }) => {
        this.#note('msr read');
        this.#ownCall(() => this.engine.port.readMsr(vcpuIndex, LSTAR));
      }),
    );
    this.#attempt(() =>
      cr.set(4, (event) => {
        this.#note('cr4');
        if ((event.newValue & CR4_TSD) !== 0n) event.verdict = Verdict.NOT_ALLOWED;
      }),
    );
    this.#attempt(() =>
      cr.set(3, (event) => {
        this.#note('cr3');
        event.removeHook = true;
      }),
    );
    this.#attempt(() => xcr.set(() => this.#note('xcr')));
    this.#attempt(() =>
      descriptorTable.set(DescriptorTable.IDTR | DescriptorTable.WRITE, (event) => {
        this.#note('descriptor table');
        if (event.newLimit === 0xfff) event.verdict = Verdict.NOT_ALLOWED;
      }),
    );
    const hook = this.#attempt(() =>
      breakpoint.set({
        rip: label('breakpoint') as never,
        callback: (event) => {
          this.#note('breakpoint');
          event.claim('skip');
          hook.remove();
        },
      }),
    );
    this.#attempt(() =>
      vmcall.set({
        callback: (event) => {
          if (event.rip < kernel(CODE) || event.rip >= kernel(CODE + PAGE_SIZE)) return;
          this.#note('vmcall');
          event.claim();
          this.#phase = Number(event.vcpu.get('rax'));
          this.#inPhase(this.#phase);
        },
      }),
    );
    this.#late = this.#attempt(() => injected.set(() => this.#note('injected')));
    this.#attempt(() => tick.set(() => this.#note('tick')));
  }

  #setDetours(): void {
    const { detours, threadSafety } = this.engine;
    const code = { int3: Uint8Array.of(0xcc, 0x90, 0x90), vmcall: Uint8Array.of(0x0f, 0x01, 0xc1, 0x90) };
    for (const [name, kind] of [
      ['Sum', 'int3'],
      ['Difference', 'vmcall'],
    ] as const) {
      this.#attempt(
        () =>
          detours.set({
            name,
            function: { by: 'export', name },
            handlers: [{ code: code[kind], hypercall: { kind, offset: 0 } }],
            enable: 1n,
            callback: (call) => {
              this.#note(`detour by ${kind}`);
              if (call.argument(0) === 30n) call.setArgument(0, 31n);
              // Over the NOP.
              if (kind === 'vmcall') call.skip(1);
            },
          }),
        ({ status }) => status !== 'set',
      );
    }
    this.#attempt(() => threadSafety.check({ mode: 'move' }));
  }

  /** Calls of the engine from inside a callback. */
  #inPhase(phase: number): void {
    const { engine } = this;
    if (phase === 1) {
      this.#object.remove();
      this.#early.remove();
    } else if (phase === 2) {
      this.#attempt(
        () => this.#cloak.modifyPatched(4, Uint8Array.of(1, 2, 3)),
        (written) => !written,
      );
      this.#attempt(() => this.#cloak.remove({ restore: true }));
    } else if (phase === 3) {
      // Not enabled by any option any more: calls go on without us.
      this.#attempt(() => engine.detours.applyOptions(2n));
    } else if (phase === 4) {
      this.#late.remove();
    }
  }

  /** Calls of the engine while no exit is being handled. */
  #afterPhase(): void {
    const phase = this.#phase;
    this.#phase = 0;
    const { engine } = this;
    const { detours, memory, threadSafety, hooks } = engine;
    if (phase === 1) {
      const value = new Uint8Array(8).fill(GOOD & 0xff);
      this.#attempt(
        () => memory.safeWrite(CR3, kernel(AT.stringSource + 0x700), value, 1),
        ({ status }) => status !== 'ok',
      );
      this.#attempt(
        () => memory.compareExchange64((AT.stringSource + 0x708) as Gpa, 0n, 5n),
        (done) => done !== true,
      );
    } else if (phase === 3) {
      this.#attempt(() => threadSafety.check({ mode: 'check' }));
      this.#attempt(() =>
        hooks.translation.set({ cr3: CR3, va: kernel(AT.large), callback: () => undefined }),
      ).remove();
    } else if (phase === 5) {
      this.#attempt(() => detours.find('Difference')?.remove());
      this.#attempt(() => detours.applyOptions(1n));
    }
  }
}
