import { type Cr3, type Gva, gva, PAGE_SIZE, rootOf } from '@introd/abi';
import { ProfileStore } from '@introd/windows-profiles';
import { describe, expect, inject, test } from 'vitest';
import { pteAddressOf } from './address-space.js';
import { assembleKernel } from './code/assemble-kernel.js';
import { kernelSections } from './kernel-image.js';
import { buildLabImage, type LabImage } from './lab-image.js';
import { chooseLayout } from './layout.js';
import { SeededRandom } from './seeded-random.js';

/*
 * The guest's data before its first instruction, seen through its own page tables: what introspection looks for when it
 * searches the kernel.
 */

const scale = inject('scale');
const profile = ProfileStore.bundled().byBuild(19041)!;
const PRESENT = 1n;
const WRITE = 2n;
const USER = 4n;
const XD = 1n << 63n;
const FRAME = 0xf_ffff_ffff_f000n;

function build(seed: number, vcpus = 1): LabImage {
  return buildLabImage(new SeededRandom(seed), {
    profile,
    vcpus,
    bootTime: 133_485_408_000_000_000n,
    assemble: assembleKernel,
  });
}

/** Guest memory as the processor would see it. */
class View {
  constructor(readonly image: LabImage) {}

  physical64(address: number): bigint {
    const page = this.image.pages.get(Math.floor(address / PAGE_SIZE));
    if (!page) return 0n;
    return new DataView(page.buffer, page.byteOffset).getBigUint64(address % PAGE_SIZE, true);
  }

  /** Rights of all levels combined, and the physical address. */
  walk(cr3: Cr3, va: bigint): { gpa: number; user: boolean; write: boolean; execute: boolean } | undefined {
    let table: number = rootOf(cr3);
    const rights = { user: true, write: true, execute: true };
    for (const shift of [39n, 30n, 21n, 12n]) {
      const entry = this.physical64(table + Number((va >> shift) & 511n) * 8);
      if ((entry & PRESENT) === 0n) return undefined;
      rights.user &&= (entry & USER) !== 0n;
      rights.write &&= (entry & WRITE) !== 0n;
      rights.execute &&= (entry & XD) === 0n;
      table = Number(entry & FRAME);
    }
    return { gpa: table + Number(va & 0xfffn), ...rights };
  }

  read64(cr3: Cr3, va: bigint): bigint {
    const found = this.walk(cr3, va);
    if (!found) throw new Error(`0x${va.toString(16)} is not mapped`);
    return this.physical64(found.gpa);
  }
}

const seeds = Array.from({ length: 3 + scale }, (_, i) => i * 7919);

describe.each(seeds)('the image of seed %i', (seed) => {
  const image = build(seed, 1 + (seed % 3));
  const { plan } = image;
  const view = new View(image);
  const read = (va: bigint): bigint => view.read64(plan.systemCr3, va);
  const symbol = (name: string): Gva => plan.symbol(name);
  /** Handler of a vector, from the IDT of the first VCPU (SDM vol. 3A, figure 6-8). */
  const handlerOf = (vector: number): bigint => {
    const low = read(plan.processors[0]!.idt.va + BigInt(vector * 16));
    const high = read(plan.processors[0]!.idt.va + BigInt(vector * 16 + 8));
    return (low & 0xffffn) | (((low >> 48n) & 0xffffn) << 16n) | ((high & 0xffff_ffffn) << 32n);
  };

  test('every root has the one self-map entry, at the same index, closed to ring 3', () => {
    for (const { cr3 } of plan.processes) {
      const root = rootOf(cr3);
      const self: number[] = [];
      for (let i = 0; i < 512; i++) {
        const entry = view.physical64(root + i * 8);
        if ((entry & PRESENT) !== 0n && Number(entry & FRAME) === root) self.push(i);
      }
      expect(self).toEqual([plan.selfMapIndex]);
      expect(view.physical64(root + plan.selfMapIndex * 8) & (USER | XD)).toBe(XD);
    }
    expect(rootOf(plan.systemCr3)).toBeGreaterThanOrEqual(0x1a0000);
    expect(rootOf(plan.systemCr3)).toBeLessThan(0x2a0000);
  });

  test('all spaces share the kernel half, and ring 3 reaches none of it', () => {
    for (const { cr3 } of plan.processes) {
      for (let i = 256; i < 512; i++) {
        const entry = view.physical64(rootOf(cr3) + i * 8);
        expect(entry & USER).toBe(0n);
        if (i !== plan.selfMapIndex) expect(entry).toBe(view.physical64(rootOf(plan.systemCr3) + i * 8));
      }
    }
  });

  test('sections have the rights that they name, and never both write and execute', () => {
    for (const section of kernelSections) {
      const found = view.walk(plan.systemCr3, plan.kernelBase + BigInt(section.rva));
      if (section.use === 'pad' || section.use === 'discardable-code') expect(found).toBeUndefined();
      else {
        expect(found).toMatchObject({
          user: false,
          write: section.use === 'data',
          execute: section.use === 'code',
        });
      }
    }
    for (const process of plan.processes) {
      if (!process.userCode || !process.userData) continue;
      expect(view.walk(process.cr3, process.userCode.va)).toMatchObject({ user: true, write: false, execute: true });
      expect(view.walk(process.cr3, process.userData.va)).toMatchObject({ user: true, write: true, execute: false });
      expect(view.walk(process.cr3, 0x7ffe0000n)).toMatchObject({ user: true, write: false, execute: false });
    }
  });

  test('walking back from the syscall and page fault handlers meets the kernel as the first image', () => {
    for (const start of [symbol('KiSystemCall64'), handlerOf(14), plan.code.va]) {
      let base = start & ~0xfffn;
      const isImage = (va: bigint): boolean =>
        view.walk(plan.systemCr3, va) !== undefined && (read(va) & 0xffffn) === 0x5a4dn;
      while (!isImage(base)) base -= 0x1000n;
      expect(base).toBe(plan.kernelBase);
      expect(start - base).toBeLessThan(16n * 0x100000n);
    }
    for (const name of ['ALMOSTRO', '.data']) {
      const section = kernelSections.find((candidate) => candidate.name === name)!;
      expect(section.rva % PAGE_SIZE).toBe(0);
      expect(section.size).toBeLessThanOrEqual(0x200000);
    }
    expect(view.walk(plan.systemCr3, handlerOf(14))).toMatchObject({ user: false, write: false, execute: true });
    expect(read(symbol('PsNtosImageBase'))).toBe(plan.kernelBase);
    expect(profile.symbol('PsNtosImageBase')).toBeGreaterThan(kernelSections.find((s) => s.name === 'ALMOSTRO')!.rva);
  });

  test('the first build number behind the base is that of the build', () => {
    let found: number | undefined;
    for (let at = 0; at < 0xe00000 && found === undefined; at += PAGE_SIZE) {
      const mapping = view.walk(plan.systemCr3, plan.kernelBase + BigInt(at));
      const page = mapping && image.pages.get(mapping.gpa / PAGE_SIZE);
      if (!page) continue;
      const words = new Uint32Array(page.buffer, page.byteOffset, PAGE_SIZE / 4);
      const index = words.findIndex((word) => word === 0xf0000000 + 19041);
      if (index >= 0) found = at + index * 4;
    }
    expect(found).toBe(profile.symbol('NtBuildNumber'));
  });

  test('the idle thread leads to the idle process inside the image, and from it to the CR3 of System', () => {
    for (const processor of plan.processors) {
      expect(read(processor.kpcr + 0x18n)).toBe(processor.kpcr);
      const thread = read(processor.prcb + BigInt(profile.struct('_KPRCB').offset('IdleThread')));
      const process = read(thread + BigInt(profile.struct('_KTHREAD').offset('Process')));
      expect(process).toBe(symbol('KiInitialProcess'));
      expect(read(process + BigInt(profile.struct('_KPROCESS').offset('DirectoryTableBase')))).toBe(plan.systemCr3);
    }
  });

  test('the PFN database names the PTE that maps the kernel base', () => {
    const database = read(symbol('MmPfnDatabase'));
    expect(database % 0x200000n).toBe(0n);
    const { gpa } = view.walk(plan.systemCr3, plan.kernelBase)!;
    const entry = database + BigInt((gpa / PAGE_SIZE) * profile.struct('_MMPFN').size);
    const pte = read(entry + BigInt(profile.struct('_MMPFN').offset('PteAddress')));
    expect(pte).toBe(pteAddressOf(plan.selfMapIndex, plan.kernelBase));
    expect(Number(read(pte) & FRAME)).toBe(gpa);
    expect(read(symbol('MmPteBase'))).toBe(pteAddressOf(plan.selfMapIndex, 0n));
  });

  test('threads have kernel stacks of their own, with an unmapped page below', () => {
    const ranges = plan.threads.map((thread) => [thread.kernelStackLimit, thread.kernelStackTop] as const);
    for (const [limit, top] of ranges) {
      expect(view.walk(plan.systemCr3, top - 8n)?.write).toBe(true);
      expect(view.walk(plan.systemCr3, limit - 1n)).toBeUndefined();
      expect(ranges.filter(([l, t]) => l < top && limit < t)).toHaveLength(1);
    }
    expect(new Set(plan.threads.map((thread) => thread.ethread)).size).toBe(plan.threads.length);
  });

  test('spare memory is mapped for the kernel and belongs to nobody else', () => {
    for (let at = 0; at < plan.spareSize; at += PAGE_SIZE) {
      const va = gva(plan.spareVa + BigInt(at));
      expect(view.walk(plan.systemCr3, va)).toMatchObject({ gpa: plan.sparePhysical + at, user: false, write: true });
      expect(image.pages.get((plan.sparePhysical + at) / PAGE_SIZE)).toBeUndefined();
    }
    expect(view.walk(plan.systemCr3, plan.stubVa)).toBeUndefined();
  });
});

test('the same seed gives the same guest, another seed another one', () => {
  const bytes = (seed: number): string =>
    [...build(seed).pages]
      .toSorted(([a], [b]) => a - b)
      .map(([frame, page]) => `${frame}:${Buffer.from(page).toString('base64')}`)
      .join();
  expect(bytes(5)).toBe(bytes(5));
  expect(build(5).plan.kernelBase).not.toBe(build(6).plan.kernelBase);
});

test('seeds spread the self-map index over its range', () => {
  const indices = Array.from({ length: 60 }, (_, seed) => chooseLayout(new SeededRandom(seed)).selfMapIndex);
  expect(Math.min(...indices)).toBeGreaterThanOrEqual(0x100);
  expect(Math.max(...indices)).toBeLessThanOrEqual(0x1fe);
  expect(new Set(indices).size).toBeGreaterThan(30);
});
