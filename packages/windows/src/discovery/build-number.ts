import { type Gva, PAGE_SIZE } from '@introd/abi';
import type { VirtualMemory } from '../virtual-memory.js';
import type { KernelImage } from './kernel-image.js';

/** Builds of 64-bit Windows from 7 to 11 24H2, to recognise one without a profile. */
const KNOWN_BUILDS: ReadonlySet<number> = new Set([
  7600, 7601, 7602, 9200, 9600, 10240, 10586, 14393, 15063, 16299, 17134, 17763, 18362, 18363, 19041, 19042, 19043,
  19044, 19045, 20348, 22000, 22621, 22631, 26100, 26200,
]);
/** Most of the image that is searched (windows.md 1.6). */
const MAX_SEARCH = 16 * 1024 * 1024;

/** Build in a word as NtBuildNumber holds it: 0xF in the top nibble (a free build), the number in the low half; else `undefined`. */
export function buildOfWord(word: number): number | undefined {
  return word >>> 16 === 0xf000 ? word & 0xffff : undefined;
}

/** Finds the build number of a kernel whose layout is not known: the first word of the image that looks like one. */
export function findBuildNumber(memory: VirtualMemory, kernel: KernelImage): number | undefined {
  const words = new Uint32Array(PAGE_SIZE / 4);
  const bytes = new Uint8Array(words.buffer);
  const end = Math.min(kernel.headers.sizeOfImage, MAX_SEARCH);
  for (let offset = 0; offset < end; offset += PAGE_SIZE) {
    if (!memory.read((kernel.base + BigInt(offset)) as Gva, bytes)) continue;
    for (const word of words) {
      const build = buildOfWord(word);
      if (build !== undefined && KNOWN_BUILDS.has(build)) return build;
    }
  }
  return undefined;
}
