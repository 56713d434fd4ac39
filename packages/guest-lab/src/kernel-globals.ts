import { type Gva, gva, PAGE_SIZE } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import { type AddressSpace, type FrameUse, pteBase } from './address-space.js';
import type { ProcessorPlan } from './code/plan.js';
import { labMemory } from './layout.js';
import { OBJECT_KINDS, type Pool } from './pool.js';
import { ascii, linkList, structAt, utf16 } from './struct-writer.js';

/** NtBuildLab of the lab's kernel: that of the first release of this build. */
const BUILD_LAB = '19041.1.amd64fre.vb_release.191206-1406';
const DEBUGGER_DATA = '_KDDEBUGGER_DATA64';
/** 'KDBG', the owner tag of the debugger data block. */
const DEBUGGER_TAG = 0x4742_444b;
/** Size of the whole block in this build (KdDebuggerDataBlock to the next symbol). */
const DEBUGGER_DATA_SIZE = 0x380;
/** MMLISTS.ActiveAndValid: location of a page that is mapped. */
const ACTIVE_AND_VALID = 6;

/** What the globals point at. */
export interface GlobalFacts {
  readonly kernelBase: Gva;
  readonly selfMapIndex: number;
  readonly pfnDatabase: Gva;
  readonly objectCookie: number;
  readonly systemProcess: Gva;
  readonly idleProcess: Gva;
  readonly processors: readonly ProcessorPlan[];
}

/** Writes the variables of ntoskrnl that tools and introspection look at. */
export function writeGlobals(space: AddressSpace, profile: GuestProfile, pool: Pool, facts: GlobalFacts): void {
  const at = (name: string): Gva => gva(facts.kernelBase + BigInt(profile.symbol(name)));
  const pointers: Record<string, bigint> = {
    PsNtosImageBase: facts.kernelBase,
    PsInitialSystemProcess: facts.systemProcess,
    PsIdleProcess: facts.idleProcess,
    MmPteBase: pteBase(facts.selfMapIndex),
    MmPfnDatabase: facts.pfnDatabase,
    MmHighestUserAddress: 0x7fff_fffe_ffffn,
    MmSystemRangeStart: 0xffff_8000_0000_0000n,
    MmUserProbeAddress: 0x7fff_ffff_0000n,
    MmPhysicalMemoryBlock: writeMemoryBlock(space, profile, pool),
    KeServiceDescriptorTable: at('KiServiceTable'),
  };
  for (const [name, value] of Object.entries(pointers)) space.write64(at(name), value);
  // The top nibble of NtBuildNumber is F in free builds, C in checked ones.
  space.write32(at('NtBuildNumber'), (0xf000_0000 | profile.build) >>> 0);
  space.write(at('NtBuildLab'), ascii(BUILD_LAB));
  space.write32(at('KeNumberProcessors'), facts.processors.length);
  space.write32(at('KeTimeIncrement'), 156_250);
  space.write32(at('ObHeaderCookie'), facts.objectCookie);
  facts.processors.forEach((processor, i) => {
    space.write64(at('KiProcessorBlock') + BigInt(i * 8), processor.prcb);
  });
  writeObjectTypes(space, pool, at('ObTypeIndexTable'), [
    at('PsProcessType'),
    at('PsThreadType'),
    at('SeTokenObjectType'),
  ]);
  writeDebuggerData(space, profile, facts.kernelBase);
}

/** KDDEBUGGER_DATA64 in the clear, its list head, and the version block that points at it. */
function writeDebuggerData(space: AddressSpace, profile: GuestProfile, kernelBase: Gva): void {
  const at = (name: string): Gva => gva(kernelBase + BigInt(profile.symbol(name)));
  const block = structAt(space, profile, DEBUGGER_DATA, at('KdDebuggerDataBlock'));
  linkList(space, [at('KdpDebuggerDataListHead'), block.va]);
  // A pointer field of the block has the name of the symbol that it points at.
  const fields = Object.entries(profile.data.structs[DEBUGGER_DATA]!.fields);
  for (const [name, field] of fields) {
    if (field.size === 8 && profile.hasSymbol(name)) block.set(name, at(name));
  }
  const thread = profile.struct('_KTHREAD');
  const process = profile.struct('_EPROCESS');
  const prcb = profile.struct('_KPRCB');
  const pcr = profile.struct('_KPCR');
  block.setAll({
    OwnerTag: DEBUGGER_TAG,
    Size: DEBUGGER_DATA_SIZE,
    KernBase: kernelBase,
    PaeEnabled: 1,
    MmPageSize: PAGE_SIZE,
    KiBugcheckData: at('KiBugCheckData'),
    OffsetKThreadNextProcessor: thread.offset('NextProcessor'),
    OffsetKThreadTeb: thread.offset('Teb'),
    OffsetKThreadKernelStack: thread.offset('KernelStack'),
    OffsetKThreadInitialStack: thread.offset('InitialStack'),
    OffsetKThreadApcProcess: thread.offset('ApcState.Process'),
    OffsetKThreadState: thread.offset('State'),
    SizeEProcess: process.size,
    OffsetEprocessPeb: process.offset('Peb'),
    OffsetEprocessParentCID: process.offset('InheritedFromUniqueProcessId'),
    OffsetEprocessDirectoryTableBase: process.offset('Pcb.DirectoryTableBase'),
    SizePrcb: prcb.size,
    OffsetPrcbCurrentThread: prcb.offset('CurrentThread'),
    OffsetPrcbMhz: prcb.offset('MHz'),
    OffsetPrcbCpuType: prcb.offset('CpuType'),
    OffsetPrcbVendorString: prcb.offset('VendorString'),
    OffsetPrcbProcStateContext: prcb.offset('ProcessorState.ContextFrame'),
    OffsetPrcbNumber: prcb.offset('Number'),
    SizeEThread: profile.struct('_ETHREAD').size,
    SizePcr: pcr.size,
    OffsetPcrSelfPcr: pcr.offset('Self'),
    OffsetPcrCurrentPrcb: pcr.offset('CurrentPrcb'),
    OffsetPcrContainedPrcb: pcr.offset('Prcb'),
    OffsetPrcbProcStateSpecialReg: prcb.offset('ProcessorState.SpecialRegisters'),
    GdtR0Code: 0x10,
    GdtR0Data: 0x18,
    GdtR3Code: 0x30,
    GdtR3Data: 0x28,
    GdtTss: 0x40,
    Gdt64R3CmCode: 0x20,
    Gdt64R3CmTeb: 0x50,
  });
  structAt(space, profile, '_DBGKD_GET_VERSION64', at('KdVersionBlock')).setAll({
    // Free build, build number; protocol and packet limits of the 64-bit kernel debugger.
    MajorVersion: 0xf,
    MinorVersion: profile.build,
    ProtocolVersion: 6,
    KdSecondaryVersion: 2,
    Flags: 0x47,
    MachineType: 0x8664,
    MaxPacketType: 0xc,
    MaxStateChange: 3,
    MaxManipulate: 0x3d,
    KernBase: kernelBase,
    PsLoadedModuleList: at('PsLoadedModuleList'),
    DebuggerDataList: at('KdpDebuggerDataListHead'),
  });
}

/** Object types and the table that names them by index. */
function writeObjectTypes(
  space: AddressSpace,
  pool: Pool,
  table: Gva,
  [process, thread, token]: [Gva, Gva, Gva],
): void {
  for (const [name, variable] of [
    ['Process', process],
    ['Thread', thread],
    ['Token', token],
  ] as const) {
    const { index, tag } = OBJECT_KINDS[name];
    const type = pool.struct('ObjT', '_OBJECT_TYPE');
    type
      .unicode('Name', name, pool.bytes('ObNm', utf16(name)))
      .setAll({ Index: index, Key: [...tag].reduceRight((sum, letter) => sum * 256 + letter.charCodeAt(0), 0) });
    type.emptyList('TypeList').emptyList('CallbackList');
    space.write64(table + BigInt(index * 8), type.va);
    space.write64(variable, type.va);
  }
}

/** _PHYSICAL_MEMORY_DESCRIPTOR of the machine's RAM. */
function writeMemoryBlock(space: AddressSpace, profile: GuestProfile, pool: Pool): Gva {
  const layout = profile.struct('_PHYSICAL_MEMORY_DESCRIPTOR');
  const runSize = profile.struct('_PHYSICAL_MEMORY_RUN').size;
  const block = structAt(
    space,
    profile,
    '_PHYSICAL_MEMORY_DESCRIPTOR',
    pool.allocate('MmPh', layout.offset('Run') + labMemory.length * runSize),
  );
  block.setAll({
    NumberOfRuns: labMemory.length,
    NumberOfPages: labMemory.reduce((sum, region) => sum + region.size / PAGE_SIZE, 0),
  });
  labMemory.forEach((region, i) => {
    const run = block.at('Run') + BigInt(i * runSize);
    structAt(space, profile, '_PHYSICAL_MEMORY_RUN', gva(run)).setAll({
      BasePage: region.start / PAGE_SIZE,
      PageCount: region.size / PAGE_SIZE,
    });
  });
  return block.va;
}

/** KUSER_SHARED_DATA as it is after boot. @param time FILETIME at which the guest starts */
export function writeSharedUserData(
  space: AddressSpace,
  profile: GuestProfile,
  va: Gva,
  time: bigint,
  processors: number,
): void {
  const high = time >> 32n;
  structAt(space, profile, '_KUSER_SHARED_DATA', va)
    .setAll({
      TickCountMultiplier: 0x0fa0_0000,
      'SystemTime.LowPart': time & 0xffff_ffffn,
      'SystemTime.High1Time': high,
      'SystemTime.High2Time': high,
      // Machine types of the images that may run: AMD64 alone.
      ImageNumberLow: 0x8664,
      ImageNumberHigh: 0x8664,
      LargePageMinimum: 0x20_0000,
      NtBuildNumber: profile.build,
      NtProductType: 1,
      ProductTypeIsValid: 1,
      NativeProcessorArchitecture: 9,
      NtMajorVersion: 10,
      SuiteMask: 0x110,
      NumberOfPhysicalPages: labMemory.reduce((sum, region) => sum + region.size / PAGE_SIZE, 0),
      QpcFrequency: 10_000_000,
      ActiveProcessorCount: processors,
      ActiveGroupCount: 1,
      UnparkedProcessorCount: processors,
    })
    .bytes('NtSystemRoot', utf16('C:\\Windows'));
}

/** PFN database: for each mapped frame its PTE, table, location and reference count. */
export function writePfnDatabase(
  space: AddressSpace,
  profile: GuestProfile,
  va: Gva,
  uses: ReadonlyMap<number, FrameUse>,
): void {
  const layout = profile.struct('_MMPFN');
  const entry = new Uint8Array(layout.size);
  layout.write(entry, 'u2.ShareCount', 1);
  layout.write(entry, 'u3.ReferenceCount', 1);
  layout.write(entry, 'u3.e1.PageLocation', ACTIVE_AND_VALID);
  layout.write(entry, 'u4.PfnExists', 1);
  for (const [frame, use] of uses) {
    layout.write(entry, 'PteAddress', use.pteAddress);
    layout.write(entry, 'u4.PteFrame', use.table);
    space.write(va + BigInt(frame * layout.size), entry);
  }
}
