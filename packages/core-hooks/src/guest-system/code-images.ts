import type { Gva } from '@introd/abi';

/** A section of a {@link CodeImage}, as its header describes it. */
export interface CodeSection {
  /** At most 8 characters. */
  readonly name: string;
  /** First address. */
  readonly start: Gva;
  /** Bytes that the section's contents take in memory (VirtualSize); what follows up to the page's end is padding. */
  readonly size: number;
  readonly executable: boolean;
  readonly writable: boolean;
  /** Given back to the system after initialisation. */
  readonly discardable: boolean;
  /** May be paged out. */
  readonly pageable: boolean;
}

/** A kernel image (the kernel itself, or a driver) that is loaded in the guest. */
export interface CodeImage {
  /** File name, lower case: `ntoskrnl.exe`. */
  readonly name: string;
  readonly base: Gva;
  /** Bytes from {@link base}. */
  readonly size: number;
  readonly sections: readonly CodeSection[];
  /** Address of an exported function; undefined when there is none of that name. */
  exportOf(name: string): Gva | undefined;
  /** Address of a function that is known by other means (debug symbols); undefined when it is not. */
  symbolOf(name: string): Gva | undefined;
  /**
   * Fills `target` with the image's contents from `va`: as they were saved when the image was found, else as they are in memory.
   * @returns false, and `target` is unspecified, when some byte is not available
   */
  read(va: Gva, target: Uint8Array): boolean;
}

/**
 * The kernel images of a guest: where functions are and where there is slack space. The layer that knows the operating system sets
 * {@link Engine.codeImages}.
 */
export interface CodeImages {
  /** Default operand size of kernel code in bits. */
  readonly bitness: 32 | 64;
  /** Number that the build ranges of a descriptor are compared with; undefined while it is not known. */
  readonly build: number | undefined;
  /** The kernel itself; undefined while it is not known. */
  readonly kernel: CodeImage | undefined;
  /** The loaded image of a file name, compared in lower case. */
  find(name: string): CodeImage | undefined;
}

/** The answer while nothing is known about the guest. */
export const noCodeImages: CodeImages = { bitness: 64, build: undefined, kernel: undefined, find: () => undefined };
