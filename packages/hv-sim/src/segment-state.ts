import type { SegmentName, VcpuRecord } from '@introd/abi';
import { integer, type OptionRules, REGISTER_64 } from './option-rules.js';

/** Attributes of flat segments at ring 0 in the record's form (SDM vol. 3C, table 25-2): code, data, busy TSS, no segment. */
export const SEGMENT_ATTRIBUTES = {
  CODE_64: 0xa09b,
  CODE_32: 0xc09b,
  DATA: 0xc093,
  TSS_BUSY: 0x8b,
  UNUSABLE: 0x1_0000,
} as const;

/** Descriptor tables of a VCPU; all default to 0. */
export interface TableState {
  readonly gdtBase?: bigint;
  readonly gdtLimit?: number;
  readonly idtBase?: bigint;
  readonly idtLimit?: number;
}

const TABLE_LIMIT = integer('a limit', 0, 0xffff);

/** What {@link TableState} may hold. */
export const TABLE_RULES: OptionRules<TableState> = {
  gdtBase: REGISTER_64,
  gdtLimit: TABLE_LIMIT,
  idtBase: REGISTER_64,
  idtLimit: TABLE_LIMIT,
};

/** Sets a segment register of a record. */
export function setSegment(
  record: VcpuRecord,
  name: SegmentName,
  selector: number,
  attributes: number,
  base = 0n,
  limit = 0xffff_ffff,
): void {
  record.set32(`${name}Selector`, selector);
  record.set32(`${name}Attributes`, attributes);
  record.set32(`${name}Limit`, limit);
  record.set(`${name}Base`, base);
}

/** Sets GDTR and IDTR; LDTR becomes unusable, TR a busy TSS of 0x68 bytes at 0. */
export function setTables(record: VcpuRecord, state: TableState): void {
  record.set('gdtBase', state.gdtBase ?? 0n);
  record.set32('gdtLimit', state.gdtLimit ?? 0);
  record.set('idtBase', state.idtBase ?? 0n);
  record.set32('idtLimit', state.idtLimit ?? 0);
  setSegment(record, 'ldtr', 0, SEGMENT_ATTRIBUTES.UNUSABLE);
  setSegment(record, 'tr', 0, SEGMENT_ATTRIBUTES.TSS_BUSY, 0n, 0x67);
}
