import { Access, type Gpa, PAGE_SIZE, u32Index, type VcpuRecord } from '@introd/abi';
import { DecodedInstruction, decodeInstruction, MAX_INSTRUCTION_LENGTH } from '@introd/x86';
import type { EngineCounters } from '../counters.js';
import type { AccessEvent } from '../dispatch/access-event.js';
import { type Grants, NO_FRAME, NOBODY } from '../dispatch/grants.js';
import type { AddressSpaces } from '../guest-system/address-spaces.js';
import { FrameTable } from '../page-hooks/frame-table.js';
import type { PageHook, PageHooks } from '../page-hooks/page-hooks.js';
import type { PageCache } from '../translation/page-cache.js';
import { type Translator, Walk } from '../translation/translator.js';

const RIP = u32Index('rip');
const CR3 = u32Index('cr3');
const EFER = u32Index('efer');
const CS_ATTRIBUTES = u32Index('csAttributes');
/** EFER.LMA. */
const LONG_MODE_ACTIVE = 0x400;
/** L bit of the code segment's attributes. */
const CODE_64 = 0x2000;

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
  /** Not 64-bit code. */
  OTHER_MODE: 5,
  /** Another VCPU may be writing to the code page at this moment. */
  CHANGING: 6,
} as const;
/** One of the {@link Fetch} numbers. */
export type Fetch = (typeof Fetch)[keyof typeof Fetch];

/** Instructions kept at most; the oldest gives way. More than there are VCPUs, so that none can push out what another needs next. */
const CAPACITY = 4096;

class CachedInstruction {
  next: CachedInstruction | undefined;
  constructor(
    readonly instruction: DecodedInstruction,
    readonly ripLow: number,
    readonly ripHigh: number,
    /** CR3 for user code; 0 for kernel code, which is the same in every address space. */
    readonly cr3Low: number,
    readonly cr3High: number,
    readonly frame: number,
    /** Frame that holds its last bytes, when they lie on another page. */
    readonly spillFrame: number,
    readonly bucket: number,
    readonly slot: number,
  ) {}
}

/** A frame that cached instructions came from, write-protected while there are any. */
interface CodePage {
  readonly frame: number;
  readonly hook: PageHook;
  readonly instructions: Set<CachedInstruction>;
}

/**
 * Decoded instructions by RIP (core-hooks.md section 11). Their code pages are write-protected *before* the bytes are read, and a
 * write to one drops what came from it, so a cached instruction is what memory holds. That its address still leads to the same frame is
 * looked up at each use.
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
  readonly #codePages = new FrameTable<CodePage>();
  readonly #bytes = new Uint8Array(MAX_INSTRUCTION_LENGTH);
  readonly #onCodeWrite = (event: AccessEvent): void => this.invalidateFrame(event.hook.page.frame);

  /** The instruction that the last {@link fetch} found, for HIT, ADDED and UNGUARDED. */
  instruction: DecodedInstruction | undefined;
  /** Guarded frame that it lies on, for HIT. */
  frame: number = NO_FRAME;
  /** Guarded frame that holds the rest of it, for HIT. */
  spillFrame: number = NO_FRAME;

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
  }

  /** Finds the instruction at RIP of a VCPU. */
  fetch(vcpu: VcpuRecord, index: number, addressSpaces: AddressSpaces): Fetch {
    const registers = vcpu.u32;
    this.instruction = undefined;
    this.frame = NO_FRAME;
    this.spillFrame = NO_FRAME;
    if ((registers[EFER]! & LONG_MODE_ACTIVE) === 0 || (registers[CS_ATTRIBUTES]! & CODE_64) === 0) {
      return Fetch.OTHER_MODE;
    }
    const ripLow = registers[RIP]!;
    const ripHigh = registers[RIP + 1]!;
    const cr3Low = registers[CR3]!;
    const cr3High = registers[CR3 + 1]!;
    const kernel = ripHigh >>> 31 !== 0;
    const keyLow = kernel ? 0 : cr3Low;
    const keyHigh = kernel ? 0 : cr3High;
    if (this.#translator.walk(cr3Low, cr3High, ripLow, ripHigh) !== Walk.OK) {
      return Fetch.NOT_MAPPED;
    }
    const frame = Math.floor(this.#translator.gpa / PAGE_SIZE);
    const bucket = bucketOf(ripLow, ripHigh, keyLow, keyHigh);
    for (let cached = this.#buckets[bucket]; cached !== undefined; cached = cached.next) {
      if (
        cached.ripLow === ripLow &&
        cached.ripHigh === ripHigh &&
        cached.cr3Low === keyLow &&
        cached.cr3High === keyHigh
      ) {
        if (cached.frame === frame && this.#spillHolds(cached, cr3Low, cr3High)) {
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
    const cacheable = this.#guard && (kernel || addressSpaces.isKnown(vcpu.cr3));
    return this.#decode(vcpu, index, frame, bucket, keyLow, keyHigh, cacheable);
  }

  #spillHolds(cached: CachedInstruction, cr3Low: number, cr3High: number): boolean {
    if (cached.spillFrame === NO_FRAME) {
      return true;
    }
    return this.#nextFrame(cr3Low, cr3High, cached.ripLow, cached.ripHigh) === cached.spillFrame;
  }

  /** Frame of the page that follows an address; {@link NO_FRAME} when it is not mapped. */
  #nextFrame(cr3Low: number, cr3High: number, low: number, high: number): number {
    const next = (low | (PAGE_SIZE - 1)) + 1;
    const nextLow = next >>> 0;
    const status = this.#translator.walk(cr3Low, cr3High, nextLow, nextLow === 0 ? (high + 1) >>> 0 : high);
    return status === Walk.OK ? Math.floor(this.#translator.gpa / PAGE_SIZE) : NO_FRAME;
  }

  #decode(
    vcpu: VcpuRecord,
    index: number,
    frame: number,
    bucket: number,
    keyLow: number,
    keyHigh: number,
    cacheable: boolean,
  ): Fetch {
    const registers = vcpu.u32;
    const ripLow = registers[RIP]!;
    const ripHigh = registers[RIP + 1]!;
    const offset = ripLow & (PAGE_SIZE - 1);
    const onFirst = Math.min(PAGE_SIZE - offset, MAX_INSTRUCTION_LENGTH);
    if (cacheable) {
      if (this.#grants.writesTo(frame, index)) {
        return Fetch.CHANGING;
      }
      this.#guardFrame(frame);
    }
    if (!this.#read(frame, offset, 0, onFirst)) {
      return Fetch.NOT_MAPPED;
    }
    let spillFrame: number = NO_FRAME;
    let decoded = decodeInstruction(this.#bytes.subarray(0, onFirst), vcpu.rip);
    if (decoded === 'incomplete' && onFirst < MAX_INSTRUCTION_LENGTH) {
      spillFrame = this.#nextFrame(registers[CR3]!, registers[CR3 + 1]!, ripLow, ripHigh);
      if (spillFrame === NO_FRAME) {
        this.#releaseUnused(frame);
        return Fetch.NOT_MAPPED;
      }
      if (cacheable) {
        if (this.#grants.writesTo(spillFrame, index)) {
          this.#releaseUnused(frame);
          return Fetch.CHANGING;
        }
        this.#guardFrame(spillFrame);
      }
      if (
        !this.#read(frame, offset, 0, onFirst) ||
        !this.#read(spillFrame, 0, onFirst, MAX_INSTRUCTION_LENGTH - onFirst)
      ) {
        this.#releaseUnused(frame);
        this.#releaseUnused(spillFrame);
        return Fetch.NOT_MAPPED;
      }
      decoded = decodeInstruction(this.#bytes, vcpu.rip);
    }
    if (!(decoded instanceof DecodedInstruction)) {
      this.#releaseUnused(frame);
      this.#releaseUnused(spillFrame);
      return Fetch.INVALID;
    }
    this.instruction = decoded;
    if (!cacheable) {
      return Fetch.UNGUARDED;
    }
    if (decoded.length <= onFirst) {
      this.#releaseUnused(spillFrame);
      spillFrame = NO_FRAME;
    }
    this.#add(decoded, ripLow, ripHigh, keyLow, keyHigh, frame, spillFrame, bucket);
    return Fetch.ADDED;
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

  /** Write-protects a code page, at once and for every VCPU, unless it is. */
  #guardFrame(frame: number): void {
    if (this.#codePages.get(frame) === undefined) {
      const hook = this.#hooks.setHook(
        { gpa: (frame * PAGE_SIZE) as Gpa, length: PAGE_SIZE, access: Access.WRITE, callback: this.#onCodeWrite },
        true,
      );
      this.#codePages.set(frame, { frame, hook, instructions: new Set() });
      this.#hooks.flush();
    }
  }

  #releaseUnused(frame: number): void {
    const page = frame === NO_FRAME ? undefined : this.#codePages.get(frame);
    // While some VCPU may yet execute from the page, the guard outlives what is cached; the next write there ends it.
    if (page !== undefined && page.instructions.size === 0 && !this.#grants.executesFrom(frame, NOBODY)) {
      page.hook.remove();
      this.#codePages.delete(frame);
    }
  }

  #add(
    instruction: DecodedInstruction,
    ripLow: number,
    ripHigh: number,
    cr3Low: number,
    cr3High: number,
    frame: number,
    spillFrame: number,
    bucket: number,
  ): void {
    const slot = this.#nextSlot;
    this.#nextSlot = (slot + 1) % CAPACITY;
    const cached = new CachedInstruction(
      instruction,
      ripLow,
      ripHigh,
      cr3Low,
      cr3High,
      frame,
      spillFrame,
      bucket,
      slot,
    );
    // Joined first: the oldest entry may be the last one of the same page, whose guard must not be lifted now.
    this.#codePages.get(frame)?.instructions.add(cached);
    this.#codePages.get(spillFrame)?.instructions.add(cached);
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
    this.#leave(cached.frame, cached);
    this.#leave(cached.spillFrame, cached);
  }

  #leave(frame: number, cached: CachedInstruction): void {
    this.#codePages.get(frame)?.instructions.delete(cached);
    this.#releaseUnused(frame);
  }

  /** Drops what came from a frame, because it is about to be written. */
  invalidateFrame(frame: number): void {
    const page = this.#codePages.get(frame);
    if (page !== undefined) {
      for (const cached of page.instructions) {
        this.#counters.cacheInvalidations++;
        this.#drop(cached);
      }
      this.#releaseUnused(frame);
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

  /** Drops everything. */
  clear(): void {
    for (const page of this.#codePages.values()) {
      this.invalidateFrame(page.frame);
    }
  }
}

function emptySlots(): (CachedInstruction | undefined)[] {
  return Array.from({ length: CAPACITY }, () => undefined);
}

function bucketOf(ripLow: number, ripHigh: number, keyLow: number, keyHigh: number): number {
  const mixed = Math.imul(ripLow ^ (ripHigh << 7) ^ Math.imul(keyLow ^ keyHigh, 0x85ebca6b), 0x9e3779b1);
  return (mixed ^ (mixed >>> 15)) & (CAPACITY - 1);
}
