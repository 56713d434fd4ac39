import type { SegmentName, VcpuRecord } from '@introd/abi';

/** What {@link enterLongMode} needs to know. */
export interface LongModeState {
  readonly cr3: bigint;
  readonly rip: bigint;
  readonly rsp: bigint;
  /** Default: bit 1 only, interrupts off. */
  readonly rflags?: bigint;
  readonly gdtBase?: bigint;
  readonly gdtLimit?: number;
  readonly idtBase?: bigint;
  readonly idtLimit?: number;
  /** Base of FS and GS, default 0. */
  readonly fsBase?: bigint;
  readonly gsBase?: bigint;
}

/** PE, MP, ET, NE, WP, PG. */
const CR0 = 0x8001_0033n;
/** PAE, PGE, OSFXSR, OSXMMEXCPT. */
const CR4 = 0x6a0n;
/** SCE, LME, LMA, NXE. */
const EFER = 0xd01n;

/** Attributes of flat segments in the record's form: 64-bit code, data, busy TSS, no segment. */
const CODE_64 = 0xa09b;
const DATA = 0xc093;
const TSS_BUSY = 0x8b;
const UNUSABLE = 0x1_0000;

/** Puts a VCPU into 64-bit mode at ring 0 with flat segments: CS 0x10, SS 0x18, the others unusable. */
export function enterLongMode(record: VcpuRecord, state: LongModeState): void {
  record.set('cr0', CR0);
  record.set('cr3', state.cr3);
  record.set('cr4', CR4);
  record.set('cr8', 0n);
  record.set('efer', EFER);
  record.set('rip', state.rip);
  record.set('rsp', state.rsp);
  record.set('rflags', state.rflags ?? 2n);
  record.set('gdtBase', state.gdtBase ?? 0n);
  record.set32('gdtLimit', state.gdtLimit ?? 0);
  record.set('idtBase', state.idtBase ?? 0n);
  record.set32('idtLimit', state.idtLimit ?? 0);
  const segment = (name: SegmentName, selector: number, attributes: number, base = 0n, limit = 0xffff_ffff): void => {
    record.set32(`${name}Selector`, selector);
    record.set32(`${name}Attributes`, attributes);
    record.set32(`${name}Limit`, limit);
    record.set(`${name}Base`, base);
  };
  segment('cs', 0x10, CODE_64);
  segment('ss', 0x18, DATA);
  segment('ds', 0, UNUSABLE);
  segment('es', 0, UNUSABLE);
  segment('fs', 0, UNUSABLE, state.fsBase);
  segment('gs', 0, UNUSABLE, state.gsBase);
  segment('ldtr', 0, UNUSABLE);
  segment('tr', 0, TSS_BUSY, 0n, 0x67);
}
