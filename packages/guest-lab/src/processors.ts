import { type Cr3, type Gva, gva, PAGE_SIZE } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import type { AddressSpace } from './address-space.js';
import type { InterruptGate, ProcessorPlan } from './code/plan.js';
import { ascii, structAt } from './struct-writer.js';
import type { SystemRegion } from './system-region.js';

/** Selectors of Windows x64. */
export const SELECTOR = { kernelCode: 0x10, kernelData: 0x18, tss: 0x40 } as const;
/** Limit of the GDT: its last descriptor ends at 0x57. */
export const GDT_LIMIT = 0x57;
/** Limit of an IDT of 256 gates. */
export const IDT_LIMIT = 0xfff;
/** Limit of a TSS without I/O bitmap. */
export const TSS_LIMIT = 0x67;

/** Values of the control registers and syscall MSRs with which VCPUs start. */
export const START_STATE = {
  /** PE, MP, ET, NE, WP, AM, PG */
  cr0: 0x8005_0033n,
  /** DE, PSE, PAE, MCE, PGE, OSFXSR, OSXMMEXCPT, SMEP (bit 20); no SMAP */
  cr4: 0x0010_06f8n,
  /** SCE, LME, LMA, NXE */
  efer: 0xd01n,
  /** SYSCALL: CS 0x10, SS 0x18; SYSRET: CS 0x33, SS 0x2B */
  star: 0x0023_0010_0000_0000n,
  /** Flags that SYSCALL clears: TF, IF, DF, NT, as Windows sets it. */
  sfmask: 0x4700n,
} as const;

/** Descriptors by selector, without the TSS (SDM vol. 3A, 3.4.5). */
const DESCRIPTORS: readonly (readonly [selector: number, value: bigint])[] = [
  [0x10, 0x0020_9b00_0000_0000n], // R0 code, 64-bit
  [0x18, 0x0040_9300_0000_0000n], // R0 data
  [0x20, 0x00cf_fb00_0000_ffffn], // R3 code, 32-bit
  [0x28, 0x00cf_f300_0000_ffffn], // R3 data
  [0x30, 0x0020_fb00_0000_0000n], // R3 code, 64-bit
  [0x50, 0x0040_f300_0000_3c00n], // R3 TEB of 32-bit code
];

const IST_STACK_SIZE = 2 * PAGE_SIZE;

/** Takes the memory of one VCPU's structures. The idle thread comes later, because it names its processor. */
export function allocateProcessor(
  region: SystemRegion,
  profile: GuestProfile,
  index: number,
): Omit<ProcessorPlan, 'idleThread'> {
  const kpcr = region.allocate(profile.struct('_KPCR').size);
  const page = (): { va: Gva; size: number } => ({ va: region.allocate(PAGE_SIZE), size: PAGE_SIZE });
  const istTop = (): Gva => region.stack(IST_STACK_SIZE).top;
  return {
    index,
    kpcr,
    prcb: gva(kpcr + BigInt(profile.struct('_KPCR').offset('Prcb'))),
    gdt: page(),
    idt: page(),
    tss: page(),
    istTops: [istTop(), istTop(), istTop()],
  };
}

/** Fills KPCR, KPRCB, GDT and TSS of one VCPU. */
export function writeProcessor(
  space: AddressSpace,
  profile: GuestProfile,
  processor: ProcessorPlan,
  facts: { readonly systemCr3: Cr3; readonly symbol: (name: string) => Gva },
): void {
  const { index, kpcr, prcb, gdt, idt, tss, idleThread } = processor;
  structAt(space, profile, '_KPCR', kpcr).setAll({
    GdtBase: gdt.va,
    TssBase: tss.va,
    Self: kpcr,
    CurrentPrcb: prcb,
    LockArray: prcb + BigInt(profile.struct('_KPRCB').offset('LockQueue')),
    Used_Self: idleThread.teb,
    IdtBase: idt.va,
    MajorVersion: 1,
    MinorVersion: 1,
    StallScaleFactor: 1000,
    KdVersionBlock: index === 0 ? facts.symbol('KdVersionBlock') : 0n,
  });
  const registers = 'ProcessorState.SpecialRegisters';
  structAt(space, profile, '_KPRCB', prcb)
    .setAll({
      MxCsr: 0x1f80,
      LegacyNumber: index,
      CurrentThread: idleThread.ethread,
      IdleThread: idleThread.ethread,
      Number: index,
      RspBase: idleThread.kernelStackTop,
      MHz: 1000,
      MajorVersion: 1,
      MinorVersion: 1,
      CpuVendor: 2,
      GroupSetMember: 1n << BigInt(index),
      GroupIndex: index,
      [`${registers}.Cr0`]: START_STATE.cr0,
      [`${registers}.Cr3`]: facts.systemCr3,
      [`${registers}.Cr4`]: START_STATE.cr4,
      [`${registers}.Gdtr.Limit`]: GDT_LIMIT,
      [`${registers}.Gdtr.Base`]: gdt.va,
      [`${registers}.Idtr.Limit`]: IDT_LIMIT,
      [`${registers}.Idtr.Base`]: idt.va,
      [`${registers}.Tr`]: SELECTOR.tss,
      [`${registers}.MsrGsBase`]: kpcr,
      [`${registers}.MsrStar`]: START_STATE.star,
      [`${registers}.MsrLStar`]: facts.symbol('KiSystemCall64'),
      [`${registers}.MsrCStar`]: facts.symbol('KiSystemCall32'),
      [`${registers}.MsrSyscallMask`]: START_STATE.sfmask,
    })
    .bytes('VendorString', ascii('GenuineIntel'));
  for (const [selector, value] of DESCRIPTORS) space.write64(gdt.va + BigInt(selector), value);
  for (const [offset, value] of tssDescriptor(tss.va)) space.write64(gdt.va + BigInt(SELECTOR.tss + offset), value);
  const state = structAt(space, profile, '_KTSS64', tss.va).setAll({
    Rsp0: idleThread.kernelStackTop,
    // Behind the limit: there is no I/O permission bitmap.
    IoMapBase: TSS_LIMIT + 1,
  });
  // Ist[0] is not an IST entry: IST1 is element 1.
  const ist = new Uint8Array(8 * 4);
  processor.istTops.forEach((top, i) => {
    new DataView(ist.buffer).setBigUint64(8 * (i + 1), top, true);
  });
  state.bytes('Ist', ist);
}

/** Writes the gates of an IDT (interrupt gates to the kernel's code segment). */
export function writeGates(
  space: AddressSpace,
  profile: GuestProfile,
  idt: Gva,
  gates: readonly InterruptGate[],
): void {
  const size = profile.struct('_KIDTENTRY64').size;
  for (const gate of gates) {
    structAt(space, profile, '_KIDTENTRY64', gva(idt + BigInt(gate.vector * size))).setAll({
      OffsetLow: gate.handler & 0xffffn,
      OffsetMiddle: (gate.handler >> 16n) & 0xffffn,
      OffsetHigh: gate.handler >> 32n,
      Selector: SELECTOR.kernelCode,
      IstIndex: gate.ist,
      Type: 0xe,
      Dpl: gate.dpl,
      Present: 1,
    });
  }
}

/** Present, busy 64-bit TSS (SDM vol. 3A, 7.2.3). */
function tssDescriptor(base: bigint): [offset: number, value: bigint][] {
  const low = BigInt(TSS_LIMIT) | ((base & 0xff_ffffn) << 16n) | (0x8bn << 40n) | (((base >> 24n) & 0xffn) << 56n);
  return [
    [0, low],
    [8, base >> 32n],
  ];
}
