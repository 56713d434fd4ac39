/**
 * Mapping of pages through the self-map, as Mm does it: the page tables of the current address space are memory at fixed
 * virtual addresses.
 */
import type { KernelPlan } from '../plan.js';

/** Use of the plan's spare pages, by number. Page tables are taken from `TABLES` on. */
export const SparePage = {
  /** Copy of the IDT that `interrupt-table` loads. */
  ROGUE_IDT: 0,
  /** Frame that `remap` puts in place of the guarded one. */
  REMAPPED: 1,
  /** What `overwrite` puts back. */
  SAVED: 2,
  /** Code of the ring-3 stub in System. */
  STUB_CODE: 3,
  /** Stack of the stub. */
  STUB_STACK: 4,
  /** Three tables through which `self-map-benign` maps the PML4 once more: PDPT, PD, PT. */
  ALIAS: 5,
  /** First page that page tables are made of. */
  TABLES: 8,
} as const;

/** Virtual addresses of the page tables when every level below `depth` goes through the self-map entry. */
function tableBase(index: number, depth: number): bigint {
  let base = 0n;
  for (const shift of [39n, 30n, 21n, 12n].slice(0, depth)) {
    base |= BigInt(index) << shift;
  }
  return BigInt.asUintN(64, BigInt.asIntN(48, base));
}

/** Virtual address of the self-map entry itself: all four levels go through it. */
function selfMapEntryVa(index: number): bigint {
  return tableBase(index, 4) + BigInt(index * 8);
}

/** Addresses that {@link pageMappingCode} and the attacks use, by symbol. */
export function pageTableSymbols(plan: KernelPlan): Record<string, bigint> {
  const index = plan.selfMapIndex;
  return {
    PteBase: tableBase(index, 1),
    PdeBase: tableBase(index, 2),
    PpeBase: tableBase(index, 3),
    PxeBase: tableBase(index, 4),
    SelfMapEntry: selfMapEntryVa(index),
    SpareVa: plan.spareVa,
    SparePhysical: BigInt(plan.sparePhysical),
    StubVa: plan.stubVa,
  };
}

const LEVELS: readonly (readonly [base: string, shift: number])[] = [
  ['PxeBase', 39],
  ['PpeBase', 30],
  ['PdeBase', 21],
];

/** R8 = address of the entry of a level that translates RCX. */
export function entryAddress(base: string, shift: number): string {
  return `
    mov rax, rcx
    shl rax, 16
    shr rax, ${16 + shift}
    mov r8, ${base}
    lea r8, [r8+rax*8]
`;
}

/** `MiMapPage(rcx = address, rdx = entry)` in the current address space; missing tables come from the spare pages. */
export const pageMappingCode = `
MiMapPage:
${LEVELS.map(
  ([base, shift]) => `
    ${entryAddress(base, shift)}
    test byte [r8], 1
    jne .present${shift}
    mov eax, [LabSparePagesUsed]
    inc dword [LabSparePagesUsed]
    shl rax, 12
    mov r9, SparePhysical
    add rax, r9
    or rax, 7
    mov [r8], rax
.present${shift}:
`,
).join('')}
    ${entryAddress('PteBase', 12)}
    mov [r8], rdx
    invlpg [rcx]
    ret
`;
