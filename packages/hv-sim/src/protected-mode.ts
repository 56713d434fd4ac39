import type { VcpuRecord } from '@introd/abi';
import { checkOptions, type OptionRules, oneOf, REGISTER_32, REGISTER_64, required } from './option-rules.js';
import { SEGMENT_ATTRIBUTES, setSegment, setTables, TABLE_RULES, type TableState } from './segment-state.js';

/** What {@link enterProtectedMode} needs to know. */
export interface ProtectedModeState extends TableState {
  /** How linear addresses become physical: not at all, by two levels of 4-byte entries with PSE, or by PAE. */
  readonly paging: 'none' | '32-bit' | 'pae';
  /** Paging structures, below 4 GiB; of PAE the table of four PDPTEs, 32-byte aligned. Default 0. */
  readonly cr3?: bigint;
  readonly eip: number;
  readonly esp: number;
  /** Default: bit 1 only, interrupts off. */
  readonly eflags?: number;
}

const PROTECTED_MODE_RULES: OptionRules<ProtectedModeState> = {
  ...TABLE_RULES,
  paging: required(oneOf('none', '32-bit', 'pae')),
  cr3: REGISTER_64,
  eip: required(REGISTER_32),
  esp: required(REGISTER_32),
  eflags: REGISTER_32,
};

/** PE, MP, ET, NE, WP. */
const CR0 = 0x1_0033n;
const CR0_PG = 1n << 31n;
/** PSE, PGE, OSFXSR, OSXMMEXCPT. */
const CR4 = 0x690n;
const CR4_PAE = 1n << 5n;
/** NXE. */
const EFER = 0x800n;

/**
 * Puts a VCPU into 32-bit protected mode at ring 0 with flat segments: CS 0x20, SS, DS and ES 0x18, FS and GS unusable.
 * With PAE the PDPTE registers are loaded from `cr3` before the next instruction.
 * @throws HvSimError ERR_HV_SIM_OPTIONS
 */
export function enterProtectedMode(record: VcpuRecord, state: ProtectedModeState): void {
  checkOptions('enterProtectedMode state', state, PROTECTED_MODE_RULES);
  record.set('cr0', state.paging === 'none' ? CR0 : CR0 | CR0_PG);
  record.set('cr3', state.cr3 ?? 0n);
  record.set('cr4', state.paging === 'pae' ? CR4 | CR4_PAE : CR4);
  record.set('cr8', 0n);
  record.set('efer', EFER);
  record.set('rip', BigInt(state.eip));
  record.set('rsp', BigInt(state.esp));
  record.set('rflags', BigInt(state.eflags ?? 2));
  setTables(record, state);
  const { CODE_32, DATA, UNUSABLE } = SEGMENT_ATTRIBUTES;
  setSegment(record, 'cs', 0x20, CODE_32);
  for (const name of ['ss', 'ds', 'es'] as const) setSegment(record, name, 0x18, DATA);
  for (const name of ['fs', 'gs'] as const) setSegment(record, name, 0, UNUSABLE);
}
