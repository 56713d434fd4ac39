import { type Cr3, type Gpa, type Gva, PAGE_SIZE, u32Index, type VcpuRecord } from '@introd/abi';
import { type Bitness, DecodedInstruction, decodeInstruction, MAX_INSTRUCTION_LENGTH } from '@introd/x86';
import type { EngineCounters } from '../counters.js';
import { type Grants, NO_FRAME } from '../dispatch/grants.js';
import type { AddressSpaces } from '../guest-system/address-spaces.js';
import type { PageHooks } from '../page-hooks/page-hooks.js';
import type { PageCache } from '../translation/page-cache.js';
import { Paging } from '../translation/paging-mode.js';
import { type Translator, Walk } from '../translation/translator.js';
import type { TranslationHooks } from '../translation-hooks/translation-hooks.js';
import { CachedInstruction, type InstructionKey, wordOf } from './cached-instruction.js';
import { type CodeMapping, CodeMappings } from './code-mapping.js';
import { CodePages } from './code-pages.js';

const RIP = u32Index('rip');
const CR3 = u32Index('cr3');
const EFER = u32Index('efer');
const CS_BASE = u32Index('csBase');
const CS_ATTRIBUTES = u32Index('csAttributes');
/** EFER.LMA. */
const LONG_MODE_ACTIVE = 0x400;
/** L bit of the code segment's attributes. */
const CODE_64 = 0x2000;
/** D bit of them. */
const CODE_32 = 0x4000;

/** What {@link InstructionCache.fetch} found. */
export const Fetch = {
  /** The instruction was in the cache: its bytes have been guarded since before they were read. */
  HIT: 0,
  /** It was put there just now: the exit must be taken again, for what faulted may have been other bytes. */
  ADDED: 1,
  /** It was decoded, but is not guarded. */
  UNGUARDED: 2,
  /** Its page is not mapped, or it continues on a page that is not. */
  NOT_MAPPED: 3,
  /** The bytes are not an instruction. */
  INVALID: 4,
  /** Another VCPU may be writing to the code page, or to its mapping, at this moment. */
  CHANGING: 5,
} as const;
/** One of the {@link Fetch} numbers. */
export type Fetch = (typeof Fetch)[keyof typeof Fetch];

/** Instructions kept at most; the oldest gives way. More than there are VCPUs, so that none can push out what another needs next. */
const CAPACITY = 4096;
/** Address spaces in which the translation of one instruction is guarded at most; the oldest gives way. */
const MAX_SPACES = 64;

/** Which instructions to drop: those of an address, of a physical page, or of an address space; all without any. */
export interface InstructionScope {
  /** Address space; with `va` alone the page of that address in every space. */
  readonly cr3?: Cr3 | undefined;
  /** An address on the page where the instructions begin. */
  readonly va?: Gva | undefined;
  /** An address on the physical page that holds any of their bytes. */
  readonly gpa?: Gpa | undefined;
}

/**
 * Decoded instructions by linear address, mode and address space (core-hooks.md section 11). Their code pages are write-protected *before*
 * the bytes are read, and a write to one drops what came from it, so a cached instruction is what memory holds. The page tables that lead
 * to them are guarded too, and a write that would map another page waits for VCPUs that were allowed to execute from this one. That an
 * address still leads to the same frame is looked up at each use besides.
 */
export class InstructionCache {
  readonly #pages: PageCache;
  readonly #translator: Translator;
  readonly #hooks: PageHooks;
  readonly #counters: EngineCounters;
  readonly #grants: Grants;
  readonly #guard: boolean;
  readonly #buckets: (CachedInstruction | undefined)[] = emptySlots();
  readonly #slots: (CachedInstruction | undefined)[] = emptySlots();
  #nextSlot = 0;
  readonly #codePages: CodePages;
  readonly #bytes = new Uint8Array(MAX_INSTRUCTION_LENGTH);
  readonly #key: InstructionKey = { low: 0, high: 0, bitness: 64, spaceLow: 0, spaceHigh: 0 };
  #mappings: CodeMappings | undefined;

  /** The instruction that the last {@link fetch} found, for HIT, ADDED and UNGUARDED. */
  instruction: DecodedInstruction | undefined;
  /** Guarded frame that it lies on, for HIT. */
  frame: number = NO_FRAME;
  /** Guarded frame that holds the rest of it, for HIT. */
  spillFrame: number = NO_FRAME;
  /** Low half of the linear address of the instruction that was last looked for, signed. */
  linearLow = 0;
  /** High half of it, signed. */
  linearHigh = 0;

  /** @param guard the TOCTOU rule: whether instructions are cached at all */
  constructor(
    pages: PageCache,
    translator: Translator,
    hooks: PageHooks,
    counters: EngineCounters,
    grants: Grants,
    guard: boolean,
  ) {
    this.#pages = pages;
    this.#translator = translator;
    this.#hooks = hooks;
    this.#counters = counters;
    this.#grants = grants;
    this.#guard = guard;
    this.#codePages = new CodePages(hooks, grants, (frame) => this.invalidateFrame(frame));
  }

  /** Guards the translations of code pages too, from now on. */
  guardTranslations(translations: TranslationHooks): void {
    this.#mappings = new CodeMappings(translations, this.#grants, (mapping) => {
      this.#dropAll(mapping.instructions);
      // A processor that still remembers the old page would execute other bytes than those that are decided about.
      this.#hooks.requestFlush();
    });
  }

  /** Finds the instruction at RIP of a VCPU. */
  fetch(vcpu: VcpuRecord, index: number, addressSpaces: AddressSpaces): Fetch {
    const registers = vcpu.u32;
    this.instruction = undefined;
    this.frame = NO_FRAME;
    this.spillFrame = NO_FRAME;
    const bitness = bitnessOf(registers);
    const low = bitness === 64 ? registers[RIP]! | 0 : (registers[RIP]! + registers[CS_BASE]!) | 0;
    const high = bitness === 64 ? registers[RIP + 1]! | 0 : 0;
    this.linearLow = low;
    this.linearHigh = high;
    const cr3Low = registers[CR3]! | 0;
    const cr3High = registers[CR3 + 1]! | 0;
    const kernel = bitness === 64 ? high < 0 : vcpu.cpl !== 3;
    const key = this.#key;
    key.low = low;
    key.high = high;
    key.bitness = bitness;
    key.spaceLow = kernel ? 0 : cr3Low;
    key.spaceHigh = kernel ? 0 : cr3High;
    if (this.#translator.walk(cr3Low, cr3High, low, high) !== Walk.OK) {
      return Fetch.NOT_MAPPED;
    }
    const frame = Math.floor(this.#translator.gpa / PAGE_SIZE);
    const bucket = bucketOf(key);
    for (let cached = this.#buckets[bucket]; cached !== undefined; cached = cached.next) {
      if (cached.isFor(key)) {
        if (cached.frame === frame && this.#spillHolds(cached, cr3Low, cr3High)) {
          const { vcpuPaging } = this.#translator;
          if (this.#mappings !== undefined && !cached.isGuardedIn(cr3Low, cr3High, vcpuPaging)) {
            return this.#guardAlso(cached, vcpu, index);
          }
          this.#counters.cacheHits++;
          this.instruction = cached.instruction;
          this.frame = cached.frame;
          this.spillFrame = cached.spillFrame;
          return Fetch.HIT;
        }
        // Mapped elsewhere since.
        this.#counters.cacheInvalidations++;
        this.#drop(cached);
        break;
      }
    }
    this.#counters.cacheMisses++;
    const paged = this.#translator.vcpuPaging !== Paging.NONE;
    if (this.#guard && paged && (kernel || addressSpaces.isKnown(vcpu.cr3))) {
      if (this.#mappings?.isFull === true) {
        this.clear();
      }
      return this.#addGuarded(vcpu, index, frame, bucket);
    }
    return this.#decodeUnguarded(vcpu, frame);
  }

  /**
   * Guards the translation of a cached instruction in a further address space: kernel code is cached once for all of them, but each
   * one's tables can be changed by themselves.
   */
  #guardAlso(cached: CachedInstruction, vcpu: VcpuRecord, index: number): Fetch {
    const { mappings, frame, spillFrame } = cached;
    const pages = spillFrame === NO_FRAME ? 1 : 2;
    if (this.#mappings!.isFull || mappings.length >= pages * MAX_SPACES) {
      for (const given of mappings.splice(0, this.#mappings!.isFull ? mappings.length : pages)) {
        given.instructions.delete(cached);
        this.#mappings!.releaseUnused(given);
      }
    }
    const added: CodeMapping[] = [];
    const va = wordOf(cached.high, cached.low);
    let stable = false;
    try {
      stable =
        this.#guardCode(vcpu, index, va, frame, added) &&
        (pages === 1 || this.#guardCode(vcpu, index, BigInt.asUintN(64, (va | 0xfffn) + 1n), spillFrame, added));
    } finally {
      // Also when the backend refused.
      for (const mapping of stable ? [] : added) {
        this.#mappings!.releaseUnused(mapping);
      }
      if (!stable && mappings.length === 0) {
        this.#drop(cached);
      }
    }
    if (!stable) {
      return Fetch.CHANGING;
    }
    for (const mapping of added) {
      mapping.instructions.add(cached);
      mappings.push(mapping);
    }
    this.instruction = cached.instruction;
    // What the processors remember of the time before the guard does not count any more.
    this.#hooks.requestFlush();
    return Fetch.ADDED;
  }

  #spillHolds(cached: CachedInstruction, cr3Low: number, cr3High: number): boolean {
    if (cached.spillFrame === NO_FRAME) {
      return true;
    }
    return this.#nextFrame(cr3Low, cr3High, cached.low, cached.high) === cached.spillFrame;
  }

  /** Frame of the page that follows an address; {@link NO_FRAME} when it is not mapped. */
  #nextFrame(cr3Low: number, cr3High: number, low: number, high: number): number {
    const nextLow = ((low | (PAGE_SIZE - 1)) + 1) | 0;
    const status = this.#translator.walk(cr3Low, cr3High, nextLow, nextLow === 0 ? high + 1 : high);
    return status === Walk.OK ? Math.floor(this.#translator.gpa / PAGE_SIZE) : NO_FRAME;
  }

  /** Decodes what is at an address without keeping it. */
  #decodeUnguarded(vcpu: VcpuRecord, frame: number): Fetch {
    const registers = vcpu.u32;
    const decoded = this.#decode(vcpu, frame, () =>
      this.#nextFrame(registers[CR3]!, registers[CR3 + 1]!, this.#key.low, this.#key.high),
    );
    if (!(decoded instanceof DecodedInstruction)) {
      return decoded;
    }
    this.instruction = decoded;
    return Fetch.UNGUARDED;
  }

  /** Guards where an instruction lies, then reads and keeps it. */
  #addGuarded(vcpu: VcpuRecord, index: number, frame: number, bucket: number): Fetch {
    const key = this.#key;
    const offset = key.low & (PAGE_SIZE - 1);
    const registers = vcpu.u32;
    const mappings: CodeMapping[] = [];
    const va = wordOf(key.high, key.low);
    let spillFrame: number = NO_FRAME;
    try {
      if (!this.#guardCode(vcpu, index, va, frame, mappings)) {
        return Fetch.CHANGING;
      }
      let changing = false;
      const decoded = this.#decode(vcpu, frame, () => {
        spillFrame = this.#nextFrame(registers[CR3]!, registers[CR3 + 1]!, key.low, key.high);
        const next = BigInt.asUintN(64, va - BigInt(offset) + BigInt(PAGE_SIZE));
        changing = spillFrame !== NO_FRAME && !this.#guardCode(vcpu, index, next, spillFrame, mappings);
        return changing ? NO_FRAME : spillFrame;
      });
      if (!(decoded instanceof DecodedInstruction)) {
        return changing ? Fetch.CHANGING : decoded;
      }
      this.instruction = decoded;
      let spill: number = NO_FRAME;
      if (offset + decoded.length > PAGE_SIZE) {
        spill = spillFrame;
      }
      this.#add(decoded, frame, spill, mappings.slice(0, spill === NO_FRAME ? 1 : 2), bucket);
      // What was executed up to now may have been what a processor remembered of other tables.
      this.#hooks.requestFlush();
      return Fetch.ADDED;
    } finally {
      // Whatever came of it, and whatever the backend refused: what was guarded for nothing is given back.
      this.#codePages.releaseUnused(frame);
      this.#codePages.releaseUnused(spillFrame);
      for (const mapping of mappings) {
        this.#mappings!.releaseUnused(mapping);
      }
    }
  }

  /**
   * Guards the mapping of a code page, then the page.
   * @returns false when another VCPU may be writing to either at this moment
   */
  #guardCode(vcpu: VcpuRecord, index: number, va: bigint, frame: number, mappings: CodeMapping[]): boolean {
    if (this.#mappings !== undefined) {
      const mapping = this.#mappings.guard(vcpu, this.#translator.vcpuPaging, va as Gva);
      mappings.push(mapping);
      const { gpa } = mapping.hook;
      if (gpa === undefined || gpa / PAGE_SIZE !== frame) {
        return false;
      }
    }
    if (this.#grants.writesTo(frame, index)) {
      return false;
    }
    this.#codePages.guard(frame);
    return true;
  }

  /**
   * Reads and decodes the instruction that was looked for.
   * @param spill called when it goes on behind its page; says which frame follows
   */
  #decode(vcpu: VcpuRecord, frame: number, spill: () => number): DecodedInstruction | Fetch {
    const { low, bitness } = this.#key;
    const offset = low & (PAGE_SIZE - 1);
    const onFirst = Math.min(PAGE_SIZE - offset, MAX_INSTRUCTION_LENGTH);
    if (!this.#read(frame, offset, 0, onFirst)) {
      return Fetch.NOT_MAPPED;
    }
    let decoded = decodeInstruction(this.#bytes.subarray(0, onFirst), vcpu.rip, bitness);
    if (decoded === 'incomplete' && onFirst < MAX_INSTRUCTION_LENGTH) {
      const spillFrame = spill();
      if (
        spillFrame === NO_FRAME ||
        !this.#read(frame, offset, 0, onFirst) ||
        !this.#read(spillFrame, 0, onFirst, MAX_INSTRUCTION_LENGTH - onFirst)
      ) {
        return Fetch.NOT_MAPPED;
      }
      decoded = decodeInstruction(this.#bytes, vcpu.rip, bitness);
    }
    return decoded instanceof DecodedInstruction ? decoded : Fetch.INVALID;
  }

  #read(frame: number, offset: number, to: number, count: number): boolean {
    const page = this.#pages.get(frame);
    if (page === undefined) {
      return false;
    }
    for (let at = 0; at < count; at++) {
      this.#bytes[to + at] = page.bytes[offset + at]!;
    }
    return true;
  }

  #add(
    instruction: DecodedInstruction,
    frame: number,
    spillFrame: number,
    mappings: CodeMapping[],
    bucket: number,
  ): void {
    const slot = this.#nextSlot;
    this.#nextSlot = (slot + 1) % CAPACITY;
    const cached = new CachedInstruction(instruction, this.#key, frame, spillFrame, mappings, bucket, slot);
    // Joined first: the oldest entry may be the last one of the same page, whose guard must not be lifted now.
    this.#codePages.join(frame, cached);
    this.#codePages.join(spillFrame, cached);
    for (const mapping of mappings) {
      mapping.instructions.add(cached);
    }
    const oldest = this.#slots[slot];
    if (oldest !== undefined) {
      this.#drop(oldest);
    }
    this.#slots[slot] = cached;
    cached.next = this.#buckets[bucket];
    this.#buckets[bucket] = cached;
  }

  #drop(cached: CachedInstruction): void {
    if (this.#slots[cached.slot] === cached) {
      this.#slots[cached.slot] = undefined;
    }
    let before: CachedInstruction | undefined;
    for (let one = this.#buckets[cached.bucket]; one !== undefined; one = one.next) {
      if (one === cached) {
        if (before === undefined) {
          this.#buckets[cached.bucket] = one.next;
        } else {
          before.next = one.next;
        }
        break;
      }
      before = one;
    }
    this.#codePages.leave(cached.frame, cached);
    this.#codePages.leave(cached.spillFrame, cached);
    for (const mapping of cached.mappings) {
      mapping.instructions.delete(cached);
      this.#mappings?.releaseUnused(mapping);
    }
  }

  #dropAll(instructions: Iterable<CachedInstruction>): void {
    for (const cached of instructions) {
      this.#counters.cacheInvalidations++;
      this.#drop(cached);
    }
  }

  /** Drops what came from a frame, because it is about to be written. */
  invalidateFrame(frame: number): void {
    const page = this.#codePages.get(frame);
    if (page !== undefined) {
      this.#dropAll(page.instructions);
      this.#codePages.releaseUnused(frame);
    }
  }

  /** Drops what came from a physical range, because the engine is about to write it. */
  invalidateRange(gpa: number, size: number): void {
    if (this.#codePages.size > 0) {
      const last = Math.floor((gpa + size - 1) / PAGE_SIZE);
      for (let frame = Math.floor(gpa / PAGE_SIZE); frame <= last; frame++) {
        this.invalidateFrame(frame);
      }
    }
  }

  /** Drops what a scope names. */
  flush({ cr3, va, gpa }: InstructionScope): void {
    this.#counters.cacheFlushes++;
    if (gpa !== undefined) {
      this.invalidateFrame(Math.floor(gpa / PAGE_SIZE));
    } else if (cr3 === undefined && va === undefined) {
      this.clear();
    } else {
      const space = cr3 === undefined ? undefined : cr3 >> 5n;
      for (const cached of this.#slots) {
        if (cached?.isIn(space, va)) {
          this.#counters.cacheInvalidations++;
          this.#drop(cached);
        } else if (cached !== undefined && space !== undefined && va === undefined) {
          this.#leaveSpace(cached, space);
        }
      }
    }
  }

  /** Gives up the guards of kernel code in an address space that ends, where it has others. */
  #leaveSpace(cached: CachedInstruction, space: bigint): void {
    const { mappings } = cached;
    const isLeft = ({ hook }: CodeMapping): boolean => hook.cr3 >> 5n === space;
    if (mappings.every(isLeft)) {
      return;
    }
    for (const mapping of mappings.filter(isLeft)) {
      mappings.splice(mappings.indexOf(mapping), 1);
      mapping.instructions.delete(cached);
      this.#mappings?.releaseUnused(mapping);
    }
  }

  /** Drops everything. */
  clear(): void {
    for (const frame of this.#codePages.frames()) {
      this.invalidateFrame(frame);
    }
  }
}

function emptySlots(): (CachedInstruction | undefined)[] {
  return Array.from({ length: CAPACITY }, () => undefined);
}

/** Default operand size of the code that a VCPU executes. */
function bitnessOf(registers: Uint32Array): Bitness {
  const attributes = registers[CS_ATTRIBUTES]!;
  if ((registers[EFER]! & LONG_MODE_ACTIVE) !== 0 && (attributes & CODE_64) !== 0) {
    return 64;
  }
  return (attributes & CODE_32) === 0 ? 16 : 32;
}

function bucketOf({ low, high, bitness, spaceLow, spaceHigh }: InstructionKey): number {
  const mixed = Math.imul(low ^ (high << 7) ^ bitness ^ Math.imul(spaceLow ^ spaceHigh, 0x85ebca6b), 0x9e3779b1);
  return (mixed ^ (mixed >>> 15)) & (CAPACITY - 1);
}
