import { type Gva, PAGE_SIZE, u32Index, type VcpuRecord, Verdict } from '@introd/abi';
import { type Grants, NOBODY } from '../dispatch/grants.js';
import { type Paging, rootAddress } from '../translation/paging-mode.js';
import type { TranslationEvent } from '../translation-hooks/translation-event.js';
import type { TranslationHook } from '../translation-hooks/translation-hook.js';
import type { TranslationHooks } from '../translation-hooks/translation-hooks.js';
import type { CachedInstruction } from './cached-instruction.js';

const INDEX = u32Index('index');
const CR3 = u32Index('cr3');

/** Most pages whose translation is guarded: the guest chooses in how many address spaces it executes the same code. */
const MAX_MAPPINGS = 8192;

/** A virtual page that cached instructions were read through; its translation is guarded while there are any. */
export interface CodeMapping {
  readonly hook: TranslationHook;
  readonly instructions: Set<CachedInstruction>;
}

/**
 * The translations of code pages. One is guarded *before* the code is read through it, so that between the decision about an
 * instruction and its execution no other VCPU can put another page there: its write waits until the instruction is over.
 */
export class CodeMappings {
  readonly #translations: TranslationHooks;
  readonly #grants: Grants;
  readonly #remapped: (mapping: CodeMapping) => void;
  /** Lists of few, by a number made of address space and page. */
  readonly #mappings = new Map<number, readonly CodeMapping[]>();
  /** Mappings without instructions, from whose pages a VCPU may yet execute. */
  readonly #idle = new Set<CodeMapping>();
  #count = 0;

  /** @param remapped called when another page is mapped, before any VCPU can execute from it */
  constructor(translations: TranslationHooks, grants: Grants, remapped: (mapping: CodeMapping) => void) {
    this.#translations = translations;
    this.#grants = grants;
    this.#remapped = remapped;
  }

  /** Whether no further page can be guarded before others are given up. */
  get isFull(): boolean {
    return this.#count >= MAX_MAPPINGS;
  }

  /** Guards the translation of the page of an address in the address space of a VCPU, unless it is. */
  guard(vcpu: VcpuRecord, paging: Paging, va: Gva): CodeMapping {
    const page = BigInt.asUintN(64, va & ~0xfffn) as Gva;
    const { cr3 } = vcpu;
    const root = rootAddress(paging, vcpu.u32[CR3]!, vcpu.u32[CR3 + 1]!);
    const number = numberOf(root, page);
    const alike = this.#mappings.get(number) ?? [];
    const known = alike.find(({ hook }) => hook.va === page && hook.root === root && hook.paging === paging);
    if (known !== undefined) {
      return known;
    }
    for (const mapping of this.#idle) {
      this.releaseUnused(mapping);
    }
    const hook = this.#translations.follow({
      cr3,
      va: page,
      callback: (event) => this.#ask(event),
      committed: (event) => {
        if (event.oldGpa !== event.newGpa) {
          this.#remapped(mapping);
        }
      },
    });
    const mapping: CodeMapping = { hook, instructions: new Set() };
    this.#mappings.set(number, [...(this.#mappings.get(number) ?? []), mapping]);
    this.#count++;
    return mapping;
  }

  /** A VCPU that was allowed to execute from the page may not have done so yet. */
  #ask(event: TranslationEvent): void {
    const { oldGpa, newGpa, vcpu } = event;
    if (oldGpa !== undefined && oldGpa !== newGpa && vcpu !== undefined) {
      if (this.#grants.executesFrom(oldGpa / PAGE_SIZE, vcpu.u32[INDEX]!)) {
        event.verdict = Verdict.RETRY;
      }
    }
  }

  /** Gives up a mapping that no instruction needs; later, while a VCPU may yet execute what it was allowed to. */
  releaseUnused(mapping: CodeMapping): void {
    const { hook, instructions } = mapping;
    if (instructions.size > 0 || hook.removed) {
      this.#idle.delete(mapping);
    } else if (hook.gpa !== undefined && this.#grants.executesFrom(hook.gpa / PAGE_SIZE, NOBODY)) {
      this.#idle.add(mapping);
    } else {
      this.#idle.delete(mapping);
      hook.remove();
      this.#forget(mapping);
    }
  }

  #forget(mapping: CodeMapping): void {
    const number = numberOf(mapping.hook.root, mapping.hook.va);
    this.#count--;
    const left = this.#mappings.get(number)?.filter((other) => other !== mapping) ?? [];
    if (left.length === 0) {
      this.#mappings.delete(number);
    } else {
      this.#mappings.set(number, left);
    }
  }
}

/** Spreads pages of address spaces; two may have one number. */
function numberOf(root: number, page: Gva): number {
  return Number(BigInt.asUintN(48, (page >> 12n) ^ (BigInt(root) << 8n)));
}
