import { Access, type Cr3, DescriptorTable, type Gpa, type Gva } from '@introd/abi';
import { SyntheticPort } from '@introd/glue/testing';
import { describe, expect, it } from 'vitest';
import { type CoreHooksErrorCode, Engine, type EngineOptions } from '../src/index.js';
import { DATA, kernel, PML4 } from './guest-layout.js';
import { SyntheticGuest } from './synthetic-guest.js';

const CR3 = BigInt(PML4) as Cr3;
const callback = (): void => {};
const IDT = DescriptorTable.IDTR | DescriptorTable.WRITE;

/** A hook of each kind that is right, with some of its options changed. */
const KINDS = {
  page: ({ hooks }: Engine, more: object = {}) =>
    hooks.page.set({ gpa: DATA as Gpa, length: 8, access: Access.WRITE, callback, ...more }),
  pageTable: ({ hooks }: Engine, more: object = {}) =>
    hooks.pageTable.set({ gpa: DATA as Gpa, entrySize: 8, callback, ...more }),
  translation: ({ hooks }: Engine, more: object = {}) =>
    hooks.translation.set({ cr3: CR3, va: kernel(DATA), callback, ...more }),
  virtual: ({ hooks }: Engine, more: object = {}) =>
    hooks.virtual.set({ cr3: CR3, va: kernel(DATA), length: 8, access: Access.WRITE, callback, ...more }),
  object: ({ hooks }: Engine, more: object = {}) => hooks.regions.create({ cr3: CR3, ...more }),
  cloak: ({ cloaks }: Engine, more: object = {}) =>
    cloaks.hide({
      cr3: CR3,
      va: kernel(DATA),
      length: 8,
      original: undefined,
      patched: undefined,
      apply: true,
      ...more,
    }),
  contents: ({ integrity }: Engine, more: object = {}) =>
    integrity.add({ cr3: CR3, va: kernel(DATA), length: 8, callback, ...more }),
  detour: ({ detours }: Engine, more: object = {}) =>
    detours.set({ name: 'x', function: { by: 'export', name: 'x' }, handlers: [], ...more }),
  cr: ({ hooks }: Engine, more: { register?: number } = {}) => hooks.cr.set((more.register ?? 4) as 4, callback),
  msr: ({ hooks }: Engine, more: { register?: number } = {}) => hooks.msr.set(more.register ?? 0x10, callback),
  xcr: ({ hooks }: Engine) => hooks.xcr.set(callback),
  descriptorTable: ({ hooks }: Engine, more: { flags?: number } = {}) =>
    hooks.descriptorTable.set(more.flags ?? IDT, callback),
  breakpoint: ({ hooks }: Engine, more: object = {}) => hooks.breakpoint.set({ callback, ...more }),
  vmcall: ({ hooks }: Engine) => hooks.vmcall.set({ callback }),
  injected: ({ hooks }: Engine) => hooks.injected.set(callback),
  tick: ({ hooks }: Engine) => hooks.tick.set(callback),
} as const;

const refusal = (code: CoreHooksErrorCode): unknown =>
  expect.objectContaining({ name: 'CoreHooksError', code, hint: expect.stringMatching(/\w/) });

const ODD: readonly (readonly [keyof typeof KINDS, object, CoreHooksErrorCode?])[] = [
  ['page', { gpa: DATA + 0.5 }],
  ['page', { gpa: -8 }],
  ['page', { gpa: Number.NaN }],
  ['page', { gpa: BigInt(DATA) }],
  ['page', { priority: 'hihg' }],
  ['page', { pagingStructure: { entrySize: 3 } }],
  ['page', { gpa: DATA + 3, length: 3, pagingStructure: true }],
  ['page', { access: Access.READ, pagingStructure: true }],
  ['page', { access: Access.READ, committed: callback }],
  ['page', { hides: true }],
  ['page', { committed: 7 }, 'ERR_CORE_HOOKS_CALLBACK'],
  ['pageTable', { entrySize: 3 }],
  ['pageTable', { gpa: -8 }],
  ['pageTable', { root: 'pea' }],
  ['pageTable', { committed: 7 }, 'ERR_CORE_HOOKS_CALLBACK'],
  ['translation', { va: 0x1234_5678_9abc_def0n }],
  ['translation', { va: 0x1000 }],
  ['translation', { cr3: -1n }],
  ['translation', { priority: 'hihg' }],
  ['translation', { callback: 7 }, 'ERR_CORE_HOOKS_CALLBACK'],
  ['virtual', { va: 0x8000_0000_0000n }],
  ['virtual', { cr3: undefined }],
  ['virtual', { priority: 'hihg' }],
  ['virtual', { access: Access.READ, hash: true }],
  ['virtual', { access: Access.EXECUTE, committed: callback }],
  ['object', { cr3: undefined }],
  ['cloak', { va: 0x8000_0000_0000n }],
  ['cloak', { onWrite: 7 }, 'ERR_CORE_HOOKS_CALLBACK'],
  ['contents', { cr3: 7 }],
  ['detour', { function: { by: 'pattern', patterns: [{ bytes: 'zz' }] } }, 'ERR_CORE_HOOKS_DETOUR'],
  [
    'detour',
    {
      function: {
        by: 'pattern',
        patterns: [{ bytes: '90', arguments: Array.from({ length: 9 }, () => ({ register: 1 })) }],
      },
    },
    'ERR_CORE_HOOKS_DETOUR',
  ],
  ['cr', { register: 1 }],
  ['msr', { register: -1 }],
  ['msr', { register: 0x1_0000_0000 }],
  ['msr', { register: 16n }],
  ['descriptorTable', { flags: 0 }],
  ['descriptorTable', { flags: DescriptorTable.IDTR | DescriptorTable.READ }],
  ['breakpoint', { rip: 0x1234_5678_9abc_def0n as Gva }],
];

function guest(): SyntheticGuest {
  const made = new SyntheticGuest();
  made.engine.addressSpaces = { systemCr3: CR3, isKnown: () => true };
  return made;
}

describe('options that can have no effect', () => {
  for (const [kind, more, code = 'ERR_CORE_HOOKS_OPTIONS'] of ODD) {
    const shown = JSON.stringify(more, (_, value) =>
      typeof value === 'bigint'
        ? `${value}n`
        : String(value) === '[object Object]' || Array.isArray(value)
          ? value
          : String(value),
    );
    it(`${kind} ${shown} is refused, and the hook without it is set`, () => {
      const { engine } = guest();
      const set = KINDS[kind] as (engine: Engine, more?: object) => unknown;
      expect(() => set(engine, more)).toThrow(refusal(code));
      expect([engine.hooks.page.count, engine.hooks.translation.count, engine.cloaks.count]).toEqual([0, 0, 0]);
      expect(set(engine)).toBeDefined();
      engine.close();
    });
  }

  it('of the engine and of a thread check are refused: a fallback that is misspelt does not mean allow', () => {
    const make = (options: object): Engine => new Engine(new SyntheticPort(), options as EngineOptions);
    expect(() => make({ fallback: 'deny' })).toThrow(refusal('ERR_CORE_HOOKS_OPTIONS'));
    expect(() => make({ toctou: 'yes' })).toThrow(refusal('ERR_CORE_HOOKS_OPTIONS'));
    const engine = make({ fallback: 'block', toctou: true });
    expect(() => engine.threadSafety.check({ mode: 'bogus' as 'check' })).toThrow(refusal('ERR_CORE_HOOKS_OPTIONS'));
    expect(engine.threadSafety.check({ mode: 'check' }).status).toBe('incomplete');
    engine.close();
  });
});

describe('a closed engine', () => {
  for (const [kind, set] of Object.entries(KINDS)) {
    it(`refuses a hook: ${kind}`, () => {
      const { engine } = guest();
      engine.close();
      expect(() => (set as (engine: Engine) => unknown)(engine)).toThrow(refusal('ERR_CORE_HOOKS_CLOSED'));
    });
  }

  it('refuses to wait for an exit', () => {
    const { engine } = guest();
    engine.close();
    expect(() => engine.step(1)).toThrow(refusal('ERR_CORE_HOOKS_CLOSED'));
  });
});
