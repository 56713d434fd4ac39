import type { Cr3, Gva } from '@introd/abi';
import type { CodeImage, CodeImages, CodeSection } from '../guest-system/code-images.js';
import type { GuestMemory } from '../translation/guest-memory.js';

/** A code image as plain data. */
export interface CodeImageData {
  readonly name: string;
  readonly base: Gva;
  readonly size: number;
  /** What is not said of a section is false; a section without `executable` is executable. */
  readonly sections: readonly (Pick<CodeSection, 'name' | 'start' | 'size'> & Partial<CodeSection>)[];
  readonly exports?: Readonly<Record<string, Gva>>;
  readonly symbols?: Readonly<Record<string, Gva>>;
}

/** The images of a test guest. */
export interface CodeImagesData {
  /** Default 64. */
  readonly bitness?: 32 | 64;
  readonly build?: number;
  /** The first one is the kernel. */
  readonly images: readonly CodeImageData[];
}

/** Code images of plain data, whose contents are read from the guest's memory under `cr3`. */
export function createCodeImages(memory: GuestMemory, cr3: Cr3, data: CodeImagesData): CodeImages {
  const images = new Map(data.images.map((image) => [image.name.toLowerCase(), imageOf(memory, cr3, image)]));
  return {
    bitness: data.bitness ?? 64,
    build: data.build,
    kernel: images.values().next().value,
    find: (name) => images.get(name.toLowerCase()),
  };
}

function imageOf(memory: GuestMemory, cr3: Cr3, data: CodeImageData): CodeImage {
  const exports = new Map(Object.entries(data.exports ?? {}));
  const symbols = new Map(Object.entries(data.symbols ?? {}));
  return {
    name: data.name.toLowerCase(),
    base: data.base,
    size: data.size,
    sections: data.sections.map((section) => ({
      executable: true,
      writable: false,
      discardable: false,
      pageable: false,
      ...section,
    })),
    exportOf: (name) => exports.get(name),
    symbolOf: (name) => symbols.get(name),
    read: (va, target) => memory.readVirtual(cr3, va, target).status === 'ok',
  };
}
