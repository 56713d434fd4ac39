import type { Gfn, Gpa, VcpuRecord } from '@introd/abi';
import { Assembler } from '@introd/x86/encoder';
import { enterLongMode, Machine, type MachineOptions } from '../src/index.js';

/** Places in the tiny guest; virtual and physical addresses are the same below 2 MiB. */
export const AT = {
  pml4: 0x1000,
  pdpt: 0x2000,
  pd: 0x3000,
  pt: 0x4000,
  gdt: 0x8000,
  idt: 0x9000,
  tss: 0xa000,
  code: 0x1_0000,
  /** Handlers that the IDT names unless a test says otherwise: vector n powers off with n. */
  stubs: 0x1_4000,
  userCode: 0x1_8000,
  /** Top of the stacks, each a page. */
  userStack: 0x1_b000,
  stack: 0x2_1000,
  istStack: 0x2_3000,
  interruptStack: 0x2_5000,
  data: 0x3_0000,
} as const;

export const SELECTOR = { code: 0x10, data: 0x18, userData: 0x2b, userCode: 0x33, tss: 0x40 } as const;

const PRESENT_WRITABLE = 3n;
const USER = 4n;

/** A guest of a few pages: flat GDT, a TSS, an IDT, and code that a test writes in assembly text. */
export class TinyGuest {
  readonly machine: Machine;
  labels: ReadonlyMap<string, bigint> = new Map();

  constructor(options: Partial<MachineOptions> = {}) {
    this.machine = new Machine({ memory: [{ start: 0 as Gpa, size: 0x20_0000 }], ...options });
    this.build();
  }

  /** Writes tables and stubs, and puts every VCPU at the start of the code. */
  build(): void {
    this.write64(AT.pml4, 0x2007n);
    this.write64(AT.pdpt, 0x3007n);
    this.write64(AT.pd, 0x4007n);
    for (let page = 0; page < 512; page++) this.map(page, BigInt(page * 4096) | PRESENT_WRITABLE);
    for (const page of [0x18, 0x19, 0x1a]) this.map(page, BigInt(page * 4096) | PRESENT_WRITABLE | USER);
    this.write64(AT.gdt + SELECTOR.code, 0x00af_9b00_0000_ffffn);
    this.write64(AT.gdt + SELECTOR.data, 0x00cf_9300_0000_ffffn);
    this.write64(AT.gdt + 0x28, 0x00cf_f300_0000_ffffn);
    this.write64(AT.gdt + 0x30, 0x00af_fb00_0000_ffffn);
    this.write64(AT.gdt + SELECTOR.tss, 0x0000_8b00_0000_0067n | (BigInt(AT.tss) << 16n));
    this.write64(AT.tss + 4, BigInt(AT.interruptStack));
    this.write64(AT.tss + 0x24, BigInt(AT.istStack));
    // The I/O bitmap lies behind the limit: ring 3 has no ports.
    this.write64(AT.tss + 0x60, 0x68n << 48n);
    const stubs = new Assembler().section('stubs', BigInt(AT.stubs), { pad: 0x90 });
    for (let vector = 0; vector < 64; vector++) {
      stubs.assemble(`align 16\nmov al, ${vector}\nout 0xf4, al`);
      this.gate(vector, BigInt(AT.stubs + vector * 16));
    }
    for (const { address, bytes } of stubs.link().sections.values()) this.write(Number(address), bytes);
    for (let i = 0; i < this.machine.vcpuCount; i++) this.enter(i, BigInt(AT.code));
  }

  enter(index: number, rip: bigint): void {
    const record = this.machine.vcpu(index);
    enterLongMode(record, {
      cr3: BigInt(AT.pml4),
      rip,
      rsp: BigInt(AT.stack - index * 0x400),
      gdtBase: BigInt(AT.gdt),
      gdtLimit: 0x4f,
      idtBase: BigInt(AT.idt),
      idtLimit: 64 * 16 - 1,
    });
    record.set32('trSelector', SELECTOR.tss);
    record.set('trBase', BigInt(AT.tss));
  }

  /** Makes a VCPU one of ring 3 at the start of the user code. */
  enterUser(index = 0): void {
    const record = this.machine.vcpu(index);
    setPrivilege(record, 3);
    record.set('rip', BigInt(AT.userCode));
    record.set('rsp', BigInt(AT.userStack));
  }

  map(page: number, entry: bigint): void {
    this.write64(AT.pt + page * 8, entry);
  }

  gate(vector: number, handler: bigint, { ist = 0, dpl = 0, type = 14, present = true } = {}): void {
    const flags = BigInt(ist) | (BigInt(type | (dpl << 5) | (present ? 0x80 : 0)) << 8n);
    const low = (handler & 0xffffn) | (BigInt(SELECTOR.code) << 16n) | (flags << 32n) | ((handler >> 16n) << 48n);
    this.write64(AT.idt + vector * 16, BigInt.asUintN(64, low));
    this.write64(AT.idt + vector * 16 + 8, handler >> 32n);
  }

  /** Assembles code at the start of the kernel's or the user's part. */
  code(text: string, at: number = AT.code): this {
    const assembler = new Assembler();
    for (const [name, address] of Object.entries(AT)) assembler.define(name, BigInt(address));
    const program = assembler.section('code', BigInt(at)).assemble(text).link();
    for (const { address, bytes } of program.sections.values()) this.write(Number(address), bytes);
    this.labels = new Map([...this.labels, ...program.labels]);
    return this;
  }

  label(name: string): bigint {
    const address = this.labels.get(name);
    if (address === undefined) throw new Error(`no label ${name}`);
    return address;
  }

  write(address: number, bytes: Uint8Array): void {
    this.machine.writePhysical(address as Gpa, bytes);
  }

  write64(address: number, value: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    this.write(address, bytes);
  }

  read64(address: number): bigint {
    const bytes = new Uint8Array(8);
    this.machine.readPhysical(address as Gpa, bytes);
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }
}

/** Sets CS and SS of a record to the tiny guest's segments of ring 0 or 3. */
export function setPrivilege(record: VcpuRecord, privilege: 0 | 3): void {
  const user = privilege === 3;
  record.set32('csSelector', user ? SELECTOR.userCode : SELECTOR.code);
  record.set32('csAttributes', user ? 0xa0fb : 0xa09b);
  record.set32('ssSelector', user ? SELECTOR.userData : SELECTOR.data);
  record.set32('ssAttributes', user ? 0xc0f3 : 0xc093);
}

export function frame(address: number): Gfn {
  return (address >>> 12) as Gfn;
}
