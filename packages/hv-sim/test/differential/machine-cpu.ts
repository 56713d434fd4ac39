import { type Gpa, gpa, VCPU_RECORD, type VcpuRecord, XSAVE_AREA } from '@introd/abi';
import { initXsaveState } from '@introd/glue';
import { enterLongMode, Machine } from '../../src/index.js';
import { VCPU_SIDE } from '../../src/vcpu-block.js';
import {
  initialMemory,
  LAYOUT,
  MEMORY_SIZE,
  memoryDifferences,
  type Outcome,
  SELECTORS,
  type TestCase,
} from './test-case.js';

/** Where things lie in the machine's physical memory; the first 2 MiB are also mapped there for the supervisor. */
const PHYSICAL = {
  pml4: 0x1000,
  pdpt: 0x2000,
  pd: 0x3000,
  lowTable: 0x4000,
  testTable: 0x5000,
  gdt: 0x6000,
  idt: 0x7000,
  tss: 0x8000,
  handlers: 0x9000,
  stackTop: 0xc000,
  code: 0x10000,
  data: 0x20000,
  end: 0x40000,
} as const;

const PAGE = 0x1000;
/** Page-table entry bits (SDM vol. 3A, table 4-19). */
const PRESENT = 1n;
const WRITABLE = 2n;
const USER = 4n;

const KERNEL_CODE = 0x10;
const KERNEL_DATA = 0x18;
const TSS_SELECTOR = 0x40;
const HANDLER_SPACING = 16;
const VECTORS = 32;
/** Exceptions that push an error code (SDM vol. 3A, table 6-1). */
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21]);
const OVERFLOW = 4;
const PAGE_FAULT = 14;
/** What the handlers consist of. */
const HLT = 0xf4;

/** Segment attributes in VMX form: present, ring 3, accessed; 64-bit code, 32-bit code and data. */
const USER_CODE = 0xa0fb;
const USER_CODE_32 = 0xc0fb;
const USER_DATA = 0xc0f3;
const UNUSABLE = 0x10000;
const BUSY_TSS = 0x8b;
/** As every host's kernel has it. */
const CR4_OSXSAVE = 1n << 18n;
/** x87, SSE and AVX. */
const XCR0 = 7n;

/** A case ends when RIP leaves its code; this many instructions or repetitions are more than any needs. */
const MAX_STEPS = 2000;

/** hv-sim in the position of {@link HostCpu}: ring 3, the same addresses, faults caught by a table of gates. */
export class MachineCpu {
  readonly #machine = new Machine({ memory: [{ start: gpa(0), size: PHYSICAL.end }] });
  readonly #record: VcpuRecord = this.#machine.vcpu(0);
  readonly #xsave = new Uint8Array(
    this.#record.buffer,
    this.#record.byteOffset + VCPU_RECORD.size + VCPU_SIDE.offset.xsave,
    XSAVE_AREA.size,
  );
  readonly #xmm = new BigUint64Array(
    this.#record.buffer,
    this.#record.byteOffset + VCPU_RECORD.size + VCPU_SIDE.offset.xsave + XSAVE_AREA.offset.xmm,
    32,
  );
  readonly #initial = initialMemory();
  #ready: Uint32Array;

  constructor() {
    this.#ready = this.#prepare();
  }

  /** Sets the machine up; returns the record that every case starts from. */
  #prepare(): Uint32Array {
    this.#machine.reset();
    this.#writeTables();
    this.#enterUserMode();
    this.#write(PHYSICAL.code, new Uint8Array(LAYOUT.codeSize).fill(0xcc));
    this.#write(PHYSICAL.data, this.#initial);
    return this.#record.u32.slice();
  }

  /**
   * Runs one case.
   *
   * @returns what it did; a text when the machine lacks the instruction or did not come to an end
   */
  run(test: TestCase): Outcome | string {
    const record = this.#record;
    record.u32.set(this.#ready);
    test.before.gpr.forEach((value, i) => {
      record.u64[(VCPU_RECORD.offset.rax >>> 3) + i] = value;
    });
    initXsaveState(this.#xsave);
    this.#xmm.set(test.before.xmm);
    record.set('rip', BigInt(test.rip));
    record.set('rflags', BigInt(test.before.rflags));
    if (test.bitness === 32) this.#enterCompatibilityMode();
    const codeAt = PHYSICAL.code + test.rip - LAYOUT.code;
    this.#write(codeAt, test.code);
    const before = this.#initial.slice();
    for (const { offset, bytes } of test.patches) {
      before.set(bytes, offset);
      this.#write(PHYSICAL.data + offset, bytes);
    }
    const problem = this.#runToEnd(test);
    const outcome = this.#outcome();
    const memory = new Uint8Array(MEMORY_SIZE);
    this.#read(PHYSICAL.data, memory);
    outcome.memory = memoryDifferences(before, memory);
    if (outcome.memory.length > 0 || test.patches.length > 0) this.#write(PHYSICAL.data, this.#initial);
    this.#write(codeAt, new Uint8Array(test.code.length).fill(0xcc));
    return problem ?? outcome;
  }

  #runToEnd(test: TestCase): string | undefined {
    const end = BigInt(test.rip + test.code.length);
    for (let step = 0; step < MAX_STEPS; step++) {
      // All at once, as a guest runs; by single steps afterwards when something took longer.
      const result = this.#machine.run(step === 0 ? test.instructions : 1);
      if (result !== 'budget') {
        const reason = `the machine stopped: ${this.#machine.unsupported ?? result}`;
        this.#ready = this.#prepare();
        return reason;
      }
      const rip = this.#record.get('rip');
      if (rip < BigInt(test.rip) || rip >= end) return undefined;
    }
    return 'the machine did not leave the code';
  }

  #outcome(): Outcome {
    const record = this.#record;
    const gpr = record.u64.slice(VCPU_RECORD.offset.rax >>> 3, (VCPU_RECORD.offset.rax >>> 3) + 16);
    const outcome: Outcome = {
      vector: undefined,
      error: 0,
      cr2: 0n,
      rip: record.get('rip'),
      after: { gpr, rflags: Number(record.get('rflags')), xmm: this.#xmm.slice() },
      memory: [],
    };
    const handler = Number(outcome.rip) - PHYSICAL.handlers;
    if (handler < 0 || handler >= VECTORS * HANDLER_SPACING) return outcome;
    const vector = Math.floor(handler / HANDLER_SPACING);
    const frame = new BigUint64Array(6);
    const hasError = WITH_ERROR_CODE.has(vector);
    this.#read(Number(record.get('rsp')), new Uint8Array(frame.buffer, 0, hasError ? 48 : 40));
    const at = hasError ? 1 : 0;
    outcome.vector = vector;
    outcome.error = hasError ? Number(frame[0]) : 0;
    outcome.cr2 = vector === PAGE_FAULT ? record.get('cr2') : 0n;
    outcome.rip = frame[at] as bigint;
    outcome.after.rflags = Number(frame[at + 2]);
    gpr[4] = frame[at + 3] as bigint;
    return outcome;
  }

  #enterUserMode(): void {
    const record = this.#record;
    enterLongMode(record, { cr3: BigInt(PHYSICAL.pml4), rip: BigInt(LAYOUT.code), rsp: 0n });
    record.set('cr4', record.get('cr4') | CR4_OSXSAVE);
    record.set('xcr0', XCR0);
    record.set('gdtBase', BigInt(PHYSICAL.gdt));
    record.set32('gdtLimit', 0x4f);
    record.set('idtBase', BigInt(PHYSICAL.idt));
    record.set32('idtLimit', VECTORS * 16 - 1);
    record.set32('trSelector', TSS_SELECTOR);
    record.set('trBase', BigInt(PHYSICAL.tss));
    record.set32('trLimit', 0x67);
    record.set32('trAttributes', BUSY_TSS);
    record.set32('csSelector', SELECTORS.code);
    record.set32('csAttributes', USER_CODE);
    record.set32('ssSelector', SELECTORS.stack);
    record.set32('ssAttributes', USER_DATA);
    for (const name of ['ds', 'es', 'fs', 'gs'] as const) {
      record.set32(`${name}Selector`, 0);
      record.set32(`${name}Attributes`, UNUSABLE);
    }
    record.set('gsBase', BigInt(LAYOUT.gsBase));
  }

  #enterCompatibilityMode(): void {
    const record = this.#record;
    record.set32('csSelector', SELECTORS.code32);
    record.set32('csAttributes', USER_CODE_32);
    for (const name of ['ds', 'es'] as const) {
      record.set32(`${name}Selector`, SELECTORS.stack);
      record.set32(`${name}Attributes`, USER_DATA);
      record.set32(`${name}Limit`, 0xffff_ffff);
    }
  }

  #writeTables(): void {
    const { pml4, pdpt, pd, lowTable, testTable, handlers, idt, gdt, tss, stackTop } = PHYSICAL;
    const inner = PRESENT | WRITABLE | USER;
    this.#write64(pml4, BigInt(pdpt) | inner);
    this.#write64(pdpt, BigInt(pd) | inner);
    this.#write64(pd, BigInt(lowTable) | inner);
    this.#write64(pd + 8 * (LAYOUT.code >>> 21), BigInt(testTable) | inner);
    for (let page = 1; page < 16; page++) this.#write64(lowTable + 8 * page, BigInt(page * PAGE) | PRESENT | WRITABLE);
    const map = (address: number, physical: number, size: number, rights: bigint): void => {
      for (let at = 0; at < size; at += PAGE) {
        const entry = testTable + 8 * (((address + at) >>> 12) & 511);
        this.#write64(entry, BigInt(physical + at) | PRESENT | rights);
      }
    };
    map(LAYOUT.code, PHYSICAL.code, LAYOUT.codeSize, USER);
    map(LAYOUT.data, PHYSICAL.data, LAYOUT.dataSize, USER | WRITABLE);
    map(LAYOUT.readOnly, PHYSICAL.data + LAYOUT.dataSize, LAYOUT.readOnlySize, USER);
    // Descriptors (SDM vol. 3A, 3.4.5): 64-bit code and flat data of both rings, 32-bit code of ring 3, the TSS.
    this.#write64(gdt + KERNEL_CODE, 0x00af_9b00_0000_ffffn);
    this.#write64(gdt + KERNEL_DATA, 0x00cf_9300_0000_ffffn);
    this.#write64(gdt + (SELECTORS.stack & ~7), 0x00cf_f300_0000_ffffn);
    this.#write64(gdt + (SELECTORS.code & ~7), 0x00af_fb00_0000_ffffn);
    this.#write64(gdt + (SELECTORS.code32 & ~7), 0x00cf_fb00_0000_ffffn);
    this.#write64(gdt + TSS_SELECTOR, 0x0000_8b00_0000_0067n | (BigInt(tss) << 16n));
    this.#write64(tss + 4, BigInt(stackTop));
    // No I/O permission bitmap: it would begin behind the limit (SDM vol. 1, 19.5.2).
    this.#write64(tss + 0x60, 0x68n << 48n);
    this.#write(handlers, new Uint8Array(VECTORS * HANDLER_SPACING).fill(HLT));
    for (let vector = 0; vector < VECTORS; vector++) {
      // A 64-bit interrupt gate (SDM vol. 3A, 6.14.1) to a handler below 64 KiB.
      const handler = BigInt(handlers + vector * HANDLER_SPACING);
      // As the kernel has it, user code may raise #OF, by INTO.
      const type = vector === OVERFLOW ? 0xee00n : 0x8e00n;
      this.#write64(idt + vector * 16, handler | (BigInt(KERNEL_CODE) << 16n) | (type << 32n));
    }
  }

  #write64(address: number, value: bigint): void {
    this.#write(address, new Uint8Array(BigUint64Array.of(value).buffer));
  }

  #write(address: number, bytes: Uint8Array): void {
    if (!this.#machine.writePhysical(address as Gpa, bytes)) throw new RangeError(`no RAM at ${address}`);
  }

  #read(address: number, target: Uint8Array): void {
    if (!this.#machine.readPhysical(address as Gpa, target)) throw new RangeError(`no RAM at ${address}`);
  }
}
