import { type Cr3, type Gva, PAGE_SIZE } from '@introd/abi';
import type { CodeImage, CodeSection } from '../guest-system/code-images.js';
import type { GuestMemory } from '../translation/guest-memory.js';

/** What is wanted of {@link SlackAllocator.allocate}. */
export interface SlackRequest {
  readonly image: CodeImage;
  /** Bytes. */
  readonly size: number;
  /** Whether the memory may be paged out; it is then taken from pageable sections only, else from the others only. */
  readonly paged: boolean;
  /** Only in the section of this name. */
  readonly section?: string | undefined;
}

/** Outcome of {@link SlackAllocator.allocate}. */
export type SlackAllocation =
  | { readonly status: 'ok'; readonly va: Gva }
  /** No section of the wanted kind has so many bytes left. */
  | { readonly status: 'no-space' }
  /** The padding cannot be read. */
  | { readonly status: 'not-readable'; readonly va: Gva }
  /** Somebody has put something into the padding. No other section is tried: an attack may stand behind it. */
  | {
      readonly status: 'dirty';
      /** The bytes that would have been given out. */
      readonly va: Gva;
      /** The first that is not 0. */
      readonly at: Gva;
    };

/** Sections whose padding is never used: the kernel's own debugger part, which it changes. */
const FORBIDDEN_SECTION = 'INITKDBG';

interface Block {
  readonly va: bigint;
  readonly end: bigint;
  readonly section: string;
}

/**
 * Gives out executable memory of the guest: the zero bytes between the end of a section's contents and the end of their last page
 * (core-hooks.md section 14). Nothing is written. Within a section blocks follow each other; a freed one is used again when it was the last.
 */
export class SlackAllocator {
  readonly #memory: Pick<GuestMemory, 'readVirtual'>;
  readonly #cr3: () => Cr3 | undefined;
  readonly #blocks = new Map<bigint, Block>();

  /** @internal */
  constructor(memory: Pick<GuestMemory, 'readVirtual'>, cr3: () => Cr3 | undefined) {
    this.#memory = memory;
    this.#cr3 = cr3;
  }

  /** Takes the first section that has room. Bytes are of the address space of the guest's system. */
  allocate({ image, size, paged, section: wanted }: SlackRequest): SlackAllocation {
    if (!Number.isInteger(size) || size < 1 || size >= PAGE_SIZE) {
      return { status: 'no-space' };
    }
    for (const section of image.sections) {
      if ((wanted !== undefined && section.name !== wanted) || !hasSlack(section, paged)) {
        continue;
      }
      const contentsEnd = section.start + BigInt(section.size);
      const pageEnd = (contentsEnd | BigInt(PAGE_SIZE - 1)) + 1n;
      const id = `${image.base}/${section.start}`;
      let va: bigint = contentsEnd;
      for (const block of this.#blocks.values()) {
        if (block.section === id && block.end > va) {
          va = block.end;
        }
      }
      if (va + BigInt(size) > pageEnd) {
        continue;
      }
      return this.#take(va as Gva, size, id);
    }
    return { status: 'no-space' };
  }

  #take(va: Gva, size: number, section: string): SlackAllocation {
    const bytes = new Uint8Array(size);
    const cr3 = this.#cr3();
    if (cr3 === undefined || this.#memory.readVirtual(cr3, va, bytes).status !== 'ok') {
      return { status: 'not-readable', va };
    }
    const dirty = bytes.findIndex((byte) => byte !== 0);
    if (dirty >= 0) {
      return { status: 'dirty', va, at: (va + BigInt(dirty)) as Gva };
    }
    this.#blocks.set(va, { va, end: va + BigInt(size), section });
    return { status: 'ok', va };
  }

  /** Gives a block back; its contents are the owner's business. @returns whether one was given out at exactly this address */
  free(va: Gva): boolean {
    return this.#blocks.delete(va);
  }

  /** Number of blocks given out. */
  get count(): number {
    return this.#blocks.size;
  }
}

function hasSlack(section: CodeSection, paged: boolean): boolean {
  return (
    section.executable &&
    !section.writable &&
    !section.discardable &&
    section.pageable === paged &&
    section.name !== FORBIDDEN_SECTION &&
    section.size % PAGE_SIZE !== 0
  );
}
