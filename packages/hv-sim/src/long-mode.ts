import type { VcpuRecord } from '@introd/abi';
import { checkOptions, type OptionRules, oneOf, REGISTER_32, REGISTER_64, required } from './option-rules.js';
import { SEGMENT_ATTRIBUTES, setSegment, setTables, TABLE_RULES, type TableState } from './segment-state.js';

/** What {@link enterLongMode} needs to know. */
export interface LongModeState extends TableState {
  readonly cr3: bigint;
  readonly rip: bigint;
  readonly rsp: bigint;
  /** Default: bit 1 only, interrupts off. */
  readonly rflags?: bigint;
  /** Base of FS and GS, default 0. */
  readonly fsBase?: bigint;
  readonly gsBase?: bigint;
  /** Levels of the paging structures that CR3 points to, default 4. */
  readonly levels?: 4 | 5;
}

/** What {@link enterCompatibilityMode} needs to know. */
export interface CompatibilityModeState extends TableState {
  readonly cr3: bigint;
  readonly eip: number;
  readonly esp: number;
  /** Default: bit 1 only, interrupts off. */
  readonly eflags?: number;
  /** Levels of the paging structures that CR3 points to, default 4. */
  readonly levels?: 4 | 5;
}

const LEVELS = oneOf(4, 5);

const LONG_MODE_RULES: OptionRules<LongModeState> = {
  ...TABLE_RULES,
  cr3: required(REGISTER_64),
  rip: required(REGISTER_64),
  rsp: required(REGISTER_64),
  rflags: REGISTER_64,
  fsBase: REGISTER_64,
  gsBase: REGISTER_64,
  levels: LEVELS,
};

const COMPATIBILITY_MODE_RULES: OptionRules<CompatibilityModeState> = {
  ...TABLE_RULES,
  cr3: required(REGISTER_64),
  eip: required(REGISTER_32),
  esp: required(REGISTER_32),
  eflags: REGISTER_32,
  levels: LEVELS,
};

/** PE, MP, ET, NE, WP, PG. */
const CR0 = 0x8001_0033n;
/** PAE, PGE, OSFXSR, OSXMMEXCPT. */
const CR4 = 0x6a0n;
const CR4_LA57 = 1n << 12n;
/** SCE, LME, LMA, NXE. */
const EFER = 0xd01n;

function enter(record: VcpuRecord, state: TableState & { cr3: bigint; levels?: 4 | 5 }): void {
  record.set('cr0', CR0);
  record.set('cr3', state.cr3);
  record.set('cr4', state.levels === 5 ? CR4 | CR4_LA57 : CR4);
  record.set('cr8', 0n);
  record.set('efer', EFER);
  setTables(record, state);
}

/**
 * Puts a VCPU into 64-bit mode at ring 0 with flat segments: CS 0x10, SS 0x18, the others unusable.
 * @throws HvSimError ERR_HV_SIM_OPTIONS
 */
export function enterLongMode(record: VcpuRecord, state: LongModeState): void {
  checkOptions('enterLongMode state', state, LONG_MODE_RULES);
  enter(record, state);
  record.set('rip', state.rip);
  record.set('rsp', state.rsp);
  record.set('rflags', state.rflags ?? 2n);
  const { CODE_64, DATA, UNUSABLE } = SEGMENT_ATTRIBUTES;
  setSegment(record, 'cs', 0x10, CODE_64);
  setSegment(record, 'ss', 0x18, DATA);
  setSegment(record, 'ds', 0, UNUSABLE);
  setSegment(record, 'es', 0, UNUSABLE);
  setSegment(record, 'fs', 0, UNUSABLE, state.fsBase);
  setSegment(record, 'gs', 0, UNUSABLE, state.gsBase);
}

/**
 * Puts a VCPU into compatibility mode, which is 32-bit code under long mode, at ring 0 with flat segments: CS 0x20, SS, DS
 * and ES 0x18, FS and GS unusable.
 * @throws HvSimError ERR_HV_SIM_OPTIONS
 */
export function enterCompatibilityMode(record: VcpuRecord, state: CompatibilityModeState): void {
  checkOptions('enterCompatibilityMode state', state, COMPATIBILITY_MODE_RULES);
  enter(record, state);
  record.set('rip', BigInt(state.eip));
  record.set('rsp', BigInt(state.esp));
  record.set('rflags', BigInt(state.eflags ?? 2));
  const { CODE_32, DATA, UNUSABLE } = SEGMENT_ATTRIBUTES;
  setSegment(record, 'cs', 0x20, CODE_32);
  for (const name of ['ss', 'ds', 'es'] as const) setSegment(record, name, 0x18, DATA);
  for (const name of ['fs', 'gs'] as const) setSegment(record, name, 0, UNUSABLE);
}
