import { type Gva, gva, PAGE_SIZE } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import type { AddressSpace } from './address-space.js';
import type { VirtualRange } from './code/plan.js';
import { IMAGE_TIMESTAMP } from './kernel-image.js';
import { type PeSection, peHeaderPage } from './pe-image.js';
import type { SeededRandom } from './seeded-random.js';
import { linkList, structAt, utf16 } from './struct-writer.js';

/** KUSER_SHARED_DATA as ring 3 sees it. */
const USER_SHARED_DATA = 0x7ffe_0000n;

/** Code and data of a user program, in pages. */
const PROGRAM_PAGES = 4;
const STACK_PAGES = 4;
const HEAP_PAGES = 2;

/** Sections of every user image of the lab. */
const USER_SECTIONS: readonly PeSection[] = [
  { name: '.text', rva: 0x1000, size: PROGRAM_PAGES * PAGE_SIZE, use: 'code' },
  { name: '.rdata', rva: 0x5000, size: PAGE_SIZE, use: 'const' },
  { name: '.data', rva: 0x6000, size: PROGRAM_PAGES * PAGE_SIZE, use: 'data' },
];
const USER_IMAGE_SIZE = 0xa000;

/** A module of a process. */
export interface UserModule {
  readonly name: string;
  /** `C:\Windows\System32\...` */
  readonly path: string;
  readonly base: Gva;
  readonly size: number;
}

/** A DLL that every process maps at the same place, from the same frames. */
export interface SharedModule extends UserModule {
  /** Frames of headers, .text and .rdata. */
  readonly frames: readonly number[];
}

/** A range of user memory, for the VAD tree. */
export interface UserRange extends VirtualRange {
  /** Module that the range is an image of; private memory without. */
  readonly module?: UserModule;
  readonly protection: 'read' | 'read-write' | 'image';
}

/** The user half of one process. */
export interface UserSpace {
  readonly peb: Gva;
  readonly threads: readonly { readonly teb: Gva; readonly stackTop: Gva }[];
  readonly code: VirtualRange;
  readonly data: VirtualRange;
  readonly modules: readonly UserModule[];
  /** Ascending, without overlaps. */
  readonly ranges: readonly UserRange[];
}

/** What a process runs. */
export interface UserProgram {
  readonly name: string;
  readonly commandLine: string;
  readonly pid: number;
  readonly tids: readonly number[];
  readonly sessionId: number;
  readonly dlls: readonly SharedModule[];
}

/** Makes a DLL that processes share: writes it once, through any space. */
export function makeSharedModule(space: AddressSpace, name: string, base: Gva): SharedModule {
  const frames: number[] = [];
  for (let i = 0; i < 1 + PROGRAM_PAGES + 1; i++) frames.push(space.physical.allocate());
  space.physical.page(frames[0]!).set(userHeaders(base, true));
  return { name, path: `C:\\Windows\\System32\\${name}`, base, size: USER_IMAGE_SIZE, frames };
}

/** Maps and fills the user half of a process: image, DLLs, PEB, TEBs, stacks, heap with process parameters. */
export function buildUserSpace(
  space: AddressSpace,
  profile: GuestProfile,
  random: SeededRandom,
  program: UserProgram,
  sharedDataFrame: number,
): UserSpace {
  const random64k = (base: bigint, slots: number): Gva => gva(base + BigInt(random.below(slots)) * 0x1_0000n);
  const imageBase = random64k(0x7ff6_0000_0000n, 0xfff0);
  const stackBase = random64k(0x10_0000_0000n, 0x10_0000);
  const heap = random64k(0x180_0000_0000n, 0x100_0000);
  // As in Windows, PEB and TEBs lie together in the same region as the stacks; slots of 64 KiB keep them apart.
  const peb = gva(stackBase + 0x10_0000n + pages(random.below(8)));
  const tebSize = Math.ceil(profile.struct('_TEB').size / PAGE_SIZE);
  const threads = program.tids.map((_, i) => ({
    teb: gva(peb + pages(1 + i * tebSize)),
    limit: gva(stackBase + BigInt(i) * 0x1_0000n),
    stackTop: gva(stackBase + BigInt(i) * 0x1_0000n + pages(STACK_PAGES)),
  }));

  space.mapPage(Number(USER_SHARED_DATA >> 12n), sharedDataFrame, { user: true });
  space.map(imageBase, PAGE_SIZE, { user: true });
  space.write(imageBase, userHeaders(imageBase, false));
  for (const section of USER_SECTIONS) {
    const rights = { user: true, write: section.use === 'data', execute: section.use === 'code' };
    space.map(imageBase + BigInt(section.rva), section.size, rights);
  }
  for (const dll of program.dlls) {
    dll.frames.forEach((frame, i) => {
      const execute = i >= 1 && i <= PROGRAM_PAGES;
      space.mapTo(dll.base + pages(i), PAGE_SIZE, frame, { user: true, execute });
    });
  }
  space.map(peb, (1 + tebSize * threads.length) * PAGE_SIZE, { user: true, write: true });
  space.map(heap, HEAP_PAGES * PAGE_SIZE, { user: true, write: true });
  for (const thread of threads) space.map(thread.limit, STACK_PAGES * PAGE_SIZE, { user: true, write: true });

  const main: UserModule = {
    name: program.name,
    path: `C:\\Windows\\System32\\${program.name}`,
    base: imageBase,
    size: USER_IMAGE_SIZE,
  };
  const modules = [main, ...program.dlls];
  writeProcessBlock(space, profile, { peb, heap, main, modules, program });
  threads.forEach((thread, i) => {
    structAt(space, profile, '_TEB', thread.teb).setAll({
      'NtTib.StackBase': thread.stackTop,
      'NtTib.StackLimit': thread.limit,
      'NtTib.Self': thread.teb,
      'ClientId.UniqueProcess': program.pid,
      'ClientId.UniqueThread': program.tids[i]!,
      'RealClientId.UniqueProcess': program.pid,
      'RealClientId.UniqueThread': program.tids[i]!,
      ProcessEnvironmentBlock: peb,
      DeallocationStack: thread.limit,
      CurrentLocale: 0x409,
    });
  });
  const ranges: UserRange[] = [
    { va: gva(USER_SHARED_DATA), size: PAGE_SIZE, protection: 'read' },
    ...threads.map((thread) => ({
      va: thread.limit,
      size: STACK_PAGES * PAGE_SIZE,
      protection: 'read-write' as const,
    })),
    { va: peb, size: (1 + tebSize * threads.length) * PAGE_SIZE, protection: 'read-write' },
    { va: heap, size: HEAP_PAGES * PAGE_SIZE, protection: 'read-write' },
    ...modules.map((module) => ({ va: module.base, size: module.size, protection: 'image' as const, module })),
  ];
  ranges.sort((a, b) => (a.va < b.va ? -1 : 1));
  return {
    peb,
    threads: threads.map(({ teb, stackTop }) => ({ teb, stackTop })),
    code: sectionRange(imageBase, '.text'),
    data: sectionRange(imageBase, '.data'),
    modules,
    ranges,
  };
}

interface ProcessBlock {
  readonly peb: Gva;
  readonly heap: Gva;
  readonly main: UserModule;
  readonly modules: readonly UserModule[];
  readonly program: UserProgram;
}

/** PEB, loader data with its three lists, and process parameters, all in the heap but the PEB itself. */
function writeProcessBlock(space: AddressSpace, profile: GuestProfile, block: ProcessBlock): void {
  let next = block.heap + 0x40n;
  const allocate = (size: number): Gva => {
    const at = gva(next);
    next += BigInt(Math.ceil(size / 16) * 16);
    return at;
  };
  const text = (value: string): Gva => {
    const bytes = utf16(value);
    const at = allocate(bytes.length);
    space.write(at, bytes);
    return at;
  };
  const ldr = structAt(space, profile, '_PEB_LDR_DATA', allocate(profile.struct('_PEB_LDR_DATA').size));
  const parameters = structAt(
    space,
    profile,
    '_RTL_USER_PROCESS_PARAMETERS',
    allocate(profile.struct('_RTL_USER_PROCESS_PARAMETERS').size),
  );
  structAt(space, profile, '_PEB', block.peb).setAll({
    ImageBaseAddress: block.main.base,
    Ldr: ldr.va,
    ProcessParameters: parameters.va,
    ProcessHeap: block.heap,
    NumberOfProcessors: 1,
    OSMajorVersion: 10,
    OSBuildNumber: profile.build,
    OSPlatformId: 2,
    ImageSubsystem: 2,
    ImageSubsystemMajorVersion: 10,
    SessionId: block.program.sessionId,
  });
  const size = profile.struct('_RTL_USER_PROCESS_PARAMETERS').size;
  // Flags bit 0: the pointers are absolute (RTL_USER_PROC_PARAMS_NORMALIZED).
  parameters
    .setAll({ MaximumLength: size, Length: size, Flags: 1 })
    .unicode('CurrentDirectory.DosPath', 'C:\\Windows\\system32\\', text('C:\\Windows\\system32\\'))
    .unicode('ImagePathName', block.main.path, text(block.main.path))
    .unicode('CommandLine', block.program.commandLine, text(block.program.commandLine));
  const entries = block.modules.map((module) =>
    structAt(space, profile, '_LDR_DATA_TABLE_ENTRY', allocate(profile.struct('_LDR_DATA_TABLE_ENTRY').size))
      .setAll({
        DllBase: module.base,
        EntryPoint: module.base + 0x1000n,
        SizeOfImage: module.size,
        OriginalBase: module.base,
        TimeDateStamp: IMAGE_TIMESTAMP,
        ReferenceCount: 1,
        ObsoleteLoadCount: 0xffff,
      })
      .unicode('FullDllName', module.path, text(module.path))
      .unicode('BaseDllName', module.name, text(module.name)),
  );
  ldr.setAll({ Length: profile.struct('_PEB_LDR_DATA').size, Initialized: 1 });
  for (const [head, links] of [
    ['InLoadOrderModuleList', 'InLoadOrderLinks'],
    ['InMemoryOrderModuleList', 'InMemoryOrderLinks'],
  ] as const) {
    linkList(space, [ldr.at(head), ...entries.map((entry) => entry.at(links))]);
  }
  // The program itself is not initialised by the loader, so it is not in the third list.
  linkList(space, [
    ldr.at('InInitializationOrderModuleList'),
    ...entries.slice(1).map((entry) => entry.at('InInitializationOrderLinks')),
  ]);
}

function userHeaders(imageBase: Gva, dll: boolean): Uint8Array {
  return peHeaderPage({
    imageBase,
    sizeOfImage: USER_IMAGE_SIZE,
    entryPoint: 0x1000,
    timeDateStamp: IMAGE_TIMESTAMP,
    dll,
    subsystem: 2,
    sections: USER_SECTIONS,
    directories: new Map(),
  });
}

function sectionRange(imageBase: Gva, name: string): VirtualRange {
  const section = USER_SECTIONS.find((candidate) => candidate.name === name)!;
  return { va: gva(imageBase + BigInt(section.rva)), size: section.size };
}

/** Size of a number of pages. */
function pages(count: number): bigint {
  return BigInt(count * PAGE_SIZE);
}
