import { type Gva, PAGE_SIZE } from '@introd/abi';
import { HEADER_SIZE, type PeHeaders, type PeSection, parsePeHeaders, sectionAt } from '../image/pe-headers.js';
import type { VirtualMemory } from '../virtual-memory.js';
import type { ScanBudget } from './scan-budget.js';

/** The kernel image in guest memory. */
export interface KernelImage {
  readonly base: Gva;
  readonly headers: PeHeaders;
}

/** How far below a pointer into its code the kernel's base is looked for (windows.md 1.5): 16 MiB, the pointer's page included. */
const SEARCH_PAGES = 4096;
/** Most sections of the name ALMOSTRO that are searched (windows.md 1.5). */
const MAX_ALMOSTRO = 9;
/** Largest section that is searched for the pointer to the kernel's base (windows.md 1.5). */
const MAX_SECTION = 2 * 1024 * 1024;

/**
 * Finds the kernel that a pointer leads into: the nearest page at or below it that begins an image which validates as a
 * kernel (windows.md 1.5).
 * @param pointer address of kernel code, e.g. the system call handler
 */
export function findKernelImage(memory: VirtualMemory, pointer: Gva, budget: ScanBudget): KernelImage | undefined {
  const page = new Uint8Array(HEADER_SIZE);
  const start = pointer - (pointer % BigInt(PAGE_SIZE));
  for (let step = 0; step < SEARCH_PAGES; step += 1) {
    const base = (start - BigInt(step * PAGE_SIZE)) as Gva;
    if (!memory.read(base, page.subarray(0, 2)) || page[0] !== 0x4d || page[1] !== 0x5a) continue;
    if (!budget.take(HEADER_SIZE)) return undefined;
    if (!memory.read(base, page)) continue;
    const headers = parsePeHeaders(page);
    if (typeof headers === 'string' || headers.bits !== 64) continue;
    if (isKernel(memory, base, headers, pointer, budget)) return { base, headers };
  }
  return undefined;
}

function isKernel(memory: VirtualMemory, base: Gva, headers: PeHeaders, pointer: Gva, budget: ScanBudget): boolean {
  const code = sectionAt(headers, Number(pointer - base));
  if (code && (!code.executable || code.writable || code.discardable)) return false;
  const almostReadOnly = headers.sections.filter((section) => section.name === 'ALMOSTRO').slice(0, MAX_ALMOSTRO);
  const data = headers.sections.find((section) => section.name === '.data');
  if (almostReadOnly.length === 0 || !data) return false;
  for (const section of [...almostReadOnly, data]) {
    if (section.rva % PAGE_SIZE !== 0 || section.virtualSize > MAX_SECTION) return false;
    const found = containsWord(memory, base, section, budget);
    if (found !== false) return found === true;
  }
  return false;
}

/**
 * Whether an aligned word of a section is the kernel's own base (PsNtosImageBase).
 * @returns `undefined` when a page is missing or the budget is spent: the image cannot be judged
 */
function containsWord(memory: VirtualMemory, base: Gva, section: PeSection, budget: ScanBudget): boolean | undefined {
  if (!budget.take(section.virtualSize)) return undefined;
  const words = new Uint32Array(PAGE_SIZE / 4);
  const bytes = new Uint8Array(words.buffer);
  const low = Number(BigInt.asUintN(32, base));
  const high = Number(base >> 32n);
  for (let offset = 0; offset < section.virtualSize; offset += PAGE_SIZE) {
    const size = Math.min(PAGE_SIZE, section.virtualSize - offset);
    const address = (base + BigInt(section.rva + offset)) as Gva;
    if (!memory.read(address, bytes.subarray(0, size))) return undefined;
    for (let word = 0; word < Math.floor(size / 8) * 2; word += 2) {
      if (words[word] === low && words[word + 1] === high) return true;
    }
  }
  return false;
}
