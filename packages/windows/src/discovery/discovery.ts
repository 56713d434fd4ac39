import { type Cr3, type Gva, gva, hex64, rootOf, type VcpuRecord } from '@introd/abi';
import type { GuestMemory } from '@introd/core-hooks';
import type { GuestProfile, ProfileStore } from '@introd/windows-profiles';
import type { GuestInfo } from '../guest-info.js';
import { type CodeView, readCodeView } from '../image/codeview.js';
import { PROCESS_FIELDS, USER_CR3_FIELD } from '../objects/process-reader.js';
import { addressSpace, isKernelPointer, readU32, readU64, type VirtualMemory } from '../virtual-memory.js';
import { buildOfWord, findBuildNumber } from './build-number.js';
import { findKernelImage, type KernelImage } from './kernel-image.js';
import { isPageTableIsolationActive } from './page-table-isolation.js';
import { ScanBudget } from './scan-budget.js';
import { findSelfMapIndex } from './self-map-index.js';

/** What one look at the guest gave. */
export type DiscoveryResult =
  | { readonly status: 'found'; readonly info: GuestInfo; readonly profile: GuestProfile }
  /** Too early to say anything; looking again costs nothing and is not counted. */
  | { readonly status: 'too-early'; readonly reason: string }
  /** Something that a Windows kernel has is not there (yet). */
  | { readonly status: 'not-found'; readonly reason: string }
  /** It is a system that cannot be handled; looking again is of no use. */
  | { readonly status: 'unsupported'; readonly reason: string };

/** What discovery itself reads, by the names of the profile. */
const NEEDED = ['PsInitialSystemProcess', 'PsActiveProcessHead', ...PROCESS_FIELDS];

/** Most of guest memory that one attempt looks through for the kernel: enough for one candidate with all sections of full size. */
const SCAN_BUDGET = 24 * 1024 * 1024;

const CR0_PG = 1n << 31n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
/** Vector of the page fault: its handler lies in the kernel's image. */
const PAGE_FAULT = 14;
/** Size of a 64-bit interrupt gate (SDM vol. 3A, 6.14.1). */
const GATE_SIZE = 16;

/**
 * Looks for a Windows kernel from the registers of a VCPU that is about to load CR3 (windows.md 1.1 to 1.7). Changes
 * nothing in the guest.
 * @param newCr3 value that the guest is about to load
 */
export function discover(vcpu: VcpuRecord, newCr3: Cr3, memory: GuestMemory, profiles: ProfileStore): DiscoveryResult {
  const current = vcpu.cr3;
  if ((vcpu.get('cr0') & CR0_PG) === 0n) return { status: 'too-early', reason: 'paging is off' };
  if ((vcpu.get('efer') & EFER_LMA) === 0n)
    return { status: 'too-early', reason: 'the guest is in 32-bit mode, which is not supported' };
  if (vcpu.get('cr4') & CR4_LA57) {
    return { status: 'unsupported', reason: 'the guest uses 5-level paging; no layout of such a Windows is known' };
  }
  const lstar = vcpu.get('lstar');
  const sysenter = vcpu.get('sysenterEip');
  if (lstar === 0n && sysenter === 0n) return { status: 'too-early', reason: 'no system call handler is set' };
  if (rootOf(newCr3) === rootOf(current)) return { status: 'too-early', reason: 'the page tables do not change' };

  let obstacle = 'there is no Windows kernel below its system call handler or its page fault handler';
  // With KPTI the old value may be that of the user page tables, under which most of the kernel is not mapped.
  for (const cr3 of [current, newCr3]) {
    const space = addressSpace(memory, cr3);
    const budget = new ScanBudget(SCAN_BUDGET);
    const handlers = [lstar, sysenter, interruptHandler(space, vcpu, 0)].filter(isKernelAddress);
    const byCall = handlers[0] === undefined ? undefined : findKernelImage(space, handlers[0], budget);
    const faultHandler = interruptHandler(space, vcpu, PAGE_FAULT);
    const byFault = isKernelAddress(faultHandler) ? findKernelImage(space, faultHandler, budget) : undefined;
    const kernel = byFault ?? byCall;
    if (!kernel) continue;
    const isolated = handlers[0] !== undefined && (isPageTableIsolationActive(space, handlers[0]) ?? false);
    const result = identify(space, memory, kernel, isolated, profiles);
    if (result.status !== 'not-found') return result;
    obstacle = result.reason;
  }
  return { status: 'not-found', reason: obstacle };
}

function isKernelAddress(address: bigint | undefined): address is Gva {
  return address !== undefined && isKernelPointer(address);
}

/** Address of an interrupt handler; `undefined` when its gate is absent or not there. */
function interruptHandler(memory: VirtualMemory, vcpu: VcpuRecord, vector: number): Gva | undefined {
  if (vector * GATE_SIZE + GATE_SIZE - 1 > vcpu.get32('idtLimit')) return undefined;
  const gate = gva(vcpu.get('idtBase') + BigInt(vector * GATE_SIZE));
  const low = readU64(memory, gate);
  const high = readU32(memory, gva(gate + 8n));
  if (low === undefined || high === undefined) return undefined;
  return gva((BigInt(high) << 32n) | ((low >> 32n) & 0xffff_0000n) | (low & 0xffffn));
}

/** Says which Windows a kernel image is, and finds what only its profile tells. */
function identify(
  space: VirtualMemory,
  memory: GuestMemory,
  kernel: KernelImage,
  kptiActive: boolean,
  profiles: ProfileStore,
): DiscoveryResult {
  const pdb = readCodeView(space, kernel.base, kernel.headers);
  const profile = pdb && profiles.byPdb(pdb.guid, pdb.age);
  if (!pdb || !profile) return { status: 'unsupported', reason: unknownKernel(space, kernel, pdb, profiles) };
  const missing = profile.missing(kptiActive ? [...NEEDED, USER_CR3_FIELD] : NEEDED);
  if (missing.length > 0) {
    return { status: 'unsupported', reason: `the profile of build ${profile.build} lacks ${missing.join(', ')}` };
  }
  const systemCr3 = findSystemCr3(space, memory, kernel, profile);
  if (typeof systemCr3 === 'string') return { status: 'not-found', reason: systemCr3 };
  const selfMapIndex = findSelfMapIndex(memory, systemCr3);
  if (selfMapIndex === undefined) {
    return { status: 'not-found', reason: `no entry of the PML4 at ${hex64(rootOf(systemCr3))} refers to itself` };
  }
  return {
    status: 'found',
    profile,
    info: {
      build: readBuild(space, kernel, profile),
      arch: 'x64',
      kernelBase: kernel.base,
      kernelSize: kernel.headers.sizeOfImage,
      systemCr3,
      selfMapIndex,
      kptiActive,
      pdb,
    },
  };
}

function unknownKernel(
  space: VirtualMemory,
  kernel: KernelImage,
  pdb: CodeView | undefined,
  profiles: ProfileStore,
): string {
  const build = findBuildNumber(space, kernel);
  const what = `Windows ${build === undefined ? 'of an unknown build' : `build ${build}`} x64`;
  const known = profiles.builds.length > 0 ? `known builds: ${profiles.builds.join(', ')}` : 'there are no profiles';
  return pdb
    ? `${what}: no profile for ${pdb.name} ${pdb.guid}-${pdb.age} (${known})`
    : `${what}: its image does not name a symbol file, so no profile can be chosen`;
}

/** The build that the kernel itself says it is (it may be newer than that of its symbol file's name), else the profile's. */
function readBuild(space: VirtualMemory, kernel: KernelImage, profile: GuestProfile): number {
  const word = profile.hasSymbol('NtBuildNumber')
    ? readU32(space, gva(kernel.base + BigInt(profile.symbol('NtBuildNumber'))))
    : undefined;
  return (word === undefined ? undefined : buildOfWord(word)) ?? profile.build;
}

/** CR3 of the System process, checked by reading it again through itself (windows.md 1.7); a text when there is none. */
function findSystemCr3(
  space: VirtualMemory,
  memory: GuestMemory,
  kernel: KernelImage,
  profile: GuestProfile,
): Cr3 | string {
  const process = readU64(space, gva(kernel.base + BigInt(profile.symbol('PsInitialSystemProcess'))));
  if (process === undefined || !isKernelPointer(process)) return 'the System process does not exist yet';
  const field = gva(process + BigInt(profile.struct('_EPROCESS').offset('Pcb.DirectoryTableBase')));
  const value = readU64(space, field);
  if (value === undefined || value === 0n) return 'the System process has no page tables yet';
  if (readU64(addressSpace(memory, value as Cr3), field) !== value) {
    return `the page tables of the System process (${hex64(value)}) do not map itself`;
  }
  return value as Cr3;
}
