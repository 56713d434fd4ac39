import { type AlertModule, type Gva, gva, hex64 } from '@introd/abi';
import { type KernelImage, originatorHash } from '@introd/exceptions';
import type { GuestProfile, StructReader } from '@introd/windows-profiles';
import type { GuestInfo } from '../guest-info.js';
import { HEADER_SIZE, parsePeHeaders, printable, sectionAt } from '../image/pe-headers.js';
import type { VirtualMemory } from '../virtual-memory.js';
import { walkList } from './list-walk.js';

/** What is read of loaded drivers, by the names of the profile. */
const DRIVER_FIELDS = [
  'PsLoadedModuleList',
  '_KLDR_DATA_TABLE_ENTRY.InLoadOrderLinks',
  '_KLDR_DATA_TABLE_ENTRY.DllBase',
  '_KLDR_DATA_TABLE_ENTRY.SizeOfImage',
  '_KLDR_DATA_TABLE_ENTRY.BaseDllName.Length',
  '_KLDR_DATA_TABLE_ENTRY.BaseDllName.Buffer',
];
/** Most drivers that are followed; a Windows has a few hundred. */
const MAX_DRIVERS = 4096;
/** Longest name in bytes of UTF-16: MAX_PATH characters. */
const MAX_NAME = 520;

/** An image in kernel memory. */
export class Driver implements KernelImage {
  #nameHash: number | undefined;

  constructor(
    /** Base name; what is not printable ASCII is `?`. */
    readonly name: string,
    readonly base: Gva,
    /** Size of the image in bytes. */
    readonly size: number,
    private readonly isKernel: boolean,
  ) {}

  get nameHash(): number {
    this.#nameHash ??= originatorHash(this.name, this.isKernel);
    return this.#nameHash;
  }

  /** The image as alerts name it. */
  toAlert(): AlertModule {
    return { name: this.name, base: hex64(this.base), size: this.size };
  }
}

/** The loaded drivers, looked up in the guest when somebody asks: that is rare, and then it must be right. */
export class DriverList {
  readonly #entry: StructReader | undefined;
  readonly #buffer: Uint8Array;
  readonly #head: Gva | undefined;

  /** @param memory the kernel's address space */
  constructor(
    private readonly memory: VirtualMemory,
    profile: GuestProfile,
    private readonly info: GuestInfo,
  ) {
    const complete = profile.missing(DRIVER_FIELDS).length === 0;
    this.#entry = complete ? profile.struct('_KLDR_DATA_TABLE_ENTRY') : undefined;
    this.#head = complete ? gva(info.kernelBase + BigInt(profile.symbol('PsLoadedModuleList'))) : undefined;
    this.#buffer = new Uint8Array(this.#entry?.size ?? 0);
  }

  /** The driver that holds an address; `undefined` when none does, or the kernel's list cannot be read that far. */
  find(address: Gva): Driver | undefined {
    const { kernelBase, kernelSize } = this.info;
    const inKernel = address >= kernelBase && address < kernelBase + BigInt(kernelSize);
    return this.#find(address) ?? (inKernel ? new Driver('ntoskrnl.exe', kernelBase, kernelSize, true) : undefined);
  }

  /** Name of the section of a driver that holds an address. */
  sectionOf(driver: Driver, address: Gva): string | undefined {
    const page = new Uint8Array(HEADER_SIZE);
    if (!this.memory.read(driver.base, page)) return undefined;
    const headers = parsePeHeaders(page);
    return typeof headers === 'string' ? undefined : sectionAt(headers, Number(address - driver.base))?.name;
  }

  #find(address: Gva): Driver | undefined {
    const entry = this.#entry;
    if (!entry || this.#head === undefined) return undefined;
    const walk = walkList(this.memory, this.#head, MAX_DRIVERS);
    if (walk.status !== 'ok') return undefined;
    const linkOffset = BigInt(entry.offset('InLoadOrderLinks'));
    for (const link of walk.entries) {
      if (!this.memory.read(gva(link - linkOffset), this.#buffer)) continue;
      const base = gva(entry.u64(this.#buffer, 'DllBase'));
      const size = entry.number(this.#buffer, 'SizeOfImage');
      if (address < base || address >= base + BigInt(size)) continue;
      return new Driver(this.#name(entry), base, size, base === this.info.kernelBase);
    }
    return undefined;
  }

  #name(entry: StructReader): string {
    const length = entry.number(this.#buffer, 'BaseDllName.Length');
    const text = new Uint8Array(Math.min(length, MAX_NAME) & ~1);
    if (!this.memory.read(gva(entry.u64(this.#buffer, 'BaseDllName.Buffer')), text)) return '';
    return printable(new Uint16Array(text.buffer));
  }
}
