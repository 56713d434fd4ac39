import { type Gva, gva, PAGE_SIZE } from '@introd/abi';
import type { GuestProfile } from '@introd/windows-profiles';
import type { AddressSpace } from './address-space.js';
import { IMAGE_TIMESTAMP, KERNEL_SIZE } from './kernel-image.js';
import { type PeSection, peHeaderPage } from './pe-image.js';
import type { Pool } from './pool.js';
import { type GuestStruct, linkList, utf16 } from './struct-writer.js';

/** A module of the kernel. */
export interface KernelModule {
  readonly name: string;
  readonly path: string;
  readonly base: Gva;
  readonly size: number;
  readonly entryPoint: Gva;
}

/** Boot drivers beside the kernel, in load order. */
const DRIVERS: readonly (readonly [name: string, path: string])[] = [
  ['hal.dll', '\\SystemRoot\\system32\\hal.dll'],
  ['kdcom.dll', '\\SystemRoot\\system32\\kd.dll'],
  ['ndis.sys', '\\SystemRoot\\system32\\drivers\\ndis.sys'],
  ['Ntfs.sys', '\\SystemRoot\\System32\\Drivers\\Ntfs.sys'],
];

const DRIVER_SECTIONS: readonly PeSection[] = [
  { name: '.text', rva: 0x1000, size: 0x2000, use: 'code' },
  { name: '.rdata', rva: 0x3000, size: 0x1000, use: 'const' },
  { name: '.data', rva: 0x4000, size: 0x1000, use: 'data' },
];
const DRIVER_SIZE = 0x5000;

/** Maps the drivers' images, with headers. @param bases one address per driver, at least as many as there are */
export function mapDrivers(space: AddressSpace, bases: readonly Gva[]): KernelModule[] {
  return DRIVERS.map(([name, path], i) => {
    const base = bases[i]!;
    space.map(base, PAGE_SIZE, {});
    for (const section of DRIVER_SECTIONS) {
      const rights = { write: section.use === 'data', execute: section.use === 'code' };
      space.map(base + BigInt(section.rva), section.size, rights);
    }
    space.write(
      base,
      peHeaderPage({
        imageBase: base,
        sizeOfImage: DRIVER_SIZE,
        entryPoint: 0x1000,
        timeDateStamp: IMAGE_TIMESTAMP,
        dll: name.endsWith('.dll'),
        subsystem: 1,
        sections: DRIVER_SECTIONS,
        directories: new Map(),
      }),
    );
    return { name, path, base, size: DRIVER_SIZE, entryPoint: gva(base + 0x1000n) };
  });
}

/** The kernel itself as a module. */
export function kernelModule(profile: GuestProfile, base: Gva): KernelModule {
  return {
    name: 'ntoskrnl.exe',
    path: '\\SystemRoot\\system32\\ntoskrnl.exe',
    base,
    size: KERNEL_SIZE,
    entryPoint: gva(base + BigInt(profile.symbol('KiSystemStartup'))),
  };
}

/** Makes the entries of PsLoadedModuleList and links them behind the head. */
export function writeModuleList(space: AddressSpace, pool: Pool, head: Gva, modules: readonly KernelModule[]): void {
  const entries = modules.map((module): GuestStruct => {
    const entry = pool.struct('MmLd', '_KLDR_DATA_TABLE_ENTRY');
    return entry
      .setAll({
        DllBase: module.base,
        EntryPoint: module.entryPoint,
        SizeOfImage: module.size,
        SizeOfImageNotRounded: module.size,
        // LDRP_ENTRY_PROCESSED and LDRP_ENTRY_NATIVE, as boot drivers have them.
        Flags: 0x0800_4000,
        LoadCount: 1,
        TimeDateStamp: IMAGE_TIMESTAMP,
      })
      .unicode('FullDllName', module.path, pool.bytes('MmLd', utf16(module.path)))
      .unicode('BaseDllName', module.name, pool.bytes('MmLd', utf16(module.name)));
  });
  linkList(space, [head, ...entries.map((entry) => entry.at('InLoadOrderLinks'))]);
}
