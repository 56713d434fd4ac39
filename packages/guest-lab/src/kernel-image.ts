import { type Gva, gva, PAGE_SIZE } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import type { AddressSpace, PageRights } from './address-space.js';
import type { KernelCode, VirtualRange } from './code/plan.js';
import { LabError } from './error.js';
import { PeDirectory, type PeSection, peDebug, peExports, peHeaderPage, type SectionUse } from './pe-image.js';

/** TimeDateStamp of the images of the lab: any value does, as long as it is always the same. */
export const IMAGE_TIMESTAMP = 0x5de7_3a4c;

/** Size of the section that holds the lab's ring-0 code, in bytes. */
const LAB_CODE_SIZE = 0x1_0000;
/** Size of the section that holds the lab's kernel data, in bytes. */
const LAB_DATA_SIZE = 0x1_0000;

/**
 * Sections of the lab's ntoskrnl.exe. Each reaches to the next. The boundaries follow the symbols of build 19041: they lie in
 * the gaps between groups of symbols of one kind, which the symbol file shows without naming sections. Sections named `Pad`
 * and `INIT` are discardable and not backed by memory, as after a real boot.
 */
export const kernelSections: readonly PeSection[] = sectionsFrom([
  [0x00_1000, '.rdata', 'const'],
  [0x0c_9000, '.pdata', 'const'],
  [0x13_1000, '.idata', 'const'],
  [0x13_3000, '.edata', 'const'],
  [0x14_d000, 'PROTDATA', 'const'],
  [0x14_e000, 'GFIDS', 'const'],
  [0x15_8000, 'Pad1', 'pad'],
  [0x20_0000, '.text', 'code'],
  [0x41_b000, 'Pad2', 'pad'],
  [0x4b_5000, 'PAGE', 'code', true],
  [0x7e_4000, 'Pad3', 'pad'],
  [0x86_6000, 'PAGELK', 'code', true],
  [0xa3_c000, 'INIT', 'discardable-code'],
  [0xaa_a000, 'Pad4', 'pad'],
  [0xc0_0000, '.data', 'data'],
  [0xcf_b000, 'ALMOSTRO', 'data'],
  [0xd0_5000, 'CACHEALI', 'data'],
  [0xd2_d000, 'PAGEDATA', 'data', true],
  [0xd5_f000, 'Pad5', 'pad'],
  [0xe0_0000, 'CFGRO', 'const'],
  [0xe0_2000, 'LABCODE', 'code'],
  [0xe0_2000 + LAB_CODE_SIZE, 'LABDATA', 'data'],
  [0xe0_2000 + LAB_CODE_SIZE + LAB_DATA_SIZE, '', 'pad'],
]);

/** SizeOfImage of the lab's ntoskrnl.exe. */
export const KERNEL_SIZE = 0xe0_2000 + LAB_CODE_SIZE + LAB_DATA_SIZE;

/** Where the export directory and the debug directory lie: `.edata`, and the gap behind the last symbol of `.rdata`. */
const EXPORTS_RVA = 0x13_3000;
const DEBUG_RVA = 0xc_8800;

/** Exports of the real kernel that the lab's kernel has too. */
const EXPORTS = [
  'ExAllocatePool ExAllocatePoolWithTag ExFreePool ExFreePoolWithTag ExGetPreviousMode',
  'ExQueueWorkItem HalDispatchTable HalPrivateDispatchTable KdDebuggerEnabled KdDebuggerNotPresent KeBugCheck KeBugCheckEx',
  'KeDelayExecutionThread KeInitializeEvent KeNumberProcessors KeQueryPerformanceCounter KeServiceDescriptorTable KeSetEvent',
  'KeStackAttachProcess KeUnstackDetachProcess KeWaitForSingleObject MmGetPhysicalAddress MmHighestUserAddress MmMapIoSpace',
  'MmSystemRangeStart MmUserProbeAddress NtBuildLab NtBuildNumber PsCreateSystemThread',
  'PsGetCurrentProcessId PsGetCurrentThreadId PsGetProcessId PsInitialSystemProcess PsLoadedModuleList PsLookupProcessByProcessId',
  'PsProcessType PsThreadType PsTerminateSystemThread',
].flatMap((line) => line.split(' '));

/** `mov eax, STATUS_NOT_IMPLEMENTED; ret`: what exported functions do that the lab has no code for. */
const NOT_IMPLEMENTED = Uint8Array.of(0xb8, 0x02, 0x00, 0x00, 0xc0, 0xc3);

/** Range of a section in the guest. */
export function kernelSection(kernelBase: Gva, name: string): VirtualRange {
  const section = kernelSections.find((candidate) => candidate.name === name)!;
  return { va: gva(kernelBase + BigInt(section.rva)), size: section.size };
}

/** Maps the kernel image, headers and resident sections, to consecutive frames, each section with its rights. */
export function mapKernelImage(space: AddressSpace, kernelBase: Gva, physical: number): void {
  const frame = physical / PAGE_SIZE;
  space.mapTo(kernelBase, PAGE_SIZE, frame, {});
  for (const section of kernelSections) {
    const rights = RIGHTS[section.use];
    if (rights) space.mapTo(kernelBase + BigInt(section.rva), section.size, frame + section.rva / PAGE_SIZE, rights);
  }
}

/** Writes headers, exports, debug record and function stubs. */
export function writeKernelImage(
  space: AddressSpace,
  profile: GuestProfile,
  kernelBase: Gva,
  stubs: KernelCode['stubs'],
): void {
  const exported = new Map(EXPORTS.map((name) => [name, profile.symbol(name)] as const));
  const exportBytes = peExports(EXPORTS_RVA, 'ntoskrnl.exe', IMAGE_TIMESTAMP, exported);
  const debug = peDebug(DEBUG_RVA, IMAGE_TIMESTAMP, profile.pdb);
  const at = (rva: number): bigint => kernelBase + BigInt(rva);
  space.write(
    kernelBase,
    peHeaderPage({
      imageBase: kernelBase,
      sizeOfImage: KERNEL_SIZE,
      entryPoint: profile.symbol('KiSystemStartup'),
      timeDateStamp: IMAGE_TIMESTAMP,
      dll: false,
      subsystem: 1,
      sections: kernelSections,
      directories: new Map([
        [PeDirectory.EXPORT, { rva: EXPORTS_RVA, size: exportBytes.length }],
        [PeDirectory.DEBUG, { rva: DEBUG_RVA, size: debug.directorySize }],
      ]),
    }),
  );
  space.write(at(EXPORTS_RVA), exportBytes);
  space.write(at(DEBUG_RVA), debug.bytes);
  for (const [name, rva] of exported) {
    if (isCode(rva) && !stubs.has(name)) space.write(at(rva), NOT_IMPLEMENTED);
  }
  for (const [name, target] of stubs)
    space.write(at(profile.symbol(name)), jump(at(profile.symbol(name)), target, name));
}

/** Memory rights by use; sections without an entry are not backed. */
const RIGHTS: { readonly [use in SectionUse]?: PageRights } = {
  code: { execute: true },
  const: {},
  data: { write: true },
};

function isCode(rva: number): boolean {
  return kernelSections.some((s) => s.use === 'code' && rva >= s.rva && rva < s.rva + s.size);
}

/** JMP rel32. */
function jump(from: bigint, to: bigint, name: string): Uint8Array {
  const distance = BigInt.asIntN(64, to - (from + 5n));
  if (distance !== BigInt.asIntN(32, distance)) {
    throw new LabError('ERR_GUEST_LAB_LAYOUT', `the target of ${name} is too far for a jump`);
  }
  const bytes = new Uint8Array(5);
  bytes[0] = 0xe9;
  new DataView(bytes.buffer).setInt32(1, Number(distance), true);
  return bytes;
}

function sectionsFrom(starts: readonly (readonly [number, string, SectionUse, boolean?])[]): PeSection[] {
  return starts.slice(0, -1).map(([rva, name, use, pageable], i) => ({
    name,
    rva,
    size: starts[i + 1]![0] - rva,
    use,
    ...(pageable === undefined ? {} : { pageable }),
  }));
}
